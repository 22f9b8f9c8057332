//! File systems whose metadata lies, or that need recovery.
//!
//! Owns: that they are copied in full, or with what their journal refers to, with a
//! warning, or refused with `--strict`. Does not own: the parsers' own cases (`diskmap`).

use crate::disks::{self, MIB, copy, flip, folder, poke};
use crate::imager;
use std::fs;
use std::path::Path;
use std::process::Command;
use testkit::build::{DiskBuilder, Tree};
use testkit::loopdev::{LoopDevice, Mounted};

/// Asserts that partition `number` is copied in full with a warning, and that the copy is
/// the same in every byte of it; with `--strict` it is refused.
fn assert_copied_in_full(disk: &Path, number: u64, code: &str) {
    let dir = folder();
    let image = dir.path().join("image");
    imager!["map", disk, "--strict", "--json"].refused(code);
    imager!["backup", disk, image, "--strict", "--json"]
        .refused(code)
        .disk("not-involved");
    assert!(!image.exists());

    let map = imager!["map", disk, "--json"].ok().json();
    let parts = map["partitions"].as_array().unwrap();
    let part = parts.iter().find(|part| part["number"] == number).unwrap();
    assert_eq!(part["method"], "full", "{part}");
    assert_eq!(part["used_bytes"], part["size_bytes"]);
    assert_eq!(map["warnings"][0]["partition"], number);

    imager!["backup", "-q", disk, image].warns(code);
    let info = imager!["info", "--json", image].ok().json();
    assert!(info["warnings"][0].as_str().unwrap().starts_with(code));
    let target = dir.path().join("target.img");
    imager!["restore", "-q", image, target].ok();
    let (start, len) = (
        part["start_bytes"].as_u64().unwrap(),
        part["size_bytes"].as_u64().unwrap(),
    );
    let bytes = |path: &Path| disks::peek(path, start, len as usize);
    assert!(bytes(disk) == bytes(&target), "the copy differs");
}

fn debugfs(disk: &Path, offset: u64, request: &str) {
    let place = format!("{}?offset={offset}", disk.display());
    let status = Command::new("debugfs")
        .args(["-w", "-R", request, &place])
        .output()
        .expect("debugfs is missing: apt-get install e2fsprogs");
    assert!(status.status.success(), "{status:?}");
}

#[test]
fn more_blocks_than_the_partition_has() {
    let dir = folder();
    let disk = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    let part = &disks::gpt().disk.partitions[1];
    // By a tool that also writes the right checksum: only the number lies.
    debugfs(&disk, part.start, "set_super_value blocks_count 1000000");
    assert_copied_in_full(&disk, 2, "fs-damaged");
}

