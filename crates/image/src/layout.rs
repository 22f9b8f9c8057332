//! The layout: what was imaged, in words and numbers (JSON).
//!
//! Owns: the fields, their limits and what a reader may rely on after
//! [`Layout::parse`]. Does not own: the meaning of partition tables (`diskmap`).

use crate::{Encryption, Error, MAX_CELL_SIZE, MIN_CELL_SIZE, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// Most regions of a disk.
pub const MAX_REGIONS: usize = 65_536;
/// Method of a region that is listed and not in the image.
pub const ABSENT: &str = "none";
/// Most bytes of partition tables.
pub const MAX_TABLE_BYTES: usize = 32 << 20;

/// The layout of one imaged disk. Unknown fields are ignored by readers of the same
/// format version, so that fields can be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// When the backup began, RFC 3339, UTC, by the clock of the machine.
    pub created: String,
    /// Program and version that made the image.
    pub tool: String,
    /// The machine, as far as it is known.
    #[serde(default)]
    pub machine: Machine,
    /// The disk.
    pub disk: Disk,
    /// Grid on which regions are cut, in bytes; a power of two, 64 KiB to 4 MiB.
    pub cell_size: u32,
    /// The partition table.
    pub table: Table,
    /// What is in the image, ascending by start, not overlapping.
    pub regions: Vec<Region>,
    /// What was worth a warning at backup, as `code: text`.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// How the image is encrypted, from version 3 on.
    #[serde(default)]
    pub encryption: Option<Encryption>,
}

/// The machine that was imaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Name on the server, or host name.
    #[serde(default)]
    pub name: String,
    /// SMBIOS UUID.
    #[serde(default)]
    pub uuid: String,
    /// Vendor and product.
    #[serde(default)]
    pub model: String,
    /// `bios` or `uefi`; empty if unknown.
    #[serde(default)]
    pub firmware: String,
    /// CPU architecture.
    #[serde(default)]
    pub architecture: String,
}

/// The disk that was imaged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Physical sector size in bytes.
    #[serde(default)]
    pub physical_sector_size: u32,
    /// Vendor and model.
    #[serde(default)]
    pub model: String,
    /// Serial number.
    #[serde(default)]
    pub serial: String,
    /// World wide name.
    #[serde(default)]
    pub wwn: String,
}

/// The partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// `gpt`, `mbr` or `none`.
    pub kind: String,
    /// Its raw bytes, boot code included.
    pub blobs: Vec<Blob>,
}

/// Raw bytes of a partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Byte offset on the disk.
    pub offset: u64,
    /// The bytes (base64 in JSON).
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub data: Vec<u8>,
}

fn to_base64<S: serde::Serializer>(data: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

fn from_base64<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// A part of the disk that is in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// `partition`, `gap` (between table and partitions) or `whole` (no table).
    pub kind: String,
    /// Partition number.
    #[serde(default)]
    pub number: Option<u32>,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Partition type: `0x83` or a GUID.
    #[serde(default, rename = "type")]
    pub part_type: String,
    /// The type in words.
    #[serde(default)]
    pub type_name: String,
    /// Name in the table (GPT).
    #[serde(default)]
    pub name: String,
    /// Unique GUID (GPT).
    #[serde(default)]
    pub guid: String,
    /// File system, empty if unknown.
    #[serde(default)]
    pub file_system: String,
    /// Label of the file system.
    #[serde(default)]
    pub label: String,
    /// UUID of the file system.
    #[serde(default)]
    pub uuid: String,
    /// `used`, `full` or `none`: the region is not in the image (version 2).
    pub method: String,
    /// Why this method.
    #[serde(default)]
    pub reason: String,
    /// Bytes that are in the image.
    pub used_bytes: u64,
}

impl Region {
    /// Whether the region is only listed: the backup was asked for other partitions.
    pub fn is_absent(&self) -> bool {
        self.method == ABSENT
    }
}

impl Layout {
    /// Oldest version of the format that can say what the layout says.
    pub fn version(&self) -> Version {
        if self.encryption.is_some() {
            Version::V3
        } else if self.is_partial() {
            Version::V2
        } else {
            Version::V1
        }
    }

    /// Whether the image holds chosen partitions of its disk only.
    pub fn is_partial(&self) -> bool {
        self.regions.iter().any(Region::is_absent)
    }

