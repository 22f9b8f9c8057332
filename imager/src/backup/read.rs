//! Reading the used bytes of a cell.
//!
//! Owns: joining near extents into one read, and what happens when a read fails: the job
//! ends with the addresses, or goes on and remembers them. Does not own: which cells there
//! are, how often is tried (`recover`).

use super::readers::stop_if_asked;
use crate::progress::ProgressSink;
use crate::recover::ReadAt;
use crate::source::Disk;
use crate::{bad_ranges, recover};
use blockdev::{AlignedBuf, Device};
use image::CellMap;
use image::bad::{self, BadRange};
use image::layout::Layout;
use std::io;
use std::ops::Range;
use wire::{Code, DiskState, Report};

/// A hole up to this long is read over: one call costs more than copying it.
const READ_OVER: u32 = 32 << 10;
/// The same past the page cache, where each call waits for the disk.
const READ_OVER_DIRECT: u32 = 256 << 10;
/// Direct reads start and end at multiples of this.
const ALIGN: u64 = 4096;
/// How far the kernel is asked to read ahead, in bytes.
const READ_AHEAD: u64 = 8 << 20;

/// Reads cells of a disk in order.
pub struct CellReader<'a> {
    device: &'a dyn Disk,
    /// The device past the page cache, if it is a device.
    medium: Option<(Device, AlignedBuf)>,
    layout: &'a Layout,
    skip_bad: bool,
    progress: &'a dyn ProgressSink,
    bad: Vec<BadRange>,
    /// A place that could be read.
    good: Option<u64>,
    scratch: Vec<u8>,
    asked_until: u64,
}

impl<'a> CellReader<'a> {
    /// A reader for the regions of `layout`. `skip_bad`: what cannot be read becomes zeros
    /// and is remembered, instead of ending the job.
    pub fn new(
        device: &'a dyn Disk,
        layout: &'a Layout,
        skip_bad: bool,
        progress: &'a dyn ProgressSink,
    ) -> Self {
        // Through the cache each page is found, charged and dropped again, which costs as
        // much as hashing it; nobody reads it twice.
        let room = layout.cell_size as usize + 2 * ALIGN as usize;
        let medium = device
            .past_the_cache()
            .map(|medium| (medium, AlignedBuf::new(room)));
        if medium.is_none() {
            device.advise_sequential();
        }
        CellReader {
            device,
            medium,
            layout,
            skip_bad,
            progress,
            bad: Vec::new(),
            good: None,
            scratch: Vec::new(),
            asked_until: 0,
        }
    }

    /// Whether it reads past the page cache.
    pub fn is_direct(&self) -> bool {
        self.medium.is_some()
    }

    /// What could not be read, ascending and joined.
    pub fn into_bad(self) -> Vec<BadRange> {
        bad::joined(self.bad)
    }

    /// Puts the cell's used bytes into `plain`.
    pub fn read(&mut self, cell: &CellMap, plain: &mut Vec<u8>) -> Result<(), Report> {
        let region = self.layout.regions.get(cell.region as usize);
        let base =
            region.map_or(0, |region| region.start) + cell.cell * u64::from(self.layout.cell_size);
        if self.medium.is_none() {
            self.read_ahead(base);
        }
        let read_over = match self.medium {
            Some(_) => READ_OVER_DIRECT,
            None => READ_OVER,
        };
        let total = cell.used.len() as usize;
        // Old contents are overwritten below; only growth is zeroed.
        plain.resize(total, 0);
        let mut filled = 0;
        let extents = cell.used.extents();
        let mut at = 0;
        while let Some(&(start, len)) = extents.get(at) {
            let mut end = start + len;
            let mut next = at + 1;
            while let Some(&(s, l)) = extents.get(next).filter(|&&(s, _)| s - end <= read_over) {
                end = s + l;
                next += 1;
            }
            let from = base + u64::from(start);
            if next == at + 1 {
                let part = &mut plain[filled..filled + len as usize];
                self.fill(cell, base, from, part)?;
                filled += len as usize;
            } else {
                let mut scratch = std::mem::take(&mut self.scratch);
                scratch.resize((end - start) as usize, 0);
                // What lies between the extents may be unreadable; nobody wants it.
                let joined = self.read_at(from, &mut scratch).is_ok();
                for &(s, l) in &extents[at..next] {
                    let part = &mut plain[filled..filled + l as usize];
                    if joined {
                        part.copy_from_slice(&scratch[(s - start) as usize..][..l as usize]);
                    } else {
                        self.fill(cell, base, base + u64::from(s), part)?;
                    }
                    filled += l as usize;
                }
                self.scratch = scratch;
            }
            at = next;
        }
        Ok(())
    }

