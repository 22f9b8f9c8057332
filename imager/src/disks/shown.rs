//! What `imager disks` prints.
//!
//! Owns: the names in JSON, on which scripts rely, and the table for people. Does not
//! own: finding disks or looking into them.

use crate::map::printable;
use serde::Serialize;
use serde_json::Value;
use wire::{DiskInfo, Report, size};

/// A disk with what is on it.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// Identity.
    #[serde(flatten)]
    pub info: DiskInfo,
    /// Who uses it, in words; empty if it is free.
    pub in_use_by: Vec<String>,
    /// `gpt`, `mbr` or `none`; null if it cannot be told.
    pub table: Value,
    /// GUID of a GPT, signature of an MBR.
    pub disk_id: Value,
    /// Bytes that a backup would copy.
    pub used_bytes: Value,
    /// As in `imager map --json`.
    pub partitions: Value,
    /// Why there is no table.
    pub problem: Option<Report>,
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

/// The table for people: a line a disk, and below it its paths and partitions.
pub fn table_of(disks: &[Shown]) -> String {
    if disks.is_empty() {
        return "No disks were found.\n".to_owned();
    }
    let mut rows = vec![HEADINGS.map(str::to_owned).to_vec()];
    let mut below: Vec<Vec<String>> = vec![Vec::new()];
    for disk in disks {
        let own = rows_of(disk);
        below.resize(rows.len() + own.len() - 1, Vec::new());
        below.push(lines_below(disk));
        rows.extend(own);
    }
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for (row, below) in rows.iter().zip(&below) {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
        for line in below {
            text += &format!("      {}\n", line.trim_end());
        }
    }
    text
}