    /// The bytes that are stored and hashed.
    pub fn to_json(&self) -> Vec<u8> {
        // Plain data without maps that have non-text keys: serialising cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Parses and checks the bytes of a layout section.
    pub fn parse(json: &[u8], offset: u64) -> Result<Self, Error> {
        let layout: Layout = serde_json::from_slice(json)
            .map_err(|e| Error::damaged(format!("the layout cannot be read: {e}"), offset))?;
        match layout.problem() {
            None => Ok(layout),
            Some(problem) => Err(Error::damaged(
                format!("the layout is impossible: {problem}"),
                offset,
            )),
        }
    }

    /// The first rule that the layout breaks.
    fn problem(&self) -> Option<String> {
        let cell_size_fits = self.cell_size.is_power_of_two()
            && (MIN_CELL_SIZE..=MAX_CELL_SIZE).contains(&self.cell_size);
        if !cell_size_fits {
            return Some(format!("a grid of {} bytes", self.cell_size));
        }
        if let Some(problem) = self.encryption.as_ref().and_then(Encryption::problem) {
            return Some(problem);
        }
        let sector = self.disk.sector_size;
        if !matches!(sector, 512 | 1024 | 2048 | 4096) {
            return Some(format!("sectors of {sector} bytes"));
        }
        if !matches!(self.table.kind.as_str(), "gpt" | "mbr" | "none") {
            return Some(format!("a partition table of kind {:?}", self.table.kind));
        }
        if self.regions.len() > MAX_REGIONS {
            return Some(format!("{} regions", self.regions.len()));
        }
        let size = self.disk.size_bytes;
        let mut table_bytes = 0usize;
        for blob in &self.table.blobs {
            table_bytes = table_bytes.saturating_add(blob.data.len());
            let end = blob.offset.checked_add(blob.data.len() as u64);
            if end.is_none_or(|end| end > size) || table_bytes > MAX_TABLE_BYTES {
                return Some("its partition table does not fit the disk".into());
            }
        }
        let mut last_end = 0;
        for (position, region) in self.regions.iter().enumerate() {
            let end = region.start.checked_add(region.size);
            let Some(end) = end.filter(|&end| region.start >= last_end && end <= size) else {
                return Some(format!(
                    "region {position} overlaps another one or leaves the disk"
                ));
            };
            if region.is_absent() && region.used_bytes > 0 {
                return Some(format!("region {position} is absent and has used bytes"));
            }
            if region.used_bytes > region.size {
                return Some(format!("region {position} has more used bytes than bytes"));
            }
            last_end = end;
        }
        None
    }

    /// Sum of the regions' used bytes.
    pub fn used_bytes(&self) -> u64 {
        self.regions
            .iter()
            .fold(0, |sum, region| sum.saturating_add(region.used_bytes))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small layout with one region of `size` bytes.
    pub(crate) fn small(size: u64) -> Layout {
        Layout {
            created: "2026-01-02T03:04:05Z".into(),
            tool: "test".into(),
            disk: Disk {
                size_bytes: size + 4096,
                sector_size: 512,
                ..Disk::default()
            },
            cell_size: 1 << 16,
            table: Table {
                kind: "mbr".into(),
                blobs: vec![Blob {
                    offset: 0,
                    data: vec![7; 512],
                }],
            },
            regions: vec![Region {
                kind: "partition".into(),
                start: 4096,
                size,
                method: "used".into(),
                used_bytes: size,
                ..Region::default()
            }],
            ..Layout::default()
        }
    }

    #[test]
    fn json_is_the_identity() {
        let layout = small(1 << 20);
        assert_eq!(Layout::parse(&layout.to_json(), 0).unwrap(), layout);
    }

    #[test]
    fn impossible_layouts_are_refused() {
        let breaks: &[fn(&mut Layout)] = &[
            |l| l.cell_size = 3 << 16,
            |l| l.cell_size = 1 << 30,
            |l| l.disk.sector_size = 520,
            |l| l.disk.size_bytes = 5000,
            |l| l.table.kind = "apm".into(),
            |l| l.table.blobs[0].offset = u64::MAX,
            |l| l.regions[0].start = u64::MAX,
            |l| l.regions[0].used_bytes += 1,
            |l| l.regions[0].method = "none".into(),
            |l| l.regions.push(l.regions[0].clone()),
            |l| l.encryption = Some(Encryption::default()),
        ];
        for (number, change) in breaks.iter().enumerate() {
            let mut layout = small(1 << 20);
            change(&mut layout);
            assert!(
                Layout::parse(&layout.to_json(), 0).is_err(),
                "break {number}"
            );
        }
    }
}
