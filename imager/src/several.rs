//! Several disks in one job.
//!
//! Owns: running them side by side, the moment at which all of them may be written, and
//! one report that names every disk. Does not own: what is done with one disk
//! ([`crate::job`]).

use crate::progress::ProgressSink;
use crate::progress::joined::{Child, Joined};
use crate::target::panic_report;
use crate::{disks, report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Code, DiskInfo, DiskSelector, DiskState, Report};

/// The disks that are meant, in order.
///
/// # Errors
/// One is not there, or two descriptions fit the same disk.
pub fn select<'a>(
    disks: &'a [DiskInfo],
    wanted: impl Iterator<Item = &'a DiskSelector>,
) -> Result<Vec<&'a DiskInfo>, Report> {
    let mut found: Vec<&DiskInfo> = Vec::new();
    for selector in wanted {
        let disk = disks::select(disks, Some(selector))?;
        if found.iter().any(|other| other.path == disk.path) {
            let found = format!("{} is meant twice in one job", disk.path);
            return Err(Report::new(
                Code::TargetAmbiguous,
                found,
                DiskState::Untouched,
            ));
        }
        found.push(disk);
    }
    Ok(found)
}

/// Works on all disks, at most `at_once` at a time, and returns what became of each.
pub fn side_by_side<T: Send>(
    disks: &[&DiskInfo],
    at_once: usize,
    progress: &dyn ProgressSink,
    work: impl Fn(usize, &Child<'_>) -> Result<T, Report> + Sync,
) -> Vec<Result<T, Report>> {
    let joined = Joined::new(progress, disks.len());
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<T, Report>>>> =
        disks.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(disks.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::SeqCst);
                    let Some(slot) = results.get(at) else {
                        return;
                    };
                    let one = || work(at, &joined.part(at));
                    let result = catch_unwind(AssertUnwindSafe(one)).unwrap_or_else(|panic| {
                        Err(panic_report(panic.as_ref(), DiskState::Unknown))
                    });
                    joined.ended(at);
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                }
            });
        }
    });
    let taken = results.into_iter().map(|slot| {
        let result = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        result.unwrap_or_else(|| Err(report::thread_lost(DiskState::Unknown)))
    });
    taken.collect()
}

/// All results, or one report that says what became of each disk. Its code is that of the
/// first disk that failed by itself.
pub fn all<T>(disks: &[&DiskInfo], results: Vec<Result<T, Report>>) -> Result<Vec<T>, Report> {
    if results.iter().all(Result::is_ok) {
        return Ok(results.into_iter().flatten().collect());
    }
    let failures = || results.iter().filter_map(|result| result.as_ref().err());
    let own = failures().find(|report| report.code != Code::Interrupted);
    let Some(first) = own.or_else(|| failures().next()) else {
        return Err(report::thread_lost(DiskState::Unknown));
    };
    let told = disks.iter().zip(&results).map(|(disk, result)| {
        let what = match result {
            Ok(_) => "done".to_owned(),
            Err(report) => format!(
                "{}: {} {}",
                report.code,
                report.found,
                report.disk.sentence()
            ),
        };
        format!("{}: {}", name(disk), what.trim_end())
    });
    let found = format!(
        "{} of {} disks failed. {}",
        failures().count(),
        disks.len(),
        told.collect::<Vec<_>>().join("; ")
    );
    Err(Report {
        code: first.code,
        found,
        advice: first.advice.clone(),
        disk: worst(&results),
    })
}

fn name(disk: &DiskInfo) -> String {
    if disk.serial.is_empty() {
        disk.path.clone()
    } else {
        format!("{} (serial {})", disk.path, disk.serial)
    }
}

/// What holds for the disks together: whatever is worst for one of them.
fn worst<T>(results: &[Result<T, Report>]) -> DiskState {
    let any = |state: DiskState| {
        let mut states = results.iter().filter_map(|result| result.as_ref().err());
        states.any(|report| report.disk == state)
    };
    let worst = [
        DiskState::Unknown,
        DiskState::Incomplete,
        DiskState::PartitionsIncomplete,
    ];
    if let Some(state) = worst.into_iter().find(|state| any(*state)) {
        return state;
    }
    // One disk was refused and another written: no word for one disk says that.
    let written = results.iter().any(Result::is_ok);
    match any(DiskState::Untouched) {
        true if written => DiskState::Unknown,
        true => DiskState::Untouched,
        false if any(DiskState::Complete) => DiskState::Complete,
        false => DiskState::NotInvolved,
    }
}

/// Disks that are written at a time: each one has its connections and buffers.
const WRITTEN_AT_ONCE: usize = 4;
/// How often a disk that waits for its turn looks whether the job is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// Lets the first write to any disk happen only after the checks of all have passed, and
/// only so many be written at a time.
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Disks whose checks are not over.
    left: usize,
    /// Whether none has failed until now.
    good: bool,
    /// Disks that are being written.
    written: usize,
}

impl Gate {
    /// For so many disks.
    pub fn new(disks: usize) -> Self {
        Gate {
            state: Mutex::new(State {
                left: disks,
                good: true,
                written: 0,
            }),
            changed: Condvar::new(),
        }
    }

    /// The place of one disk, which counts as failed if it is dropped before it has passed.
    pub fn place(&self) -> GatePlace<'_> {
        GatePlace {
            gate: self,
            told: false,
            writes: false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, good: bool) {
        let mut state = self.state();
        state.left = state.left.saturating_sub(1);
        state.good &= good;
        self.changed.notify_all();
    }

