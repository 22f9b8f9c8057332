//! What a restore will do to a disk, settled before the first write.
//!
//! Owns: the plan's shape. Does not own: how it is made (`check`, `whole`, `chosen`), how
//! it is shown (`show`) or carried out (`mod`, `erase`, `tables`).

use diskmap::{Blob, TableKind};
use image::{BadRange, CellMap, Layout};
use std::ops::Range;
use wire::Report;

/// Length of a head: the first part of a partition, written last.
pub const HEAD_BYTES: u64 = 1 << 20;

/// What a restore will do to a disk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kind of partition table.
    pub kind: TableKind,
    /// Size of the disk.
    pub disk_bytes: u64,
    /// Smallest disk that will do.
    pub minimum_bytes: u64,
    /// Where each region of the image goes, in the order of the layout.
    pub places: Vec<Place>,
    /// Partitions (and a disk without a table) that are written, as byte ranges of the disk.
    pub areas: Vec<Range<u64>>,
    /// What becomes of the partition table.
    pub table: TableChange,
    /// Partitions of the disk and what becomes of them; empty where that is not known.
    pub old: Vec<OldPartition>,
    /// Partitions of the disk afterwards.
    pub new: Vec<NewPartition>,
    /// The partition that grows.
    pub growth: Option<Growth>,
    /// Bytes behind the last partition that no partition has afterwards.
    pub free_bytes: u64,
    /// What a person should know before.
    pub notes: Vec<String>,
}

/// Where a region goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First byte on the disk.
    pub start: u64,
    /// How many of its bytes are written, from its beginning; 0 if it is left out.
    pub len: u64,
}

impl Place {
    /// A region that is not written.
    pub const NOWHERE: Place = Place { start: 0, len: 0 };
}

/// What becomes of the partition table.
#[derive(Clone, Debug)]
pub enum TableChange {
    /// It goes first and comes last: in between the disk has none.
    Replace {
        /// The table as it will stand.
        last: Vec<Blob>,
    },
    /// At every moment a valid table lists the partitions that stay.
    Keep {
        /// The table in between: nothing but what stays.
        interim: Vec<Blob>,
        /// The table as it will stand.
        last: Vec<Blob>,
        /// Sectors of the disk's present table.
        old: Vec<Range<u64>>,
        /// What is not touched.
        kept: Vec<Range<u64>>,
        /// Whether the present table's copy at the start of the disk is whole; then the
        /// one at the end may be overwritten before it.
        primary_is_good: bool,
    },
    /// It stays as it is: partitions are written into existing ones.
    Untouched,
}

/// A partition of the disk as it is now.
#[derive(Clone, Debug)]
pub struct OldPartition {
    /// Number in the table.
    pub number: u32,
    /// As it is named to people.
    pub name: String,
    /// Bytes of the disk.
    pub range: Range<u64>,
    /// Type in words.
    pub type_name: String,
    /// Whether it stays as it is.
    pub stays: bool,
}

/// A partition of the disk as it will be.
#[derive(Clone, Debug)]
pub struct NewPartition {
    /// Number in the table.
    pub number: u32,
    /// As it is named to people.
    pub name: String,
    /// Bytes of the disk.
    pub range: Range<u64>,
    /// Type in words.
    pub type_name: String,
    /// Position of the image's region that goes there; `None` if it stays as it is.
    pub region: Option<usize>,
}

/// A partition that is larger than the image's.
#[derive(Clone, Debug)]
pub struct Growth {
    /// Number in the disk's table.
    pub number: u32,
    /// As it is named to people.
    pub name: String,
    /// Bytes of the disk, as it will be.
    pub range: Range<u64>,
    /// Its size in the image.
    pub old_size: u64,
    /// The partition behind it, as it is named to people, which keeps it from growing
    /// further.
    pub behind: Option<String>,
    /// File system inside; empty if unknown.
    pub file_system: String,
}

impl Growth {
    /// Bytes that it gains.
    pub fn gained(&self) -> u64 {
        (self.range.end - self.range.start).saturating_sub(self.old_size)
    }
}

impl Plan {
    /// The table as it will stand; empty if it stays as it is, or the disk has none.
    pub fn tables(&self) -> &[Blob] {
        match &self.table {
            TableChange::Replace { last } | TableChange::Keep { last, .. } => last,
            TableChange::Untouched => &[],
        }
    }

    /// What a failure after the first write leaves.
    pub fn half_made(&self) -> wire::DiskState {
        match self.table {
            TableChange::Replace { .. } => wire::DiskState::Incomplete,
            TableChange::Keep { .. } | TableChange::Untouched => {
                wire::DiskState::PartitionsIncomplete
            }
        }
    }

    /// A failure after the first write, with what that means for this disk.
    pub fn failed(&self, report: Report) -> Report {
        match report.disk {
            wire::DiskState::Incomplete => Report {
                disk: self.half_made(),
                ..report
            },
            _ => report,
        }
    }

    /// Where a cell's first byte goes, and how many of its bytes are written; `None` if it
    /// is left out.
    pub fn place(&self, layout: &Layout, cell: &CellMap) -> Option<Place> {
        let region = self.places.get(cell.region as usize)?;
        let offset = cell.cell.checked_mul(u64::from(layout.cell_size))?;
        let len = region.len.checked_sub(offset)?;
        // Its used bytes may all lie past the end of what is written.
        let first = u64::from(cell.used.span().0);
        (len > first).then_some(Place {
            start: region.start + offset,
            len,
        })
    }

    /// Of the ranges that the image does not have, those that lie in what is written.
    pub fn written_of(&self, bad: &[BadRange]) -> Vec<BadRange> {
        let written = |range: &&BadRange| {
            let place = self.places.get(range.region as usize);
            place.is_some_and(|place| range.start < place.len)
        };
        bad.iter().filter(written).copied().collect()
    }

    /// Bytes of the image that are written, as far as the layout tells.
    pub fn used_bytes(&self, layout: &Layout) -> u64 {
        let regions = layout.regions.iter().zip(&self.places);
        let written = regions.map(|(region, place)| region.used_bytes.min(place.len));
        written.sum()
    }
}
