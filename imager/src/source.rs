//! A disk that is read: opened, measured and handed to the parsers.
//!
//! Owns: the bridge from `blockdev` to `diskmap`, and the choice of a raw file's sector
//! size. Does not own: what is read when.

use crate::progress::ProgressSink;
use crate::{recover, report};
use blockdev::{Device, Kind};
use diskmap::{DiskRead, Geometry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Sector sizes at which a table is looked for in a raw file.
const SECTOR_SIZES: [u32; 4] = [512, 4096, 2048, 1024];

/// A device as the parsers read it.
pub struct Reader<'a>(pub &'a Device);

impl DiskRead for Reader<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        recover::read_all(self.0, offset, buf)
    }
}

/// A device as the parsers read it while a job runs: once the job is to stop, every read
/// fails, so that no scan goes on for minutes. Its outcome means nothing then.
pub struct Watched<'a>(pub &'a Device, pub &'a dyn ProgressSink);

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
/// GPT header stands, else `otherwise`, else 512. A block device knows its own.
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
    let found = || {
        SECTOR_SIZES
            .into_iter()
            .find(|&size| gpt_header_at(device, u64::from(size)))
    };
    let size = asked.or_else(found).or(otherwise).unwrap_or(512);
    device.set_sector_size(size);
    Ok(())
}

fn gpt_header_at(device: &Device, offset: u64) -> bool {
    let mut signature = [0; 8];
    device.read_exact_at(offset, &mut signature).is_ok() && signature == *b"EFI PART"
}

/// Whether two paths lead to one file or device.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::metadata(a), std::fs::metadata(b)) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}

/// The device's geometry; whole sectors only.
pub fn geometry(device: &Device) -> Geometry {
    Geometry {
        size_bytes: device.size_bytes(),
        sector_size: device.sector_size(),
    }
}
