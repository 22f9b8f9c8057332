//! Finding the newest record of the log.
//!
//! Owns: the search that the kernel makes when it mounts. Does not own: what the record
//! says.
//!
//! The log is written round and round. The first word of each of its sectors is replaced
//! by the number of the round, the cycle, so that the place where the number falls by one
//! is the place to go on writing: the head. Records that were under way at a crash leave
//! holes near it; the kernel looks back as far as records can have been under way. The
//! kernel's answer is what counts for the copy, so its steps are followed one by one,
//! and where it would give up the log is not clean.

use super::super::super::Fault;
use super::record::{MAGIC, Record, data_sectors, header_sectors};
use super::{Log, SECTOR, STEP, dirty};
use crate::bytes::{array, be32};

/// Records that can be under way at once.
const UNDER_WAY: u64 = 8;
/// Most header sectors of a record.
const MOST_HEADERS: u64 = 8;

/// Where the next record would be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Less than the sectors of the log.
    pub sector: u64,
}

impl Head {
    /// The cycle in which the next record would be written, after `record`.
    pub fn cycle(self, record: &Record) -> u64 {
        // What starts behind the head was written before the log went round.
        u64::from(record.cycle) + u64::from(record.sector >= self.sector)
    }
}

impl Log<'_> {
    /// The head; `None` if the first sector was never written.
    pub(super) fn head(&self) -> Result<Option<Head>, Fault> {
        let end = self.sectors;
        let (first, last) = (self.cycle(0)?, self.cycle(end - 1)?);
        if first == 0 {
            return Ok(None);
        }
        if last == 0 {
            // Never written to the end: the head is where the zeros begin.
            let mut head = self.cycle_start(end - 1, 0)?;
            let scan = self.scan_sectors().min(head);
            let start = head - scan;
            head = self.find_cycle(start, scan, 0)?.unwrap_or(head);
            let Some(head) = self.after_record(start, head, 0)? else {
                return dirty("its log has no record at its start");
            };
            return Ok(Some(Head { sector: head }));
        }
        let (mut head, stop) = if first == last {
            (end, last.wrapping_sub(1))
        } else {
            (self.cycle_start(end - 1, last)?, last)
        };
        head = self.without_holes(head, stop)?;
        head = self.whole_records(head)?;
        Ok(Some(Head { sector: head % end }))
    }

    /// The record before the head.
    pub(super) fn last_record(&self, head: Head) -> Result<Record, Fault> {
        let most = (self.record_sectors() + MOST_HEADERS).min(self.sectors);
        for back in 1..=most {
            let sector = (head.sector + self.sectors - back) % self.sectors;
            if be32(&self.read(sector, 1)?, 0) == Some(MAGIC) {
                return self.record(sector);
            }
        }
        dirty("its log has no record before its end")
    }

    /// Most data sectors of a record.
    fn record_sectors(&self) -> u64 {
        (if self.v2 { 256 << 10 } else { 32 << 10 }) / SECTOR
    }

    /// Most sectors that can be under way at once.
    fn scan_sectors(&self) -> u64 {
        UNDER_WAY * self.record_sectors()
    }

    /// The cycle with which a sector was written.
    fn cycle(&self, sector: u64) -> Result<u32, Fault> {
        Ok(cycle(&self.read(sector, 1)?))
    }

    /// The first sector with a cycle that `last` has, if the cycles before it are others:
    /// a search by halves, which holes may mislead.
    fn cycle_start(&self, mut last: u64, cycle: u32) -> Result<u64, Fault> {
        let mut first = 0;
        while last - first > 1 {
            let middle = first.midpoint(last);
            if self.cycle(middle)? == cycle {
                last = middle;
            } else {
                first = middle;
            }
        }
        Ok(last)
    }

    /// The first of `count` sectors from `start` on that has the cycle `wanted`.
    fn find_cycle(&self, start: u64, count: u64, wanted: u32) -> Result<Option<u64>, Fault> {
        let step = STEP / SECTOR;
        let end = start + count;
        for at in (start..end).step_by(step as usize) {
            let bytes = self.read(at, step.min(end - at))?;
            let mut sectors = bytes.chunks(SECTOR as usize);
            if let Some(found) = sectors.position(|sector| cycle(sector) == wanted) {
                return Ok(Some(at + found as u64));
            }
        }
        Ok(None)
    }

    /// The head before the first hole that records under way have left.
    fn without_holes(&self, head: u64, stop: u32) -> Result<u64, Fault> {
        let scan = self.scan_sectors().min(self.sectors);
        if head >= scan {
            return Ok(self.find_cycle(head - scan, scan, stop)?.unwrap_or(head));
        }
        let tail = scan - head;
        let older = stop.wrapping_sub(1);
        if let Some(hole) = self.find_cycle(self.sectors - tail, tail, older)? {
            return Ok(hole);
        }
        Ok(self.find_cycle(0, head, stop)?.unwrap_or(head))
    }

    /// The head before a record that is not all there.
    fn whole_records(&self, head: u64) -> Result<u64, Fault> {
        let scan = self.record_sectors();
        let start = head.saturating_sub(scan);
        if let Some(head) = self.after_record(start, head, 0)? {
            return Ok(head);
        }
        // The newest record begins before the end of the log and goes on at its start.
        let Some(start) = (self.sectors + head).checked_sub(scan) else {
            return dirty("its log is too short");
        };
        match self.after_record(start, self.sectors, head)? {
            Some(end) if end == self.sectors => Ok(head),
            Some(end) => Ok(end),
            None => dirty("its log has no record before its end"),
        }
    }

    /// Looks back from `head` to `start` for the header of a record. If the record does
    /// not end at the head, of which `more` sectors lie round the end of the log, the head
    /// is where it begins. `None` if there is no header down to the start of the log.
    fn after_record(&self, start: u64, head: u64, more: u64) -> Result<Option<u64>, Fault> {
        let bytes = self.read(start, head - start)?;
        let mut sectors = bytes.chunks(SECTOR as usize);
        let Some(back) = sectors.rposition(|sector| be32(sector, 0) == Some(MAGIC)) else {
            return if start == 0 {
                Ok(None)
            } else {
                dirty("its log has no record before its end")
            };
        };
        let sector = start + back as u64;
        let header = &bytes[back * SECTOR as usize..];
        if array(header, 304) != Some(self.uuid) {
            return dirty("its log is that of another file system");
        }
        let whole = header_sectors(header, self.v2) + data_sectors(header);
        Ok(Some(if head - sector + more == whole {
            head
        } else {
            sector
        }))
    }
}

/// The cycle with which a sector was written; a header has it behind its magic number.
fn cycle(sector: &[u8]) -> u32 {
    match be32(sector, 0) {
        Some(MAGIC) => be32(sector, 4),
        other => other,
    }
    .unwrap_or(0)
}
