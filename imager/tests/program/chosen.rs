//! Chosen partitions into existing ones: what is written and what is not, and each check
//! that refuses.
//!
//! Owns: `--partition`. Does not own: whole disks (`sizes`, `kept`).

use crate::disks::{self, Imaged, MIB, copy, folder, garbage, hash, peek, poke};
use crate::imager;
use crate::kept::is_unfinished;
use crate::run::{FAILED, REFUSED, Run, USAGE, command, finish};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use testkit::build::{BuiltDisk, BuiltPartition, DiskBuilder, Tree};
use testkit::loopdev::{LoopDevice, Mounted};
use wire::RestoreScope;

/// Restores without asking.
fn restore(image: &Path, target: &Path, more: &[&str]) -> Run {
    let mut restore = command(["restore", "-q", "--json", "--yes", "--save-tables", "none"]);
    restore.args(more).arg(image).arg(target);
    finish(restore)
}

/// Refused with this code, by the plan too, and not one byte changed.
fn refused(image: &Path, target: &Path, more: &[&str], code: &str) -> String {
    let exit = if code == "usage" { USAGE } else { REFUSED };
    let before = hash(target);
    let said = restore(image, target, more)
        .fails(code, exit)
        .disk("untouched")
        .stderr;
    restore(image, target, &[&["--plan"], more].concat()).fails(code, exit);
    assert_eq!(hash(target), before, "{code}, but something was written");
    said
}

/// All bytes of a disk outside of some ranges.
fn outside(disk: &Path, ranges: &[(u64, u64)]) -> blake3::Hash {
    let mut bytes = fs::read(disk).unwrap();
    for &(start, len) in ranges {
        bytes[start as usize..(start + len) as usize].fill(0);
    }
    blake3::hash(&bytes)
}

/// The same layout as the imaged disk, with other contents: another life of the machine.
fn other_life(imaged: &Imaged, to: std::path::PathBuf) -> std::path::PathBuf {
    let other = copy(&imaged.disk.path, to);
    for part in &imaged.disk.partitions {
        let noise = vec![0xa5; part.size as usize];
        poke(&other, part.start, &noise);
    }
    other
}

/// A partition of a disk as a disk of its own, for the checks of what was built.
fn verify_alone(disk: &Path, built: &BuiltDisk, part: &BuiltPartition) {
    let one = BuiltDisk {
        partitions: vec![part.clone()],
        ..built.clone()
    };
    one.verify(disk);
}

#[test]
fn one_partition_is_written_and_no_other_byte() {
    let dir = folder();
    for (imaged, at) in [
        (disks::gpt(), 1),
        (disks::gpt_4k(), 0),
        (disks::mbr(), 1),
        (disks::mbr(), 0),
    ] {
        let part = &imaged.disk.partitions[at];
        let backing = other_life(imaged, dir.path().join("target.img"));
        let device = LoopDevice::attach(&backing, imaged.disk.sector_size);
        let before = outside(&backing, &[(part.start, part.size)]);
        let number = part.number.to_string();
        let run = restore(&imaged.image, device.path(), &["--partition", &number]).ok();
        assert_eq!(run.json()["verified"], true);
        assert_eq!(
            outside(&backing, &[(part.start, part.size)]),
            before,
            "others changed"
        );
        verify_alone(&backing, &imaged.disk, part);
    }
}

#[test]
fn several_partitions_of_which_one_goes_elsewhere() {
    let dir = folder();
    let tree = Tree::new(20, 20, 90_000);
    let plan = DiskBuilder::gpt(64 * MIB, 512)
        .ext4(12 * MIB, &tree)
        .swap(4 * MIB);
    let disk = plan.raw(2 * MIB, 21).build(&dir.path().join("disk.img"));
    let image = dir.path().join("image");
    imager!["backup", "-q", disk.path, image].ok();
    let plan = DiskBuilder::gpt(80 * MIB, 512)
        .raw(3 * MIB, 1)
        .swap(4 * MIB)
        .gap(5 * MIB);
    let other = plan
        .ext4(12 * MIB, &Tree::new(1, 3, 9000))
        .build(&dir.path().join("other.img"));
    let changed: Vec<_> = other.partitions[1..]
        .iter()
        .map(|p| (p.start, p.size))
        .collect();
    let before = outside(&other.path, &changed);
    restore(
        &image,
        &other.path,
        &["--partition", "1=3", "--partition", "2"],
    )
    .ok();
    assert_eq!(outside(&other.path, &changed), before);
    let moved = BuiltPartition {
        start: other.partitions[2].start,
        ..disk.partitions[0].clone()
    };
    verify_alone(&other.path, &disk, &moved);
    let swap = BuiltPartition {
        start: other.partitions[1].start,
        ..disk.partitions[1].clone()
    };
    verify_alone(&other.path, &disk, &swap);
}

