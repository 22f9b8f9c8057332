//! Ranges of a partition that two images hold alike.
//!
//! Owns: which they are, and bytes that stand for theirs: a file whose content lies in such
//! ranges, at the same places in both images, is the same in both, and need not be read.
//! Does not own: finding them (`crate::diff`), comparing files ([`super::compare`]).

use std::hash::{BuildHasher, RandomState};

/// Bytes that have one stand-in.
const LINE: u64 = 64;

/// Most ranges that are remembered (64 MiB); what lies in further ones is read.
const MAX_RANGES: usize = 4 << 20;

/// Ranges that are alike, and what stands for their bytes.
#[derive(Default)]
pub struct Alike {
    /// First byte of the partition and end, ascending, not touching.
    ranges: Vec<(u64, u64)>,
    /// So that no content can be made to look like the stand-in of another.
    random: RandomState,
}

impl Alike {
    /// Adds bytes that both images hold; they come in ascending order.
    pub fn push(&mut self, start: u64, end: u64) {
        let has_room = self.ranges.len() < MAX_RANGES;
        match self.ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ if has_room => self.ranges.push((start, end)),
            _ => {}
        }
    }

    /// Whether all bytes of a range of the partition are alike.
    pub(super) fn covers(&self, offset: u64, len: u64) -> bool {
        let Some(end) = offset.checked_add(len).filter(|&end| end > offset) else {
            return false;
        };
        let next = self.ranges.partition_point(|range| range.1 <= offset);
        let range = self.ranges.get(next);
        range.is_some_and(|range| range.0 <= offset && end <= range.1)
    }

    /// Fills `buf` with what stands for the bytes at `offset`: the same in both images,
    /// another anywhere else.
    pub(super) fn stand_in(&self, offset: u64, buf: &mut [u8]) {
        let mut at = offset;
        let mut rest = buf;
        while !rest.is_empty() {
            let line = at / LINE;
            let inside = (at % LINE) as usize;
            let len = rest.len().min(LINE as usize - inside);
            let (now, later) = rest.split_at_mut(len);
            let mark = self.random.hash_one(line).to_le_bytes();
            for (place, byte) in now.iter_mut().enumerate() {
                *byte = mark[(inside + place) % mark.len()];
            }
            at += len as u64;
            rest = later;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Alike;

    #[test]
    fn only_what_lies_wholly_in_one_range_is_alike() {
        let mut alike = Alike::default();
        for (start, end) in [(100, 200), (200, 400), (700, 800)] {
            alike.push(start, end);
        }
        for (offset, len, expected) in [
            (100, 300, true),
            (399, 1, true),
            (100, 301, false),
            (99, 2, false),
            (0, 1, false),
            (700, 100, true),
            (350, 400, false),
            (200, 0, false),
            (u64::MAX, 2, false),
        ] {
            assert_eq!(alike.covers(offset, len), expected, "{offset} {len}");
        }
    }

    #[test]
    fn stand_ins_follow_the_place_and_not_how_it_is_read() {
        let alike = Alike::default();
        let mut whole = [0; 1000];
        alike.stand_in(4000, &mut whole);
        let mut parts = [0; 1000];
        for (place, part) in parts.chunks_mut(77).enumerate() {
            alike.stand_in(4000 + place as u64 * 77, part);
        }
        assert_eq!(whole, parts);
        alike.stand_in(4064, &mut parts);
        assert_ne!(whole, parts);
        Alike::default().stand_in(4000, &mut parts);
        assert_ne!(whole, parts);
    }
}
