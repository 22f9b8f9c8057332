//! The partitions of an image and of a disk, as a restore compares them.
//!
//! Owns: finding one by its number, and whether it is the one that was meant. Does not
//! own: what is done with it (`whole`, `chosen`).

use super::check::refuse;
use crate::numbering::Numbering;
use diskmap::table::{ParsedTable, TablePartition};
use image::Layout;
use std::ops::Range;
use wire::{Code, PartitionChoice, Report, size};

/// The partitions of one side, by their place on the disk.
#[derive(Clone, Debug)]
pub struct Parts {
    /// What has them, for people: `the image`, `/dev/sda`.
    owner: String,
    list: Vec<TablePartition>,
    /// How they are numbered.
    pub numbering: Numbering,
}

impl Parts {
    /// Those of a table; extended partitions hold no data of their own and are left out.
    pub fn new(owner: impl Into<String>, table: &ParsedTable, number_visible: bool) -> Self {
        let data = table.partitions.iter().filter(|part| !part.extended);
        let mut list: Vec<_> = data.cloned().collect();
        list.sort_by_key(|part| part.start);
        let numbered = list.iter().map(|part| (part.number, part.hidden));
        Parts {
            owner: owner.into(),
            numbering: Numbering::new(numbered, number_visible),
            list,
        }
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &TablePartition> {
        self.list.iter()
    }

    /// The one with this number in the table.
    pub fn by_number(&self, number: u32) -> Option<&TablePartition> {
        self.list.iter().find(|part| part.number == number)
    }

    /// The last one on the disk.
    pub fn last(&self) -> Option<&TablePartition> {
        self.list.last()
    }

    /// The one that is meant.
    ///
    /// # Errors
    /// `partition-not-found` with a list; `partition-identity` if it is another one than
    /// it was when it was chosen.
    pub fn find(&self, wanted: &PartitionChoice) -> Result<&TablePartition, Report> {
        let number = self.numbering.table_number(wanted.number);
        let Some(part) = number.and_then(|number| self.by_number(number)) else {
            return Err(refuse(
                Code::PartitionNotFound,
                format!(
                    "{} has no partition {}; it has {}",
                    self.owner,
                    wanted.number,
                    self.listed()
                ),
            ));
        };
        match self.difference(part, wanted) {
            None => Ok(part),
            Some(found) => Err(refuse(Code::PartitionIdentity, found)),
        }
    }

    fn difference(&self, part: &TablePartition, wanted: &PartitionChoice) -> Option<String> {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let mut found = Vec::new();
        if let Some(guid) = wanted.guid.as_ref().filter(|guid| !same(guid, &part.guid)) {
            let has = if part.guid.is_empty() {
                "none"
            } else {
                &part.guid
            };
            found.push(format!("GUID {has} instead of {guid}"));
        }
        if let Some(start) = wanted.start_bytes.filter(|&start| start != part.start) {
            found.push(format!("begins at byte {} instead of {start}", part.start));
        }
        let kind = wanted.part_type.as_ref();
        if let Some(kind) = kind.filter(|kind| !same(kind, &part.part_type)) {
            found.push(format!("type {} instead of {kind}", part.part_type));
        }
        if found.is_empty() {
            return None;
        }
        let name = self.numbering.name(part.number);
        Some(format!(
            "partition {name} of {} is not the one that was chosen: {}",
            self.owner,
            found.join(", ")
        ))
    }

    /// All in one line, for errors.
    fn listed(&self) -> String {
        if self.list.is_empty() {
            return "none".to_owned();
        }
        let one = |part: &TablePartition| {
            let name = self.numbering.name(part.number);
            let kind = if part.type_name.is_empty() {
                &part.part_type
            } else {
                &part.type_name
            };
            format!("{name}: {}, {kind}", size::bytes(part.size))
        };
        let list: Vec<_> = self.list.iter().map(one).collect();
        list.join("; ")
    }
}

/// Bytes of the disk that a partition covers.
pub fn range(part: &TablePartition) -> Range<u64> {
    part.start..part.end()
}

/// Position of a partition's region in the layout. An image that names a partition which
/// it does not hold is damaged.
pub fn region_of(layout: &Layout, number: u32) -> Option<usize> {
    let held = |region: &image::layout::Region| {
        region.kind == "partition" && region.number == Some(number)
    };
    layout.regions.iter().position(held)
}