#[test]
fn a_larger_partition_is_filled_if_that_is_asked_for() {
    let dir = folder();
    let tree = Tree::new(22, 20, 90_000);
    let built = DiskBuilder::gpt(40 * MIB, 512).ext4(12 * MIB, &tree);
    let disk = built.build(&dir.path().join("disk.img"));
    let image = dir.path().join("image");
    imager!["backup", "-q", disk.path, image].ok();
    let other = DiskBuilder::gpt(60 * MIB, 512)
        .swap(MIB)
        .ext4(30 * MIB, &Tree::new(1, 2, 900));
    let other = other.build(&dir.path().join("other.img"));
    let part = &other.partitions[1];
    let said = refused(
        &image,
        &other.path,
        &["--partition", "1=2"],
        "partition-size-mismatch",
    );
    for shown in [12 * MIB, 30 * MIB] {
        assert!(said.contains(&shown.to_string()), "{said}");
    }
    assert!(said.contains("--grow 2"), "{said}");
    refused(
        &image,
        &other.path,
        &["--partition", "1=2", "--grow", "1"],
        "usage",
    );
    let before = outside(&other.path, &[(part.start, part.size)]);
    let run = restore(&image, &other.path, &["--partition", "1=2", "--grow", "2"]).ok();
    assert!(
        run.json()["grown"]
            .as_str()
            .unwrap()
            .contains("18.0 MiB larger"),
        "{run:?}"
    );
    assert_eq!(outside(&other.path, &[(part.start, part.size)]), before);
    let moved = BuiltPartition {
        start: part.start,
        ..disk.partitions[0].clone()
    };
    verify_alone(&other.path, &disk, &moved);
}

#[test]
fn every_check_refuses_before_the_first_write() {
    let dir = folder();
    let target = other_life(disks::gpt(), dir.path().join("gpt.img"));
    let gpt = &disks::gpt().image;
    let said = refused(gpt, &target, &["--partition", "9"], "partition-not-found");
    assert!(
        said.contains("1: 36.0 MiB, EFI system") || said.contains("1: 36.0 MiB"),
        "{said}"
    );
    let said = refused(gpt, &target, &["--partition", "2=7"], "partition-not-found");
    assert!(said.contains(target.to_str().unwrap()), "{said}");
    refused(
        gpt,
        &target,
        &["--partition", "3=2"],
        "partition-type-mismatch",
    );
    refused(
        gpt,
        &target,
        &["--partition", "2", "--partition", "2"],
        "usage",
    );
    refused(
        &disks::mbr().image,
        &target,
        &["--partition", "1"],
        "table-type-mismatch",
    );
    refused(
        &disks::gpt_4k().image,
        &target,
        &["--partition", "1"],
        "sector-size-mismatch",
    );
    refused(
        &disks::bare().image,
        &target,
        &["--partition", "0=1"],
        "table-type-mismatch",
    );

    let mbr = other_life(disks::mbr(), dir.path().join("mbr.img"));
    refused(gpt, &mbr, &["--partition", "1"], "table-type-mismatch");
    // An extended partition holds nothing by itself.
    let said = refused(
        &disks::mbr().image,
        &mbr,
        &["--partition", "2"],
        "partition-not-found",
    );
    assert!(said.contains("5: "), "{said}");
    refused(
        &disks::mbr().image,
        &mbr,
        &["--partition", "5=7"],
        "partition-type-mismatch",
    );

    let empty = garbage(dir.path().join("garbage.img"), 80 * MIB);
    refused(gpt, &empty, &["--partition", "1"], "table-type-mismatch");
    let damaged = copy(&target, dir.path().join("damaged.img"));
    for place in [512 + 20, 72 * MIB - 512 + 20] {
        disks::flip(&damaged, place);
    }
    refused(gpt, &damaged, &["--partition", "1"], "gpt-damaged");
    let missing = dir.path().join("missing.img");
    imager!["restore", "--partition", "1", gpt, missing].refused("disk-not-found");
    assert!(!missing.exists());
}

#[test]
fn a_partition_that_is_another_one_now_is_refused() {
    let dir = folder();
    let target = other_life(disks::gpt(), dir.path().join("gpt.img"));
    let gpt = &disks::gpt().image;
    let part = &disks::gpt().disk.partitions[1];
    let start = part.start;
    let right = format!(
        "2,start={start},guid=5eed0000-0000-4000-8001-000000000002,type=0fc63daf-8483-4772-8e79-3d69d8477de4"
    );
    for (wrong, shown) in [
        (right.replace("guid=5eed", "guid=6eed"), "GUID"),
        (right.replace("start=", "start=1"), "begins at byte"),
        (right.replace("type=0fc6", "type=1fc6"), "type 0FC63DAF"),
    ] {
        let more = ["--partition", wrong.as_str()];
        let said = refused(gpt, &target, &more, "partition-identity");
        assert!(said.contains(shown), "{said}");
    }
    restore(gpt, &target, &["--partition", &right]).ok();
    // A partitioner gave its number to another one.
    let sgdisk = Command::new("sgdisk")
        .args(["-d", "2", "-n", "2:0:0"])
        .arg(&target)
        .output();
    assert!(sgdisk.unwrap().status.success());
    refused(gpt, &target, &["--partition", &right], "partition-identity");
}

