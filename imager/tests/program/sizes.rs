//! Restores to disks of another size: the exact minimum, what grows, what is clipped, and
//! the plan that says so.
//!
//! Owns: whole disks. Does not own: partitions that are chosen or stay (`chosen`, `kept`).

use crate::compare::{map, partition_difference};
use crate::disks::{self, Imaged, MIB, copy, folder, garbage, hash, peek, poke};
use crate::imager;
use crate::run::Run;
use blockdev::Device;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use testkit::build::{DiskBuilder, Tree};
use testkit::loopdev::{LoopDevice, Mounted};

/// The plan as JSON.
fn plan(image: &Path, target: &Path, more: &[&str]) -> Value {
    let mut command = crate::run::command(["restore", "--plan", "--json"]);
    command.args(more).arg(image).arg(target);
    crate::run::finish(command).ok().json()
}

fn restore(image: &Path, target: &Path, more: &[&str]) -> Run {
    let mut command = crate::run::command(["restore", "-q", "--json", "--yes"]);
    command.args(["--save-tables", "none"]).args(more);
    command.arg(image).arg(target);
    crate::run::finish(command)
}

fn sgdisk_is_content(disk: &Path) {
    let output = Command::new("sgdisk").arg("-v").arg(disk).output();
    let output = output.expect("sgdisk is missing: apt-get install gdisk");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("No problems found") && !said.contains("corrupt GPT"),
        "{said}"
    );
}

/// A size just as large as needed works, one sector less is refused and changes nothing.
fn exactly(imaged: &Imaged) {
    let dir = folder();
    let unit = u64::from(imaged.disk.sector_size);
    let size = unit.to_string();
    let sized = ["--sector-size", size.as_str()];
    let roomy = garbage(dir.path().join("roomy.img"), imaged.disk.size);
    let least = plan(&imaged.image, &roomy, &sized)["minimum_bytes"]
        .as_u64()
        .unwrap();
    // Nothing but the partitions and, of a GPT, its backup copy.
    let ends = imaged.disk.partitions.iter().map(|p| p.start + p.size);
    let gpt = peek(&imaged.disk.path, unit, 8) == b"EFI PART";
    let behind = if gpt { unit + (128 * 128) } else { 0 };
    assert_eq!(least, ends.max().unwrap() + behind);

    for extra in [0, 1, 2049] {
        let target = garbage(dir.path().join("fits.img"), least + extra * unit);
        restore(&imaged.image, &target, &sized).ok();
        let found = partition_difference(&imaged.disk.path, &target, imaged.disk.sector_size);
        assert_eq!(
            found,
            None,
            "{} at {least} + {extra}",
            imaged.image.display()
        );
        imaged.disk.verify(&target);
    }
    let backing = garbage(dir.path().join("device.img"), least);
    let device = LoopDevice::attach(&backing, imaged.disk.sector_size);
    restore(&imaged.image, device.path(), &[]).ok();
    let found = partition_difference(&imaged.disk.path, device.path(), imaged.disk.sector_size);
    assert_eq!(found, None);
    if peek(&backing, unit, 8) == b"EFI PART" {
        sgdisk_is_content(device.path());
    }
    drop(device);

    let target = garbage(dir.path().join("small.img"), least - unit);
    let before = hash(&target);
    let run = restore(&imaged.image, &target, &sized)
        .refused("disk-too-small")
        .disk("untouched");
    assert!(
        run.stderr.contains(&format!("at least {least} bytes")),
        "{}",
        run.stderr
    );
    imager![
        "restore",
        "--plan",
        "--sector-size",
        size,
        imaged.image,
        target
    ]
    .refused("disk-too-small");
    let device = LoopDevice::attach(&target, imaged.disk.sector_size);
    restore(&imaged.image, device.path(), &[])
        .refused("disk-too-small")
        .disk("untouched");
    drop(device);
    assert_eq!(hash(&target), before, "refused, but something was written");
}

#[test]
fn the_minimum_of_a_gpt_is_exact() {
    exactly(disks::gpt());
    exactly(disks::gpt_4k());
}

#[test]
fn the_minimum_of_an_mbr_is_exact() {
    exactly(disks::mbr());
    // The extended partition reaches nearly to the end of the disk, its last logical one
    // does not.
    let least = plan(&disks::mbr().image, &disks::mbr().disk.path, &[])["minimum_bytes"].clone();
    assert!(least.as_u64().unwrap() < 50 * MIB, "{least}");
}

#[test]
fn the_minimum_at_4096_byte_sectors_is_exact() {
    let dir = folder();
    let tree = Tree::new(8, 12, 80_000);
    let plans = [
        (
            "logical",
            DiskBuilder::mbr(48 * MIB, 4096)
                .boot_code(8)
                .ext4(12 * MIB, &tree),
        ),
        ("bare", DiskBuilder::bare(16 * MIB, 4096)),
    ];
    for (name, plan) in plans {
        let plan = if name == "logical" {
            plan.logical().swap(2 * MIB).ext4(12 * MIB, &tree)
        } else {
            plan.ext4(16 * MIB, &tree)
        };
        let disk = plan.build(&dir.path().join(format!("{name}.img")));
        let image = dir.path().join(name);
        imager!["backup", "-q", "--sector-size", "4096", disk.path, image].ok();
        exactly(&Imaged { disk, image });
    }
}

