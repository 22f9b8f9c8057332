//! A disk that a parser reads out of a file.
//!
//! Owns: the bridge from `foreign` to the backup, and remembering what was wrong: on the way
//! through a scan the kind of an error is lost. Does not own: the formats.

use crate::recover::ReadAt;
use crate::report;
use crate::sectors;
use crate::source::Disk;
use diskmap::DiskRead;
use std::io;
use std::sync::{Mutex, PoisonError};
use wire::Report;

/// A foreign image as a disk.
pub struct ForeignDisk {
    name: String,
    inner: Box<dyn DiskRead>,
    size_bytes: u64,
    sector_size: u32,
    failure: Mutex<Option<Report>>,
}

impl ForeignDisk {
    /// The disk of `size_bytes`; `name` is what the image is called. Without a sector size it
    /// is that of a GPT, or 512.
    pub fn new(
        name: String,
        inner: Box<dyn DiskRead>,
        size_bytes: u64,
        sector_size: Option<u32>,
    ) -> Self {
        let mut disk = ForeignDisk {
            name,
            inner,
            size_bytes,
            sector_size: 512,
            failure: Mutex::new(None),
        };
        let found = sector_size.or_else(|| sectors::of_gpt(&disk));
        disk.sector_size = found.unwrap_or(512);
        disk
    }

    /// What was wrong first, if anything was.
    pub fn failure(&self) -> Option<Report> {
        let failure = self.failure.lock();
        failure.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ReadAt for ForeignDisk {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let result = self.inner.read_exact_at(offset, buf);
        if let Err(error) = &result
            && let Some(known) = foreign::Error::of(error)
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| report::foreign(&self.name, known));
        }
        result
    }
}

impl Disk for ForeignDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
    fn sector_size(&self) -> u32 {
        self.sector_size
    }
}
