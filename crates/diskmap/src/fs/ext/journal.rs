//! Whether the journal is empty.
//!
//! Owns: finding the journal's first block and its superblock. Does not own:
//! replaying it. A journal that holds anything makes the bitmaps stale.

use super::super::{Fault, damaged};
use super::{Superblock, group};
use crate::bytes::{array, be32, le16, le32};
use crate::view::View;

const JOURNAL_MAGIC: u32 = 0xc03b_3998;
const EXTENTS_FLAG: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// The kernel's limit of an extent tree's depth.
const MAX_DEPTH: u16 = 5;

/// Refuses a file system whose journal is elsewhere, unreadable or not empty.
pub(super) fn check(view: &View<'_>, sb: &Superblock) -> Result<(), Fault> {
    if !sb.has_journal() {
        return Ok(());
    }
    let Some(inode) = sb.journal_inode() else {
        return Err(Fault::Dirty("its journal is on another disk".into()));
    };
    let raw = inode_bytes(view, sb, inode)?;
    let block = first_block(view, sb, &raw)?;
    let journal = view.bytes(block * sb.block_size, 1024)?;
    let right_kind = matches!(be32(&journal, 4), Some(3 | 4));
    if be32(&journal, 0) != Some(JOURNAL_MAGIC) || !right_kind {
        return damaged("its journal does not start with a journal superblock");
    }
    if be32(&journal, 0x1c) != Some(0) {
        return Err(Fault::Dirty("its journal is not empty".into()));
    }
    if be32(&journal, 0x20) != Some(0) {
        return Err(Fault::Dirty("its journal recorded an error".into()));
    }
    Ok(())
}

/// The first 128 bytes of an inode.
fn inode_bytes(view: &View<'_>, sb: &Superblock, inode: u64) -> Result<Vec<u8>, Fault> {
    if inode == 0 || inode > sb.inodes() {
        return damaged(format!("its journal is inode {inode}"));
    }
    let (number, index) = (
        (inode - 1) / sb.inodes_per_group,
        (inode - 1) % sb.inodes_per_group,
    );
    let per_block = sb.descriptors_per_block();
    let groups = group::read_block(view, sb, number / per_block * per_block)?;
    let Some(group) = groups.into_iter().find(|g| g.number == number) else {
        return damaged(format!("its journal is inode {inode}"));
    };
    let offset = group.inode_table * sb.block_size + index * sb.inode_size;
    Ok(view.bytes(offset, 128)?)
}

/// The block that holds the start of the file.
fn first_block(view: &View<'_>, sb: &Superblock, inode: &[u8]) -> Result<u64, Fault> {
    let mut node = array::<60>(inode, 0x28).map(Vec::from).unwrap_or_default();
    let by_extents = le32(inode, 0x20).unwrap_or(0) & EXTENTS_FLAG != 0;
    if !by_extents {
        return inside(sb, le32(&node, 0).map(u64::from));
    }
    let mut above = None;
    loop {
        let depth = le16(&node, 6).unwrap_or(u16::MAX);
        let falls = above.is_none_or(|above| depth < above);
        if le16(&node, 0) != Some(EXTENT_MAGIC) || depth > MAX_DEPTH || !falls {
            return damaged("the extent tree of its journal is damaged");
        }
        if le16(&node, 2) == Some(0) || le32(&node, 12) != Some(0) {
            return damaged("its journal has no first block");
        }
        let place = |low: usize, high: usize| {
            Some(u64::from(le32(&node, low)?) | u64::from(le16(&node, high)?) << 32)
        };
        if depth == 0 {
            return inside(sb, place(20, 18));
        }
        let below = inside(sb, place(16, 20))?;
        above = Some(depth);
        node = view.bytes(below * sb.block_size, sb.block_size as usize)?;
    }
}

fn inside(sb: &Superblock, block: Option<u64>) -> Result<u64, Fault> {
    match block {
        Some(block) if block > 0 && block < sb.blocks => Ok(block),
        _ => damaged("its journal lies outside"),
    }
}
