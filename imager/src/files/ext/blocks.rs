//! Where a file's blocks are: a tree of extents, or block numbers with up to three levels.
//!
//! Owns: both walks, in the order of the file, holes included. Does not own: reading what
//! stands in the blocks.
//!
//! An extent that was reserved and never written reads as zeros: what stands in its blocks
//! belongs to whoever had them before.

use super::inode::Inode;
use super::{Ext, wrong_sum};
use crate::files::Fail;
use crate::files::bytes::{le16, le32};
use diskmap::ExtInodeChecksums;

const MAGIC: u16 = 0xf30a;
/// Levels of a tree of extents below its root.
const MAX_DEPTH: u16 = 5;
/// An extent that is longer than this was never written, and is so much shorter.
const UNWRITTEN: u16 = 32_768;
/// Nodes without entries that are passed over: nobody leaves many behind.
const MAX_EMPTY: u32 = 4096;

/// Blocks of a file, one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First block of the file system; none for a hole.
    pub block: Option<u64>,
    /// Blocks.
    pub count: u64,
}

type Found<'a> = dyn FnMut(Run) -> Result<(), Fail> + 'a;

/// A walk over the blocks of a file.
struct Walk<'w, 'a> {
    fs: &'w Ext<'a>,
    sums: Option<ExtInodeChecksums>,
    /// Next block of the file.
    at: u64,
    /// Blocks of the file.
    end: u64,
    empty: u32,
    found: &'w mut Found<'w>,
}

impl Ext<'_> {
    /// Tells where the content of a file is, from its start to its end.
    pub(super) fn runs<'w>(&'w self, inode: &Inode, found: &'w mut Found<'w>) -> Result<(), Fail> {
        inode.check_readable()?;
        let mut walk = Walk {
            fs: self,
            sums: inode.sums,
            at: 0,
            end: inode.size.div_ceil(self.sb.block_size),
            empty: 0,
            found,
        };
        if walk.end == 0 {
            return Ok(());
        }
        if inode.has_extents() {
            let depth = le16(&inode.block, 6);
            if depth > MAX_DEPTH {
                return Err(Fail::damaged("its tree of extents is too deep"));
            }
            walk.node(&inode.block, depth)?;
        } else {
            walk.map(&inode.block)?;
        }
        walk.hole_up_to(walk.end)
    }
}

impl Walk<'_, '_> {
    fn hole_up_to(&mut self, block: u64) -> Result<(), Fail> {
        let count = block.min(self.end).saturating_sub(self.at);
        if count > 0 {
            self.at += count;
            (self.found)(Run { block: None, count })?;
        }
        Ok(())
    }

    /// Blocks beyond the end of the file were reserved for it, and hold nothing of it.
    fn run(&mut self, block: Option<u64>, count: u64) -> Result<(), Fail> {
        let count = count.min(self.end - self.at);
        if count > 0 {
            self.at += count;
            (self.found)(Run { block, count })?;
        }
        Ok(())
    }

    /// A node of the tree of extents, and what is below it.
    fn node(&mut self, raw: &[u8], depth: u16) -> Result<(), Fail> {
        let entries = usize::from(le16(raw, 2));
        if le16(raw, 0) != MAGIC || le16(raw, 6) != depth || 12 + entries * 12 > raw.len() {
            return Err(Fail::damaged("its tree of extents is damaged"));
        }
        if entries == 0 {
            self.empty += 1;
            if self.empty > MAX_EMPTY {
                return Err(Fail::damaged("its tree of extents is damaged"));
            }
        }
        for entry in raw[12..12 + entries * 12].chunks_exact(12) {
            let first = u64::from(le32(entry, 0));
            if depth > 0 {
                let block = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
                let before = self.at;
                let below = self.fs.block(block)?;
                if self
                    .sums
                    .is_some_and(|sums| !sums.extents_are_right(&below))
                {
                    return Err(wrong_sum("its tree of extents"));
                }
                self.node(&below, depth - 1)?;
                // Each node has to bring the walk on, or it could go on for ever.
                if self.at == before && self.at < self.end {
                    self.empty += 1;
                }
                if self.empty > MAX_EMPTY {
                    return Err(Fail::damaged("its tree of extents is damaged"));
                }
            } else {
                let stored = le16(entry, 4);
                let block = u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32;
                let (block, count) = if stored > UNWRITTEN {
                    (None, stored - UNWRITTEN)
                } else {
                    (Some(block), stored)
                };
                if first < self.at && self.at < self.end || count == 0 {
                    return Err(Fail::damaged("its extents are not in order"));
                }
                self.hole_up_to(first)?;
                self.run(block, u64::from(count))?;
            }
            if self.at >= self.end {
                break;
            }
        }
        Ok(())
    }

    /// Twelve blocks, and three trees of block numbers.
    fn map(&mut self, raw: &[u8]) -> Result<(), Fail> {
        for (index, number) in raw.chunks_exact(4).enumerate() {
            let level = (index as u32).saturating_sub(11);
            self.numbers(le32(number, 0), level)?;
        }
        if self.at < self.end {
            return Err(Fail::damaged("it is larger than its blocks can be"));
        }
        Ok(())
    }

    /// What a block number leads to, `level` blocks of numbers further on.
    fn numbers(&mut self, number: u32, level: u32) -> Result<(), Fail> {
        if self.at >= self.end {
            return Ok(());
        }
        if level == 0 {
            return self.run((number != 0).then_some(u64::from(number)), 1);
        }
        let per_block = self.fs.sb.block_size / 4;
        if number == 0 {
            return self.run(None, per_block.pow(level));
        }
        let block = self.fs.block(u64::from(number))?;
        // Whole trees could lead to one empty block again and again.
        if block.iter().all(|&byte| byte == 0) {
            self.empty += 1;
            if self.empty > MAX_EMPTY {
                return Err(Fail::damaged("its tree of blocks is damaged"));
            }
            return self.run(None, per_block.pow(level));
        }
        for number in block.chunks_exact(4) {
            self.numbers(le32(number, 0), level - 1)?;
        }
        Ok(())
    }
}
