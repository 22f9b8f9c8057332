//! Chunks: where on the device each range of logical addresses lies.
//!
//! Owns: reading chunk items, the profiles that one device can have, and the way
//! from a logical address to its copies. Does not own: the tree they stand in.

use super::super::{Fault, damaged};
use super::node::{Format, Key};
use super::superblock::{Superblock, unsupported};
use crate::bytes::{array, le16, le32, le64};
use crate::extents::Extent;

/// Kinds of content of a chunk.
pub(super) const DATA: u64 = 1;
pub(super) const SYSTEM: u64 = 2;
pub(super) const METADATA: u64 = 4;

const RAID0: u64 = 8;
const DUP: u64 = 32;
/// Every profile but RAID 0 and DUP: RAID 1, 10, 5, 6, 1C3, 1C4.
const OTHER_RAID: u64 = 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400;

/// Number of the object that chunk items belong to.
pub(super) const OBJECT: u64 = 256;
/// Kind of a chunk item.
pub(super) const ITEM: u8 = 228;

/// Length of a stripe; there is only one.
const STRIPE: u64 = 64 << 10;
/// Bytes of a chunk item without stripes, and of a stripe.
const HEAD: usize = 48;
const STRIPE_ITEM: usize = 32;

/// Most chunks: they are a gigabyte each, or a tenth of a small device.
const LIMIT: usize = 1 << 17;

/// A range of logical addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// First logical address.
    pub logical: u64,
    /// Bytes.
    pub len: u64,
    /// Content and profile.
    pub kind: u64,
    /// Where its first copy starts on the device.
    first: u64,
    /// Where its second copy starts, if there is one.
    second: Option<u64>,
}

impl Chunk {
    /// Reads a chunk item; `size` is how much of the device there is.
    pub fn read(
        key: Key,
        item: &[u8],
        sb: &Superblock,
        format: &Format,
        size: u64,
    ) -> Result<Chunk, Fault> {
        let name = format!("the chunk at {}", key.offset);
        let (Some(len), Some(stripe_len), Some(kind), Some(stripes)) = (
            le64(item, 0),
            le64(item, 16),
            le64(item, 24),
            le16(item, 44),
        ) else {
            return damaged(format!("{name} is cut short"));
        };
        let sector = u64::from(format.sector_size);
        if (key.objectid, key.kind) != (OBJECT, ITEM)
            || item.len() != HEAD + STRIPE_ITEM * usize::from(stripes)
            || stripe_len != STRIPE
            || le32(item, 40) != Some(format.sector_size)
            || !key.offset.is_multiple_of(sector)
            || len == 0
            || len % sector != 0
            || key.offset.checked_add(len).is_none()
        {
            return damaged(format!("{name} is impossible"));
        }
        check_kind(&name, kind, sb)?;
        let copies = match (kind & (RAID0 | DUP | OTHER_RAID), stripes) {
            (0 | RAID0, 1) => 1,
            (DUP, 2) => 2,
            (0 | DUP, _) => return damaged(format!("{name} has {stripes} stripes")),
            _ => return unsupported(format!("{name} has a profile for several devices")),
        };
        let mut places = [None; 2];
        for (at, place) in places.iter_mut().enumerate().take(copies) {
            *place = Some(stripe(&name, item, at, len, sb, size)?);
        }
        let [Some(first), second] = places else {
            return damaged(format!("{name} has no stripes"));
        };
        Ok(Chunk {
            logical: key.offset,
            len,
            kind,
            first,
            second,
        })
    }

    /// One with two copies.
    #[cfg(test)]
    pub fn at(logical: u64, len: u64, kind: u64, [first, second]: [u64; 2]) -> Chunk {
        Chunk {
            logical,
            len,
            kind,
            first,
            second: Some(second),
        }
    }

    /// First logical address behind it.
    pub fn end(&self) -> u64 {
        self.logical + self.len
    }

    /// Where its copies start on the device.
    pub fn copies(&self) -> impl Iterator<Item = u64> + use<> {
        [Some(self.first), self.second].into_iter().flatten()
    }
}

fn check_kind(name: &str, kind: u64, sb: &Superblock) -> Result<(), Fault> {
    if kind & !(DATA | SYSTEM | METADATA | RAID0 | DUP | OTHER_RAID) != 0 {
        return unsupported(format!("{name} is of an unknown kind"));
    }
    match kind & (DATA | SYSTEM | METADATA) {
        DATA | SYSTEM | METADATA => Ok(()),
        both if both == DATA | METADATA && sb.mixed_groups() => Ok(()),
        _ => damaged(format!("{name} is of an impossible kind")),
    }
}

