//! Backup and restore bring back what was there: to an equal disk, a larger one, a
//! smaller one that is large enough, files and devices.
//!
//! Owns: the known layouts. Does not own: generated ones (`generated`).

use crate::compare::{assert_same, difference, extents, map};
use crate::disks::{self, Imaged, MIB, flip, folder, garbage, hash};
use crate::imager;
use std::path::Path;
use std::process::Command;
use testkit::loopdev::LoopDevice;

/// Restores to a file and looks at it in every way.
fn to_file(imaged: &Imaged, target: &Path) {
    let disk = &imaged.disk;
    let run = imager!["restore", imaged.image, target, "--json", "-q"].ok();
    assert_eq!(run.json()["verified"], true);
    assert_same(&disk.path, target, disk.sector_size);
    disk.verify(target);
}

/// sgdisk finds nothing to complain about.
fn assert_gpt_is_clean(disk: &Path) {
    let output = Command::new("sgdisk")
        .arg("-v")
        .arg(disk)
        .output()
        .expect("sgdisk is missing: apt-get install gdisk");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success()
            && said.contains("No problems found")
            && !said.contains("corrupt GPT"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn to_a_new_file_of_the_same_size() {
    let dir = folder();
    for (name, imaged) in [
        ("gpt", disks::gpt()),
        ("gpt-4k", disks::gpt_4k()),
        ("mbr", disks::mbr()),
        ("bare", disks::bare()),
    ] {
        let target = dir.path().join(name);
        to_file(imaged, &target);
        assert_eq!(target.metadata().unwrap().len(), imaged.disk.size);
    }
}

#[test]
fn over_garbage() {
    let dir = folder();
    for imaged in [disks::gpt(), disks::mbr(), disks::bare()] {
        let target = garbage(dir.path().join("old.img"), imaged.disk.size);
        to_file(imaged, &target);
    }
}

#[test]
fn to_larger_disks() {
    let dir = folder();
    let path = dir.path().join("larger.img");
    for imaged in [disks::gpt(), disks::mbr(), disks::bare()] {
        let target = garbage(path.clone(), imaged.disk.size + 9 * MIB + 512);
        to_file(imaged, &target);
    }
    let larger = garbage(path, disks::gpt().disk.size + 5 * MIB);
    to_file(disks::gpt(), &larger);
    assert_gpt_is_clean(&larger);
    let size = larger.metadata().unwrap().len();
    assert_eq!(
        disks::peek(&larger, size - 512, 8),
        b"EFI PART",
        "the backup table stands at the new end"
    );
    assert_ne!(
        disks::peek(&larger, disks::gpt().disk.size - 512, 8),
        b"EFI PART",
        "no backup table stands at the old end"
    );
}

#[test]
fn to_a_smaller_disk_that_holds_the_partitions() {
    let dir = folder();
    // The last partition ends before 61 MiB of 72.
    let target = garbage(dir.path().join("smaller.img"), 66 * MIB);
    to_file(disks::gpt(), &target);
    assert_gpt_is_clean(&target);
}

#[test]
fn to_and_from_loop_devices() {
    let dir = folder();
    for imaged in [disks::gpt(), disks::gpt_4k(), disks::mbr()] {
        let size = imaged.disk.sector_size;
        let backing = garbage(dir.path().join("backing.img"), imaged.disk.size + 3 * MIB);
        let device = LoopDevice::attach(&backing, size);
        // One for each: saved tables are never overwritten.
        let stem = imaged.disk.path.file_stem().unwrap().to_string_lossy();
        let saved = dir.path().join(format!("tables-{stem}.json"));
        imager![
            "restore",
            imaged.image,
            device.path(),
            "--yes",
            "-q",
            "--save-tables",
            saved
        ]
        .ok();
        assert_same(&imaged.disk.path, device.path(), size);
        imaged.disk.verify(device.path());
        if imaged.disk.path.ends_with("gpt.img") || size == 4096 {
            assert_gpt_is_clean(device.path());
        }
        // And back again, from the device.
        let before = hash(device.path());
        let image = dir.path().join("again.dpl");
        imager!["backup", device.path(), image, "--overwrite", "-q"].ok();
        assert_eq!(hash(device.path()), before, "a backup changes its source");
        let again = LoopDevice::attach(
            &garbage(dir.path().join("again.img"), imaged.disk.size + 3 * MIB),
            size,
        );
        imager![
            "restore",
            image,
            again.path(),
            "--yes",
            "-q",
            "--save-tables",
            "none"
        ]
        .ok();
        assert_same(device.path(), again.path(), size);
        imaged.disk.verify(again.path());
    }
}

#[test]
fn a_backup_changes_no_byte_of_its_source() {
    let dir = folder();
    for imaged in [disks::gpt(), disks::mbr(), disks::bare()] {
        let source = disks::copy(&imaged.disk.path, dir.path().join("source.img"));
        let before = (
            hash(&source),
            source.metadata().unwrap().modified().unwrap(),
        );
        imager!["backup", source, dir.path().join("image"), "--overwrite"].ok();
        imager!["map", source].ok();
        let after = (
            hash(&source),
            source.metadata().unwrap().modified().unwrap(),
        );
        assert_eq!(before, after);
    }
}

#[test]
fn every_codec_and_a_full_copy() {
    let dir = folder();
    let disk = &disks::mbr().disk;
    for (codec, level) in [("none", "1"), ("deflate", "6"), ("zstd", "9")] {
        let image = dir.path().join(codec);
        imager![
            "backup", "-q", disk.path, image, "--codec", codec, "--level", level
        ]
        .ok();
        let target = dir.path().join("target.img");
        imager!["restore", "-q", image, target].ok();
        assert_same(&disk.path, &target, 512);
        disk.verify(&target);
    }
    let image = dir.path().join("full");
    imager!["backup", "-q", disk.path, image, "--full"].ok();
    let target = dir.path().join("full.img");
    imager!["restore", "-q", image, target].ok();
    for part in &disk.partitions {
        let len = part.size as usize;
        assert!(
            disks::peek(&disk.path, part.start, len) == disks::peek(&target, part.start, len),
            "partition {} is not the same in every sector",
            part.number
        );
    }
}

#[test]
fn used_sector_copies_leave_the_unused_behind() {
    // The disks are worth a test: what is used lies in many pieces.
    for imaged in [disks::gpt(), disks::gpt_4k(), disks::mbr(), disks::bare()] {
        let disk = &imaged.disk;
        let pieces = extents(&map(&disk.path, disk.sector_size)).len();
        assert!(pieces > 12, "{} has {pieces} pieces", disk.path.display());
    }
    let image = disks::gpt().image.metadata().unwrap().len();
    // 52 MiB of file systems are full of stale noise; their files are below 3 MiB.
    assert!(image < 16 * MIB, "the image has {image} bytes");
}

#[test]
fn a_changed_restore_is_told_from_a_good_one() {
    let dir = folder();
    let disk = &disks::bare().disk;
    let target = dir.path().join("target.img");
    imager!["restore", "-q", disks::bare().image, target].ok();
    flip(&target, 1024 + 120); // the label, in the superblock
    assert!(difference(&disk.path, &target, 512).is_some());
}
