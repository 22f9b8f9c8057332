//! Refusing disks that are in use.
//!
//! Owns: what counts as in use for a backup and for a restore. Does not own: finding
//! the holders (`blockdev`).

use crate::report;
use std::path::Path;
use wire::{Code, DiskInfo, DiskState, Report};

/// A disk's identity by its path.
pub fn identify(path: &Path) -> Result<DiskInfo, Report> {
    blockdev::identify(path)
        .map(|info| crate::disks::to_wire(&info))
        .map_err(|e| {
            Report::new(
                Code::DiskNotFound,
                format!("{}: {e}", path.display()),
                DiskState::Untouched,
            )
        })
}

/// For a backup: refuses a disk that something may write to meanwhile.
pub fn refuse_if_written(path: &Path) -> Result<(), Report> {
    refuse(
        path,
        true,
        DiskState::NotInvolved,
        "Unmount it or stop what holds it, or add --force.",
    )
}

/// For a backup that has read everything: refuses a disk that something may write to by
/// now, so that nobody can say which of its changes were read.
pub fn refuse_if_written_now(path: &Path) -> Result<(), Report> {
    let advice = "Nothing was kept. Unmount it or stop what holds it, and make the backup again.";
    refuse(path, true, DiskState::NotInvolved, advice).map_err(|mut report| {
        report.found += ", and was not when the backup began";
        report
    })
}

/// For a restore: refuses a disk that anything holds.
pub fn refuse_if_held(path: &Path) -> Result<(), Report> {
    refuse(
        path,
        false,
        DiskState::Untouched,
        "Unmount it or stop what holds it.",
    )
}

fn refuse(path: &Path, writers_only: bool, disk: DiskState, advice: &str) -> Result<(), Report> {
    let holders = blockdev::holders(path).map_err(|e| {
        if let Some(error) = blockdev::Error::of(&e).filter(|e| {
            matches!(
                e.kind(),
                blockdev::ErrorKind::NotFound | blockdev::ErrorKind::NotADisk
            )
        }) {
            return report::open(error, disk);
        }
        let found = format!("it cannot be told who uses {}: {e}", path.display());
        Report::new(Code::DiskInUse, found, disk)
    })?;
    let list: Vec<String> = holders
        .iter()
        .filter(|holder| !writers_only || holder.may_write())
        .map(ToString::to_string)
        .collect();
    if list.is_empty() {
        return Ok(());
    }
    let found = format!("{} is in use: {}", path.display(), list.join("; "));
    Err(Report::new(Code::DiskInUse, found, disk).with_advice(advice))
}