    /// Reads a range that holds used bytes of the cell, which starts at `base`.
    fn fill(&mut self, cell: &CellMap, base: u64, from: u64, buf: &mut [u8]) -> Result<(), Report> {
        let mut result = self.read_at(from, buf);
        if result.as_ref().is_err_and(is_not_for_direct) {
            // What the device takes only through the cache is read through it from now on.
            self.medium = None;
            result = self.device.read_at(from, buf);
        }
        match result {
            Ok(()) => {
                self.good.get_or_insert(from);
                Ok(())
            }
            Err(error) => self.recover(cell, base, from, buf, error),
        }
    }

    /// Reads past the cache, if the disk can be read so.
    fn read_at(&mut self, from: u64, buf: &mut [u8]) -> io::Result<()> {
        let Some((medium, aligned)) = &mut self.medium else {
            return self.device.read_at(from, buf);
        };
        let is_aligned = |at: u64| at.is_multiple_of(ALIGN);
        if is_aligned(buf.as_ptr().addr() as u64) && is_aligned(from | buf.len() as u64) {
            return medium.read_exact_at(from, buf); // no copy needed
        }
        if from + buf.len() as u64 > medium.size_bytes() {
            return medium.read_exact_at(from, buf); // says so
        }
        let first = from / ALIGN * ALIGN;
        let skip = (from - first) as usize;
        let end = (from + buf.len() as u64).next_multiple_of(ALIGN);
        let whole = (end.min(medium.size_bytes()) - first) as usize;
        let Some(aligned) = aligned.get_mut(..whole) else {
            return medium.read_exact_at(from, buf);
        };
        medium.read_exact_at(first, aligned)?;
        buf.copy_from_slice(&aligned[skip..skip + buf.len()]);
        Ok(())
    }

    /// Reads again what failed with `first`, in smaller and smaller pieces.
    fn recover(
        &mut self,
        cell: &CellMap,
        base: u64,
        from: u64,
        buf: &mut [u8],
        first: io::Error,
    ) -> Result<(), Report> {
        let failed = |error: &io::Error| {
            Report::new(Code::ReadError, error.to_string(), DiskState::NotInvolved)
        };
        if !recover::is_medium(&first) {
            return Err(failed(&first));
        }
        let medium = self.medium.as_ref();
        let device = medium.map_or(self.device, |(medium, _)| medium as &dyn Disk);
        let sector = self.device.sector_size().max(512) as usize;
        let unread = recover::read(&Stopping(device, self.progress), sector, from, buf);
        stop_if_asked(self.progress)?;
        let unread = unread.map_err(|error| failed(&error))?;
        let Some(error) = unread.error else {
            return Ok(());
        };
        let ranges: Vec<BadRange> = unread
            .ranges
            .iter()
            .flat_map(|range| used_part(cell, base, self.layout.cell_size, range))
            .collect();
        if ranges.is_empty() {
            return Ok(()); // only what is not copied: the space between extents
        }
        if !self.skip_bad {
            let found = format!(
                "cannot be read: {}; {error}",
                bad_ranges::describe(self.layout, &bad::joined(ranges))
            );
            return Err(
                Report::new(Code::ReadError, found, DiskState::NotInvolved).with_advice(
                    "Replace the disk soon. --skip-bad saves what can be read and records the rest as lost.",
                ),
            );
        }
        self.refuse_if_gone(device, buf.len() as u64, &ranges, &error)?;
        self.bad.extend(ranges);
        if self.bad.len() > bad::MAX_BAD_RANGES {
            let found = format!("more than {} places cannot be read", bad::MAX_BAD_RANGES);
            return Err(Report::new(Code::ReadError, found, DiskState::NotInvolved));
        }
        Ok(())
    }

    /// A disk that gave up answers every read with an error, like one bad sector after the
    /// other: then nothing more is to be had, and the rest of it is not bad.
    fn refuse_if_gone(
        &self,
        device: &dyn Disk,
        asked: u64,
        ranges: &[BadRange],
        error: &io::Error,
    ) -> Result<(), Report> {
        if bad::total(ranges) < asked {
            return Ok(());
        }
        let Some(good) = self.good else {
            return Ok(());
        };
        let mut sector = vec![0; self.device.sector_size().max(512) as usize];
        if device.read_at(good, &mut sector).is_ok() {
            return Ok(());
        }
        let found = format!(
            "the disk answers no more: byte {good}, which it gave before, cannot be read \
             either; {error}"
        );
        Err(Report::new(Code::ReadError, found, DiskState::NotInvolved)
            .with_advice("Check cable and power of the disk, and try again."))
    }

