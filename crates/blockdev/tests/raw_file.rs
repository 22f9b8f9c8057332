//! Raw image files behave as disks do. Needs no privilege.

use blockdev::{Device, Error, ErrorKind, Kind, Operation};
use std::fs;
use std::path::Path;
use testkit::build::Random;

/// No multiple of any sector size, as truncated downloads are.
const SIZE: usize = (2 << 20) + 1000;

fn image(dir: &Path) -> (std::path::PathBuf, Vec<u8>) {
    let path = dir.join("disk.img");
    let bytes = Random::new(5).bytes(SIZE);
    fs::write(&path, &bytes).unwrap();
    (path, bytes)
}

#[test]
fn geometry_is_what_it_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = image(dir.path());
    let mut device = Device::open_write(&path).unwrap();
    assert_eq!(
        (device.kind(), device.size_bytes(), device.sector_size()),
        (Kind::File, SIZE as u64, 512)
    );
    device.set_sector_size(4096);
    assert_eq!(
        (device.sector_size(), device.physical_sector_size()),
        (4096, 4096)
    );
    device.set_len(1 << 20).unwrap();
    assert_eq!(
        (device.size_bytes(), fs::metadata(&path).unwrap().len()),
        (1 << 20, 1 << 20)
    );
}

#[test]
fn uncached_reads_of_any_alignment_up_to_the_last_byte() {
    // The second directory is a tmpfs on most machines.
    for parent in [std::env::temp_dir(), "/dev/shm".into()] {
        let dir = tempfile::tempdir_in(parent).unwrap();
        let (path, bytes) = image(dir.path());
        let device = Device::open_direct_read(&path).unwrap();
        for (offset, len) in [
            (0, SIZE),
            (1, SIZE - 1),
            (4096, 8192),
            (SIZE - 1, 1),
            (SIZE - 1000, 1000),
            (513, 1 << 20),
        ] {
            let mut buf = vec![0; len];
            device.read_exact_at(offset as u64, &mut buf).unwrap();
            assert!(
                buf[..] == bytes[offset..offset + len],
                "{len} bytes at {offset}"
            );
        }
    }
}

/// Files of sysfs refuse direct I/O, as some file systems do.
#[test]
fn where_direct_io_is_refused_reads_go_on_without_it() {
    let path = Path::new("/sys/kernel/notes");
    let device = Device::open_direct_read(path).unwrap();
    assert!(!device.is_direct());
    let mut buf = [0; 16];
    device.read_exact_at(4, &mut buf).unwrap();
    assert_eq!(buf, fs::read(path).unwrap()[4..20]);
}

#[test]
fn a_file_never_grows_by_writing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new.img");
    let device = Device::create_file(&path, 8192).unwrap();
    device.write_all_at(8190, b"ok").unwrap();
    let error = device.write_all_at(8191, b"no").unwrap_err();
    let error = Error::of(&error).unwrap();
    assert_eq!(
        (error.kind(), error.operation(), error.offset()),
        (ErrorKind::OutOfRange, Operation::Write, Some(8191))
    );
    assert_eq!(fs::read(&path).unwrap()[8190..], *b"ok");
    assert!(
        Device::create_file(&path, 1).is_err(),
        "what is there stays"
    );
    assert_eq!(fs::metadata(&path).unwrap().len(), 8192);
}

#[test]
fn a_file_that_shrank_is_no_short_success() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = image(dir.path());
    for device in [
        Device::open_read(&path).unwrap(),
        Device::open_direct_read(&path).unwrap(),
    ] {
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(4096)
            .unwrap();
        for offset in [4000, 8192] {
            let error = device.read_exact_at(offset, &mut [0; 200]).unwrap_err();
            assert_eq!(
                Error::of(&error).unwrap().kind(),
                ErrorKind::UnexpectedEnd,
                "{error}"
            );
        }
        fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(SIZE as u64)
            .unwrap();
    }
}

#[test]
fn what_is_no_disk_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for path in [dir.path(), &fifo, Path::new("/dev/null")] {
        for opened in [
            Device::open_read(path),
            Device::open_write(path),
            Device::open_direct_read(path),
        ] {
            assert_eq!(
                opened.unwrap_err().kind(),
                ErrorKind::NotADisk,
                "{}",
                path.display()
            );
        }
    }
    assert_eq!(
        Device::open_read(&dir.path().join("none"))
            .unwrap_err()
            .kind(),
        ErrorKind::NotFound
    );
}