/// One row, and one more for each further holder.
fn rows_of(disk: &Shown) -> Vec<Vec<String>> {
    let info = &disk.info;
    let mut bus = info.bus.clone();
    if !info.paths.is_empty() {
        bus += &format!(", {} paths", info.paths.len());
    }
    for (set, word) in [
        (info.removable, ", removable"),
        (info.read_only, ", read-only"),
    ] {
        bus += if set { word } else { "" };
    }
    let sectors = if info.physical_sector_size > info.sector_size {
        format!("{}/{}", info.sector_size, info.physical_sector_size)
    } else {
        info.sector_size.to_string()
    };
    let mut holders = disk.in_use_by.iter().cloned();
    let mut rows = vec![vec![
        info.number.to_string(),
        info.path.clone(),
        size::bytes(info.size_bytes),
        sectors,
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

fn lines_below(disk: &Shown) -> Vec<String> {
    let mut lines: Vec<String> = disk
        .info
        .paths
        .iter()
        .map(|way| format!("path {}  {}  {}", way.path, way.address, way.controller))
        .collect();
    if let Some(problem) = &disk.problem {
        lines.push(format!("{}: {}", problem.code, problem.found));
    }
    let table = match disk.table.as_str() {
        Some("gpt") => "GPT",
        Some("mbr") => "MBR",
        Some(_) => "no partition table",
        None => return lines,
    };
    let used = disk.used_bytes.as_u64().unwrap_or(0);
    lines.push(format!("{table}, {} used", size::bytes(used)));
    let partitions = disk.partitions.as_array();
    lines.extend(partitions.into_iter().flatten().map(partition_line));
    lines
}

fn partition_line(partition: &Value) -> String {
    let text = |field: &str| partition[field].as_str().unwrap_or_default();
    let number = |field: &str| partition[field].as_u64().unwrap_or(0);
    let mut words = vec![printable(text("type_name"), 40)];
    if partition["hidden"] == true {
        words.push("hidden".to_owned());
    }
    words.retain(|word| !word.is_empty());
    let name = [text("label"), text("name")]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("-");
    format!(
        "{:>3}  {:>10}  {:<10} {:<16} used {:>10}  {}",
        number("number"),
        size::bytes(number("size_bytes")),
        or_dash(text("file_system")),
        printable(name, 16),
        size::bytes(number("used_bytes")),
        words.join(", "),
    )
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::{Shown, table_of};
    use serde_json::{Value, json};
    use wire::{DiskInfo, DiskPath};

    fn disks() -> Vec<Shown> {
        let first = DiskInfo {
            path: "/dev/sda".into(),
            size_bytes: 10 << 30,
            sector_size: 512,
            physical_sector_size: 4096,
            model: "Samsung SSD 870".into(),
            serial: "S5Y2NX0R".into(),
            wwn: "naa.5002538f00000001".into(),
            bus: "sata".into(),
            ..DiskInfo::default()
        };
        let way = |path: &str, address: &str| DiskPath {
            path: path.into(),
            address: address.into(),
            bus: "fc".into(),
            controller: "lpfc".into(),
        };
        let second = DiskInfo {
            number: 1,
            path: "/dev/dm-0".into(),
            size_bytes: 4 << 30,
            sector_size: 4096,
            physical_sector_size: 4096,
            bus: "fc".into(),
            read_only: true,
            paths: vec![way("/dev/sdb", "2:0:0:1"), way("/dev/sdc", "3:0:0:1")],
            ..DiskInfo::default()
        };
        let used = [
            "/dev/sda1 is mounted read-write at /",
            "/dev/sda2 is swap space in use",
        ];
        vec![
            Shown {
                info: first,
                in_use_by: used.map(str::to_owned).into(),
                table: json!("gpt"),
                disk_id: json!("AB"),
                used_bytes: json!(3 << 20),
                partitions: json!([
                    {"number": 1, "size_bytes": 8u64 << 30, "file_system": "ext4", "label": "root",
                     "name": "", "type_name": "Linux filesystem", "used_bytes": 2 << 20,
                     "hidden": false},
                    {"number": 2, "size_bytes": 1u64 << 30, "file_system": "", "label": "",
                     "name": "\u{1b}x", "type_name": "", "used_bytes": 1 << 20, "hidden": true},
                ]),
                problem: None,
            },
            Shown {
                info: second,
                in_use_by: vec![],
                table: Value::Null,
                disk_id: Value::Null,
                used_bytes: Value::Null,
                partitions: json!([]),
                problem: Some(wire::Report::new(
                    wire::Code::ReadError,
                    "it is gone",
                    wire::DiskState::NotInvolved,
                )),
            },
        ]
    }

    #[test]
    fn people_read_a_table() {
        insta::assert_snapshot!(table_of(&disks()), @r"
        no  disk       size      sector    bus                     model            serial    wwn                   in use by
        0   /dev/sda   10.0 GiB  512/4096  sata                    Samsung SSD 870  S5Y2NX0R  naa.5002538f00000001  /dev/sda1 is mounted read-write at /
                                                                                                                    /dev/sda2 is swap space in use
              GPT, 3.00 MiB used
                1    8.00 GiB  ext4       root             used   2.00 MiB  Linux filesystem
                2    1.00 GiB  -          ?x               used   1.00 MiB  hidden
        1   /dev/dm-0  4.00 GiB  4096      fc, 2 paths, read-only  -                -         -                     -
              path /dev/sdb  2:0:0:1  lpfc
              path /dev/sdc  3:0:0:1  lpfc
              read-error: it is gone
        ");
        assert_eq!(table_of(&[]), "No disks were found.\n");
    }

    #[test]
    fn scripts_read_stable_names() {
        let list = disks();
        assert_eq!(
            serde_json::to_value(&list[1]).unwrap(),
            json!({
                "number": 1, "path": "/dev/dm-0", "size_bytes": 4u64 << 30, "sector_size": 4096,
                "physical_sector_size": 4096, "model": "", "serial": "", "wwn": "", "bus": "fc",
                "removable": false, "read_only": true, "controller": "", "names": [],
                "paths": [
                    {"path": "/dev/sdb", "address": "2:0:0:1", "bus": "fc", "controller": "lpfc"},
                    {"path": "/dev/sdc", "address": "3:0:0:1", "bus": "fc", "controller": "lpfc"},
                ],
                "in_use_by": [], "table": null, "disk_id": null, "used_bytes": null,
                "partitions": [],
                "problem": {"code": "read-error", "found": "it is gone",
                    "advice": wire::Code::ReadError.advice(), "disk": "not-involved"},
            })
        );
        let first = serde_json::to_value(&list[0]).unwrap();
        assert_eq!(first["in_use_by"][1], "/dev/sda2 is swap space in use");
    }
}