    /// Keeps the kernel reading ahead, so that the disk works while the CPU does.
    fn read_ahead(&mut self, base: u64) {
        if base + READ_AHEAD / 2 >= self.asked_until || base + READ_AHEAD < self.asked_until {
            let from = base.max(self.asked_until.min(base + READ_AHEAD));
            let until = base + READ_AHEAD;
            self.device
                .advise_willneed(from, until.saturating_sub(from));
            self.asked_until = until;
        }
    }
}

/// A disk that gives nothing more once the job is to stop: the places of a bad area take
/// seconds each.
struct Stopping<'a>(&'a dyn Disk, &'a dyn ProgressSink);

impl ReadAt for Stopping<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.1.interrupted() {
            return Err(io::Error::other("the job is to stop"));
        }
        self.0.read_at(offset, buf)
    }
}

/// Whether the device refuses the way it is read, not the place.
fn is_not_for_direct(error: &io::Error) -> bool {
    let number = blockdev::Error::of(error).map_or(error.raw_os_error(), |e| e.raw_os_error());
    number == Some(nix::libc::EINVAL)
}

/// The parts of an unreadable range of the disk that are used bytes of the cell, whose
/// first byte is at `base`.
fn used_part(cell: &CellMap, base: u64, cell_size: u32, range: &Range<u64>) -> Vec<BadRange> {
    let offset = cell.cell * u64::from(cell_size);
    let (from, to) = (
        range.start.saturating_sub(base),
        range.end.saturating_sub(base),
    );
    let extents = cell.used.extents().iter();
    extents
        .filter_map(|&(start, len)| {
            let (start, end) = (u64::from(start), u64::from(start) + u64::from(len));
            let (first, last) = (from.max(start), to.min(end));
            (first < last).then(|| BadRange {
                region: cell.region,
                start: offset + first,
                len: last - first,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{CellReader, Disk};
    use crate::progress::{ProgressSink, Silent};
    use image::CellMap;
    use image::cells::Used;
    use image::layout::{Layout, Region};
    use std::sync::atomic::{AtomicU32, Ordering};
    use testkit::faulty::{Fault, FaultyDisk};
    use wire::{Code, Step};

    const CELL: u32 = 1 << 20;

    impl Disk for FaultyDisk<Vec<u8>> {
        fn size_bytes(&self) -> u64 {
            u64::from(CELL)
        }
        fn sector_size(&self) -> u32 {
            512
        }
    }

    /// A disk of one cell, with used bytes at both sides of a hole that cannot be read.
    fn disk() -> (FaultyDisk<Vec<u8>>, Layout, CellMap) {
        let content: Vec<u8> = (0..CELL).map(|n| (n % 251) as u8 + 1).collect();
        let disk = FaultyDisk::new(content);
        let layout = Layout {
            cell_size: CELL,
            regions: vec![Region {
                size: u64::from(CELL),
                ..Region::default()
            }],
            ..Layout::default()
        };
        let used = Used::new(vec![(0, 4096), (16384, 4096)], CELL).unwrap();
        let cell = CellMap {
            region: 0,
            cell: 0,
            used,
        };
        (disk, layout, cell)
    }

    #[test]
    fn what_cannot_be_read_between_extents_is_left_alone() {
        let (disk, layout, cell) = disk();
        let disk = disk.with(8192..12288, Fault::ReadError);
        let mut reader = CellReader::new(&disk, &layout, false, &Silent);
        let mut plain = Vec::new();
        reader.read(&cell, &mut plain).unwrap();
        let wanted: Vec<u8> = (0..4096u32)
            .chain(16384..20480)
            .map(|n| (n % 251) as u8 + 1)
            .collect();
        assert!(plain == wanted);
        // Once together, then each for itself; not sector by sector.
        assert_eq!(disk.reads(), [0..20480, 0..4096, 16384..20480]);
    }

    /// Wants the job to stop after it was asked so often.
    struct StopsAfter(AtomicU32);

    impl ProgressSink for StopsAfter {
        fn step(&self, _: Step, _: u64) {}
        fn advance(&self, _: u64, _: u64) {}
        fn note(&self, _: &str) {}
        fn interrupted(&self) -> bool {
            let left = &self.0;
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1))
                .is_err()
        }
    }

    #[test]
    fn an_interrupt_is_heard_while_a_bad_place_is_read_again() {
        let (disk, layout, cell) = disk();
        let disk = disk.with(0..8192, Fault::ReadError);
        let stops = StopsAfter(AtomicU32::new(3));
        let mut reader = CellReader::new(&disk, &layout, true, &stops);
        let report = reader.read(&cell, &mut Vec::new()).unwrap_err();
        assert_eq!(report.code, Code::Interrupted);
        assert!(disk.reads().len() < 8, "{:?}", disk.reads());
    }
}
