//! Packs: any bytes in a file, read in order and past damage. One knob makes the checksums right.
#![no_main]

mod framing;

use image::pack;
use image::salvage::{self, Found};
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

/// Where records stand for a reader that goes past damage. Everything in the file is told
/// once and in order.
fn salvage(file: &File) -> Option<Vec<u64>> {
    let (mut records, mut end) = (Vec::new(), None);
    let walked = salvage::walk(file, |found| {
        let (from, to) = match found {
            Found::Lost { from, to } => (from, to),
            Found::Record {
                offset,
                header,
                payload,
            } => {
                assert_eq!(payload.len(), header.stored_len as usize);
                records.push(offset);
                (offset, offset + header.record_len())
            }
        };
        assert!(from < to && end.is_none_or(|end| end == from));
        end = Some(to);
        true
    });
    walked.ok()?;
    Some(records)
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
    let salvaged = salvage(file);
    let Ok(scan) = pack::scan(path) else { return };
    let salvaged = salvaged.expect("a pack that can be scanned");
    let mut end = pack::HEADER_LEN;
    for (at, header) in &scan.records {
        assert_eq!(*at, end, "records follow one another");
        end += header.record_len();
        assert!(salvaged.contains(at), "what is read in order is salvaged too");
        let (again, payload) =
            pack::read_record(file, *at, header.stored_len).expect("it was found");
        assert_eq!(
            (again, payload.len()),
            (*header, header.stored_len as usize)
        );
    }
    assert_eq!(scan.damage.is_none(), end == bytes.len() as u64);
});