#[test]
fn a_disk_without_a_table_needs_its_own_size() {
    exactly(disks::bare());
}

#[test]
fn what_does_not_fit_of_free_space_is_named_and_left_out() {
    let dir = folder();
    let disk = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    let end = disks::gpt()
        .disk
        .partitions
        .last()
        .map(|p| p.start + p.size)
        .unwrap();
    let noise: Vec<u8> = (0..MIB).map(|n| (n % 13) as u8 + 1).collect();
    poke(&disk, end, &noise);
    let image = dir.path().join("image");
    imager!["backup", "-q", disk, image].ok();
    // Half a MiB of it fits before the backup table.
    let size = end + MIB / 2 + 33 * 512;
    let target = garbage(dir.path().join("target.img"), size);
    let notes = plan(&image, &target, &[])["notes"].to_string();
    assert!(
        notes.contains(&format!("from byte {end} on, the last {} bytes", MIB / 2)),
        "{notes}"
    );
    assert_eq!(restore(&image, &target, &[]).ok().json()["verified"], true);
    let fits = &noise[..noise.len() / 2];
    assert!(peek(&target, end, fits.len()) == fits);
    sgdisk_is_content(&target);
    // On a disk that has room all of it comes back.
    let larger = garbage(dir.path().join("larger.img"), disks::gpt().disk.size + MIB);
    assert_eq!(plan(&image, &larger, &[])["notes"].to_string(), "[]");
    restore(&image, &larger, &[]).ok();
    assert!(peek(&larger, end, noise.len()) == noise);
}

