//! Ways to change the bytes of an image.
//!
//! Owns: making and applying them. Does not own: what has to come of it.

use crate::generate::Image;
use proptest::prelude::{Strategy, any, prop};
use proptest::prop_oneof;

/// A change to the bytes of a container. Places are parts of 65536 of its length.
#[derive(Clone, Debug)]
pub enum Change {
    Flip(u16, u8),
    Set(u16, Vec<u8>),
    Cut(u16),
    Append(Vec<u8>),
    Remove(u16, u16),
    Repeat(u16, u16),
    SwapRecords(u16, u16),
    DropRecord(u16),
    RepeatRecord(u16),
}

/// Any change.
pub fn changes() -> impl Strategy<Value = Change> {
    let place = any::<u16>;
    prop_oneof![
        4 => (place(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (place(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, b)| Change::Set(at, b)),
        2 => place().prop_map(Change::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..40).prop_map(Change::Append),
        1 => (place(), 1..200u16).prop_map(|(at, len)| Change::Remove(at, len)),
        1 => (place(), 1..200u16).prop_map(|(at, len)| Change::Repeat(at, len)),
        2 => (place(), place()).prop_map(|(a, b)| Change::SwapRecords(a, b)),
        1 => place().prop_map(Change::DropRecord),
        1 => place().prop_map(Change::RepeatRecord),
    ]
}

impl Change {
    /// The changed bytes.
    pub fn apply(&self, image: &Image) -> Vec<u8> {
        let mut bytes = image.container.clone();
        let place = |part: u16| bytes.len() * usize::from(part) / 65_536;
        let record = |part: u16| {
            let at = image.records.len() * usize::from(part) / 65_536;
            image.records.get(at).copied().unwrap_or((0, 0))
        };
        match self {
            Change::Flip(at, bit) => {
                let at = place(*at);
                bytes[at] ^= 1 << bit;
            }
            Change::Set(at, new) => {
                let at = place(*at);
                for (old, new) in bytes[at..].iter_mut().zip(new) {
                    *old = *new;
                }
            }
            Change::Cut(at) => bytes.truncate(place(*at)),
            Change::Append(new) => bytes.extend(new),
            Change::Remove(at, len) => {
                let at = place(*at);
                let end = (at + usize::from(*len)).min(bytes.len());
                bytes.drain(at..end);
            }
            Change::Repeat(at, len) => {
                let at = place(*at);
                let end = (at + usize::from(*len)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            Change::SwapRecords(a, b) => {
                let ((a, a_end), (b, b_end)) = (record(*a.min(b)), record(*a.max(b)));
                if a_end <= b {
                    let all = &image.container;
                    bytes = [
                        &all[..a],
                        &all[b..b_end],
                        &all[a_end..b],
                        &all[a..a_end],
                        &all[b_end..],
                    ]
                    .concat();
                }
            }
            Change::DropRecord(at) => {
                let (start, end) = record(*at);
                bytes.drain(start..end);
            }
            Change::RepeatRecord(at) => {
                let (start, end) = record(*at);
                let part = bytes[start..end].to_vec();
                bytes.splice(start..start, part);
            }
        }
        bytes
    }
}

/// Corrects every CRC-32 from the front on, as far as the lengths lead: what is changed
/// then is seen by names and root alone.
pub fn reseal(bytes: &mut [u8]) {
    seal(bytes, 0, 28);
    let mut at = 32;
    while let Some(magic) = bytes.get(at..at + 4) {
        // Length of the header, place of the body's length and checksum in it.
        let (header, length_at, crc_at) = match magic {
            b"DSec" => (32, 8, 16),
            b"DRec" => (64, 12, 48),
            b"DEPL" => return seal(bytes, at, 28),
            _ => return,
        };
        let length = bytes.get(at + length_at..at + length_at + 4);
        let length = length.and_then(|four| four.try_into().ok());
        let length = length.map_or(0, u32::from_le_bytes) as usize;
        let Some(body) = bytes.get(at + header..at + header + length) else {
            return;
        };
        let crc = crc32fast::hash(body).to_le_bytes();
        bytes[at + crc_at..at + crc_at + 4].copy_from_slice(&crc);
        seal(bytes, at, header - 4);
        at += header + length;
    }
}

/// Puts the checksum of `len` bytes behind them.
fn seal(bytes: &mut [u8], at: usize, len: usize) {
    let crc = bytes.get(at..at + len).map(crc32fast::hash);
    if let (Some(crc), Some(place)) = (crc, bytes.get_mut(at + len..at + len + 4)) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}
