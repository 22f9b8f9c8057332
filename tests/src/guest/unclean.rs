//! File systems that only a guest's kernel can write, left by a power cut: F2FS, exFAT,
//! FAT and NTFS.
//!
//! Owns: these disks, how they are filled until the cut, their way through backup and
//! restore on the host, and what must be there after the kernel's replay. Does not own:
//! the guests.

use super::{Guest, Results, host_backup};
use crate::matrix::content::{Mounted, expected, ok, run, s, trees};
use crate::matrix::trip::garbage;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use testkit::loopdev::LoopDevice;
use testkit::qemu::Disk;

const MIB: u64 = 1 << 20;

/// What was written before the power went, all of it by the kernel of a guest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    /// Files, flushed as a whole; nothing after that.
    Whole,
    /// Files, flushed as a whole; then others, of which each was synced.
    Each,
    /// The same, but the driver keeps no promise about the second ones: what matters is
    /// that it was at work.
    Unkept,
    /// All files, flushed as a whole: synced files of this driver may have no name yet.
    Both,
}

impl Written {
    /// Word of the script.
    fn word(self) -> &'static str {
        match self {
            Written::Whole => "whole",
            Written::Each | Written::Unkept => "each",
            Written::Both => "both",
        }
    }

    /// Whether the second files must be there.
    fn has_last(self) -> bool {
        matches!(self, Written::Each | Written::Both)
    }
}

/// One partition.
struct Lost {
    /// Name of its steps.
    name: &'static str,
    mkfs: &'static [&'static str],
    /// Name in maps, and the kernel's driver.
    file_system: &'static str,
    driver: &'static str,
    /// Options of the mount that replays.
    options: &'static str,
    mib: u64,
    written: Written,
    /// How it must be copied.
    method: &'static str,
}

/// Disks with their sector sizes and partitions.
const DISKS: [(&str, u32, &[Lost]); 2] = [
    (
        "cut-512",
        512,
        &[
            Lost {
                name: "f2fs-synced",
                mkfs: &["mkfs.f2fs", "-f", "-q"],
                file_system: "f2fs",
                driver: "f2fs",
                options: "rw",
                mib: 96,
                written: Written::Each,
                method: "full",
            },
            Lost {
                name: "exfat-512",
                mkfs: &["mkfs.exfat"],
                file_system: "exfat",
                driver: "exfat",
                options: "ro",
                mib: 32,
                written: Written::Each,
                method: "full",
            },
            Lost {
                name: "fat32",
                mkfs: &["mkfs.fat", "-F", "32", "-s", "1"],
                file_system: "fat32",
                driver: "vfat",
                options: "ro",
                mib: 48,
                written: Written::Both,
                method: "full",
            },
            Lost {
                name: "ntfs",
                mkfs: &["mkntfs", "-q", "-Q", "-F"],
                file_system: "ntfs",
                driver: "ntfs3",
                options: "ro",
                mib: 32,
                written: Written::Unkept,
                method: "full",
            },
        ],
    ),
    (
        "cut-4kn",
        4096,
        &[
            Lost {
                name: "f2fs-idle",
                mkfs: &["mkfs.f2fs", "-f", "-q", "-w", "4096"],
                file_system: "f2fs",
                driver: "f2fs",
                options: "rw",
                mib: 96,
                written: Written::Whole,
                method: "used",
            },
            Lost {
                name: "exfat-4kn",
                mkfs: &["mkfs.exfat"],
                file_system: "exfat",
                driver: "exfat",
                options: "ro",
                mib: 32,
                written: Written::Each,
                method: "full",
            },
        ],
    ),
];