/// Where the `at`th stripe starts on the device.
fn stripe(
    name: &str,
    item: &[u8],
    at: usize,
    len: u64,
    sb: &Superblock,
    size: u64,
) -> Result<u64, Fault> {
    let base = HEAD + at * STRIPE_ITEM;
    let (Some(device), Some(place)) = (le64(item, base), le64(item, base + 8)) else {
        return damaged(format!("{name} is cut short"));
    };
    if device != sb.device() || array(item, base + 16) != Some(sb.device_uuid()) {
        return damaged(format!("{name} lies on another device"));
    }
    if place.checked_add(len).is_none_or(|end| end > size) {
        return damaged(format!("{name} leaves the device"));
    }
    Ok(place)
}

/// All chunks, by logical address.
#[derive(Default)]
pub(super) struct Chunks {
    list: Vec<Chunk>,
}

impl Chunks {
    /// The chunks that the superblock itself carries: those of the chunk tree.
    pub fn system(sb: &Superblock, format: &Format, size: u64) -> Result<Chunks, Fault> {
        let mut found = Vec::new();
        let mut rest = sb.system_chunks();
        while !rest.is_empty() {
            let stripes = le16(rest, Key::SIZE + 44).unwrap_or(0);
            let end = Key::SIZE + HEAD + STRIPE_ITEM * usize::from(stripes);
            let (Some(key), Some(item)) = (Key::read(rest, 0), rest.get(Key::SIZE..end)) else {
                return damaged("its array of system chunks is cut short");
            };
            let chunk = Chunk::read(key, item, sb, format, size)?;
            if chunk.kind & SYSTEM == 0 {
                return damaged("its array of system chunks holds another kind");
            }
            found.push(chunk);
            rest = rest.get(end..).unwrap_or_default();
        }
        found.sort_unstable_by_key(|chunk| chunk.logical);
        let mut chunks = Chunks::default();
        found.into_iter().try_for_each(|chunk| chunks.push(chunk))?;
        chunks.check_copies()?;
        Ok(chunks)
    }

    /// Adds a chunk, in ascending order.
    pub fn push(&mut self, chunk: Chunk) -> Result<(), Fault> {
        if let Some(last) = self.list.last().filter(|last| last.end() > chunk.logical) {
            return damaged(format!(
                "the chunks at {} and {} overlap",
                last.logical, chunk.logical
            ));
        }
        if self.list.len() >= LIMIT {
            return unsupported("it has too many chunks");
        }
        self.list.push(chunk);
        Ok(())
    }

    /// No two copies of chunks may share a byte of the device.
    pub fn check_copies(&self) -> Result<(), Fault> {
        let places = self.places();
        match places
            .windows(2)
            .find(|w| self.on_device(w[0]).end() > w[1].0)
        {
            Some(pair) => damaged(format!("two chunks overlap on the device at {}", pair[1].0)),
            None => Ok(()),
        }
    }

    fn on_device(&self, (start, at): (u64, usize)) -> Extent {
        let len = self.list.get(at).map_or(0, |chunk| chunk.len);
        Extent { start, len }
    }

    /// All chunks in ascending order.
    pub fn as_slice(&self) -> &[Chunk] {
        &self.list
    }

    /// Start on the device of every copy, and the number of its chunk, in the order of
    /// the device.
    pub fn places(&self) -> Vec<(u64, usize)> {
        let mut places: Vec<(u64, usize)> = self
            .list
            .iter()
            .enumerate()
            .flat_map(|(at, chunk)| chunk.copies().map(move |place| (place, at)))
            .collect();
        places.sort_unstable();
        places
    }

    /// Number of the chunk that holds all of a range.
    pub fn holding(&self, start: u64, len: u64) -> Option<usize> {
        let at = self.list.partition_point(|chunk| chunk.end() <= start);
        let chunk = self.list.get(at)?;
        let end = start.checked_add(len)?;
        (len > 0 && chunk.logical <= start && end <= chunk.end()).then_some(at)
    }

    /// Places of a range's copies on the device; empty if no chunk holds it.
    pub fn copies_of(&self, start: u64, len: u64) -> impl Iterator<Item = u64> + use<> {
        let chunk = self
            .holding(start, len)
            .and_then(|at| self.list.get(at).cloned());
        chunk
            .into_iter()
            .flat_map(move |chunk| chunk.copies().map(move |at| at + (start - chunk.logical)))
    }
}
