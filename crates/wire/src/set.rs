//! What is said of several disks in one job.
//!
//! Owns: which image goes to which disk, and which disks were begun. Does not own: the job
//! ([`crate::message`]).

use crate::message::{DiskInfo, DiskSelector};
use serde::{Deserialize, Serialize};

/// One disk of a restore of several, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskImage {
    /// The disk.
    pub disk: DiskSelector,
    /// Id of the image.
    pub image: String,
    /// Root hash of its manifest, hex.
    pub root: String,
}

/// The target is about to write: stored before the first byte is changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginWrite {
    /// The disk that will be overwritten.
    pub disk: DiskInfo,
    /// Position of the disk in a job of several.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub part: u32,
    /// The other disks of the job that were begun; kept by the server, never sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<BeginWrite>,
}

impl BeginWrite {
    /// The first one that was begun, and the others.
    pub fn all(&self) -> impl Iterator<Item = &BeginWrite> {
        std::iter::once(self).chain(&self.others)
    }
}

impl From<DiskInfo> for BeginWrite {
    fn from(disk: DiskInfo) -> Self {
        BeginWrite {
            disk,
            part: 0,
            others: Vec::new(),
        }
    }
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}
