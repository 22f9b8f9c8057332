//! What was wrong with a file system when its image was made is told by whoever looks into it.

use super::assert_same;
use crate::disks::{self, copy, flip, folder, peek, poke};
use crate::imager;
use crate::run::Run;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::loopdev::Mounted;

/// The image of a copy of the GPT disk that `change` was done to.
fn imaged(change: impl FnOnce(&Path)) -> (TempDir, PathBuf) {
    let dir = folder();
    let disk = copy(&disks::gpt().disk.path, dir.path().join("disk"));
    change(&disk);
    let image = dir.path().join("image");
    imager!["backup", "-q", disk, image].ok();
    (dir, image)
}

/// Each command that looks into a partition.
fn all(dir: &TempDir, image: &Path, partition: &str, file: &str) -> Vec<Run> {
    let out = dir.path().join("out");
    let _ = fs::remove_dir_all(&out);
    vec![
        imager!["ls", image, "--partition", partition].ok(),
        imager!["ls", "--json", image, "--partition", partition].ok(),
        imager!["cat", image, "--partition", partition, file].ok(),
        imager![
            "extract",
            "-q",
            "--json",
            image,
            "--partition",
            partition,
            "/",
            out
        ]
        .ok(),
    ]
}

/// All of them warn with that code, in words and in JSON, and none about another partition.
#[track_caller]
fn assert_warned(dir: &TempDir, image: &Path, (partition, file): (&str, &str), code: &str) {
    for run in all(dir, image, partition, file) {
        let start = format!("warning: {code}: partition {partition}: ");
        assert!(run.stderr.starts_with(&start), "{}", run.stderr);
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&run.stdout) {
            assert_eq!(json["warnings"][0]["code"], code, "{json}");
        }
    }
}

/// A number in a FAT32's first sector.
fn field(disk: &Path, at: u64, len: usize) -> u64 {
    let bytes = peek(disk, disks::gpt().disk.partitions[0].start + at, len);
    let number = |all, byte| all << 8 | u64::from(byte);
    bytes.into_iter().rev().fold(0, number)
}

fn some_file() -> String {
    let tree = testkit::build::Tree::new(1, 24, 150_000);
    let (name, _) = tree.files().next().unwrap();
    name
}

#[test]
fn a_partition_that_was_not_unmounted() {
    let (dir, image) = imaged(|disk| {
        let start = disks::gpt().disk.partitions[0].start;
        let (reserved, size) = (field(disk, 14, 2), field(disk, 36, 4));
        for copy in 0..field(disk, 16, 1) {
            let flags = start + (reserved + copy * size) * 512 + 7;
            poke(disk, flags, &[peek(disk, flags, 1)[0] & !0x08]);
        }
    });
    let file = some_file();
    assert_warned(&dir, &image, ("1", &file), "fs-dirty");
    // It is no affair of the other one.
    for run in all(&dir, &image, "2", &file) {
        assert_eq!(run.stderr, "");
        if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&run.stdout) {
            assert_eq!(json["warnings"], serde_json::json!([]));
        }
    }
}

#[test]
fn a_partition_that_contradicts_itself() {
    let (dir, image) = imaged(|disk| {
        let start = disks::gpt().disk.partitions[0].start;
        let (reserved, size) = (field(disk, 14, 2), field(disk, 36, 4));
        // Only the second of the two tables, far behind what is in use.
        flip(disk, start + (reserved + size) * 512 + size * 512 - 600);
    });
    assert_warned(&dir, &image, ("1", &some_file()), "fs-damaged");
}

/// A disk with partitions that was pulled out.
#[test]
fn a_partition_whose_journal_was_not_replayed() {
    let dir = folder();
    let disk = copy(&disks::gpt().disk.path, dir.path().join("disk"));
    let pulled = dir.path().join("pulled");
    let part = &disks::gpt().disk.partitions[1];
    let place = format!("loop,offset={},sizelimit={}", part.start, part.size);
    let mounted = Mounted::new(&disk, &format!("{place},commit=1"));
    fs::write(mounted.path().join("the last one"), b"committed").unwrap();
    let last = File::open(mounted.path().join("the last one")).unwrap();
    last.sync_all().unwrap();
    fs::copy(&disk, &pulled).unwrap();
    drop(last);
    drop(mounted);
    let image = dir.path().join("image");
    imager!["backup", "-q", pulled, image].ok();
    assert_warned(&dir, &image, ("2", "the last one"), "fs-dirty");
    // The kernel replays it now.
    let mounted = Mounted::new(&pulled, &place);
    assert_same(mounted.path(), &dir.path().join("out"));
}
