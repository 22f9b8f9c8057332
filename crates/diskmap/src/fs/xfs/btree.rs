//! The free space trees of an allocation group.
//!
//! Owns: walking one in the order of its keys, with every check that a block's header
//! allows. Does not own: what the free extents mean.
//!
//! Each group has two B+trees of the same free extents (`struct xfs_btree_block`, short
//! form): one by place, one by length. A walk ends on any input: levels fall by one from
//! the root on, and every leaf must go on where the order of the last one stopped, so no
//! block is met twice.

use super::super::{Fault, damaged};
use super::group::Group;
use super::superblock::check_sum;
use crate::bytes::{array, be16, be32, be64};
use crate::view::View;

/// Most levels of a tree: that of the kernel.
pub(super) const MAX_LEVELS: u32 = 9;
/// Says that there is no sibling.
const NONE: u32 = !0;
/// Bytes of a record, and of a key.
const RECORD: usize = 8;
/// Bytes of a pointer.
const POINTER: usize = 4;

/// Which of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Place,
    Length,
}

/// A free extent, in blocks of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Free {
    pub start: u32,
    pub len: u32,
}

/// A tree as the group's header tells of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    pub order: Order,
    pub root: u32,
    pub levels: u32,
}

/// Calls `each` for all free extents, in the order of the tree; returns the blocks that
/// the tree is made of.
pub(super) fn walk(
    view: &View<'_>,
    group: &Group<'_>,
    tree: Tree,
    each: impl FnMut(Free),
) -> Result<Vec<u32>, Fault> {
    if !(1..=MAX_LEVELS).contains(&tree.levels) {
        return damaged(format!(
            "group {} has a free space tree of {} levels",
            group.number, tree.levels
        ));
    }
    Walk {
        view,
        group,
        tree,
        each,
        blocks: Vec::new(),
        last: None,
        edges: vec![None; tree.levels as usize],
    }
    .run()
}

struct Walk<'a, F> {
    view: &'a View<'a>,
    group: &'a Group<'a>,
    tree: Tree,
    each: F,
    blocks: Vec<u32>,
    /// The last extent that was met.
    last: Option<Free>,
    /// By level: the last block that was met, and the one that must come next.
    edges: Vec<Option<(u32, u32)>>,
}

/// An inner block on the way down.
struct Inner {
    bytes: Vec<u8>,
    count: usize,
    next: usize,
}

