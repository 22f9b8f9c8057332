//! Swap space on a bare disk; there is always a mark.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    let page = 4096 << (knobs >> 5);
    if let Some(mark) = bytes.get_mut(page - 10..page) {
        mark.copy_from_slice(b"SWAPSPACE2");
    }
    disk::run(knobs, &bytes);
});
