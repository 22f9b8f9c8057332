//! The disks of this machine: `imager disks`, and the choice of one for a job.
//!
//! Owns: how disks are shown, and their form in messages. Does not own: finding them
//! (`blockdev`), matching a job's description (`select`).

mod select;

pub use select::select;

use serde::Serialize;
use std::io::{self, Write};
use std::path::Path;
use wire::{Code, DiskState, Report, size};

/// A disk as `imager disks --json` prints it. Scripts rely on the names.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    info: wire::DiskInfo,
    /// Who uses it, in words; empty if it is free.
    in_use_by: Vec<String>,
}

/// Lists all disks on standard output: as a table for people, or as a JSON array.
///
/// # Errors
/// `no-storage-driver` if the kernel does not tell its disks, `output-failed`.
pub fn run(json: bool) -> Result<(), Report> {
    let disks: Vec<Listed> = list()?.into_iter().map(with_holders).collect();
    let text = if json {
        json_of(&disks)?
    } else {
        table_of(&disks)
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(|e| failed(Code::OutputFailed, &e)),
    }
}

/// All disks of this machine, in the form of messages.
///
/// # Errors
/// `no-storage-driver` if the kernel does not tell its disks.
pub fn list() -> Result<Vec<wire::DiskInfo>, Report> {
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
pub fn to_wire(info: &blockdev::DiskInfo) -> wire::DiskInfo {
    wire::DiskInfo {
        number: info.number,
        path: info.path.clone(),
        size_bytes: info.size_bytes,
        sector_size: info.sector_size,
        physical_sector_size: info.physical_sector_size,
        model: info.model.clone(),
        serial: info.serial.clone(),
        wwn: info.wwn.clone(),
        bus: info.bus.clone(),
        removable: info.removable,
        read_only: info.read_only,
    }
}

fn with_holders(info: wire::DiskInfo) -> Listed {
    let in_use_by = match blockdev::holders(Path::new(&info.path)) {
        Ok(holders) => holders.iter().map(ToString::to_string).collect(),
        // Better shown as a question than as free.
        Err(e) => vec![format!("unknown: {e}")],
    };
    Listed { info, in_use_by }
}

fn json_of(disks: &[Listed]) -> Result<String, Report> {
    let text = serde_json::to_string_pretty(disks).map_err(|e| failed(Code::Internal, &e))?;
    Ok(text + "\n")
}

fn failed(code: Code, error: &dyn std::error::Error) -> Report {
    Report::new(
        code,
        format!("listing the disks: {error}"),
        DiskState::NotInvolved,
    )
}

const HEADINGS: [&str; 9] = [
    "no",
    "disk",
    "size",
    "sector",
    "bus",
    "model",
    "serial",
    "wwn",
    "in use by",
];

fn table_of(disks: &[Listed]) -> String {
    if disks.is_empty() {
        return "No disks were found.\n".to_owned();
    }
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    for disk in disks {
        rows.extend(rows_of(disk));
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// One row, and one more for each further holder.
fn rows_of(disk: &Listed) -> Vec<Vec<String>> {
    let info = &disk.info;
    let or_dash = |text: &str| {
        if text.is_empty() {
            "-".to_owned()
        } else {
            text.to_owned()
        }
    };
    let mut bus = info.bus.clone();
    for (set, word) in [
        (info.removable, ", removable"),
        (info.read_only, ", read-only"),
    ] {
        bus += if set { word } else { "" };
    }
    let mut holders = disk.in_use_by.iter().cloned();
    let mut rows = vec![vec![
        info.number.to_string(),
        info.path.clone(),
        size::bytes(info.size_bytes),
        info.sector_size.to_string(),
        bus,
        or_dash(&info.model),
        or_dash(&info.serial),
        or_dash(&info.wwn),
        holders.next().unwrap_or_else(|| "-".to_owned()),
    ]];
    for holder in holders {
        let mut row = vec![String::new(); HEADINGS.len() - 1];
        row.push(holder);
        rows.push(row);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::{Listed, json_of, table_of};

    fn disks() -> Vec<Listed> {
        let first = wire::DiskInfo {
            path: "/dev/sda".into(),
            size_bytes: 10 << 30,
            sector_size: 512,
            physical_sector_size: 4096,
            model: "Samsung SSD 870".into(),
            serial: "S5Y2NX0R".into(),
            wwn: "naa.5002538f00000001".into(),
            bus: "sata".into(),
            ..wire::DiskInfo::default()
        };
        let second = wire::DiskInfo {
            number: 1,
            path: "/dev/sdb".into(),
            size_bytes: 4 << 30,
            sector_size: 4096,
            physical_sector_size: 4096,
            bus: "usb".into(),
            removable: true,
            read_only: true,
            ..wire::DiskInfo::default()
        };
        let used = [
            "/dev/sda1 is mounted read-write at /",
            "/dev/sda2 is swap space in use",
        ];
        vec![
            Listed {
                info: first,
                in_use_by: used.map(str::to_owned).into(),
            },
            Listed {
                info: second,
                in_use_by: vec![],
            },
        ]
    }

    #[test]
    fn people_read_a_table() {
        insta::assert_snapshot!(table_of(&disks()), @r"
        no  disk      size      sector  bus                        model            serial    wwn                   in use by
        0   /dev/sda  10.0 GiB  512     sata                       Samsung SSD 870  S5Y2NX0R  naa.5002538f00000001  /dev/sda1 is mounted read-write at /
                                                                                                                    /dev/sda2 is swap space in use
        1   /dev/sdb  4.00 GiB  4096    usb, removable, read-only  -                -         -                     -
        ");
        assert_eq!(table_of(&[]), "No disks were found.\n");
    }

    #[test]
    fn scripts_read_stable_names() {
        let json: serde_json::Value = serde_json::from_str(&json_of(&disks()).unwrap()).unwrap();
        assert_eq!(
            json[1],
            serde_json::json!({
                "number": 1, "path": "/dev/sdb", "size_bytes": 4u64 << 30, "sector_size": 4096,
                "physical_sector_size": 4096, "model": "", "serial": "", "wwn": "", "bus": "usb",
                "removable": true, "read_only": true, "in_use_by": [],
            })
        );
        assert_eq!(json[0]["in_use_by"][1], "/dev/sda2 is swap space in use");
        assert_eq!(json_of(&[]).unwrap(), "[]\n");
    }
}
