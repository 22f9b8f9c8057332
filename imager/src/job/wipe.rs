//! The wiping of a disk as a job.
//!
//! Owns: which disk, the word to the server before the first write, and whether what an
//! earlier start began may be gone on with. Does not own: the wiping (`crate::wipe`).

use super::{JobResult, since_resumed, untouched};
use crate::disks;
use crate::progress::ProgressSink;
use crate::remote::Remote;
use crate::wipe::{self, Guard, Plan};
use blockdev::Device;
use std::path::Path;
use wire::{BeginWrite, Code, DiskInfo, DiskState, Report, Summary, WipeOrder};

/// Wipes the disk that the order means.
pub fn run(
    order: &WipeOrder,
    resume: bool,
    disks: &[DiskInfo],
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let disk = disks::select(disks, order.disk.as_ref())
        .map_err(|report| since_resumed(resume, untouched(report)))?;
    wipe_disk(disk, order, resume, remote, progress).map_err(|report| since_resumed(resume, report))
}

fn wipe_disk(
    disk: &DiskInfo,
    order: &WipeOrder,
    resume: bool,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let path = Path::new(&disk.path);
    let device = wipe::open(path, progress)?;
    if resume && !wipe::is_unfinished(&device)? {
        return Err(not_half_wiped(disk));
    }
    let plan = Plan::make(&device, path, order)?;
    let mut guard = ServerGuard { disk, remote };
    let ended = wipe::run(device, disk, &plan, &mut guard, progress)?;
    let wiped = ended.wiped;
    progress.note(&wiped.sentence());
    let summary = Summary {
        disk_bytes: wiped.bytes,
        used_bytes: wiped.bytes,
        wipe: Some(Box::new(wiped)),
        ..Summary::default()
    };
    Ok(JobResult {
        summary,
        warnings: ended.warnings,
    })
}

/// Somebody may have put something on it since.
fn not_half_wiped(disk: &DiskInfo) -> Report {
    let found = format!(
        "an earlier run of this wipe had announced to write {}, and something stands at the ends of \
         the disk, where a wipe that was cut off leaves zeros",
        disk.path
    );
    let advice = "Look what is on the disk. If it is to be destroyed, clear the error and order the \
                  wipe again.";
    Report::new(Code::TargetSilent, found, DiskState::Unknown).with_advice(advice)
}

struct ServerGuard<'a> {
    disk: &'a DiskInfo,
    remote: &'a Remote,
}

impl Guard for ServerGuard<'_> {
    /// The operator has confirmed the order; the server has to know that it begins.
    fn before_write(&mut self, _device: &Device, _plan: &Plan) -> Result<(), Report> {
        self.remote
            .begin_write(&BeginWrite::from(self.disk.clone()))
            .map_err(untouched)
    }
}