impl<F: FnMut(Free)> Walk<'_, F> {
    fn run(mut self) -> Result<Vec<u32>, Fault> {
        let mut level = self.tree.levels - 1;
        let mut path: Vec<Inner> = Vec::new();
        let (mut number, mut key) = (self.tree.root, None);
        loop {
            let (bytes, count) = self.open(number, level)?;
            if key.is_some_and(|key| record(&bytes, self.header(), 0) != Some(key)) {
                return self.damaged(number, "does not start with the key that leads to it");
            }
            if level == 0 {
                self.leaf(number, &bytes, count)?;
            } else {
                path.push(Inner {
                    bytes,
                    count,
                    next: 0,
                });
            }
            while path.last().is_some_and(|inner| inner.next == inner.count) {
                path.pop();
            }
            let Some(inner) = path.last_mut() else {
                break;
            };
            let at = inner.next;
            inner.next += 1;
            let (header, pointers) = (self.header(), self.pointers());
            key = record(&inner.bytes, header, at);
            number = be32(&inner.bytes, pointers + at * POINTER).unwrap_or(NONE);
            level = self.tree.levels - 1 - path.len() as u32;
        }
        if self.edges.iter().flatten().any(|&(_, right)| right != NONE) {
            return damaged(format!(
                "a free space tree of group {} breaks off",
                self.group.number
            ));
        }
        Ok(self.blocks)
    }

    /// Bytes of a block's header.
    fn header(&self) -> usize {
        if self.group.sb.checksums() { 56 } else { 16 }
    }

    /// Most keys of an inner block.
    fn fan_out(&self) -> usize {
        (self.group.sb.block_size as usize - self.header()) / (RECORD + POINTER)
    }

    /// Where the pointers of an inner block start: behind the space of all keys.
    fn pointers(&self) -> usize {
        self.header() + self.fan_out() * RECORD
    }

    fn damaged<T>(&self, number: u32, detail: &str) -> Result<T, Fault> {
        damaged(format!(
            "block {number} of group {}, in the tree of free space by {}, {detail}",
            self.group.number,
            match self.tree.order {
                Order::Place => "place",
                Order::Length => "length",
            }
        ))
    }

    /// Reads a block and checks its header; the block and its number of entries.
    fn open(&mut self, number: u32, level: u32) -> Result<(Vec<u8>, usize), Fault> {
        let (group, sb) = (self.group, self.group.sb);
        if !group.holds(number) {
            return self.damaged(number, "lies outside");
        }
        let offset = sb.offset(group.number, number.into());
        let bytes = self.view.bytes(offset, sb.block_size as usize)?;
        let magic: &[u8; 4] = match (self.tree.order, sb.checksums()) {
            (Order::Place, false) => b"ABTB",
            (Order::Place, true) => b"AB3B",
            (Order::Length, false) => b"ABTC",
            (Order::Length, true) => b"AB3C",
        };
        if array(&bytes, 0) != Some(*magic) {
            return self.damaged(number, "is none of it");
        }
        if sb.checksums() {
            check_sum(&bytes, 52, &format!("free space in group {}", group.number))?;
            let home = be64(&bytes, 16) == Some(offset / 512)
                && array(&bytes, 32) == Some(sb.meta_uuid)
                && be32(&bytes, 48).map(u64::from) == Some(group.number);
            if !home {
                return self.damaged(number, "belongs elsewhere");
            }
            group.log_end.check(be64(&bytes, 24))?;
        }
        let count = usize::from(be16(&bytes, 6).unwrap_or(0));
        let most = match level {
            0 => (bytes.len() - self.header()) / RECORD,
            _ => self.fan_out(),
        };
        let root = level + 1 == self.tree.levels;
        let empty = count == 0 && !(root && level == 0);
        if be16(&bytes, 4).map(u32::from) != Some(level) || count > most || empty {
            return self.damaged(number, "has a wrong level or number of entries");
        }
        let (left, right) = (be32(&bytes, 8), be32(&bytes, 12).unwrap_or(0));
        let Some(edge) = self.edges.get_mut(level as usize) else {
            return self.damaged(number, "has a wrong level");
        };
        let (before, expected) = edge.unwrap_or((NONE, number));
        if left != Some(before) || expected != number {
            return self.damaged(number, "is not linked to its neighbours");
        }
        *edge = Some((number, right));
        self.blocks.push(number);
        Ok((bytes, count))
    }

    fn leaf(&mut self, number: u32, bytes: &[u8], count: usize) -> Result<(), Fault> {
        for at in 0..count {
            let Some(free) = record(bytes, self.header(), at) else {
                return self.damaged(number, "is too short");
            };
            let end = free.start.checked_add(free.len);
            let inside = end.is_some_and(|end| u64::from(end) <= self.group.blocks);
            let ordered = self.last.is_none_or(|last| match self.tree.order {
                // Both are inside, so that there is no overflow.
                Order::Place => last.start + last.len <= free.start,
                Order::Length => (last.len, last.start) < (free.len, free.start),
            });
            if !inside || free.len == 0 || !ordered {
                return self.damaged(
                    number,
                    &format!("tells of {} free blocks from {}", free.len, free.start),
                );
            }
            self.last = Some(free);
            (self.each)(free);
        }
        Ok(())
    }
}

/// Record or key `at` of a block whose entries start behind `header` bytes.
fn record(bytes: &[u8], header: usize, at: usize) -> Option<Free> {
    let offset = header + at * RECORD;
    Some(Free {
        start: be32(bytes, offset)?,
        len: be32(bytes, offset + 4)?,
    })
}
