//! Shared by the targets of `image`: makes the checksums of mutated bytes right, so
//! that what stands behind them is reached too.
#![allow(dead_code)] // no target uses all of it

use std::ops::Range;

/// Plain bytes that one input may decode to: small records can claim 4 MiB each.
pub const PLAIN_BUDGET: usize = 32 << 20;

fn seal(bytes: &mut [u8], at: usize, len: usize) {
    if let Some(crc) = bytes.get(at..at + len).map(crc32fast::hash)
        && let Some(place) = bytes.get_mut(at + len..at + len + 4)
    {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

fn number(bytes: &[u8], range: Range<usize>) -> Option<usize> {
    let mut all = [0; 8];
    let field = bytes.get(range)?;
    all[..field.len()].copy_from_slice(field);
    usize::try_from(u64::from_le_bytes(all)).ok()
}

/// Follows file header, sections, records and footer from the start, as far as their
/// lengths lead, and corrects every checksum and the names of stored chunks.
pub fn repair(bytes: &mut [u8]) {
    seal(bytes, 0, 28);
    repair_from(bytes, 32);
}

/// As [`repair`], from the first record or section at `at`.
pub fn repair_from(bytes: &mut [u8], mut at: usize) {
    loop {
        let Some(magic) = bytes.get(at..at.saturating_add(4)) else {
            return;
        };
        match magic {
            b"DSec" => {
                let Some(len) = number(bytes, at + 8..at + 16) else {
                    return;
                };
                let end = (at + 32).checked_add(len);
                let body = end.and_then(|end| bytes.get(at + 32..end));
                let Some(crc) = body.map(crc32fast::hash) else {
                    return;
                };
                bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
                seal(bytes, at, 28);
                at += 32 + len;
            }
            b"DRec" => {
                let Some(len) = number(bytes, at + 12..at + 16) else {
                    return;
                };
                let Some(payload) = bytes.get(at + 64..at + 64 + len) else {
                    return;
                };
                let crc = crc32fast::hash(payload);
                let name = (bytes[at + 4] == 0).then(|| blake3::hash(payload));
                if let Some(name) = name {
                    bytes[at + 16..at + 48].copy_from_slice(name.as_bytes());
                }
                bytes[at + 48..at + 52].copy_from_slice(&crc.to_le_bytes());
                seal(bytes, at, 60);
                at += 64 + len;
            }
            b"DEPL" => {
                seal(bytes, at, 28);
                return;
            }
            _ => return,
        }
    }
}