const FILL: &str = r#"
# fill NAME DRIVER DEVICE HOW: mounts it, writes, and leaves it mounted.
fill() {
    at=/tmp/$1
    mkdir "$at" && mount -t "$2" "$3" "$at" && cp -r /mnt/cut-first/. "$at" || return 1
    mkdir "$at/last" || return 1
    (cd /mnt/cut-last && find . -type d) | while read -r folder; do
        mkdir -p "$at/last/$folder" || return 1
    done || return 1
    sync -f "$at" || return 1
    [ "$4" != whole ] || return 0
    (cd /mnt/cut-last && find . -type f) | while read -r file; do
        dd if="/mnt/cut-last/$file" of="$at/last/$file" bs=64k conv=fsync 2>/dev/null || return 1
    done || return 1
    [ "$4" = each ] || sync -f "$at"
}
"#;

/// A disk that went through backup and restore.
pub struct Restored {
    name: &'static str,
    sector: u32,
    path: PathBuf,
}

/// Makes the disks for the guest whose power is cut, and its steps.
///
/// # Panics
/// If that fails.
pub fn prepare(folder: &Path, guest: &mut Guest) {
    let (first, last) = trees();
    guest.carry("cut-first", &first);
    guest.carry("cut-last", &last);
    guest.script(FILL);
    for (name, sector, parts) in DISKS {
        let path = folder.join(format!("{name}.img"));
        make(&path, sector, parts);
        guest.attach(disk(&path, name, sector));
        guest.script(&format!("disk=$(node {name})"));
        for (number, part) in (1..).zip(parts) {
            let (name, driver, how) = (part.name, part.driver, part.written.word());
            guest.script(&format!(
                "run {name} fill {name} {driver} $(part $disk {number}) {how}"
            ));
        }
    }
}

fn disk(path: &Path, name: &str, sector: u32) -> Disk {
    let mut disk = Disk::new(path, name);
    disk.sector_size = sector;
    disk.physical_size = sector;
    disk
}

/// Size of a disk with these partitions, each at a whole MiB.
fn size(parts: &[Lost]) -> u64 {
    (2 + parts.iter().map(|part| part.mib).sum::<u64>()) * MIB
}

/// First bytes of the partitions.
fn starts(parts: &[Lost]) -> impl Iterator<Item = u64> + '_ {
    parts.iter().scan(MIB, |next, part| {
        let start = *next;
        *next += part.mib * MIB;
        Some(start)
    })
}

fn make(path: &Path, sector: u32, parts: &[Lost]) {
    let file = File::create_new(path).expect("a file for the disk");
    file.set_len(size(parts)).expect("its size");
    let unit = u64::from(sector);
    let mut script = "label: gpt\\n".to_owned();
    for (start, part) in starts(parts).zip(parts) {
        script += &format!("start={}, size={}\\n", start / unit, part.mib * MIB / unit);
        let device = LoopDevice::attach_at(path, start, part.mib * MIB, sector);
        let (tool, args) = part.mkfs.split_first().expect("a tool");
        ok(tool, &[args, &[s(device.path())]].concat());
        if part.driver == "ntfs3" {
            more_file_records(device.path());
        }
    }
    let disk = LoopDevice::attach(path, sector);
    let command = format!(
        "printf '{script}' | sfdisk -q --no-reread --no-tell-kernel --wipe never {}",
        s(disk.path())
    );
    ok("sh", &["-c", &command]);
}

/// The kernel's driver has trouble making the file table of a small NTFS larger. Files
/// that were there once leave room in it.
fn more_file_records(device: &Path) {
    let mounted = Mounted::new("ntfs-3g", &[], device);
    let paths: Vec<_> = (0..200)
        .map(|number| mounted.path().join(number.to_string()))
        .collect();
    for path in &paths {
        File::create_new(path).expect("a file");
    }
    for path in &paths {
        fs::remove_file(path).expect("no file");
    }
}