    fn all_good(&self) -> bool {
        let state = self.changed.wait_while(self.state(), |s| s.left > 0);
        state.unwrap_or_else(PoisonError::into_inner).good
    }

    /// Takes a turn to write; `false` if the job is to stop before there is one.
    fn turn(&self, stop: &dyn Fn() -> bool) -> bool {
        let mut state = self.state();
        while state.written >= WRITTEN_AT_ONCE {
            if stop() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.written += 1;
        true
    }
}

/// One disk before the gate.
pub struct GatePlace<'a> {
    gate: &'a Gate,
    told: bool,
    writes: bool,
}

impl GatePlace<'_> {
    /// This disk's checks have passed, or it needs no writing.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.told, true) {
            self.gate.tell(true);
        }
    }

    /// Waits for the others, and then for its turn, which lasts as long as the place.
    /// `stop` says whether the job is to stop.
    ///
    /// # Errors
    /// One of them cannot be written, or the job is to stop.
    pub fn pass(&mut self, path: &Path, stop: &dyn Fn() -> bool) -> Result<(), Report> {
        self.ready();
        let left = |why: &str| {
            let found = format!("{} was left as it is, {why}", path.display());
            Err(Report::new(Code::Interrupted, found, DiskState::Untouched))
        };
        if !self.gate.all_good() {
            return left("because another disk of the job cannot be written");
        }
        self.writes = self.gate.turn(stop);
        match self.writes {
            true => Ok(()),
            false => left("because the job was stopped by an operator"),
        }
    }
}

impl Drop for GatePlace<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.gate.tell(false);
        }
        if self.writes {
            self.gate.state().written -= 1;
            self.gate.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Gate, GatePlace, WRITTEN_AT_ONCE, all, side_by_side};
    use crate::progress::Silent;
    use std::path::Path;
    use wire::{Code, DiskInfo, DiskState, Report};

    fn disk(path: &str) -> DiskInfo {
        DiskInfo {
            path: path.into(),
            ..DiskInfo::default()
        }
    }

    fn failure(code: Code, disk: DiskState) -> Report {
        Report::new(code, "x", disk)
    }

    #[test]
    fn every_disk_is_named_and_the_one_that_failed_by_itself_gives_the_code() {
        let (a, b, c) = (disk("/dev/a"), disk("/dev/b"), disk("/dev/c"));
        let results = vec![
            Ok(()),
            Err(failure(Code::Interrupted, DiskState::Incomplete)),
            Err(failure(Code::WriteError, DiskState::Incomplete)),
        ];
        let report = all(&[&a, &b, &c], results).unwrap_err();
        assert_eq!(
            (report.code, report.disk),
            (Code::WriteError, DiskState::Incomplete)
        );
        for text in [
            "2 of 3",
            "/dev/a: done",
            "/dev/b: interrupted",
            "/dev/c: write-error",
        ] {
            assert!(report.found.contains(text), "{text}: {}", report.found);
        }
    }

    #[test]
    fn all_are_worked_on_however_few_at_a_time() {
        let list: Vec<DiskInfo> = (0..5).map(|n| disk(&format!("/dev/{n}"))).collect();
        let disks: Vec<&DiskInfo> = list.iter().collect();
        for at_once in [1, 2, 8] {
            let results = side_by_side(&disks, at_once, &Silent, |at, _| Ok(at));
            assert_eq!(all(&disks, results).unwrap(), [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_panic_is_one_disks_failure() {
        let (a, b) = (disk("/dev/a"), disk("/dev/b"));
        let results = side_by_side(&[&a, &b], 2, &Silent, |at, _| {
            assert_eq!(at, 0, "on purpose");
            Ok(())
        });
        let report = all(&[&a, &b], results).unwrap_err();
        assert_eq!(
            (report.code, report.disk),
            (Code::Internal, DiskState::Unknown)
        );
    }

    #[test]
    fn nobody_passes_the_gate_if_one_cannot() {
        let gate = Gate::new(2);
        let passed = std::thread::scope(|scope| {
            let first = scope.spawn(|| gate.place().pass(Path::new("/dev/a"), &|| false));
            drop(gate.place());
            first.join().unwrap()
        });
        assert_eq!(passed.unwrap_err().disk, DiskState::Untouched);
        let gate = Gate::new(2);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| gate.place().pass(Path::new("/dev/a"), &|| false).unwrap());
            }
        });
    }

    #[test]
    fn a_few_are_written_at_a_time_and_who_waits_hears_an_interrupt() {
        let path = Path::new("/dev/a");
        let gate = Gate::new(WRITTEN_AT_ONCE + 1);
        let mut places: Vec<_> = (0..=WRITTEN_AT_ONCE).map(|_| gate.place()).collect();
        places.iter_mut().for_each(GatePlace::ready);
        let mut late = places.pop().unwrap();
        for place in &mut places {
            place.pass(path, &|| false).unwrap();
        }
        let stopped = late.pass(path, &|| true).unwrap_err();
        assert_eq!(
            (stopped.code, stopped.disk),
            (Code::Interrupted, DiskState::Untouched)
        );
        std::thread::scope(|scope| {
            let passed = scope.spawn(|| late.pass(path, &|| false));
            places.pop();
            passed.join().unwrap().unwrap();
        });
    }
}
