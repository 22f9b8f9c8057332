//! Going over a whole disk, piece by piece, in several threads.
//!
//! Owns: the pieces, and what becomes of one that fails: it is gone over again in smaller
//! ones, so that a few bad sectors are named and nothing else is given up. Does not own:
//! what is done with a piece.

use crate::progress::ProgressSink;
use crate::target::panic_report;
use blockdev::{AlignedBuf, ErrorKind};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::{DiskState, Report};

/// What goes to or comes from the disk at once.
const PIECE: u64 = 4 << 20;
/// A piece that fails is gone over in these, one of which that fails in units.
const SMALLER: u64 = 64 << 10;
/// Smallest part of a disk that is given up.
const UNIT: u64 = 4096;
/// Pieces that are under way at a time.
const THREADS: usize = 4;
/// Units that are given up before all of the disk is.
const MOST_BAD: usize = 512;
/// Places that are named of those that hold something else.
pub const NAMED: usize = 16;

/// Why a piece is not as it should be.
pub enum Trouble {
    /// The disk does not take it, or does not give it.
    Io(io::Error),
    /// It holds something else, from this byte of the disk on.
    Differs(u64),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

/// What is done with the bytes from an offset on; the buffer is as long as the piece.
pub type Work<'a> = &'a (dyn Fn(u64, &mut [u8]) -> Result<(), Trouble> + Sync);

/// How it went.
#[derive(Debug, Default)]
pub struct Swept {
    /// Bytes that are as they should be.
    pub good_bytes: u64,
    /// Parts that the disk does not take or give, in order, joined.
    pub bad: Vec<Range<u64>>,
    /// What it said of the first of them.
    pub first_error: Option<io::Error>,
    /// Bytes from which on it holds something else, in order.
    pub differs: Vec<u64>,
    /// It was given up before the end: too much is bad, or the disk is gone.
    pub given_up: bool,
    /// An operator stopped it.
    pub interrupted: bool,
}

impl Swept {
    /// The bad parts, for people.
    pub fn bad_places(&self) -> String {
        let some = self.bad.iter().take(NAMED);
        let named: Vec<String> = some.map(|r| format!("{} to {}", r.start, r.end)).collect();
        let more = match self.bad.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("bytes {}{more}", named.join(", "))
    }

    /// Bytes in the bad parts.
    pub fn bad_bytes(&self) -> u64 {
        self.bad.iter().map(|range| range.end - range.start).sum()
    }

    /// Where it holds something else, for people.
    pub fn different_places(&self) -> String {
        let named: Vec<String> = self.differs.iter().map(ToString::to_string).collect();
        let more = match self.differs.len() >= NAMED {
            true => " and perhaps more",
            false => "",
        };
        format!("byte {}{more}", named.join(", "))
    }
}

struct Sweep<'a> {
    size: u64,
    next: AtomicU64,
    stop: AtomicBool,
    swept: Mutex<Swept>,
    progress: &'a dyn ProgressSink,
    work: Work<'a>,
    /// Places with something else after which it is given up.
    most_differ: usize,
}

/// Does the work with all `size` bytes, and ends early once `most_differ` places hold
/// something else.
///
/// # Errors
/// Only if a part of the program fails.
pub fn sweep(
    size: u64,
    most_differ: usize,
    progress: &dyn ProgressSink,
    work: Work<'_>,
) -> Result<Swept, Report> {
    let sweep = Sweep {
        size,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        swept: Mutex::default(),
        progress,
        work,
        most_differ,
    };
    let run = || {
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| sweep.pieces());
            }
        });
    };
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| panic_report(panic.as_ref(), DiskState::Incomplete))?;
    let mut swept = sweep
        .swept
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    swept.bad = joined(swept.bad);
    swept.differs.sort_unstable();
    swept.interrupted = progress.interrupted() && !is_all(&swept, size);
    Ok(swept)
}

/// Whether every byte was looked at.
fn is_all(swept: &Swept, size: u64) -> bool {
    !swept.given_up && swept.differs.is_empty() && swept.good_bytes + swept.bad_bytes() == size
}

