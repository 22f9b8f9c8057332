//! Partition tables: which one a disk has, and what it says.
//!
//! Owns: telling MBR, GPT and bare file systems apart, and the common view of a
//! parsed table. Does not own: the codecs (`mbr`, `gpt`), or file systems.

mod blobs;
mod chain;
mod gpt;
mod gpt_pair;
mod grow;
mod keep;
mod mbr;
mod mbr_chain;
mod relocate;
mod shrink;

pub use blobs::parse_blobs;
pub use grow::{Grown, grow};
pub use keep::{interim, keep};
pub use relocate::{minimum_size, relocate};
pub use shrink::shrink;

use crate::error::ScanError;
use crate::extents::Extent;
use crate::fs;
use crate::model::{Blob, Geometry, TableKind};
use crate::read::DiskRead;
use crate::view::{ReadFailure, View};

/// An entry of a partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePartition {
    /// Slot from 1; logical partitions of an MBR from 5.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// MBR type as `0x83` or GPT type as upper-case GUID.
    pub part_type: String,
    /// Name of the type for people; empty if unknown.
    pub type_name: String,
    /// GPT partition name.
    pub name: String,
    /// GPT partition GUID, upper case.
    pub guid: String,
    /// MBR active flag or GPT legacy boot attribute.
    pub bootable: bool,
    /// Hidden MBR type or GPT hidden attribute.
    pub hidden: bool,
    /// An extended partition: a container of logical ones, without data of its own.
    pub extended: bool,
}

impl TablePartition {
    /// First byte past the partition.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

/// What a table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedTable {
    /// Kind of table.
    pub kind: TableKind,
    /// GPT disk GUID or MBR signature; empty without a table.
    pub disk_id: String,
    /// All entries in the order of their numbers, extended containers included.
    pub partitions: Vec<TablePartition>,
}

impl ParsedTable {
    /// Where the partitions lie that hold data.
    pub(crate) fn places(&self) -> Vec<Extent> {
        let data = self.partitions.iter().filter(|p| !p.extended);
        data.map(|p| Extent {
            start: p.start,
            len: p.size,
        })
        .collect()
    }
}

/// The table of a disk, without a look at what the partitions hold.
#[derive(Clone, Debug)]
pub struct DiskTable {
    /// What it says.
    pub parsed: ParsedTable,
    /// Its bytes, sorted by offset; rebuilt where one GPT copy was wrong.
    pub blobs: Vec<Blob>,
    /// What was wrong with a GPT that could be used all the same.
    pub warnings: Vec<String>,
    /// Whether the copy at the start of the disk is whole; an MBR has no other.
    pub primary_is_good: bool,
}

/// Reads the table of a disk; `None` if it has none.
///
/// # Errors
/// As [`crate::scan`], as far as tables are concerned.
pub fn read(disk: &dyn DiskRead, geometry: Geometry) -> Result<Option<DiskTable>, ScanError> {
    if !geometry.is_supported() {
        return Err(ScanError::SectorSizeUnsupported {
            size: geometry.sector_size,
        });
    }
    let view = View::new(disk, 0, geometry.size_bytes);
    let bare = || fs::identify(&view).map_err(ScanError::from);
    let found = detect(&view, geometry, bare)?;
    Ok(found.map(|found| DiskTable {
        primary_is_good: found.gpt.is_none() || gpt_pair::primary_is_good(&view, geometry),
        parsed: found.parsed,
        blobs: found.blobs,
        warnings: found.warnings,
    }))
}

/// A table as found on a disk.
pub(crate) struct FoundTable {
    pub parsed: ParsedTable,
    /// Its bytes, sorted by offset; rebuilt where one GPT copy was wrong.
    pub blobs: Vec<Blob>,
    /// What was wrong with a GPT that could be used all the same.
    pub warnings: Vec<String>,
    /// Both copies, for a GPT.
    pub gpt: Option<gpt_pair::Pair>,
}

impl FoundTable {
    /// Whether a copy of the table is not what stands on the disk.
    pub fn is_rebuilt(&self) -> bool {
        self.gpt.as_ref().is_some_and(|pair| pair.rebuilt)
    }
}