#[test]
fn checksums_that_do_not_hold() {
    let dir = folder();
    let bare = &disks::bare().disk.path;
    let geometry = Command::new("dumpe2fs")
        .arg(bare)
        .output()
        .expect("dumpe2fs");
    let text = String::from_utf8_lossy(&geometry.stdout).into_owned();
    let block_of = |what: &str| -> u64 {
        let line = text
            .lines()
            .find(|line| line.trim_start().starts_with(what))
            .unwrap();
        let digits = line.split_once(" at ").unwrap().1;
        digits
            .split(|c: char| !c.is_ascii_digit())
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let superblock = 1024 + 4; // blocks_count
    let descriptor = 4096 + 12; // free blocks of group 0
    for place in [superblock, descriptor] {
        let disk = copy(bare, dir.path().join("disk.img"));
        flip(&disk, place);
        assert_copied_in_full(&disk, 0, "fs-damaged");
    }
    // Another block is used than before, so that every count is still right.
    let bitmap = block_of("Block bitmap") * 4096;
    let disk = copy(bare, dir.path().join("disk.img"));
    let bytes = disks::peek(&disk, bitmap, 768); // bits of the 6144 blocks that there are
    let mixed = bytes.iter().position(|&byte| byte != 0 && byte != 0xff);
    let mixed = mixed.expect("a byte with free and used blocks");
    let rotated = bytes[mixed].rotate_left(1);
    assert_ne!(rotated, bytes[mixed]);
    poke(&disk, bitmap + mixed as u64, &[rotated]);
    assert_copied_in_full(&disk, 0, "fs-damaged");
}

#[test]
fn an_ext4_that_needs_recovery() {
    let dir = folder();
    let disk = copy(&disks::bare().disk.path, dir.path().join("disk.img"));
    let torn = dir.path().join("torn.img");
    {
        let device = LoopDevice::attach(&disk, 512);
        let mounted = Mounted::new(device.path(), "rw");
        fs::write(mounted.path().join("new"), vec![7; 100_000]).unwrap();
        let synced = Command::new("sync").arg("-f").arg(mounted.path()).status();
        assert!(synced.unwrap().success());
        // As after a power cut: the copy was never unmounted.
        copy(&disk, torn.clone());
    }
    // What its journal refers to belongs to its map, and people hear of it.
    imager!["map", torn, "--strict", "--json"].refused("fs-dirty");
    let map = imager!["map", torn, "--json"].ok().json();
    let part = &map["partitions"][0];
    assert_eq!(part["method"], "used", "{part}");
    assert!(part["used_bytes"].as_u64() < part["size_bytes"].as_u64());
    let image = dir.path().join("image");
    let target = dir.path().join("target.img");
    imager!["backup", "-q", torn, image].warns("fs-dirty");
    imager!["restore", "-q", image, target].ok();
    {
        // Recovery works on the restored disk as on the torn one.
        let device = LoopDevice::attach(&target, 512);
        let mounted = Mounted::new(device.path(), "rw");
        let new = fs::read(mounted.path().join("new")).unwrap();
        assert!(new == vec![7; 100_000], "what was safe is gone");
    }
    let status = Command::new("e2fsck").arg("-fn").arg(&target).output();
    assert_eq!(status.expect("e2fsck").status.code(), Some(0));
    // Unmounted in order, it is copied by its map again.
    let map = imager!["map", disk, "--json", "--strict"].ok().json();
    assert_eq!(map["partitions"][0]["method"], "used");
}

#[test]
fn what_is_not_known_is_copied_in_full_without_a_warning() {
    let dir = folder();
    let disk = dir.path().join("disk.img");
    DiskBuilder::gpt(8 * MIB, 512).raw(2 * MIB, 3).build(&disk);
    poke(&disk, MIB + 3, b"ReFS\0\0\0\0");
    let run = imager![
        "backup",
        "-q",
        "--strict",
        disk,
        dir.path().join("image"),
        "--json"
    ]
    .ok();
    assert_eq!(run.json()["warnings"].as_array().unwrap().len(), 0);
    let map = imager!["map", disk, "--json"].ok().json();
    assert_eq!(map["partitions"][0]["method"], "full");
}

#[test]
fn random_damage_never_panics_and_never_loses_a_file_system_silently() {
    // Whatever is flipped in an ext4's metadata: either the map is refused or full, or
    // the used bytes still hold every byte that the undamaged map holds.
    let dir = folder();
    let tree = Tree::new(5, 10, 40_000);
    let disk = dir.path().join("disk.img");
    DiskBuilder::bare(8 * MIB, 512)
        .ext4(8 * MIB, &tree)
        .build(&disk);
    let extents = |run: crate::run::Run| crate::compare::extents(&run.ok().json());
    let good = extents(imager!["map", disk, "--json", "--extents"]);
    let mut random = testkit::build::Random::new(6);
    for _ in 0..24 {
        let place = 1024 + random.below(3 * 4096);
        flip(&disk, place);
        let now = extents(imager!["map", disk, "--json", "--extents"]);
        let covered = good
            .iter()
            .all(|&(start, len)| now.iter().any(|&(s, l)| s <= start && start + len <= s + l));
        assert!(covered, "byte {place} flipped: the map shrank to {now:?}");
        flip(&disk, place);
    }
}
