//! Getting out of a failing disk what it still gives.
//!
//! Owns: smaller and smaller reads, down to one sector, and how often each is tried.
//! Does not own: what becomes of the sectors that stay unreadable.

use crate::source::Disk;
use blockdev::{Device, Kind};
use std::io;
use std::ops::Range;

/// Reads get smaller in these steps, in bytes; the last step is one sector. A drive with
/// large physical sectors fails by 4 KiB, a remapped track by some tens.
const STEPS: [usize; 2] = [64 << 10, 4 << 10];
/// How often a single sector is tried before it is given up.
pub const SECTOR_TRIES: u32 = 4;

/// Outcome of [`read`].
#[derive(Debug, Default)]
pub struct Unread {
    /// Byte ranges of the disk that stayed unreadable: ascending, not touching.
    pub ranges: Vec<Range<u64>>,
    /// What the disk said first.
    pub error: Option<io::Error>,
}

impl Unread {
    fn push(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.ranges.push(range),
        }
    }
}

/// Whether an error says that the medium is bad there; everything else (a disk that was
/// pulled, the end of a file) is no reason to go on.
pub fn is_medium(error: &io::Error) -> bool {
    match blockdev::Error::of(error) {
        Some(error) => error.kind() == blockdev::ErrorKind::Medium,
        None => error.raw_os_error() == Some(nix::libc::EIO),
    }
}

/// What can be read at a place.
pub trait ReadAt: Send + Sync {
    /// Fills `buf` from `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for Device {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(offset, buf)
    }
}

/// A block device past the page cache, which fails by whole pages and keeps nothing of a
/// bad one; none for files, and where it cannot be had.
pub fn past_the_cache(device: &Device) -> Option<Device> {
    match device.kind() {
        Kind::Block => Device::open_direct_read(device.path()).ok(),
        Kind::File => None,
    }
}

/// Reads all of a range, again and in smaller pieces if it has to be.
///
/// # Errors
/// What the disk said of the first sector that it does not give.
pub fn read_all(device: &dyn Disk, offset: u64, buf: &mut [u8]) -> io::Result<()> {
    let first = match device.read_at(offset, buf) {
        Err(error) if is_medium(&error) => error,
        result => return result,
    };
    let medium = device.past_the_cache();
    let sector = device.sector_size().max(512) as usize;
    let again = medium.as_ref().map_or(device, |medium| medium as &dyn Disk);
    let unread = read(again, sector, offset, buf)?;
    match unread.ranges.is_empty() {
        true => Ok(()),
        false => Err(unread.error.unwrap_or(first)),
    }
}

/// Fills `buf` from `offset` as far as the disk gives it, sectors that it does not give
/// with zeros.
///
/// # Errors
/// The first one that is no error of the medium.
pub fn read(
    disk: &(impl ReadAt + ?Sized),
    sector: usize,
    offset: u64,
    buf: &mut [u8],
) -> io::Result<Unread> {
    let mut unread = Unread::default();
    read_by_step(disk, sector, 0, offset, buf, &mut unread)?;
    Ok(unread)
}

fn read_by_step(
    disk: &(impl ReadAt + ?Sized),
    sector: usize,
    step: usize,
    offset: u64,
    buf: &mut [u8],
    unread: &mut Unread,
) -> io::Result<()> {
    let size = STEPS.get(step).map_or(sector, |&size| size.max(sector));
    let mut rest = buf;
    let mut at = offset;
    while !rest.is_empty() {
        // Up to the next multiple of the size, where physical sectors and tracks start.
        let room = size - (at % size as u64) as usize;
        let (part, after) = rest.split_at_mut(room.min(rest.len()));
        let tries = if size == sector { SECTOR_TRIES } else { 1 };
        if let Err(error) = try_read(disk, at, part, tries) {
            if !is_medium(&error) {
                return Err(error);
            }
            if size == sector {
                part.fill(0);
                unread.push(at..at + part.len() as u64);
                unread.error.get_or_insert(error);
            } else {
                read_by_step(disk, sector, step + 1, at, part, unread)?;
            }
        }
        at += part.len() as u64;
        rest = after;
    }
    Ok(())
}

fn try_read(
    disk: &(impl ReadAt + ?Sized),
    offset: u64,
    buf: &mut [u8],
    tries: u32,
) -> io::Result<()> {
    let mut result = disk.read_at(offset, buf);
    for _ in 1..tries {
        match &result {
            Err(error) if is_medium(error) => result = disk.read_at(offset, buf),
            _ => break,
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::{ReadAt, SECTOR_TRIES, read};
    use diskmap::DiskRead;
    use std::io;
    use testkit::faulty::{Fault, FaultyDisk};

    impl ReadAt for FaultyDisk<Vec<u8>> {
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.read_exact_at(offset, buf)
        }
    }

    const SIZE: usize = 1 << 20;

    fn contents() -> Vec<u8> {
        (0..SIZE).map(|n| (n % 251) as u8 + 1).collect()
    }

    #[test]
    fn only_the_bad_sectors_are_missing() {
        for sector in [512, 4096] {
            let faults = [
                (5000, 5001),
                (65_535, 65_537),
                (300_000, 310_000),
                (SIZE - 1, SIZE),
            ];
            let mut disk = FaultyDisk::new(contents());
            let mut wanted: Vec<std::ops::Range<u64>> = Vec::new();
            for (from, to) in faults {
                disk = disk.with(from as u64..to as u64, Fault::ReadError);
                let first = from / sector * sector;
                wanted.push(first as u64..to.next_multiple_of(sector) as u64);
            }
            let mut buf = vec![7; SIZE];
            let unread = read(&disk, sector, 0, &mut buf).unwrap();
            assert_eq!(unread.ranges, wanted, "sectors of {sector}");
            assert_eq!(unread.error.unwrap().raw_os_error(), Some(5));
            let mut expected = contents();
            for range in wanted {
                expected[range.start as usize..range.end as usize].fill(0);
            }
            assert!(buf == expected, "sectors of {sector}: other bytes differ");
        }
    }

    #[test]
    fn a_sector_that_comes_late_is_not_lost() {
        // Each coarser read meets the fault once, then the sector all its tries but one.
        let met = 2 + (SECTOR_TRIES - 1);
        let disk = FaultyDisk::new(contents()).with_times(1024..1025, Fault::ReadError, met);
        let mut buf = vec![0; 8192];
        assert!(read(&disk, 512, 0, &mut buf).unwrap().ranges.is_empty());
        assert_eq!(buf, contents()[..8192]);
        let disk = FaultyDisk::new(contents()).with_times(1024..1025, Fault::ReadError, met + 1);
        let unread = read(&disk, 512, 0, &mut buf).unwrap();
        let missing = std::slice::from_ref(&(1024..1536));
        assert_eq!(unread.ranges, *missing, "one try less than it needs");
    }

    #[test]
    fn what_is_no_error_of_the_medium_ends_it() {
        let disk = FaultyDisk::new(contents()).with(4096..SIZE as u64, Fault::Short);
        let mut buf = vec![0; 8192];
        let error = read(&disk, 512, 0, &mut buf).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    }
}
