//! The device tree: the chunks as seen from the device.
//!
//! Owns: the comparison of its extents with the chunks' copies. Does not own: the
//! chunks.

use super::super::{Fault, damaged};
use super::chunk::{self, Chunks};
use super::node::Item;
use super::superblock::unsupported;
use crate::bytes::le64;

/// Kind of an extent of a device.
const EXTENT: u8 = 204;
/// Kind of the item that counts errors.
const STATISTICS: u8 = 249;
/// Kind of the item about a device that replaces another.
const REPLACE: u8 = 250;
/// States of a replacement: under way, and suspended.
const UNDER_WAY: [u64; 2] = [1, 4];

/// Takes the items of a device tree in order.
pub(super) struct Extents<'a> {
    chunks: &'a Chunks,
    /// Copies that are still to come.
    places: std::vec::IntoIter<(u64, usize)>,
    device: u64,
}

impl<'a> Extents<'a> {
    /// Expects every copy of every chunk.
    pub fn new(chunks: &'a Chunks, device: u64) -> Extents<'a> {
        Extents {
            chunks,
            places: chunks.places().into_iter(),
            device,
        }
    }

    /// Takes an item.
    pub fn item(&mut self, item: &Item<'_>) -> Result<(), Fault> {
        match item.key.kind {
            REPLACE if le64(item.data, 32).is_none_or(|state| UNDER_WAY.contains(&state)) => {
                unsupported("a device of it is being replaced")
            }
            EXTENT => self.extent(item),
            REPLACE | STATISTICS => Ok(()),
            kind => unsupported(format!("its device tree holds items of kind {kind}")),
        }
    }

    fn extent(&mut self, item: &Item<'_>) -> Result<(), Fault> {
        let place = item.key.offset;
        let chunk = match self.places.next() {
            Some((start, at)) if start == place => self.chunks.as_slice().get(at),
            _ => None,
        };
        let same = chunk.is_some_and(|chunk| {
            item.key.objectid == self.device
                && le64(item.data, 0) == Some(super::CHUNK_TREE)
                && le64(item.data, 8) == Some(chunk::OBJECT)
                && le64(item.data, 16) == Some(chunk.logical)
                && le64(item.data, 24) == Some(chunk.len)
        });
        if same {
            Ok(())
        } else {
            damaged(format!("the device's extent at {place} is of no chunk"))
        }
    }

    /// Whether all copies came.
    pub fn finish(mut self) -> Result<(), Fault> {
        match self.places.next() {
            None => Ok(()),
            Some((place, _)) => damaged(format!(
                "the device tree does not know of the chunk on the device at {place}"
            )),
        }
    }
}
