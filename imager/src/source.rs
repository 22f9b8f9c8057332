//! A disk that is read: opened, measured and handed to the parsers.
//!
//! Owns: what a backup reads from ([`Disk`]), the bridge from it to `diskmap`, and what counts
//! for a raw file's sector size. Does not own: what is read when, what a table says of sectors
//! (`sectors`).

use crate::progress::ProgressSink;
use crate::recover::{self, ReadAt};
use crate::{in_use, report, sectors};
use blockdev::{Device, Kind};
use diskmap::{DiskRead, Geometry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// What a backup reads from: a device, or what another program made of one.
pub trait Disk: ReadAt {
    /// Size in bytes.
    fn size_bytes(&self) -> u64;
    /// Logical sector size in bytes.
    fn sector_size(&self) -> u32;
    /// All of it will be read in order.
    fn advise_sequential(&self) {}
    /// This will be read soon.
    fn advise_willneed(&self, _offset: u64, _len: u64) {}
    /// The same disk past the page cache, if that is another thing.
    fn past_the_cache(&self) -> Option<Device> {
        None
    }
    /// Refuses what something may write to by now: asked when all was read.
    fn refuse_if_written_now(&self) -> Result<(), Report> {
        Ok(())
    }
}

impl Disk for Device {
    fn size_bytes(&self) -> u64 {
        Device::size_bytes(self)
    }
    fn sector_size(&self) -> u32 {
        Device::sector_size(self)
    }
    fn advise_sequential(&self) {
        Device::advise_sequential(self);
    }
    fn advise_willneed(&self, offset: u64, len: u64) {
        Device::advise_willneed(self, offset, len);
    }
    fn past_the_cache(&self) -> Option<Device> {
        recover::past_the_cache(self)
    }
    fn refuse_if_written_now(&self) -> Result<(), Report> {
        in_use::refuse_if_written_now(self.path())
    }
}

/// A disk as the parsers read it.
pub struct Reader<'a>(pub &'a dyn Disk);

impl DiskRead for Reader<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        recover::read_all(self.0, offset, buf)
    }
}

/// A disk as the parsers read it while a job runs: once the job is to stop, every read
/// fails, so that no scan goes on for minutes. Its outcome means nothing then.
pub struct Watched<'a>(pub &'a dyn Disk, pub &'a dyn ProgressSink);

impl DiskRead for Watched<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.1.interrupted() {
            return Err(io::Error::other("the job is to stop"));
        }
        recover::read_all(self.0, offset, buf)
    }
}

/// Opens a disk for reading.
pub fn open(path: &Path, sector_size: Option<u32>) -> Result<Device, Report> {
    let mut device =
        Device::open_read(path).map_err(|e| report::open(&e, DiskState::NotInvolved))?;
    settle_sector_size(&mut device, sector_size, None)?;
    Ok(device)
}

/// Gives a raw file its sector size: the one that was asked for, else the one at which a
/// GPT stands, else `otherwise`, else 512. A block device knows its own.
pub fn settle_sector_size(
    device: &mut Device,
    asked: Option<u32>,
    otherwise: Option<u32>,
) -> Result<(), Report> {
    if device.kind() == Kind::Block {
        return match asked {
            Some(size) if size != device.sector_size() => Err(Report::new(
                Code::SectorSizeMismatch,
                format!(
                    "--sector-size {size}, but the device has {}",
                    device.sector_size()
                ),
                DiskState::Untouched,
            )
            .with_advice("Leave the option out: a device knows its sector size.")),
            _ => Ok(()),
        };
    }
    let size = asked.or_else(|| sectors::of_gpt(device)).or(otherwise);
    device.set_sector_size(size.unwrap_or(512));
    Ok(())
}

/// Whether two paths lead to one file or device.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// The disk's geometry; whole sectors only.
pub fn geometry(device: &dyn Disk) -> Geometry {
    Geometry {
        size_bytes: device.size_bytes(),
        sector_size: device.sector_size(),
    }
}