/// Finds the table of a disk.
///
/// `bare` names the file system that the disk as a whole holds; it is asked only
/// where the first sector leaves that open, because FAT and NTFS boot sectors end in
/// the same two bytes as an MBR.
pub(crate) fn detect(
    view: &View<'_>,
    geometry: Geometry,
    bare: impl Fn() -> Result<Option<&'static str>, ScanError>,
) -> Result<Option<FoundTable>, ScanError> {
    let sector = geometry.sector_size as usize;
    if geometry.sectors() == 0 {
        return Ok(None);
    }
    let first = view.bytes(0, sector)?;
    let signed = mbr::is_signed(&first);
    let entries = mbr::entries(&first);
    if let Some(entries) = &entries {
        if entries.iter().any(mbr::Entry::is_protective) {
            return gpt_pair::read(view, geometry, first).map(Some);
        }
        if entries.iter().any(mbr::Entry::is_used) {
            // A plain MBR wins over what is left of a GPT; a boot sector whose
            // code happens to look like entries does not win over its file system.
            // The same for a disc image that lists itself as a partition from sector 0.
            let from_zero = entries.iter().any(|e| e.is_used() && e.start == 0);
            return match mbr_chain::read(view, geometry, first) {
                Err(ScanError::MbrDamaged { .. } | ScanError::DiskSmallerThanLayout { .. })
                    if bare()?.is_some_and(|name| {
                        owns_first_sector(name) || matches!(name, "iso9660" | "udf") && from_zero
                    }) =>
                {
                    Ok(None)
                }
                other => other.map(Some),
            };
        }
    }
    let bare = bare()?;
    if signed && entries.is_none() && !bare.is_some_and(owns_first_sector) {
        // Perhaps an MBR with a flipped bit: the signature of a file system further
        // in may be an old one, and must not decide what is copied.
        let detail = "a boot flag is neither 0x00 nor 0x80".into();
        return Err(ScanError::MbrDamaged { detail });
    }
    if bare.is_some() {
        return Ok(None);
    }
    if geometry.sectors() > 1 && view.bytes(sector as u64, 8)? == gpt::SIGNATURE {
        return gpt_pair::read(view, geometry, first).map(Some);
    }
    if signed {
        mbr_chain::read(view, geometry, first).map(Some)
    } else {
        Ok(None)
    }
}

/// Whether a space that is no disk starts like a partitioned one.
pub(crate) fn is_partitioned(view: &View<'_>) -> Result<bool, ReadFailure> {
    let first = view.bytes_up_to(0, 512)?;
    Ok(mbr::entries(&first).is_some_and(|entries| entries.iter().any(mbr::Entry::is_used)))
}

/// Whether a file system of that name is told by the first sector itself.
pub(crate) fn owns_first_sector(name: &'static str) -> bool {
    matches!(
        name,
        "fat12" | "fat16" | "fat32" | "ntfs" | "exfat" | "refs" | "bitlocker"
    )
}

/// Checks that no two of the given partitions share a sector. Entries are
/// `(first sector, sectors, number)`.
fn first_overlap(spans: &[(u64, u64, u32)]) -> Option<(u32, u32)> {
    let mut sorted: Vec<_> = spans.iter().filter(|s| s.1 > 0).collect();
    sorted.sort_unstable();
    let mut reach: Option<(u64, u32)> = None;
    for &&(start, sectors, number) in &sorted {
        if let Some((end, other)) = reach
            && start < end
        {
            return Some((other, number));
        }
        reach = Some((start.saturating_add(sectors), number));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::first_overlap;

    #[test]
    fn overlap_names_both() {
        assert_eq!(first_overlap(&[(10, 5, 1), (0, 10, 2), (15, 1, 3)]), None);
        assert_eq!(first_overlap(&[(10, 5, 1), (0, 11, 2)]), Some((2, 1)));
        assert_eq!(
            first_overlap(&[(0, 100, 1), (5, 0, 2), (50, 1, 4)]),
            Some((1, 4))
        );
        assert_eq!(
            first_overlap(&[(1, u64::MAX, 1), (u64::MAX - 1, 9, 2)]),
            Some((1, 2))
        );
    }
}
