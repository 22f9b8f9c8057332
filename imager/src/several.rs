//! Several disks in one job.
//!
//! Owns: which disks they are, running them side by side, and one report that names every
//! disk. Does not own: the moment at which all of them may be written (`gate`), what is done
//! with one disk ([`crate::job`]).

mod gate;

pub use gate::{Gate, GatePlace};

use crate::progress::ProgressSink;
use crate::progress::joined::{Child, Joined};
use crate::target::panic_report;
use crate::{disks, report};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
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

/// Refuses disks of a restore that cannot be told apart: by the server, which would take
/// one for the other, or (of those that an earlier start has begun to write) after a boot
/// that counts disks otherwise. `all`: the disks of the machine; `resumed`: positions in
/// `chosen`.
///
/// # Errors
/// `target-ambiguous`, with the disks.
pub fn told_apart<'a>(
    chosen: Vec<&'a DiskInfo>,
    all: &[DiskInfo],
    resumed: &[u32],
) -> Result<Vec<&'a DiskInfo>, Report> {
    let refuse = |found: String, advice: &str| {
        let report = Report::new(Code::TargetAmbiguous, found, DiskState::Untouched);
        Err(report.with_advice(advice))
    };
    let identity = |disk: &DiskInfo| (disk.serial.clone(), disk.wwn.clone(), disk.size_bytes);
    for (at, disk) in chosen.iter().enumerate() {
        let mut others = chosen.iter().skip(at + 1);
        let twin = others.find(|other| !is_anonymous(disk) && identity(other) == identity(disk));
        if let Some(twin) = twin {
            let found = format!(
                "{} and {} have one serial number ({:?}), WWN ({:?}) and size",
                disk.path, twin.path, disk.serial, disk.wwn
            );
            return refuse(
                found,
                "Restore the images one by one, by their ids, with only one of these disks \
                 connected.",
            );
        }
    }
    let begun = resumed.iter().filter_map(|at| chosen.get(*at as usize));
    for disk in begun.filter(|disk| is_anonymous(disk)) {
        let twin = all.iter().find(|other| {
            other.path != disk.path && is_anonymous(other) && identity(other) == identity(disk)
        });
        if let Some(twin) = twin {
            let found = format!(
                "an earlier start began to write {}, which has neither serial number nor WWN, \
                 and {} has its size: which of them it was cannot be told",
                disk.path, twin.path
            );
            return refuse(
                found,
                "Look which disk is which now, clear the error and order the restore again: it \
                 writes all disks anew.",
            );
        }
    }
    Ok(chosen)
}

/// Whether nothing but its path tells a disk from another one of its size.
fn is_anonymous(disk: &DiskInfo) -> bool {
    disk.serial.is_empty() && disk.wwn.is_empty()
}

/// How disks are worked on side by side.
pub struct Together<'a> {
    /// How many at a time.
    pub at_once: usize,
    /// Bytes of each disk, as far as they are known.
    pub totals: Vec<u64>,
    /// What is known of a disk after a panic.
    pub panicked: DiskState,
    /// Called if not as many threads could be started as were wanted: what waits for all
    /// disks would wait for ever. All disks are worked on nevertheless.
    pub not_started: &'a (dyn Fn() + Sync),
}

/// Works on all disks and returns what became of each.
pub fn side_by_side<T: Send>(
    disks: &[&DiskInfo],
    together: &Together<'_>,
    progress: &dyn ProgressSink,
    work: impl Fn(usize, &Child<'_>) -> Result<T, Report> + Sync,
) -> Vec<Result<T, Report>> {
    let joined = Joined::new(progress, disks.len(), &together.totals);
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<T, Report>>>> =
        disks.iter().map(|_| Mutex::new(None)).collect();
    let take = || {
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            let Some(slot) = results.get(at) else {
                return;
            };
            let one = || work(at, &joined.part(at));
            let result = catch_unwind(AssertUnwindSafe(one))
                .unwrap_or_else(|panic| Err(panic_report(panic.as_ref(), together.panicked)));
            joined.ended(at);
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        }
    };
    std::thread::scope(|scope| {
        // The last one is this thread.
        for _ in 1..together.at_once.min(disks.len()) {
            if Builder::new().spawn_scoped(scope, take).is_err() {
                (together.not_started)();
                break;
            }
        }
        take();
    });
    let taken = results.into_iter().map(|slot| {
        let result = slot.into_inner().unwrap_or_else(PoisonError::into_inner);
        result.unwrap_or_else(|| Err(report::thread_lost(together.panicked)))
    });
    taken.collect()
}

