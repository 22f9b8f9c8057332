//! Packs: any bytes in a file. One knob makes the checksums right.
#![no_main]

mod framing;

use image::pack;
use libfuzzer_sys::fuzz_target;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Memory if there is such a folder: a disk would be the slowest part of a run.
fn folder() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    }
}

/// One file for all runs, without a name that would stay behind.
fn file() -> &'static (File, PathBuf) {
    static FILE: OnceLock<(File, PathBuf)> = OnceLock::new();
    FILE.get_or_init(|| {
        let name = folder().join(format!("fuzz-pack-{}", std::process::id()));
        let options = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&name);
        let file = options.expect("a file to work with");
        std::fs::remove_file(name).expect("the name goes");
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        (file, path)
    })
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if knobs & 1 != 0 {
        framing::repair(&mut bytes);
    }
    let (file, path) = file();
    file.set_len(0)
        .and_then(|()| file.write_all_at(&bytes, 0))
        .expect("the file is written");
    let Ok(scan) = pack::scan(path) else { return };
    let mut end = pack::HEADER_LEN;
    for (at, header) in &scan.records {
        assert_eq!(*at, end, "records follow one another");
        end += header.record_len();
        let (again, payload) =
            pack::read_record(file, *at, header.stored_len).expect("it was found");
        assert_eq!(
            (again, payload.len()),
            (*header, header.stored_len as usize)
        );
    }
    assert_eq!(scan.damage.is_none(), end == bytes.len() as u64);
});