/// Takes the disks that the guest left through backup and a restore onto garbage.
///
/// # Panics
/// If anything is not as it must be.
pub fn there_and_back(imager: &Path, folder: &Path, cut: &Results) -> Vec<Restored> {
    let mut all = Vec::new();
    for (name, sector, parts) in DISKS {
        for part in parts {
            cut.ok(part.name);
        }
        let left = folder.join(format!("{name}.img"));
        mapped(imager, &left, sector, parts);
        let image = folder.join(format!("{name}.image"));
        let made = host_backup(imager, &left, sector, &image);
        let warnings = made["warnings"].as_array().map_or(&[][..], Vec::as_slice);
        let dirty = warnings.iter().filter(|one| one["code"] == "fs-dirty");
        assert_eq!(dirty.count(), parts.len(), "{name}: {made}");

        let path = folder.join(format!("{name}-restored.img"));
        garbage(&path, size(parts));
        let target = LoopDevice::attach(&path, sector);
        ok(
            s(imager),
            &[
                "restore",
                "--yes",
                "--quiet",
                "--save-tables",
                "none",
                s(&image),
                s(target.path()),
            ],
        );
        drop(target);
        for (start, part) in starts(parts).zip(parts) {
            if part.method == "full" {
                same(&left, &path, start, part.mib * MIB, part.name);
            }
        }
        fs::remove_file(&image).expect("the image goes");
        all.push(Restored { name, sector, path });
    }
    all
}

/// What is copied whole is the same to the last byte, whatever a driver makes of it.
fn same(source: &Path, restored: &Path, start: u64, size: u64, name: &str) {
    let (skip, count) = (start.to_string(), size.to_string());
    let args = ["-i", &skip, "-n", &count, s(source), s(restored)];
    let (equal, text) = run("cmp", &args);
    assert!(equal, "{name}: {text}");
}

fn mapped(imager: &Path, disk: &Path, sector: u32, parts: &[Lost]) {
    let device = LoopDevice::attach(disk, sector);
    let text = ok(s(imager), &["map", "--json", s(device.path())]);
    let map: Value = serde_json::from_str(&text).expect("JSON");
    let found = map["partitions"].as_array().expect("partitions");
    for (number, part) in (1u32..).zip(parts) {
        let one = found.iter().find(|one| one["number"] == number);
        let one = one.unwrap_or_else(|| panic!("no partition {number}: {text}"));
        assert_eq!(one["file_system"], part.file_system, "{}: {one}", part.name);
        assert_eq!(one["method"], part.method, "{}: {one}", part.name);
    }
}

/// Adds the steps in which a kernel replays what was restored.
pub fn replay(restored: &[Restored], guest: &mut Guest) {
    let (first, last) = trees();
    guest.carry_hashes("cut-first", &first);
    guest.carry_hashes("cut-last", &last);
    for (one, (name, _, parts)) in restored.iter().zip(DISKS) {
        guest.attach(disk(&one.path, one.name, one.sector));
        guest.script(&format!("disk=$(node {name})"));
        for (number, part) in (1..).zip(parts) {
            let last = if part.written.has_last() {
                "/mnt/cut-last.list"
            } else {
                ""
            };
            guest.script(&format!(
                "run {}-replayed mounted {} {} $(part $disk {number}) /mnt/cut-first.list {last}",
                part.name, part.driver, part.options
            ));
        }
    }
}

/// Looks at what the replaying guest found, and at what its file systems' tools say.
///
/// # Panics
/// If a synced file is missing or different.
pub fn check(restored: &[Restored], results: &Results) {
    for (one, (_, sector, parts)) in restored.iter().zip(DISKS) {
        for (start, part) in starts(parts).zip(parts) {
            let files = results.ok(&format!("{}-replayed", part.name));
            let wanted = expected(part.written.has_last()).len();
            assert_eq!(files.matches(": OK").count(), wanted, "{}", part.name);
            if part.driver != "f2fs" {
                continue;
            }
            let device = LoopDevice::attach_at(&one.path, start, part.mib * MIB, sector);
            let (clean, text) = run("fsck.f2fs", &["--dry-run", s(device.path())]);
            assert!(clean && !text.contains("[FIX]"), "{}: {text}", part.name);
        }
    }
}
