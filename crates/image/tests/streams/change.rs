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
