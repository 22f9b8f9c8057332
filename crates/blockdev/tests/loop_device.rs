//! Real block devices: every call of the crate on loop devices of both sector sizes.
//! Needs root.

use blockdev::{AlignedBuf, Device, Error, ErrorKind, Kind, identify, list_disks};
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use testkit::build::Random;
use testkit::loopdev::{LoopDevice, Mounted};

const SIZE: u64 = 24 << 20;

/// A file of random bytes, attached.
fn random_disk(sector_size: u32) -> (tempfile::TempDir, Vec<u8>, LoopDevice) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    let bytes = Random::new(u64::from(sector_size)).bytes(usize::try_from(SIZE).unwrap());
    fs::write(&file, &bytes).unwrap();
    let device = LoopDevice::attach(&file, sector_size);
    (dir, bytes, device)
}

fn each_sector_size(test: impl Fn(u32)) {
    for sector_size in [512, 4096] {
        test(sector_size);
    }
}

#[test]
fn geometry_is_the_device_s() {
    each_sector_size(|sector_size| {
        let (_dir, _, disk) = random_disk(sector_size);
        let device = Device::open_read(disk.path()).unwrap();
        assert_eq!(device.kind(), Kind::Block);
        assert_eq!(
            (device.size_bytes(), device.sector_size()),
            (SIZE, sector_size)
        );
        assert!(device.physical_sector_size() >= sector_size);
        assert!(!device.read_only() && !device.is_direct());
    });
}

#[test]
fn write_protection_is_seen_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    fs::write(&file, [0; 65536]).unwrap();
    let disk = LoopDevice::attach_read_only(&file, 512);
    assert!(Device::open_read(disk.path()).unwrap().read_only());
    assert!(identify(disk.path()).unwrap().read_only);
    assert_eq!(
        Device::open_write(disk.path()).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
}

#[test]
fn direct_reads_of_any_alignment() {
    each_sector_size(|sector_size| {
        let (_dir, bytes, disk) = random_disk(sector_size);
        let device = Device::open_direct_read(disk.path()).unwrap();
        assert!(device.is_direct());
        let mut aligned = AlignedBuf::new(1 << 20);
        device.read_exact_at(1 << 20, &mut aligned).unwrap();
        assert!(aligned[..] == bytes[1 << 20..2 << 20]);
        for (offset, len) in [
            (0, 1),
            (511, 2),
            (4095, 8194),
            (1, 3 << 20),
            (bytes.len() - 513, 513),
            (7, 0),
        ] {
            let mut buf = vec![0; len];
            device.read_exact_at(offset as u64, &mut buf).unwrap();
            assert!(
                buf[..] == bytes[offset..offset + len],
                "{len} bytes at {offset}"
            );
        }
        assert!(device.read_exact_at(SIZE - 1, &mut [0; 2]).is_err());
    });
}

#[test]
fn what_is_flushed_is_on_the_medium_and_read_from_there() {
    each_sector_size(|sector_size| {
        let (dir, _, disk) = random_disk(sector_size);
        let device = Device::open_write(disk.path()).unwrap();
        device
            .write_all_at(5000, b"written through the page cache")
            .unwrap();
        device.flush().unwrap();
        let file = fs::File::open(dir.path().join("disk")).unwrap();
        let mut seen = [0; 30];
        file.read_exact_at(&mut seen, 5000).unwrap();
        assert_eq!(&seen, b"written through the page cache");

        // Behind the device's back: the cache does not know until it is dropped.
        fs::OpenOptions::new()
            .write(true)
            .open(dir.path().join("disk"))
            .unwrap()
            .write_all_at(b"CHANGED", 5000)
            .unwrap();
        device.read_exact_at(5000, &mut seen).unwrap();
        assert_eq!(
            &seen[..7],
            b"written",
            "this test shows nothing without a cache"
        );
        let direct = Device::open_direct_read(disk.path()).unwrap();
        direct.read_exact_at(5000, &mut seen).unwrap();
        assert_eq!(&seen[..7], b"CHANGED");
        device.invalidate_cache().unwrap();
        device.read_exact_at(5000, &mut seen).unwrap();
        assert_eq!(&seen[..7], b"CHANGED");
    });
}

#[test]
fn zeroed_ranges_read_zero_on_the_medium_and_nothing_else_does() {
    each_sector_size(|sector_size| {
        let (_dir, mut bytes, disk) = random_disk(sector_size);
        let device = Device::open_write(disk.path()).unwrap();
        let medium = Device::open_direct_read(disk.path()).unwrap();
        let last = SIZE - 5000;
        for (offset, len) in [
            (0, 512),
            (10_000, 1),
            (20_479, 8194),
            (1 << 20, 3 << 20),
            (last, 5000),
        ] {
            device.zero(offset, len).unwrap();
            bytes[usize::try_from(offset).unwrap()..][..usize::try_from(len).unwrap()].fill(0);
        }
        device.flush().unwrap();
        let mut cached = vec![1; bytes.len()];
        device.read_exact_at(0, &mut cached).unwrap();
        let mut stored = AlignedBuf::new(bytes.len());
        medium.read_exact_at(0, &mut stored).unwrap();
        let first = |seen: &[u8]| seen.iter().zip(&bytes).position(|(a, b)| a != b);
        assert_eq!(
            (first(&cached), first(&stored)),
            (None, None),
            "first difference in cache and on medium"
        );
    });
}