#[test]
fn a_plan_lists_what_is_lost_and_writes_nothing() {
    let dir = folder();
    let backing = copy(&disks::mbr().disk.path, dir.path().join("disk.img"));
    std::fs::File::options()
        .write(true)
        .open(&backing)
        .unwrap()
        .set_len(80 * MIB)
        .unwrap();
    let device = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    let run = imager!["restore", "--plan", disks::gpt().image, device.path()].ok();
    let said = String::from_utf8(run.stdout).unwrap();
    for shown in [
        "EVERYTHING",
        "now: MBR",
        "ext2",
        "swap",
        "OVERWRITTEN",
        "fat32",
        "at least",
    ] {
        assert!(said.contains(shown), "no {shown}: {said}");
    }
    let plan = plan(&disks::gpt().image, device.path(), &[]);
    let numbers = |list: &Value| -> Vec<u64> {
        let list = list.as_array().unwrap();
        list.iter()
            .map(|part| part["number"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&plan["old"]), [1, 5, 6, 7, 8]);
    assert_eq!(numbers(&plan["new"]), [1, 2, 3, 4]);
    assert_eq!(plan["old"][1]["file_system"], "ext4");
    assert_eq!(plan["old"][1]["fate"], "overwritten");
    assert_eq!(
        (&plan["table"], &plan["disk_bytes"]),
        (&"gpt".into(), &(80 * MIB).into())
    );
    assert_eq!(hash(&backing), before, "a plan changed the disk");
    let missing = dir.path().join("missing.img");
    imager!["restore", "--plan", disks::gpt().image, missing].refused("disk-not-found");
    assert!(!missing.exists());

    let part = &disks::mbr().disk.partitions[0];
    let loop_on_it = LoopDevice::attach_at(&backing, part.start, part.size, 512);
    let _mounted = Mounted::new(loop_on_it.path(), "ro");
    imager!["restore", "--plan", disks::gpt().image, backing].refused("disk-in-use");
}

#[test]
fn a_partition_grows_on_a_larger_disk() {
    let dir = folder();
    for (imaged, number) in [
        (disks::gpt(), "4"),
        (disks::gpt(), "last"),
        (disks::gpt_4k(), "last"),
        (disks::mbr(), "last"),
        (disks::mbr(), "8"),
    ] {
        let unit = imaged.disk.sector_size;
        let backing = garbage(dir.path().join("larger.img"), 100 * MIB);
        let device = LoopDevice::attach(&backing, unit);
        let plan = plan(&imaged.image, device.path(), &["--grow", number]);
        let new = plan["new"].as_array().unwrap().last().unwrap().clone();
        let gained = new["grows_by_bytes"].as_u64().unwrap();
        assert!(gained > 20 * MIB, "{plan}");
        let run = restore(&imaged.image, device.path(), &["--grow", number]).ok();
        assert!(run.json()["grown"].as_str().unwrap().contains("larger"));
        let (was, is) = (map(&imaged.disk.path, unit), map(device.path(), unit));
        let (was, is) = (
            was["partitions"].as_array().unwrap(),
            is["partitions"].as_array().unwrap(),
        );
        for (old, new) in was.iter().zip(is) {
            for field in ["number", "start_bytes", "type", "guid", "bootable"] {
                assert_eq!(old[field], new[field]);
            }
        }
        let size = |list: &[Value]| list.last().unwrap()["size_bytes"].as_u64().unwrap();
        assert_eq!(size(is), size(was) + gained);
        let end = is.last().unwrap()["start_bytes"].as_u64().unwrap() + size(is);
        assert_eq!(end % MIB, 0);
        assert!(end >= 99 * MIB);
        imaged.disk.verify(device.path());
        if is[0]["guid"] != "" {
            sgdisk_is_content(device.path());
        }
    }
}

/// FAT has no way to grow here; an ext4 without a root folder is refused by the kernel and
/// by its own tools. The restore is complete all the same, and says what is not done.
#[test]
fn a_file_system_that_does_not_grow_is_told() {
    let dir = folder();
    let tree = Tree::new(31, 8, 50_000);
    for (name, says) in [("fat16", "keeps its size"), ("ext4", "resize2fs")] {
        let plan = DiskBuilder::gpt(40 * MIB, 512).swap(MIB);
        let plan = match name {
            "ext4" => plan.ext4(20 * MIB, &tree),
            _ => plan.fat(16, 20 * MIB, &tree),
        };
        let disk = plan.build(&dir.path().join(name));
        let part = &disk.partitions[1];
        if name == "ext4" {
            let on_it = LoopDevice::attach_at(&disk.path, part.start, part.size, 512);
            let mut debugfs = Command::new("debugfs");
            debugfs.args(["-w", "-R", "clri <2>"]).arg(on_it.path());
            assert!(debugfs.output().expect("debugfs").status.success());
        }
        let image = dir.path().join("image");
        imager!["backup", "-q", "--overwrite", disk.path, image].ok();
        let target = garbage(dir.path().join("larger.img"), 100 * MIB);
        let run = restore(&image, &target, &["--grow", "2"]).warns("fs-not-grown");
        let json = run.json();
        assert_eq!(
            (&json["result"], &json["verified"]),
            (&"done".into(), &true.into())
        );
        assert_eq!(json["warnings"][0]["code"], "fs-not-grown");
        for text in [&json["warnings"][0]["found"], &json["grown"]] {
            let text = text.as_str().unwrap();
            assert!(
                text.contains("partition 2 is") && text.contains(says),
                "{text}"
            );
        }
        let is = map(&target, 512)["partitions"][1]["size_bytes"].clone();
        assert!(is.as_u64().unwrap() > 90 * MIB, "{is}");
        if name == "fat16" {
            disk.verify(&target);
        }
    }
}

/// RAID, ZFS and others have their signatures at the end of a partition: one that an
/// earlier partition left there must not be taken for the grown one's.
#[test]
fn the_end_of_a_partition_that_grows_is_emptied() {
    // On a disk that cannot discard, or that would empty it for us.
    let memory = Mounted::ramfs();
    for imaged in [disks::gpt(), disks::mbr()] {
        let backing = garbage(memory.path().join("larger.img"), 100 * MIB);
        let device = LoopDevice::attach(&backing, 512);
        assert!(
            !Device::open_write(device.path())
                .unwrap()
                .discard(0, MIB)
                .unwrap()
        );
        restore(&imaged.image, device.path(), &["--grow", "last"]).ok();
        let is = map(device.path(), 512);
        let last = is["partitions"].as_array().unwrap().last().unwrap().clone();
        let number = |field: &str| last[field].as_u64().unwrap();
        let end = number("start_bytes") + number("size_bytes");
        let tail = peek(&backing, end - MIB, MIB as usize);
        assert!(tail.iter().all(|&byte| byte == 0), "old contents at {end}");
        imaged.disk.verify(device.path());
    }
}

#[test]
fn a_partition_grows_up_to_the_next_one() {
    let dir = folder();
    let target = garbage(dir.path().join("target.img"), 100 * MIB);
    let text = |number: &str| {
        let run = imager![
            "restore",
            "--plan",
            "--grow",
            number,
            disks::gpt().image,
            target
        ]
        .ok();
        String::from_utf8(run.stdout).unwrap()
    };
    assert!(
        text("1").contains("cannot grow: partition 2 stands behind it"),
        "{}",
        text("1")
    );
    // Behind 2 of the 4096-byte disk there are 2 MiB of nothing.
    let plan = plan(
        &disks::gpt_4k().image,
        &target,
        &["--grow", "2", "--sector-size", "4096"],
    );
    assert_eq!(plan["new"][1]["grows_by_bytes"], 2 * MIB);
    assert_eq!(plan["new"][1]["grows_up_to"], "3");
    let run = restore(&disks::gpt().image, &target, &["--grow", "1"]).ok();
    assert!(run.json()["grown"].as_str().unwrap().contains("no room"));
    imager![
        "restore",
        "--plan",
        "--grow",
        "9",
        disks::gpt().image,
        target
    ]
    .refused("partition-not-found");
    imager![
        "restore",
        "--plan",
        "--grow",
        "2",
        disks::mbr().image,
        target
    ]
    .refused("partition-not-found");
    let usage = imager!["restore", "--grow", "first", disks::gpt().image, target];
    assert_eq!(usage.exit, Some(crate::run::USAGE));
}
