//! FAT on a bare disk; the signature is always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if let Some(signature) = bytes.get_mut(510..512) {
        signature.copy_from_slice(&[0x55, 0xaa]);
    }
    disk::run(knobs, &bytes);
});