/// To zero is not to discard: a thin device could give back what was there before.
#[test]
fn zeroed_ranges_keep_their_space() {
    let (dir, _, disk) = random_disk(512);
    let file = dir.path().join("disk");
    let allocated = || {
        fs::File::open(&file).unwrap().sync_all().unwrap();
        fs::metadata(&file).unwrap().blocks()
    };
    let before = allocated();
    let device = Device::open_write(disk.path()).unwrap();
    device.zero(1 << 20, 8 << 20).unwrap();
    device.flush().unwrap();
    assert!(
        allocated() >= before,
        "{} blocks of {before} are left",
        allocated()
    );
    assert!(device.discard(1 << 20, 8 << 20).unwrap());
    assert!(
        allocated() < before,
        "this test shows nothing if discarding frees nothing"
    );
}

#[test]
fn discard_keeps_to_its_range() {
    each_sector_size(|sector_size| {
        let (dir, bytes, disk) = random_disk(sector_size);
        let device = Device::open_write(disk.path()).unwrap();
        assert!(
            device.discard((1 << 20) + 1, 2 << 20).unwrap(),
            "loop devices discard"
        );
        device.flush().unwrap();
        let stored = fs::read(dir.path().join("disk")).unwrap();
        assert!(stored[..=1 << 20] == bytes[..=1 << 20]);
        assert!(stored[(3 << 20) + 1..] == bytes[(3 << 20) + 1..]);
        // What is between is undefined to callers; here the file shows that it went.
        assert!(stored[2 << 20..][..4096].iter().all(|&b| b == 0));
    });
}

#[test]
fn a_device_in_use_is_busy() {
    let (dir, _, disk) = random_disk(512);
    let first = Device::open_write(disk.path()).unwrap();
    let error = Device::open_write(disk.path()).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Busy, disk.path()));
    Device::open_read(disk.path()).unwrap();
    drop(first);

    make_ext2(&dir.path().join("disk"));
    let mounted = Mounted::new(disk.path(), "ro");
    assert_eq!(
        Device::open_write(disk.path()).unwrap_err().kind(),
        ErrorKind::Busy
    );
    drop(mounted);
    Device::open_write(disk.path()).unwrap();
}

fn make_ext2(file: &std::path::Path) {
    let made = std::process::Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext2"])
        .arg(file)
        .status()
        .unwrap();
    assert!(made.success());
}

#[test]
fn table_re_read_is_answered() {
    let (dir, _, disk) = random_disk(512);
    let device = Device::open_read(disk.path()).unwrap();
    // Attached without partition scanning: the kernel refuses, and nothing breaks.
    assert_eq!(
        device.reread_partitions().unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    drop(device);
    drop(disk);
    let disk = LoopDevice::attach_scanning(&dir.path().join("disk"), 512);
    Device::open_read(disk.path())
        .unwrap()
        .reread_partitions()
        .unwrap();
}

#[test]
fn ranges_past_the_end_are_refused_before_any_call() {
    each_sector_size(|sector_size| {
        let (_dir, _, disk) = random_disk(sector_size);
        let device = Device::open_write(disk.path()).unwrap();
        let results = [
            device.write_all_at(SIZE - 1, &[0; 2]),
            device.read_exact_at(u64::MAX, &mut [0; 2]),
            device.zero(SIZE, 1),
            device.discard(0, SIZE + 1).map(drop),
        ];
        for result in results {
            let error = result.unwrap_err();
            assert_eq!(
                Error::of(&error).unwrap().kind(),
                ErrorKind::OutOfRange,
                "{error}"
            );
        }
    });
}

#[test]
fn attached_loops_are_listed_and_identified() {
    each_sector_size(|sector_size| {
        let (dir, _, disk) = random_disk(sector_size);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(disk.path(), &link).unwrap();
        let info = identify(&link).unwrap();
        assert_eq!(info.path, disk.path().to_str().unwrap());
        assert_eq!(
            (info.size_bytes, info.sector_size, info.bus.as_str()),
            (SIZE, sector_size, "loop")
        );
        assert!(info.model.ends_with("/disk"), "{}", info.model);
        let listed = list_disks()
            .unwrap()
            .into_iter()
            .find(|d| d.path == info.path)
            .unwrap();
        assert_eq!(
            blockdev::DiskInfo {
                number: info.number,
                ..listed
            },
            info
        );
    });
}
