//! Members of Linux software RAID; magic numbers and checksums are always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

const MAGIC: [u8; 4] = [0xfc, 0x4e, 0x2b, 0xa9];

/// The checksum of both families of superblocks.
fn folded(raw: &[u8]) -> [u8; 4] {
    let sum: u64 = raw
        .chunks(4)
        .map(|word| word.iter().rev().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte)))
        .sum();
    ((sum & 0xffff_ffff) as u32).wrapping_add((sum >> 32) as u32).to_le_bytes()
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    let len = bytes.len();
    // Which version: the two highest bits, which `disk::run` has no use for.
    let place = match knobs >> 6 {
        0 => 0,
        1 => 4096,
        2 => (len / 65536 * 65536).saturating_sub(65536),
        _ => len.saturating_sub(8192) / 4096 * 4096,
    };
    if let Some(raw) = bytes.get_mut(place..place + 4096) {
        raw[..4].copy_from_slice(&MAGIC);
        // Padding behind the disk would move its end away from the superblock.
        let (at, summed) = if knobs >> 6 == 2 {
            (152, 4096)
        } else {
            let devices = u32::from_le_bytes([raw[220], raw[221], raw[222], raw[223]]) as usize;
            (216, 256 + devices.min(1920) * 2)
        };
        raw[at..at + 4].fill(0);
        let sum = folded(&raw[..summed]);
        raw[at..at + 4].copy_from_slice(&sum);
    }
    let pad = if knobs >> 6 >= 2 { !4 } else { !0 };
    disk::run(knobs & 0x3f & pad, &bytes);
});