/// A disk whose work could not begin.
fn no_thread(disk: DiskState) -> Report {
    let found = "the kernel gives no more threads, so that not all disks can be worked on";
    let report = Report::new(Code::Internal, found, disk);
    report
        .with_advice("The machine has too little memory for so many disks in one job: name fewer.")
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

/// A disk as it is named in the report of a job of several.
pub fn name(disk: &DiskInfo) -> String {
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

#[cfg(test)]
mod tests {
    use super::{Together, all, side_by_side, told_apart};
    use crate::progress::Silent;
    use wire::{Code, DiskInfo, DiskState, Report};

    fn disk(path: &str) -> DiskInfo {
        DiskInfo {
            path: path.into(),
            ..DiskInfo::default()
        }
    }

    fn together(at_once: usize, panicked: DiskState) -> Together<'static> {
        Together {
            at_once,
            totals: Vec::new(),
            panicked,
            not_started: &|| {},
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
            let results = side_by_side(
                &disks,
                &together(at_once, DiskState::Unknown),
                &Silent,
                |at, _| Ok(at),
            );
            assert_eq!(all(&disks, results).unwrap(), [0, 1, 2, 3, 4]);
        }
    }

    #[test]
    fn a_panic_is_one_disks_failure_and_no_backup_touches_a_disk() {
        let (a, b) = (disk("/dev/a"), disk("/dev/b"));
        for state in [DiskState::Unknown, DiskState::NotInvolved] {
            let results = side_by_side(&[&a, &b], &together(2, state), &Silent, |at, _| {
                assert_eq!(at, 0, "on purpose");
                Ok(())
            });
            let report = all(&[&a, &b], results).unwrap_err();
            assert_eq!((report.code, report.disk), (Code::Internal, state));
        }
    }

    #[test]
    fn disks_that_one_could_be_taken_for_the_other_are_refused() {
        let of = |path: &str, serial: &str, size_bytes| DiskInfo {
            serial: serial.into(),
            size_bytes,
            ..disk(path)
        };
        let refused = |disks: &[DiskInfo], chosen: usize, resumed: &[u32]| {
            let chosen = disks.iter().take(chosen).collect();
            told_apart(chosen, disks, resumed).is_err_and(|report| {
                assert_eq!(
                    (report.code, report.disk),
                    (Code::TargetAmbiguous, DiskState::Untouched)
                );
                assert!(report.found.contains("/dev/a") && report.found.contains("/dev/b"));
                true
            })
        };
        // Two adapters with the serial number of their kind.
        let bridges = [of("/dev/a", "123", 9), of("/dev/b", "123", 9)];
        assert!(refused(&bridges, 2, &[]));
        let sizes = [of("/dev/a", "123", 9), of("/dev/b", "123", 8)];
        assert!(!refused(&sizes, 2, &[0, 1]));
        // Named by path they can be written, but after a boot nobody knows which was which.
        let nameless = [of("/dev/a", "", 9), of("/dev/b", "", 9)];
        assert!(!refused(&nameless, 2, &[]));
        assert!(refused(&nameless, 2, &[0, 1]));
        assert!(refused(&nameless, 2, &[1]));
        assert!(
            refused(&nameless, 1, &[0]),
            "the other one is not of the job"
        );
        let known = [of("/dev/a", "", 9), of("/dev/b", "7", 9)];
        assert!(!refused(&known, 2, &[0, 1]));
    }
}
