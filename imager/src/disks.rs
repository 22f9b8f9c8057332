//! The disks of this machine: `imager disks`, the disk check, and the choice of one for a
//! job.
//!
//! Owns: the list in the form of messages, and what is on each disk. Does not own: finding
//! disks (`blockdev`), matching a description (`select`), the words of the list (`shown`).

mod select;
mod shown;

pub use select::{find, select};

use crate::progress::{ProgressSink, Silent};
use crate::{map, report, source};
use serde_json::Value;
use shown::Shown;
use std::path::Path;
use wire::{Code, DiskCheckEntry, DiskInfo, DiskState, Report};

/// All disks with what is on them: the table for people, and the list for scripts.
///
/// # Errors
/// `no-storage-driver` if the kernel does not tell its disks.
pub fn listing() -> Result<(String, Value), Report> {
    let disks: Vec<Shown> = list()?.iter().map(with_contents).collect();
    let json = serde_json::to_value(&disks).map_err(|e| {
        let found = format!("listing the disks: {e}");
        Report::new(Code::Internal, found, DiskState::NotInvolved)
    })?;
    Ok((shown::table_of(&disks), json))
}

/// A disk with what is on it, as the table of all shows it.
pub fn table_of_one(info: &DiskInfo) -> String {
    shown::table_of(&[with_contents(info)])
}

/// All disks of this machine, in the form of messages.
///
/// # Errors
/// `no-storage-driver` if the kernel does not tell its disks.
pub fn list() -> Result<Vec<DiskInfo>, Report> {
    match blockdev::list_disks() {
        Ok(disks) => Ok(disks.iter().map(to_wire).collect()),
        Err(e) => {
            let found = format!("the kernel's list of disks (/sys/block) cannot be read: {e}");
            let report = Report::new(Code::NoStorageDriver, found, DiskState::NotInvolved);
            Err(report.with_advice("Mount sysfs on /sys."))
        }
    }
}

/// A disk in the form of messages.
pub fn to_wire(info: &blockdev::DiskInfo) -> DiskInfo {
    let way = |way: &blockdev::DiskPath| wire::DiskPath {
        path: way.path.clone(),
        address: way.address.clone(),
        bus: way.bus.clone(),
        controller: way.controller.clone(),
    };
    DiskInfo {
        number: info.number,
        path: info.path.clone(),
        size_bytes: info.size_bytes,
        sector_size: info.sector_size,
        physical_sector_size: info.physical_sector_size,
        model: info.model.clone(),
        serial: info.serial.clone(),
        wwn: info.wwn.clone(),
        bus: info.bus.clone(),
        controller: info.controller.clone(),
        names: info.names.clone(),
        paths: info.paths.iter().map(way).collect(),
        removable: info.removable,
        read_only: info.read_only,
    }
}

/// What is on a disk, with the reason where that cannot be told.
pub fn look(info: &DiskInfo, progress: &dyn ProgressSink) -> DiskCheckEntry {
    let scanned = source::open(Path::new(&info.path), None).and_then(|device| {
        diskmap::scan(
            &source::Watched(&device, progress),
            source::geometry(&device),
            &diskmap::ScanOptions::default(),
        )
        .map_err(|e| report::scan(&e, DiskState::NotInvolved))
    });
    let (found, problem) = match scanned {
        Ok(found) => (Some(map::json(&found, false)), None),
        Err(problem) => (None, Some(problem)),
    };
    DiskCheckEntry {
        info: info.clone(),
        map: found,
        problem,
        health: None,
    }
}

fn with_contents(info: &DiskInfo) -> Shown {
    let in_use_by = match blockdev::holders(Path::new(&info.path)) {
        Ok(holders) => holders.iter().map(ToString::to_string).collect(),
        // Better shown as a question than as free.
        Err(e) => vec![format!("unknown: {e}")],
    };
    let DiskCheckEntry {
        info, map, problem, ..
    } = look(info, &Silent);
    let field = |name: &str, otherwise: Value| {
        let value = map.as_ref().and_then(|map| map.get(name));
        value.cloned().unwrap_or(otherwise)
    };
    Shown {
        in_use_by,
        table: field("table", Value::Null),
        disk_id: field("disk_id", Value::Null),
        used_bytes: field("used_bytes", Value::Null),
        partitions: field("partitions", Value::Array(Vec::new())),
        problem,
        info,
    }
}
