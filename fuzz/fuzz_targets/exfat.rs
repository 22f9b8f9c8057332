//! exFAT on a bare disk; signature and checksums of the boot regions are always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

/// Sectors of a boot region.
const SECTORS: usize = 12;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    seal(&mut bytes);
    disk::run(knobs, &bytes);
});

/// Makes the backup region a copy of the main one, and both checksums right.
fn seal(bytes: &mut [u8]) {
    let Some(&shift) = bytes.get(108) else { return };
    let sector = 512usize << (shift.wrapping_sub(9) & 3);
    bytes[..11].copy_from_slice(b"\xeb\x76\x90EXFAT   ");
    let Some(regions) = bytes.get_mut(..2 * SECTORS * sector) else { return };
    let (main, backup) = regions.split_at_mut(SECTORS * sector);
    let (covered, sums) = main.split_at_mut((SECTORS - 1) * sector);
    let sum = covered
        .iter()
        .enumerate()
        .filter(|(at, _)| ![106, 107, 112].contains(at))
        .fold(0u32, |sum, (_, &byte)| sum.rotate_right(1).wrapping_add(byte.into()));
    for slot in sums.chunks_exact_mut(4) {
        slot.copy_from_slice(&sum.to_le_bytes());
    }
    backup.copy_from_slice(main);
}
