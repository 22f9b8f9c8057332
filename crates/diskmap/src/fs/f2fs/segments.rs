//! The segment entries of F2FS: which blocks of a segment are valid.
//!
//! Owns: reading the current copies of the entries in order, and checking each (`struct
//! f2fs_sit_entry` of the kernel's `f2fs_fs.h`). Does not own: which copy is current, or
//! the journal; the checkpoint tells both.

use super::super::{Fault, damaged};
use super::superblock::Superblock;
use super::{BLOCK, SEGMENT_BLOCKS};
use crate::bytes::{array, le16};
use crate::view::View;

/// Bytes of an entry.
const ENTRY: usize = 74;
const PER_BLOCK: u64 = BLOCK / ENTRY as u64;
/// Bytes of the map in an entry.
const MAP: usize = (SEGMENT_BLOCKS / 8) as usize;
/// Blocks of entries that are read at once.
const STEP: u64 = 128;
/// Kinds of segments that are kept on disk; those from the fourth on hold nodes.
const KINDS: u16 = 6;
const FIRST_NODE_KIND: u16 = 3;

/// A segment's entry that agrees with itself.
pub(super) struct Segment {
    pub valid: u64,
    pub nodes: bool,
    /// A bit for each block, from the most significant one of the first byte on.
    map: [u8; MAP],
}

impl Segment {
    /// Decodes an entry of the segment `number`.
    pub fn decode(number: u32, raw: &[u8]) -> Result<Segment, Fault> {
        let Some((head, map)) = le16(raw, 0).zip(array::<MAP>(raw, 2)) else {
            return damaged(format!("the entry of segment {number} is cut off"));
        };
        let (valid, kind) = (head & 0x3ff, head >> 10);
        let words = map.as_chunks::<8>().0.iter();
        let counted: u32 = words
            .map(|&word| u64::from_le_bytes(word).count_ones())
            .sum();
        if counted != u32::from(valid) {
            return damaged(format!(
                "segment {number} has {counted} valid blocks in its map, {valid} in its count"
            ));
        }
        if kind >= KINDS {
            return damaged(format!("segment {number} is of the unknown kind {kind}"));
        }
        Ok(Segment {
            valid: u64::from(valid),
            nodes: kind >= FIRST_NODE_KIND,
            map,
        })
    }

    /// A bit for each block, from the least significant one of the first byte on.
    pub fn map(&self) -> [u8; MAP] {
        self.map.map(u8::reverse_bits)
    }
}

/// Calls `each` with every segment's number and raw entry, in order. `versions` has a
/// bit for each block of entries: set where the second copy is the current one.
pub(super) fn each(
    view: &View<'_>,
    sb: &Superblock,
    versions: &[u8],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let copy_blocks = sb.sit_segments / 2 * SEGMENT_BLOCKS;
    let blocks = u64::from(sb.main_segments).div_ceil(PER_BLOCK);
    if blocks > copy_blocks || blocks > versions.len() as u64 * 8 {
        return damaged("its segment entries do not fit their place");
    }
    for from in (0..blocks).step_by(STEP as usize) {
        let count = STEP.min(blocks - from);
        let second = |block: u64| {
            let byte = versions.get((block / 8) as usize).copied().unwrap_or(0);
            byte & 0x80 >> (block % 8) != 0
        };
        let copy = |first: u64, wanted: bool| {
            if (from..from + count).any(|block| second(block) == wanted) {
                view.bytes((first + from) * BLOCK, (count * BLOCK) as usize)
            } else {
                Ok(Vec::new())
            }
        };
        let copies = [copy(sb.sit, false)?, copy(sb.sit + copy_blocks, true)?];
        for block in from..from + count {
            let at = ((block - from) * BLOCK) as usize;
            let raw = copies[usize::from(second(block))].get(at..at + BLOCK as usize);
            let entries = raw.unwrap_or_default().chunks_exact(ENTRY);
            for (index, entry) in entries.take(PER_BLOCK as usize).enumerate() {
                // Fits, because the number of segments does.
                let number = (block * PER_BLOCK + index as u64) as u32;
                if number < sb.main_segments {
                    each(number, entry)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{ENTRY, Segment};

    #[test]
    fn an_entry_must_agree_with_its_map() {
        let mut raw = [0u8; ENTRY];
        (raw[2], raw[3], raw[65]) = (0x80, 0x01, 0x01);
        raw[..2].copy_from_slice(&(4u16 << 10 | 3).to_le_bytes());
        let segment = Segment::decode(0, &raw).ok().unwrap();
        assert_eq!((segment.valid, segment.nodes), (3, true));
        // Block 0 is the most significant bit on disk.
        let map = segment.map();
        assert_eq!((map[0], map[1], map[63]), (1, 0x80, 0x80));
        raw[0] = 2;
        assert!(Segment::decode(0, &raw).is_err());
        raw[..2].copy_from_slice(&(6u16 << 10 | 3).to_le_bytes());
        assert!(Segment::decode(0, &raw).is_err());
        assert!(Segment::decode(0, &raw[..60]).is_err());
    }
}