#[test]
fn only_what_is_written_must_be_free() {
    let dir = folder();
    let imaged = disks::gpt();
    let [_, ext4, ..] = imaged.disk.partitions.as_slice() else {
        panic!("no second partition");
    };
    let backing = copy(&imaged.disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let on_it = LoopDevice::attach_at(device.path(), ext4.start, ext4.size, 512);
    for target in [&backing, device.path()] {
        let mounted = Mounted::new(on_it.path(), "ro,noload");
        let before = hash(&backing);
        let said = restore(&imaged.image, target, &["--partition", "2"])
            .refused("disk-in-use")
            .disk("untouched")
            .stderr;
        if *target != backing {
            assert!(said.contains(mounted.path().to_str().unwrap()), "{said}");
        }
        restore(&imaged.image, target, &["--plan", "--partition", "2"]).refused("disk-in-use");
        restore(&imaged.image, target, &[]).refused("disk-in-use");
        assert_eq!(hash(&backing), before);
        drop(mounted);
    }
    // Another partition is mounted: nobody minds, and it stays as it is.
    let mounted = Mounted::new(on_it.path(), "rw");
    fs::write(mounted.path().join("while"), "mounted").unwrap();
    let swap = &imaged.disk.partitions[2];
    poke(&backing, swap.start, &vec![0x5a; swap.size as usize]);
    restore(&imaged.image, device.path(), &["--partition", "3"]).ok();
    verify_alone(&backing, &imaged.disk, swap);
    assert_eq!(fs::read(mounted.path().join("while")).unwrap(), b"mounted");
}

#[test]
fn a_cut_leaves_the_others_as_they_were_and_the_chosen_one_without_a_head() {
    let dir = folder();
    let imaged = disks::gpt();
    let part = &imaged.disk.partitions[1];
    let image = fs::read(&imaged.image).unwrap();
    for cut in [image.len() / 2, image.len() - 1] {
        // The target holds the same contents: what is not zeroed would still be valid.
        let target = copy(&imaged.disk.path, dir.path().join("target.img"));
        let before = outside(&target, &[(part.start, part.size)]);
        let mut child = command(["restore", "--json", "--partition", "2", "-"]);
        let mut child = child.arg(&target).stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(&image[..cut]);
        let run = Run::from(child.wait_with_output().unwrap());
        run.fails("image-damaged", FAILED)
            .disk("partitions-incomplete");
        assert_eq!(outside(&target, &[(part.start, part.size)]), before);
        let head = peek(&target, part.start, MIB as usize);
        assert!(
            head.iter().all(|&b| b == 0),
            "a half-made partition has a head"
        );
        let scope = RestoreScope {
            partitions: vec!["2".parse().unwrap()],
            ..RestoreScope::default()
        };
        assert!(is_unfinished(&imaged.image, &target, &scope));
        restore(&imaged.image, &target, &["--partition", "2"]).ok();
        imaged.disk.verify(&target);
        assert!(!is_unfinished(&imaged.image, &target, &scope));
    }
}

#[test]
fn the_plan_of_a_partition_says_what_stays() {
    let dir = folder();
    let target = other_life(disks::mbr(), dir.path().join("mbr.img"));
    let before = hash(&target);
    let json = restore(
        &disks::mbr().image,
        &target,
        &["--plan", "--partition", "5"],
    )
    .ok()
    .json();
    assert_eq!(json["table_change"], "untouched");
    let fates: Vec<_> = json["old"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["fate"].clone())
        .collect();
    assert_eq!(fates, ["kept", "overwritten", "kept", "kept", "kept"]);
    assert_eq!(json["new"][1]["image_partition"], 5);
    let run = imager![
        "restore",
        "--plan",
        "--partition",
        "5",
        disks::mbr().image,
        target
    ]
    .ok();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(
        said.contains("stays as it is") && !said.contains("EVERYTHING"),
        "{said}"
    );
    assert_eq!(hash(&target), before);
}

#[test]
fn an_image_of_some_partitions_gives_those() {
    let dir = folder();
    let imaged = disks::gpt();
    let image = dir.path().join("partial");
    imager!["backup", "-q", imaged.disk.path, image, "--partition", "2"].ok();
    let target = other_life(imaged, dir.path().join("target.img"));
    refused(&image, &target, &[], "image-partial");
    refused(&image, &target, &["--keep", "1"], "image-partial");
    let said = refused(
        &image,
        &target,
        &["--partition", "3"],
        "partition-not-found",
    );
    assert!(said.contains("made without"), "{said}");
    let part = &imaged.disk.partitions[1];
    let before = outside(&target, &[(part.start, part.size)]);
    restore(&image, &target, &["--partition", "2"]).ok();
    assert_eq!(outside(&target, &[(part.start, part.size)]), before);
    verify_alone(&target, &imaged.disk, part);
    // The boot loader's space is not in it either, so it never makes a whole disk.
    let all = ["--keep", "1", "--keep", "3", "--keep", "4"];
    refused(&image, &target, &all, "image-partial");
}
