//! One disk read by several threads, each with the next cells in its turn.
//!
//! Owns: how many threads read, and which cells are whose. Does not own: reading
//! (`read`), what becomes of the bytes.

use super::{CellReader, Plan};
use crate::progress::ProgressSink;
use crate::report;
use crate::source::Disk;
use image::CellMap;
use image::bad::{self, BadRange};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread::{Scope, ScopedJoinHandle};
use wire::{Code, DiskState, Report};

/// Threads that read a device past the page cache: while one's bytes are on their way, the
/// other's place is known to the disk.
const DIRECT_READERS: usize = 2;

type Rest<'a> = Box<dyn Iterator<Item = CellMap> + Send + 'a>;

/// The cells that are still to be read.
pub struct Cells<'a>(Mutex<(usize, Rest<'a>)>);

impl<'a> Cells<'a> {
    /// All cells of a plan.
    pub fn of(plan: &'a Plan) -> Cells<'a> {
        Cells(Mutex::new((0, Box::new(plan.cells()))))
    }

    /// The next ones, with the number of the first: as many as it takes to have `bytes` used
    /// bytes, at least one. Empty at the end.
    pub fn take(&self, bytes: u64) -> (usize, Vec<CellMap>) {
        let mut rest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, mut taken, mut sum) = (rest.0, Vec::new(), 0);
        while taken.is_empty() || sum < bytes {
            let Some(cell) = rest.1.next() else { break };
            sum += u64::from(cell.used.len());
            taken.push(cell);
        }
        rest.0 += taken.len();
        (first, taken)
    }
}

/// The threads that read.
pub struct Readers<'scope>(Vec<ScopedJoinHandle<'scope, Vec<BadRange>>>);

impl<'scope> Readers<'scope> {
    /// Starts them. Each runs `read`; what it fails with goes to `failed`, a panic too.
    pub fn start<'env, R, F>(
        scope: &'scope Scope<'scope, 'env>,
        device: &'env dyn Disk,
        plan: &'env Plan,
        skip_bad: bool,
        progress: &'env dyn ProgressSink,
        read: R,
        failed: F,
    ) -> Readers<'scope>
    where
        R: Fn(&mut CellReader<'env>) -> Result<(), Report> + Clone + Send + 'scope,
        F: Fn(Report) + Clone + Send + 'scope,
    {
        // What is bad is counted by the one who reads. What is no device is unpacked, or
        // read ahead by the kernel, in its order.
        let reader = || CellReader::new(device, &plan.layout, skip_bad, progress);
        let one = reader();
        let count = match one.is_direct() && !skip_bad {
            true => DIRECT_READERS,
            false => 1,
        };
        let more = (1..count).map(|_| reader());
        let readers: Vec<CellReader<'env>> = std::iter::once(one).chain(more).collect();
        let start = |mut reader: CellReader<'env>| {
            let (read, failed) = (read.clone(), failed.clone());
            // A panic is told like an error: the others would wait for its cell for ever.
            scope.spawn(move || {
                let ended = catch_unwind(AssertUnwindSafe(|| read(&mut reader)));
                match ended.unwrap_or_else(|_| Err(report::thread_lost(DiskState::NotInvolved))) {
                    Ok(()) => reader.into_bad(),
                    Err(report) => {
                        failed(report);
                        Vec::new()
                    }
                }
            })
        };
        Readers(readers.into_iter().map(start).collect())
    }

    /// Waits for their end; what the disk did not give.
    pub fn join(self) -> Result<Vec<BadRange>, Report> {
        let mut bad = Vec::new();
        for reader in self.0 {
            let found = reader.join();
            bad.extend(found.map_err(|_| report::thread_lost(DiskState::NotInvolved))?);
        }
        Ok(bad::joined(bad))
    }
}

/// Ends the job if it is to stop.
pub fn stop_if_asked(progress: &dyn ProgressSink) -> Result<(), Report> {
    if progress.interrupted() {
        return Err(Report::new(
            Code::Interrupted,
            "stopped by an operator",
            DiskState::NotInvolved,
        ));
    }
    Ok(())
}
