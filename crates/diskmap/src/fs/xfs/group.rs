//! The headers of an allocation group: free space, inodes, free list.
//!
//! Owns: the sectors behind the group's superblock (`struct xfs_agf`, `xfs_agi`,
//! `xfs_agfl`), their checks, and which blocks they say are in use. Does not own: the
//! trees they point to.

use super::super::{Fault, damaged};
use super::btree::{MAX_LEVELS, Order, Tree};
use super::log::End;
use super::superblock::{Superblock, check_sum};
use crate::bytes::{array, be32, be64, has};
use crate::view::View;

/// No block.
const NONE: u32 = !0;
/// Bytes before the entries of a checksummed free list.
const LIST_HEADER: usize = 36;

/// An allocation group and what its headers say. Counts are in blocks.
pub(super) struct Group<'a> {
    pub sb: &'a Superblock,
    pub log_end: &'a End,
    pub number: u64,
    pub blocks: u64,
    free_space: Vec<u8>,
    /// Blocks that are in use for certain, without the trees' own.
    pub fixed: Vec<u32>,
}

impl<'a> Group<'a> {
    /// Reads and checks the headers of a group.
    pub fn read(
        view: &View<'_>,
        sb: &'a Superblock,
        log_end: &'a End,
        number: u64,
    ) -> Result<Group<'a>, Fault> {
        let sector = sb.sector_size as usize;
        let raw = view.bytes(sb.offset(number, 0), 4 * sector)?;
        let (copy, rest) = raw.split_at(sector);
        let (free_space, rest) = rest.split_at(sector);
        let (inodes, list) = rest.split_at(sector);
        let mut group = Group {
            sb,
            log_end,
            number,
            blocks: sb.blocks_of_group(number),
            free_space: free_space.to_vec(),
            fixed: Vec::new(),
        };
        if !has(copy, 0, b"XFSB") {
            return damaged(format!("group {number} has no superblock"));
        }
        if sb.checksums() {
            check_sum(copy, 224, &format!("superblock in group {number}"))?;
        }
        group.check_header(free_space, b"XAGF", (64, 208, 216))?;
        group.check_header(inodes, b"XAGI", (296, 320, 312))?;
        let headers = (4 * sb.sector_size).div_ceil(sb.block_size);
        group.fixed.extend(0..headers as u32);
        group.roots(inodes)?;
        group.free_list(list)?;
        Ok(group)
    }

    /// Magic number, version, number and length; with checksums also those and the
    /// owner, whose places are `(uuid, lsn, crc)`.
    fn check_header(
        &self,
        header: &[u8],
        magic: &[u8],
        (uuid, lsn, crc): (usize, usize, usize),
    ) -> Result<(), Fault> {
        let number = self.number;
        let right = has(header, 0, magic)
            && be32(header, 4) == Some(1)
            && be32(header, 8).map(u64::from) == Some(number)
            && be32(header, 12).map(u64::from) == Some(self.blocks);
        if !right {
            return damaged(format!("the headers of group {number} are not its own"));
        }
        if self.sb.checksums() {
            check_sum(header, crc, &format!("headers of group {number}"))?;
            if array(header, uuid) != Some(self.sb.meta_uuid) {
                return damaged(format!("group {number} is of another file system"));
            }
            self.log_end.check(be64(header, lsn))?;
        }
        Ok(())
    }

    /// Roots of the trees, each with its number of levels.
    fn roots(&mut self, inodes: &[u8]) -> Result<(), Fault> {
        let mut roots = vec![(inodes, 20, 24), (&self.free_space, 16, 28)];
        roots.push((&self.free_space, 20, 32));
        if self.sb.reverse_map() {
            roots.push((&self.free_space, 24, 36));
        }
        if self.sb.reflink() {
            roots.push((&self.free_space, 88, 92));
        }
        if self.sb.free_inode_tree() {
            roots.push((inodes, 328, 332));
        }
        for (header, root, levels) in roots {
            let (root, levels) = (be32(header, root), be32(header, levels));
            match root.zip(levels) {
                Some((root, 1..=MAX_LEVELS)) if self.holds(root) => self.fixed.push(root),
                _ => {
                    return damaged(format!(
                        "the headers of group {} point to a tree outside",
                        self.number
                    ));
                }
            }
        }
        Ok(())
    }

    /// The blocks that are kept ready for the trees: a ring in the fourth sector.
    fn free_list(&mut self, list: &[u8]) -> Result<(), Fault> {
        let mut header = 0;
        if self.sb.checksums() {
            header = LIST_HEADER;
            let right = has(list, 0, b"XAFL")
                && be32(list, 4).map(u64::from) == Some(self.number)
                && array(list, 8) == Some(self.sb.meta_uuid);
            if !right {
                return damaged(format!(
                    "the free list of group {} is not its own",
                    self.number
                ));
            }
            check_sum(list, 32, &format!("free list of group {}", self.number))?;
            self.log_end.check(be64(list, 24))?;
        }
        let size = (list.len() - header) / 4;
        let (first, last) = (self.free_field(40) as usize, self.free_field(44) as usize);
        let count = self.free_list_blocks() as usize;
        if count == 0 {
            return Ok(());
        }
        if first >= size || last >= size || (last + size - first) % size + 1 != count {
            return damaged(format!(
                "the free list of group {} has {count} entries from {first} to {last}",
                self.number
            ));
        }
        for at in (0..count).map(|i| (first + i) % size) {
            let block = be32(list, header + 4 * at).unwrap_or(NONE);
            if !self.holds(block) {
                return damaged(format!(
                    "the free list of group {} has block {block}",
                    self.number
                ));
            }
            self.fixed.push(block);
        }
        Ok(())
    }

    /// Whether a block may hold anything but the group's headers.
    pub fn holds(&self, block: u32) -> bool {
        block > 0 && u64::from(block) < self.blocks
    }

    /// A field of the free space header.
    fn free_field(&self, offset: usize) -> u32 {
        be32(&self.free_space, offset).unwrap_or(0)
    }

    pub fn tree(&self, order: Order) -> Tree {
        let (root, levels) = match order {
            Order::Place => (16, 28),
            Order::Length => (20, 32),
        };
        Tree {
            order,
            root: self.free_field(root),
            levels: self.free_field(levels),
        }
    }

    /// Blocks that are ready for the trees.
    pub fn free_list_blocks(&self) -> u64 {
        self.free_field(48).into()
    }

    /// Blocks of all free extents.
    pub fn free_blocks(&self) -> u64 {
        self.free_field(52).into()
    }

    /// Blocks of the longest free extent.
    pub fn longest(&self) -> u32 {
        self.free_field(56)
    }

    /// Blocks of the trees that the kernel counts as free, all but their roots.
    pub fn tree_blocks(&self) -> u64 {
        self.free_field(60).into()
    }

    /// Blocks of the reverse map, without its root.
    pub fn reverse_map_blocks(&self) -> u64 {
        if self.sb.reverse_map() {
            u64::from(self.free_field(80)).saturating_sub(1)
        } else {
            0
        }
    }
}