impl Sweep<'_> {
    fn pieces(&self) {
        let mut buffer = AlignedBuf::new(PIECE as usize);
        while !self.stop.load(Ordering::Relaxed) && !self.progress.interrupted() {
            let at = self.next.fetch_add(PIECE, Ordering::Relaxed);
            if at >= self.size {
                break;
            }
            let len = PIECE.min(self.size - at);
            self.piece(at, len, &mut buffer);
            self.progress.advance(len, 0);
        }
    }

    fn piece(&self, at: u64, len: u64, buffer: &mut [u8]) {
        let Some(part) = buffer.get_mut(..len as usize) else {
            return;
        };
        match (self.work)(at, part) {
            Ok(()) => self.swept().good_bytes += len,
            Err(Trouble::Differs(place)) => {
                let mut swept = self.swept();
                swept.differs.push(place);
                if swept.differs.len() >= self.most_differ {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            Err(Trouble::Io(error)) => self.failed(at, len, error, buffer),
        }
    }

    fn failed(&self, at: u64, len: u64, error: io::Error, buffer: &mut [u8]) {
        let gone = blockdev::Error::of(&error).is_some_and(|e| {
            matches!(
                e.kind(),
                ErrorKind::Gone | ErrorKind::NoSpace | ErrorKind::ReadOnly
            )
        });
        if gone || len <= UNIT {
            let mut swept = self.swept();
            swept.bad.push(at..at + len);
            swept.first_error.get_or_insert(error);
            if gone || swept.bad.len() >= MOST_BAD {
                swept.given_up = true;
                self.stop.store(true, Ordering::Relaxed);
            }
            return;
        }
        let step = if len > SMALLER { SMALLER } else { UNIT };
        let mut done = 0;
        // A disk that tries for half a minute at each sector is not waited for by whoever
        // has asked it to stop.
        while done < len && !self.stop.load(Ordering::Relaxed) && !self.progress.interrupted() {
            let part = step.min(len - done);
            self.piece(at + done, part, buffer);
            done += part;
        }
    }

    fn swept(&self) -> MutexGuard<'_, Swept> {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In order, and what touches as one.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| range.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match out.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{NAMED, PIECE, Swept, Trouble, joined, sweep};
    use crate::progress::{ProgressSink, Silent, Tracker};
    use std::io;
    use std::sync::Mutex;
    use wire::Step;

    const SIZE: u64 = 5 * PIECE + 700;

    fn seen(trouble: impl Fn(u64, u64) -> Result<(), Trouble> + Sync) -> (Swept, Vec<(u64, u64)>) {
        let seen = Mutex::new(Vec::new());
        let work = |at: u64, buf: &mut [u8]| {
            let len = buf.len() as u64;
            trouble(at, len)?;
            seen.lock().unwrap().push((at, len));
            Ok(())
        };
        let swept = sweep(SIZE, NAMED, &Silent, &work).unwrap();
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        (swept, seen)
    }

    #[test]
    fn every_byte_once_and_the_odd_end_too() {
        let (swept, seen) = seen(|_, _| Ok(()));
        let mut end = 0;
        for (at, len) in seen {
            assert_eq!(at, end);
            end = at + len;
        }
        assert_eq!((end, swept.good_bytes), (SIZE, SIZE));
        assert!(!swept.interrupted && !swept.given_up && swept.bad.is_empty());
    }

    #[test]
    fn a_bad_sector_costs_its_unit_and_nothing_else() {
        let bad = PIECE + 100_000;
        let (swept, seen) = seen(|at, len| match (at..at + len).contains(&bad) {
            true => Err(io::Error::from_raw_os_error(5).into()),
            false => Ok(()),
        });
        let unit = bad / 4096 * 4096;
        assert_eq!(swept.bad, std::slice::from_ref(&(unit..unit + 4096)));
        assert_eq!(swept.good_bytes, SIZE - 4096);
        assert_eq!(seen.iter().map(|(_, len)| len).sum::<u64>(), SIZE - 4096);
        assert!(swept.first_error.is_some() && !swept.given_up);
        assert_eq!(
            swept.bad_places(),
            format!("bytes {unit} to {}", unit + 4096)
        );
    }

    #[test]
    fn a_disk_that_takes_nothing_is_given_up() {
        let (swept, seen) = seen(|_, _| Err(io::Error::from_raw_os_error(5).into()));
        assert!(swept.given_up && seen.is_empty());
        assert!(swept.bad_bytes() < SIZE, "it went on to the end");
    }

    #[test]
    fn what_differs_is_named_and_enough_of_it_ends_the_sweep() {
        let (swept, _) = seen(|at, _| match at == PIECE {
            true => Err(Trouble::Differs(at + 5)),
            false => Ok(()),
        });
        assert_eq!(swept.differs, [PIECE + 5]);
        assert_eq!(swept.good_bytes, SIZE - PIECE);
        let all = |at: u64, _: &mut [u8]| Err(Trouble::Differs(at));
        let swept = sweep(1000 * PIECE, NAMED, &Silent, &all).unwrap();
        assert!((NAMED..2 * NAMED).contains(&swept.differs.len()));
    }

    #[test]
    fn an_operator_ends_it_and_a_sweep_that_was_done_is_done() {
        let tracker = Tracker::new(|_| {});
        tracker.step(Step::Running, SIZE);
        let work = |_: u64, _: &mut [u8]| {
            tracker.interrupt();
            Ok(())
        };
        let swept = sweep(100 * PIECE, NAMED, &tracker, &work).unwrap();
        assert!(swept.interrupted && swept.good_bytes < 10 * PIECE);
        let tracker = Tracker::new(|_| {});
        let work = |_: u64, _: &mut [u8]| {
            tracker.interrupt();
            Ok(())
        };
        assert!(!sweep(PIECE, NAMED, &tracker, &work).unwrap().interrupted);
    }

    #[test]
    fn neighbours_are_one() {
        assert_eq!(joined(vec![8..9, 0..4, 4..8, 10..11]), [0..9, 10..11]);
    }
}
