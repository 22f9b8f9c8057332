//! `restore --reuse`: what the disk holds already is left alone.
//!
//! Owns: what is written and what is not, and that the result is the image all the same.
//! Does not own: jobs of a server that go on after a break (`tests/`).

use crate::compare::{assert_same, difference};
use crate::disks::{self, Imaged, MIB, copy, flip, folder, garbage, peek};
use crate::imager;
use crate::interrupted::half_restored;
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use testkit::loopdev::LoopDevice;

fn reuse(image: &Path, target: &Path) -> Value {
    let save = ["--yes", "--save-tables", "none"];
    imager![
        "restore", "-q", "--json", "--reuse", save[0], save[1], save[2], image, target
    ]
    .ok()
    .json()
}

fn number(json: &Value, field: &str) -> u64 {
    json[field].as_u64().expect("a number")
}

/// Heads, tails and what shares a cell with them are written in any case.
fn ends_of(imaged: &Imaged) -> u64 {
    (imaged.disk.partitions.len() as u64 + 1) * 4 * MIB
}

#[test]
fn a_disk_that_holds_the_image_is_hardly_written() {
    for (imaged, sector_size) in [
        (disks::gpt(), 512),
        (disks::gpt_4k(), 4096),
        (disks::mbr(), 512),
    ] {
        let dir = folder();
        let target = copy(&imaged.disk.path, dir.path().join("target.img"));
        let json = reuse(&imaged.image, &target);
        let (written, skipped) = (
            number(&json, "written_bytes"),
            number(&json, "skipped_bytes"),
        );
        assert_eq!(written + skipped, number(&json, "used_bytes"));
        assert!(skipped > 8 * MIB, "only {skipped} bytes were found");
        assert!(written < ends_of(imaged), "{written} bytes were written");
        assert_same(&imaged.disk.path, &target, sector_size);
    }
}

#[test]
fn what_differs_is_written_and_nothing_else() {
    let dir = folder();
    let imaged = disks::noise();
    let same = copy(&imaged.disk.path, dir.path().join("same.img"));
    let unchanged = reuse(&imaged.image, &same);
    let target = copy(&imaged.disk.path, dir.path().join("target.img"));
    // One byte in the middle of the only partition's noise.
    let part = &imaged.disk.partitions[0];
    let place = part.start + part.size / 2;
    flip(&target, place);
    assert!(difference(&imaged.disk.path, &target, 512).is_some());
    let json = reuse(&imaged.image, &target);
    assert_eq!(
        number(&json, "written_bytes") - number(&unchanged, "written_bytes"),
        MIB,
        "one cell"
    );
    assert_same(&imaged.disk.path, &target, 512);
}

#[test]
fn garbage_is_overwritten_and_a_device_is_served_too() {
    let dir = folder();
    let imaged = disks::gpt();
    let backing = garbage(dir.path().join("old.img"), imaged.disk.size);
    let device = LoopDevice::attach(&backing, 512);
    let json = reuse(&imaged.image, device.path());
    // The zeroed place of the table is what the image has there.
    assert!(number(&json, "skipped_bytes") <= MIB);
    assert_same(&imaged.disk.path, device.path(), 512);
    let json = reuse(&imaged.image, device.path());
    assert!(number(&json, "skipped_bytes") > 8 * MIB);
    assert_same(&imaged.disk.path, device.path(), 512);
}

#[test]
fn nothing_is_discarded() {
    let dir = folder();
    let imaged = disks::gpt();
    let target = copy(&imaged.disk.path, dir.path().join("target.img"));
    // The free space of a file system: no part of the image.
    let free = free_place(imaged);
    let mark = [0xa5; 4096];
    File::options()
        .write(true)
        .open(&target)
        .unwrap()
        .write_all_at(&mark, free)
        .unwrap();
    reuse(&imaged.image, &target);
    assert_eq!(peek(&target, free, 4096), mark);
}

/// Place of a free MiB in the middle of a partition.
fn free_place(imaged: &Imaged) -> u64 {
    let used = crate::compare::extents(&crate::compare::map(&imaged.disk.path, 512));
    let part = &imaged.disk.partitions[0];
    let hit = |at: u64| {
        used.iter()
            .any(|(start, len)| at < start + len && *start < at + MIB)
    };
    (part.start + 2 * MIB..part.start + part.size - 2 * MIB)
        .step_by(4096)
        .find(|&at| !hit(at))
        .expect("a free MiB")
}

#[test]
fn a_killed_restore_is_gone_on_with() {
    let dir = folder();
    let imaged = disks::noise();
    let target = garbage(dir.path().join("target.img"), imaged.disk.size);
    let (mut child, _stdin, _) = half_restored(&target, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    let json = reuse(&imaged.image, &target);
    let skipped = number(&json, "skipped_bytes");
    assert!(skipped > 2 * MIB, "only {skipped} bytes were found");
    assert_same(&imaged.disk.path, &target, 512);
}
