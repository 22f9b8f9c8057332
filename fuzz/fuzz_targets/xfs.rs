//! XFS on a bare disk; the magic number is always right. If the top bit of the knobs is
//! set, so are the checksums of the first group, and records of the log have none.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(b"XFSB");
    }
    if knobs & 0x80 != 0 {
        correct(&mut bytes);
    }
    disk::run(knobs, &bytes);
});

/// Rewrites the checksums of the headers and of all blocks of free space trees, and takes
/// those of the log's records out.
fn correct(bytes: &mut [u8]) {
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at + len)?;
        Some(field.iter().fold(0, |value, &byte| value << 8 | usize::from(byte)))
    };
    let (block, sector) = (number(4, 4).unwrap_or(0), number(102, 2).unwrap_or(0));
    if !(512..=65536).contains(&block) || !(512..=32768).contains(&sector) {
        return;
    }
    for (i, field) in [224, 216, 312, 32].into_iter().enumerate() {
        if let Some(header) = bytes.get_mut(i * sector..(i + 1) * sector) {
            seal(header, field);
        }
    }
    for sector in bytes.chunks_exact_mut(512) {
        if sector.starts_with(&[0xfe, 0xed, 0xba, 0xbe]) {
            sector[32..36].fill(0);
        }
    }
    for block in bytes.chunks_exact_mut(block).skip(1) {
        if block.starts_with(b"AB3B") || block.starts_with(b"AB3C") {
            seal(block, 52);
        }
    }
}

/// Writes the CRC-32C of `bytes` to its field, which counts as zero.
fn seal(bytes: &mut [u8], field: usize) {
    bytes[field..field + 4].fill(0);
    let crc = bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    });
    bytes[field..field + 4].copy_from_slice(&(!crc).to_le_bytes());
}
