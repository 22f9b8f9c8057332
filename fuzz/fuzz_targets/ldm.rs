//! The database of a Windows dynamic disk; the MBR in front of it is always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

/// Sectors of the disk.
const SECTORS: u32 = 4096;

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.to_vec();
    bytes.resize(bytes.len().max(512), 0);
    bytes[446..512].fill(0);
    bytes[446 + 4] = 0x42;
    bytes[446 + 8..446 + 12].copy_from_slice(&64u32.to_le_bytes());
    bytes[446 + 12..446 + 16].copy_from_slice(&(SECTORS - 64).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes.resize(SECTORS as usize * 512, 0);
    disk::run(0, &bytes);
});
