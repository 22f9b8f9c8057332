//! Who else uses what a restore is about to write.
//!
//! Owns: opening the disk with the claim that the restore needs: on all of it, or only on
//! the partitions that are written. Does not own: finding holders (`blockdev`).

use super::plan::{Plan, TableChange};
use crate::{in_use, report};
use blockdev::{Device, PartitionNode};
use std::path::Path;
use wire::{Code, DiskState, Report, RestoreScope};

/// Opens the disk for a restore. A whole disk must be free; where only partitions are
/// written the others may be in use, and [`partitions`] looks at those.
pub fn open(path: &Path, scope: &RestoreScope) -> Result<Device, Report> {
    let opened = if scope.partitions.is_empty() {
        in_use::refuse_if_held(path)?;
        Device::open_write(path)
    } else {
        Device::open_write_shared(path)
    };
    let mut device = opened.map_err(|e| report::open(&e, DiskState::Untouched))?;
    device.write_directly();
    Ok(device)
}

/// Exclusive handles of the partitions that are written, as far as the kernel has nodes
/// for them.
pub struct Claims(Vec<Device>);

/// Refuses what is in use of that which the plan writes. Changes nothing.
///
/// # Errors
/// `disk-in-use` with the holders.
pub fn refuse_if_used(path: &Path, plan: &Plan) -> Result<(), Report> {
    if !matches!(plan.table, TableChange::Untouched) {
        return in_use::refuse_if_held(path);
    }
    let holders = blockdev::holders_within(path, &plan.areas).map_err(|e| {
        refuse(format!(
            "it cannot be told who uses {}: {e}",
            path.display()
        ))
    })?;
    if holders.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = holders.iter().map(ToString::to_string).collect();
    Err(refuse(format!(
        "what is to be written of {} is in use: {}",
        path.display(),
        list.join("; ")
    )))
}

fn refuse(found: String) -> Report {
    Report::new(Code::DiskInUse, found, DiskState::Untouched)
        .with_advice("Unmount the partition or stop what holds it.")
}

/// Claims the partitions that are written; nothing where the whole disk is claimed.
///
/// # Errors
/// `disk-in-use` with the holders.
pub fn partitions(path: &Path, plan: &Plan) -> Result<Claims, Report> {
    if !matches!(plan.table, TableChange::Untouched) {
        return Ok(Claims(Vec::new()));
    }
    refuse_if_used(path, plan)?;
    let written = |node: &PartitionNode| {
        let mut areas = plan.areas.iter();
        areas.any(|area| area.start < node.range.end && node.range.start < area.end)
    };
    let mut claims = Vec::new();
    for node in blockdev::partition_nodes(path).into_iter().filter(written) {
        let device =
            Device::open_write(&node.path).map_err(|e| report::open(&e, DiskState::Untouched))?;
        // The kernel caches a partition apart from its disk. What it holds back must not
        // come over what is written, nor be read for it afterwards.
        device
            .invalidate_cache()
            .map_err(|e| refuse(e.to_string()))?;
        claims.push(device);
    }
    Ok(Claims(claims))
}

impl Claims {
    /// The partitions were written by way of the disk.
    pub fn release(self) {
        for device in self.0 {
            // Old contents in a cache are wrong, but not on the disk.
            let _ = device.invalidate_cache();
        }
    }
}
