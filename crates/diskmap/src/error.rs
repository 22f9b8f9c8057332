//! Why a disk cannot be mapped or a table cannot be moved.
//!
//! Owns: the two error types and the check code that each case stands for. Does
//! not own: headlines and advice (the error catalogue's).

use std::io;

/// A scan that cannot give a map. Nothing was written: a scan only reads.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScanError {
    /// Sectors that hold a table or file system metadata cannot be read.
    #[error("cannot read at byte {offset}: {source}")]
    Read {
        /// Byte offset on the disk.
        offset: u64,
        /// What the reader said.
        source: io::Error,
    },
    /// No copy of the GUID partition table is good.
    #[error("the GUID partition table is damaged: {detail}")]
    GptDamaged {
        /// What was found.
        detail: String,
    },
    /// The MBR or the chain of logical partitions contradicts itself.
    #[error("the MBR partition table is damaged: {detail}")]
    MbrDamaged {
        /// What was found.
        detail: String,
    },
    /// Partitions reach beyond the end of the disk.
    #[error("the partition table needs {needed} bytes, the disk has {actual} bytes")]
    DiskSmallerThanLayout {
        /// Bytes that the table needs.
        needed: u64,
        /// Bytes that the disk has.
        actual: u64,
    },
    /// A logical sector size other than 512, 1024, 2048 or 4096.
    #[error("sectors of {size} bytes are not supported (only 512, 1024, 2048 and 4096)")]
    SectorSizeUnsupported {
        /// Logical sector size in bytes.
        size: u32,
    },
    /// Only with [`crate::ScanOptions::strict`]: a file system contradicts itself.
    #[error("the file system of partition {partition} is damaged: {detail}")]
    FsDamaged {
        /// Partition number; 0 is the whole disk.
        partition: u32,
        /// What was found.
        detail: String,
    },
    /// Only with [`crate::ScanOptions::strict`]: a file system was not cleanly unmounted.
    #[error("the file system of partition {partition} is not clean: {detail}")]
    FsDirty {
        /// Partition number; 0 is the whole disk.
        partition: u32,
        /// What was found.
        detail: String,
    },
}

impl ScanError {
    /// The check code, as `gpt-damaged`.
    pub fn code(&self) -> &'static str {
        match self {
            ScanError::Read { .. } => "read-error",
            ScanError::GptDamaged { .. } => "gpt-damaged",
            ScanError::MbrDamaged { .. } => "mbr-damaged",
            ScanError::DiskSmallerThanLayout { .. } => "disk-smaller-than-layout",
            ScanError::SectorSizeUnsupported { .. } => "sector-size-unsupported",
            ScanError::FsDamaged { .. } => "fs-damaged",
            ScanError::FsDirty { .. } => "fs-dirty",
        }
    }
}

/// Table bytes (for example from an image) that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The bytes are not a valid table of the stated kind.
    #[error("the partition table is damaged: {detail}")]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// The table needs a larger disk.
    #[error("the partition table needs {needed} bytes, the disk has {actual} bytes")]
    TooSmall {
        /// Bytes that the table needs.
        needed: u64,
        /// Bytes that the disk has.
        actual: u64,
    },
    /// A logical sector size other than 512, 1024, 2048 or 4096.
    #[error("sectors of {size} bytes are not supported (only 512, 1024, 2048 and 4096)")]
    SectorSizeUnsupported {
        /// Logical sector size in bytes.
        size: u32,
    },
    /// There is no partition of that number, or it only holds logical ones.
    #[error("there is no partition {number} with data")]
    NoSuchPartition {
        /// The number.
        number: u32,
    },
    /// What is asked for cannot be done to this table.
    #[error("{detail}")]
    Unfit {
        /// Why.
        detail: String,
    },
}

impl From<ScanError> for TableError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::DiskSmallerThanLayout { needed, actual } => {
                TableError::TooSmall { needed, actual }
            }
            ScanError::SectorSizeUnsupported { size } => TableError::SectorSizeUnsupported { size },
            ScanError::GptDamaged { detail } | ScanError::MbrDamaged { detail } => {
                TableError::Damaged { detail }
            }
            other => TableError::Damaged {
                detail: other.to_string(),
            },
        }
    }
}
