//! What a scan tells: the map of a disk.
//!
//! Owns: the public data types. Does not own: how they are found.

use crate::extents::Extents;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Size of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Geometry {
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes: 512, 1024, 2048 or 4096.
    pub sector_size: u32,
}

impl Geometry {
    /// Whether the sector size is one that tables and file systems are read at.
    pub fn is_supported(&self) -> bool {
        matches!(self.sector_size, 512 | 1024 | 2048 | 4096)
    }

    /// Whole sectors of the disk; 0 if the sector size is 0.
    pub fn sectors(&self) -> u64 {
        self.size_bytes
            .checked_div(u64::from(self.sector_size))
            .unwrap_or(0)
    }
}

/// How to scan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// Copy every sector of every region; a damaged table is no error then.
    pub full: bool,
    /// A damaged or unclean file system is an error instead of a warning.
    pub strict: bool,
}

/// What of a disk is copied, and how: all of it by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Numbers of the partitions to copy; everything else is [`Method::Absent`]. `None`:
    /// the whole disk. Numbers that the table does not have are no error here.
    pub only: Option<Vec<u32>>,
    /// Numbers of partitions that are copied in full.
    pub full: Vec<u32>,
    /// File systems whose metadata cannot be read are copied in full with a warning,
    /// instead of failing the scan.
    pub skip_bad: bool,
}

/// Kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// No table: the disk is one region.
    None,
    /// DOS partition table.
    Mbr,
    /// GUID partition table.
    Gpt,
}

impl TableKind {
    /// `none`, `mbr` or `gpt`.
    pub fn as_str(self) -> &'static str {
        match self {
            TableKind::None => "none",
            TableKind::Mbr => "mbr",
            TableKind::Gpt => "gpt",
        }
    }
}

impl fmt::Display for TableKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Raw bytes of a partition table: whole sectors at their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Byte offset on the disk.
    pub offset: u64,
    /// The bytes.
    pub data: Vec<u8>,
}

impl Blob {
    /// First byte past the blob.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.data.len() as u64)
    }
}

/// What a region is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegionKind {
    /// Space outside partitions in which boot loaders and the like live.
    Gap,
    /// A partition.
    Partition,
    /// The whole disk, which has no table.
    Whole,
}

/// How a region is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Only what the file system uses.
    Used,
    /// Every sector.
    Full,
    /// Not at all: it was not asked for.
    Absent,
}

impl Method {
    /// `used`, `full` or `none`.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Used => "used",
            Method::Full => "full",
            Method::Absent => "none",
        }
    }
}

/// A part of the disk that is copied. Regions are sorted by start, do not overlap
/// each other and hold no byte of a [`Blob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// What it is.
    pub kind: RegionKind,
    /// Partition number (slot, logical partitions from 5); `Some(0)` is the whole
    /// disk, `None` a gap.
    pub number: Option<u32>,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
    /// MBR type as `0x83` or GPT type as upper-case GUID; empty without a table.
    pub part_type: String,
    /// Name of the type for people.
    pub type_name: String,
    /// GPT partition name.
    pub name: String,
    /// GPT partition GUID, upper case.
    pub guid: String,
    /// MBR active flag or GPT legacy boot attribute.
    pub bootable: bool,
    /// Hidden MBR type or GPT hidden attribute.
    pub hidden: bool,
    /// `ext4`, `fat32`, `swap`, `ntfs` and so on; empty if unknown.
    pub file_system: String,
    /// File system label.
    pub label: String,
    /// File system UUID or serial number as other tools show it.
    pub uuid: String,
    /// How it is copied.
    pub method: Method,
    /// Bytes to copy, relative to `start`, in whole sectors.
    pub used: Extents,
    /// One sentence for people: why this method.
    pub reason: String,
}

/// Something that the scan got past, but that people must hear about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// What it is about.
    pub kind: WarningKind,
    /// Partition number; 0 is the whole disk; `None` is the table.
    pub partition: Option<u32>,
    /// What was found, and what was done about it.
    pub detail: String,
}

/// Kinds of warning; each has a check code of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WarningKind {
    /// One copy of the GPT is wrong; the map comes from the other.
    GptDamaged,
    /// A file system contradicts itself; the detail says what was copied.
    FsDamaged,
    /// A file system is not clean, or cannot be told to be; the detail says what was copied.
    FsDirty,
    /// Metadata cannot be read; copied full-sector.
    ReadError,
}

impl WarningKind {
    /// The check code, as `fs-dirty`.
    pub fn code(self) -> &'static str {
        match self {
            WarningKind::GptDamaged => "gpt-damaged",
            WarningKind::FsDamaged => "fs-damaged",
            WarningKind::FsDirty => "fs-dirty",
            WarningKind::ReadError => "read-error",
        }
    }
}

/// The map of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskMap {
    /// Size of the disk.
    pub geometry: Geometry,
    /// Kind of partition table.
    pub table: TableKind,
    /// The table's bytes, sorted by offset.
    pub blobs: Vec<Blob>,
    /// GPT disk GUID, or MBR signature as 8 hexadecimal digits; empty without a table.
    pub disk_id: String,
    /// What is copied, sorted by start.
    pub regions: Vec<Region>,
    /// What people must hear about.
    pub warnings: Vec<Warning>,
}
