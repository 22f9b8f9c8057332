//! Wiping a disk: nothing of what it held can be read from it afterwards, and that is seen.
//!
//! Owns: the order. All checks; whoever has to agree; zeros at both ends, flushed, so that
//! nothing boots from a disk that is wiped in part; the wipe; a read-back of what the disk
//! then gives, past the page cache; only then "done". Does not own: who is asked before
//! ([`Guard`]), the ways (`overwrite`, `discard`, `nvme`) and the choice (`plan`).

mod discard;
mod fill;
mod nvme;
mod outcome;
mod overwrite;
mod plan;
mod read_back;
pub mod show;
mod sweep;

use crate::progress::ProgressSink;
use crate::{in_use, report, restore};
use blockdev::Device;
use blockdev::nvme::Nvme;
use std::io;
use std::path::Path;
use std::time::Instant;
use wire::{Code, DiskInfo, DiskState, Report, Step, Wiped};

pub use nvme::Drive;
pub use plan::{Plan, Way};

/// Who has to agree, or to know, before the disk is changed.
pub trait Guard {
    /// All checks have passed and nothing was written. The disk is about to be changed.
    fn before_write(&mut self, device: &Device, plan: &Plan) -> Result<(), Report>;
}

/// A wipe that was carried out and proved.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What was done.
    pub wiped: Wiped,
    /// Things worth knowing.
    pub warnings: Vec<Report>,
}

/// Opens a disk that is to be wiped. All of it must be free: nothing of it mounted, nor the
/// medium that this system was started from, as far as that is mounted.
///
/// # Errors
/// `disk-in-use` with the holders; `disk-not-found`; `interrupted` while a drive that
/// sanitizes itself is waited for.
pub fn open(path: &Path, progress: &dyn ProgressSink) -> Result<Device, Report> {
    in_use::refuse_if_held(path)?;
    let untouched = |e: blockdev::Error| report::open(&e, DiskState::Untouched);
    if let Some(drive) = Nvme::open(path).map_err(untouched)? {
        nvme::wait_for_earlier(&drive, progress)?;
    }
    let mut device = Device::open_write(path).map_err(untouched)?;
    device.write_directly();
    Ok(device)
}

/// Whether the disk looks as a wipe leaves it that was cut off: with nothing at either end.
/// (So does one whose wipe was complete: to wipe that again does no harm.)
///
/// # Errors
/// It cannot be read.
pub fn is_unfinished(device: &Device) -> Result<bool, Report> {
    nvme::are_ends_empty(device).map_err(|e| {
        let found = format!("the ends of the disk cannot be read: {e}");
        Report::new(Code::ReadError, found, DiskState::Unknown)
    })
}

/// Wipes the disk, which `device` (see [`open`]) has open for writing.
///
/// # Errors
/// What kept it from being wiped, or from being proved; an earlier way's trouble is in it.
pub fn run(
    device: Device,
    disk: &DiskInfo,
    plan: &Plan,
    guard: &mut dyn Guard,
    progress: &dyn ProgressSink,
) -> Result<Ended, Report> {
    let path = Path::new(&disk.path);
    progress.step(Step::Preparing, 0);
    stop_if_asked(progress)?;
    guard.before_write(&device, plan)?;
    stop_if_asked(progress)?;
    let started = Instant::now();
    let mut before: Vec<String> = Vec::new();
    let mut touched = false;
    for (at, &way) in plan.ways.iter().enumerate() {
        progress.note(&format!("{}: {}", way.method(), way.words()));
        let failure = match plan.go(way, &device, path, progress) {
            Ok(done) => {
                progress.step(Step::Finishing, 0);
                let warnings = restore::reread(&device, path).into_iter().collect();
                let wiped = Wiped {
                    disk: disk.clone(),
                    ordered: plan.ordered,
                    method: way.method(),
                    action: done.action,
                    passes: done.passes,
                    bytes: plan.disk_bytes,
                    read_back_bytes: done.read_back_bytes,
                    proof: done.proof,
                    before,
                    seconds: started.elapsed().as_secs_f64(),
                };
                return Ok(Ended { wiped, warnings });
            }
            Err(failure) => failure,
        };
        touched |= failure.report.disk != DiskState::Untouched;
        let is_last = at + 1 == plan.ways.len();
        if is_last || !failure.others_may || progress.interrupted() {
            return Err(ended(failure.report, touched, &before));
        }
        let said = format!(
            "{}: {}: {}",
            way.method(),
            failure.report.code,
            failure.report.found
        );
        progress.note(&format!("{said}; another way is tried"));
        before.push(said);
    }
    let found = "there is no way to wipe the disk";
    Err(Report::new(Code::Internal, found, DiskState::Untouched))
}

/// The last failure, with those before it.
fn ended(mut report: Report, touched: bool, before: &[String]) -> Report {
    if touched && report.disk == DiskState::Untouched {
        report.disk = DiskState::Incomplete;
    }
    if !before.is_empty() {
        report.found = format!("{} (before that: {})", report.found, before.join("; "));
    }
    report
}

/// Zeros in the first and last MiB, flushed.
fn ends_to_zero(device: &Device) -> io::Result<()> {
    for end in fill::ends(device.size_bytes()) {
        device.zero(end.start, end.end - end.start)?;
    }
    device.flush()
}

fn flush(device: &Device) -> Result<(), Report> {
    device
        .flush()
        .map_err(|e| report::write(&e, DiskState::Incomplete))
}

fn stop_if_asked(progress: &dyn ProgressSink) -> Result<(), Report> {
    if progress.interrupted() {
        let found = "stopped by an operator";
        return Err(Report::new(Code::Interrupted, found, DiskState::Untouched));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
