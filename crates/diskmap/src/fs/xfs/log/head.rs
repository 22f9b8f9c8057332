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
    /// Something stands behind it that is not all there.
    pub torn: bool,
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
            let zeros = head;
            head = self.find_cycle(start, scan, 0)?.unwrap_or(head);
            let Some(sector) = self.after_record(start, head, 0)? else {
                return dirty("its log has no record at its start");
            };
            let torn = sector != zeros;
            return Ok(Some(Head { sector, torn }));
        }
        let (fall, stop) = if first == last {
            (end, last.wrapping_sub(1))
        } else {
            (self.cycle_start(end - 1, last)?, last)
        };
        let head = self.without_holes(fall, stop)?;
        let head = self.whole_records(head)?;
        Ok(Some(Head {
            sector: head % end,
            torn: head != fall,
        }))
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

#[cfg(test)]
mod tests {
    use super::super::{Log, SECTOR};
    use super::MAGIC;
    use crate::view::View;

    const UUID: [u8; 16] = [9; 16];

    /// Sectors of a log, each stamped with `cycle`.
    fn blank(sectors: usize, cycle: u32) -> Vec<u8> {
        let mut bytes = vec![0; sectors * SECTOR as usize];
        stamp(&mut bytes, 0..sectors, cycle);
        bytes
    }

    fn stamp(bytes: &mut [u8], sectors: std::ops::Range<usize>, cycle: u32) {
        for at in sectors {
            bytes[at * 512..at * 512 + 4].copy_from_slice(&cycle.to_be_bytes());
        }
    }

    /// Writes a record of one header and `data` sectors, round the end if it must.
    fn write(bytes: &mut [u8], at: usize, cycle: u32, data: usize) {
        let sectors = bytes.len() / 512;
        let header = &mut bytes[at * 512..][..512];
        header.fill(0);
        let lsn = u64::from(cycle) << 32 | at as u64;
        for (offset, word) in [
            (0, MAGIC),
            (4, cycle),
            (8, 2),
            (12, data as u32 * 512),
            (40, 1),
            (320, 32 << 10),
        ] {
            header[offset..offset + 4].copy_from_slice(&word.to_be_bytes());
        }
        header[16..24].copy_from_slice(&lsn.to_be_bytes());
        header[304..320].copy_from_slice(&UUID);
        for i in at + 1..=at + data {
            let cycle = cycle + u32::from(i >= sectors);
            stamp(bytes, i % sectors..i % sectors + 1, cycle);
        }
    }

    /// The log written in the given cycle from `from` to `to`, in records of 8 sectors.
    fn fill(bytes: &mut [u8], from: usize, to: usize, cycle: u32) {
        for at in (from..to).step_by(8) {
            write(bytes, at, cycle, 7);
        }
    }

    /// Head, whether something broken is behind it, and the record before it with the
    /// cycle in which the next one would be written.
    fn found(bytes: &[u8]) -> Option<(u64, bool, u64, u64)> {
        let bytes = bytes.to_vec();
        let view = View::new(&bytes, 0, bytes.len() as u64);
        let log = Log {
            view: &view,
            start: 0,
            sectors: bytes.len() as u64 / SECTOR,
            v2: true,
            uuid: UUID,
        };
        let head = log.head().ok()??;
        let record = log.last_record(head).ok()?;
        Some((head.sector, head.torn, record.sector, head.cycle(&record)))
    }

    const SECTORS: usize = 8192;

    #[test]
    fn nothing_or_little_written() {
        assert_eq!(found(&blank(SECTORS, 0)), None);
        let mut log = blank(SECTORS, 0);
        for end in [8, 16, 4096, 4104, 8000] {
            fill(&mut log, 0, end, 1);
            assert_eq!(found(&log), Some((end as u64, false, end as u64 - 8, 1)));
        }
        // The newest record was not written to its end, or not at its start.
        stamp(&mut log, 7998..8000, 0);
        assert_eq!(found(&log), Some((7992, true, 7984, 1)));
        let mut log = blank(SECTORS, 0);
        fill(&mut log, 0, 4000, 1);
        stamp(&mut log, 3200..3208, 0);
        assert_eq!(found(&log), Some((3200, true, 3192, 1)));
    }

    #[test]
    fn written_round() {
        let mut log = blank(SECTORS, 0);
        fill(&mut log, 0, SECTORS, 6);
        assert_eq!(found(&log), Some((0, false, 8184, 7)));
        for end in [8, 512, 2048, 4096, 8184] {
            let mut log = log.clone();
            fill(&mut log, 0, end, 7);
            assert_eq!(found(&log), Some((end as u64, false, end as u64 - 8, 7)));
        }
    }

    #[test]
    fn a_record_over_the_end() {
        let mut log = blank(SECTORS, 0);
        fill(&mut log, 0, SECTORS, 6);
        write(&mut log, 8184, 6, 20);
        assert_eq!(found(&log), Some((13, false, 8184, 7)));
        // Its second half is missing: sector 12 is still of the last round.
        stamp(&mut log, 12..13, 6);
        assert_eq!(found(&log), Some((8184, true, 8176, 6)));
    }

    #[test]
    fn holes_that_records_under_way_have_left() {
        let mut log = blank(SECTORS, 0);
        fill(&mut log, 0, SECTORS, 6);
        fill(&mut log, 0, 4800, 7);
        // New, old, new, old: the search by halves stops at the last fall.
        fill(&mut log, 4400, 4408, 6);
        assert_eq!(found(&log), Some((4400, true, 4392, 7)));
        // The hole is at the end of the last round.
        let mut log = blank(SECTORS, 0);
        fill(&mut log, 0, SECTORS, 5);
        fill(&mut log, 0, 8000, 6);
        fill(&mut log, 8008, SECTORS, 6);
        assert_eq!(found(&log), Some((8000, true, 7992, 6)));
        fill(&mut log, 0, 80, 7);
        assert_eq!(found(&log), Some((8000, true, 7992, 6)));
    }

    #[test]
    fn no_record_or_a_foreign_one() {
        assert_eq!(found(&blank(SECTORS, 3)), None);
        let mut log = blank(SECTORS, 0);
        fill(&mut log, 0, 80, 1);
        log[72 * 512 + 304] = 0;
        assert_eq!(found(&log), None);
    }
}
