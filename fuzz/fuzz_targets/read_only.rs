//! SquashFS, ISO 9660 and UDF on a bare disk.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    disk::run(knobs, rest);
});
