//! The log: whether it holds changes that are not in their places yet.
//!
//! Owns: what an internal log says of the state of the file system, and the sequence
//! number at which it ends. Does not own: finding its newest record (`head`), or replay.
//!
//! The log is clean if the kernel, mounting the copy, would not replay anything: its
//! newest record is that of an unmount, or it is all zero. If it is not clean, the trees on
//! the disk may be older than the log, or half written, and every sector is copied; but not
//! if a replay would leave the free space as it is, as after a freeze or some time without
//! changes (`changes`). Whatever is less certain is copied whole.

mod active;
mod changes;
mod head;
mod record;

use super::super::{Fault, damaged};
use super::superblock::Superblock;
use crate::extents::Extents;
use crate::view::View;
use changes::Changes;
use head::Head;
use record::Record;

/// Unit of the log's addresses, in bytes.
const SECTOR: u64 = 512;
/// Longest log, in bytes.
const MOST: u64 = 2 << 30;
/// Bytes read at once.
const STEP: u64 = 1 << 20;
/// The sequence number of what was never logged.
const NEVER: u64 = !0;

/// Where the log ends: no metadata can be newer.
pub(super) struct End {
    /// Sequence number: how often the log was written round, then the sector.
    lsn: u64,
}

impl End {
    /// Compares the sequence number of metadata; `None` is that of none.
    pub fn check(&self, lsn: Option<u64>) -> Result<(), Fault> {
        match lsn {
            Some(lsn) if lsn != NEVER && lsn > self.lsn => {
                damaged("metadata is newer than its log")
            }
            _ => Ok(()),
        }
    }
}

/// The log of a file system, in sectors.
struct Log<'a> {
    view: &'a View<'a>,
    /// Byte offset.
    start: u64,
    sectors: u64,
    /// Whether records may be longer than 32 KiB.
    v2: bool,
    uuid: [u8; 16],
}

fn dirty<T>(detail: &str) -> Result<T, Fault> {
    Err(Fault::Dirty(detail.into()))
}

/// What the log says.
pub(super) struct State {
    pub end: End,
    /// If it has to be replayed: the bytes that this changes, none of them free space.
    pub pending: Option<Extents>,
}

/// Reads the log; a fault if the free space on the disk is not certain.
pub(super) fn check(view: &View<'_>, sb: &Superblock) -> Result<State, Fault> {
    let log = Log::find(view, sb)?;
    let Some(head) = log.head()? else {
        let end = log.zeroed()?;
        return Ok(State { end, pending: None });
    };
    let last = log.last_record(head)?;
    let lsn = head.cycle(&last) << 32 | head.sector;
    let mut pending = None;
    if !log.is_unmount(&last, head)? {
        if head.torn {
            return dirty("its log has to be replayed, and breaks off in the middle of a record");
        }
        let mut changes = Changes::new(sb);
        log.operations(&last, head, |operation| changes.add(&operation))?;
        pending = Some(changes.finish());
    }
    let end = End { lsn };
    Ok(State { end, pending })
}

impl<'a> Log<'a> {
    fn find(view: &'a View<'a>, sb: &Superblock) -> Result<Log<'a>, Fault> {
        if sb.log_start == 0 {
            return dirty("its log is on another disk and may have to be replayed");
        }
        let bytes = sb.log_blocks * sb.block_size;
        let place = sb.place(sb.log_start).filter(|&(group, block)| {
            block > 0 && block + sb.log_blocks <= sb.blocks_of_group(group)
        });
        match place {
            Some((group, block)) if bytes > 0 && bytes <= MOST => Ok(Log {
                view,
                start: sb.offset(group, block),
                sectors: bytes / SECTOR,
                v2: sb.log_v2(),
                uuid: sb.uuid,
            }),
            _ => damaged("its log lies outside"),
        }
    }

    /// `count` sectors from `sector` on; callers stay inside the log.
    fn read(&self, sector: u64, count: u64) -> Result<Vec<u8>, Fault> {
        let offset = self.start + sector * SECTOR;
        Ok(self.view.bytes(offset, (count * SECTOR) as usize)?)
    }

    /// As [`Log::read`], going on at the start of the log after its end.
    fn read_round(&self, sector: u64, count: u64) -> Result<Vec<u8>, Fault> {
        let sector = sector % self.sectors;
        let first = count.min(self.sectors - sector);
        let mut bytes = self.read(sector, first)?;
        bytes.extend(self.read(0, count - first)?);
        Ok(bytes)
    }

    /// A log whose first sector was never written must have nothing in the others.
    fn zeroed(&self) -> Result<End, Fault> {
        let step = STEP / SECTOR;
        for at in (0..self.sectors).step_by(step as usize) {
            let bytes = self.read(at, step.min(self.sectors - at))?;
            if bytes.iter().any(|&byte| byte != 0) {
                return dirty("its log starts with zeros and has records behind them");
            }
        }
        Ok(End { lsn: 1 << 32 })
    }

    /// Whether the newest record is that of an unmount. It holds that alone.
    fn is_unmount(&self, record: &Record, head: Head) -> Result<bool, Fault> {
        const CLIENT_LOG: u8 = 0xaa;
        const UNMOUNT: u8 = 0x20;
        if record.operations != 1 || record.end() % self.sectors != head.sector {
            return Ok(false);
        }
        let data = self.read_round(record.sector + record.header_sectors, 1)?;
        Ok(data.get(8..10) == Some(&[CLIENT_LOG, UNMOUNT]))
    }
}
