//! A node of a tree, checked.
//!
//! Owns: the header, keys, pointers and items of one node, and everything that can
//! be verified of it alone or against the pointer that led there. Does not own:
//! where nodes lie, and what items mean.

use super::sum::Sum;
use crate::bytes::{array, le32, le64};

/// What all nodes of a file system have in common.
#[derive(Clone, Copy)]
pub(super) struct Format {
    /// Bytes of a node.
    pub node_size: u32,
    /// Unit of every address and length.
    pub sector_size: u32,
    /// What every header carries.
    pub uuid: [u8; 16],
    /// Kind of checksum.
    pub sum: Sum,
}

/// A key: items are in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Number of the object, or an address.
    pub objectid: u64,
    /// Kind of item.
    pub kind: u8,
    /// Depends on the kind.
    pub offset: u64,
}

impl Key {
    /// The lowest.
    pub const MIN: Key = Key::new(0, 0, 0);
    /// The highest.
    pub const MAX: Key = Key::new(u64::MAX, u8::MAX, u64::MAX);
    /// Bytes on disk.
    pub const SIZE: usize = 17;

    /// A key of its parts.
    pub const fn new(objectid: u64, kind: u8, offset: u64) -> Key {
        Key {
            objectid,
            kind,
            offset,
        }
    }

    /// Reads one.
    pub fn read(data: &[u8], at: usize) -> Option<Key> {
        Some(Key::new(
            le64(data, at)?,
            *data.get(at.checked_add(8)?)?,
            le64(data, at.checked_add(9)?)?,
        ))
    }
}

/// An item of a leaf.
pub(super) struct Item<'a> {
    pub key: Key,
    pub data: &'a [u8],
}

/// What led to a node, and so must hold of it.
#[derive(Clone, Copy)]
pub(super) struct Want {
    /// Logical address.
    pub bytenr: u64,
    pub level: u8,
    pub generation: u64,
    /// Number of the tree.
    pub owner: u64,
    /// Its first key; `None` for a root, which alone may be empty.
    pub first: Option<Key>,
    /// All its keys are below this one; `None` at the right edge of the tree.
    pub end: Option<Key>,
}

/// Bytes of a node's header.
const HEADER: usize = 101;
/// Bytes of a pointer to a child.
const POINTER: usize = Key::SIZE + 16;
/// Bytes of an item's head.
const ITEM: usize = Key::SIZE + 8;
/// The node has been written.
const WRITTEN: u8 = 1;

/// A node that is as it should be.
pub(super) struct Node {
    bytes: Vec<u8>,
    count: usize,
    level: u8,
}

impl Node {
    /// Checks the bytes of a node; says what is wrong.
    pub fn check(bytes: Vec<u8>, want: &Want, format: &Format) -> Result<Node, &'static str> {
        if !format.sum.matches(&bytes) {
            return Err("wrong checksum");
        }
        let level = bytes.get(100).copied();
        let wrong = [
            (
                array(&bytes, 0x20) != Some(format.uuid),
                "of another file system",
            ),
            (le64(&bytes, 0x30) != Some(want.bytenr), "of another place"),
            (
                bytes.get(0x38).is_none_or(|flags| flags & WRITTEN == 0),
                "never written",
            ),
            (
                le64(&bytes, 0x50) != Some(want.generation),
                "of another generation",
            ),
            (le64(&bytes, 0x58) != Some(want.owner), "of another tree"),
            (level != Some(want.level), "of another level"),
        ];
        if let Some((_, what)) = wrong.into_iter().find(|(wrong, _)| *wrong) {
            return Err(what);
        }
        let node = Node {
            count: le32(&bytes, 96).unwrap_or(0) as usize,
            level: want.level,
            bytes,
        };
        node.check_keys(want)?;
        if node.level == 0 {
            node.check_items()?;
        }
        Ok(node)
    }

    fn check_keys(&self, want: &Want) -> Result<(), &'static str> {
        let size = if self.level == 0 { ITEM } else { POINTER };
        if self.count > (self.bytes.len() - HEADER) / size {
            return Err("too full");
        }
        if self.count == 0 && (want.first.is_some() || self.level > 0) {
            return Err("empty");
        }
        let mut last = None;
        for at in 0..self.count {
            let key = self.key(at);
            if at == 0 && want.first.is_some_and(|first| Some(first) != key) {
                return Err("not where its parent says");
            }
            if last.is_some() && last >= key {
                return Err("out of order");
            }
            last = key;
        }
        if last.is_some() && want.end.is_some() && last >= want.end {
            return Err("reaching into the next");
        }
        Ok(())
    }

    /// Items' data are packed from the end, and do not reach the items' heads.
    fn check_items(&self) -> Result<(), &'static str> {
        let mut end = self.bytes.len() - HEADER;
        for at in 0..self.count {
            let (offset, size) = self.item_place(at);
            if offset.checked_add(size) != Some(end) {
                return Err("of items that overlap or leave gaps");
            }
            end = offset;
        }
        if end < self.count * ITEM {
            return Err("of items that overlap their heads");
        }
        Ok(())
    }

    /// Number of items or pointers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Place of the `at`th head.
    fn head(&self, at: usize) -> usize {
        HEADER + at * if self.level == 0 { ITEM } else { POINTER }
    }

    /// The `at`th key.
    pub fn key(&self, at: usize) -> Option<Key> {
        Key::read(&self.bytes, self.head(at))
    }

    /// Address and generation that the `at`th pointer of an inner node leads to.
    pub fn pointer(&self, at: usize) -> Option<(u64, u64)> {
        let place = self.head(at) + Key::SIZE;
        Some((le64(&self.bytes, place)?, le64(&self.bytes, place + 8)?))
    }

    /// Offset behind the header, and size, of the `at`th item's data.
    fn item_place(&self, at: usize) -> (usize, usize) {
        let place = self.head(at) + Key::SIZE;
        let field = |at| le32(&self.bytes, at).map_or(usize::MAX, |value| value as usize);
        (field(place), field(place + 4))
    }

    /// The `at`th item of a leaf.
    pub fn item(&self, at: usize) -> Option<Item<'_>> {
        let (offset, size) = self.item_place(at);
        let start = offset.checked_add(HEADER)?;
        Some(Item {
            key: self.key(at)?,
            data: self.bytes.get(start..start.checked_add(size)?)?,
        })
    }
}
