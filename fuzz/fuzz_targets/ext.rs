//! ext2, ext3 and ext4 on a bare disk; the magic number is always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if let Some(magic) = bytes.get_mut(1024 + 0x38..1024 + 0x3a) {
        magic.copy_from_slice(&[0x53, 0xef]);
    }
    disk::run(knobs, &bytes);
});
