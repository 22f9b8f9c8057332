//! Backups of chosen partitions, and partitions that are copied whole.
//!
//! Owns: what such an image holds and says, and what it is refused for. Does not own:
//! writing single partitions to a disk.

use crate::disks::{self, Imaged, folder, garbage, hash};
use crate::imager;
use serde_json::Value;
use std::path::{Path, PathBuf};

fn backup(imaged: &Imaged, folder: &Path, options: &[&str]) -> crate::run::Run {
    let image = folder.join("image");
    let _ = std::fs::remove_file(&image);
    let disk = imaged.disk.path.as_os_str();
    let mut command = crate::run::command(["backup".as_ref(), disk, image.as_os_str()]);
    command.args(["-q", "--json"]).args(options);
    crate::run::finish(command)
}

fn regions(image: &Path) -> Vec<Value> {
    let info = imager!["info", "--json", image].ok().json();
    info["regions"].as_array().expect("regions").clone()
}

fn of_number(regions: &[Value], number: u32) -> Value {
    let mut found = regions.iter().filter(|region| region["number"] == number);
    found.next().expect("the partition").clone()
}

#[test]
fn only_the_chosen_partitions_are_in_the_image() {
    let dir = folder();
    for imaged in [disks::gpt(), disks::mbr()] {
        let numbers: Vec<u32> = imaged.disk.partitions.iter().map(|p| p.number).collect();
        let (first, third) = (numbers[0], numbers[2]);
        let chosen = [first.to_string(), third.to_string()];
        let options = ["--partition", &chosen[0], "--partition", &chosen[1]];
        let run = backup(imaged, dir.path(), &options).ok();
        let image: PathBuf = dir.path().join("image");
        let (part, whole) = (regions(&image), regions(&imaged.image));
        assert_eq!(part.len(), whole.len(), "every region is listed");
        for (part, whole) in part.iter().zip(&whole) {
            let number = part["number"].as_u64().and_then(|n| u32::try_from(n).ok());
            let wanted = number == Some(first) || number == Some(third);
            for field in [
                "start",
                "size",
                "type",
                "guid",
                "file_system",
                "label",
                "uuid",
            ] {
                assert_eq!(part[field], whole[field], "{field}");
            }
            if wanted {
                assert_eq!(part, whole);
            } else {
                assert_eq!(part["method"], "none");
                assert_eq!(part["used_bytes"], 0);
            }
        }
        let used = of_number(&whole, first)["used_bytes"].as_u64().unwrap()
            + of_number(&whole, third)["used_bytes"].as_u64().unwrap();
        assert_eq!(run.json()["used_bytes"], used);
        let info = imager!["info", "--json", image].ok().json();
        assert_eq!(
            (&info["format_version"], &info["partial"]),
            (&2.into(), &true.into())
        );
        imager!["verify", "-q", image].ok();
    }
}

#[test]
fn a_partial_image_is_not_restored_as_a_disk() {
    let dir = folder();
    backup(disks::gpt(), dir.path(), &["--partition", "2"]).ok();
    let image = dir.path().join("image");
    let target = garbage(dir.path().join("target"), disks::gpt().disk.size);
    let before = hash(&target);
    let run = imager!["restore", "-q", "--json", image, target];
    let run = run.refused("image-partial").disk("untouched");
    let found = run.json()["found"].to_string();
    assert!(found.contains("only 2; not in it: 1, 3, 4"), "{found}");
    assert_eq!(hash(&target), before);
    let new = dir.path().join("new.img");
    imager!["restore", "-q", image, new].refused("image-partial");
    assert!(!new.exists());
}

#[test]
fn one_partition_is_copied_whole() {
    let dir = folder();
    let run = backup(disks::gpt(), dir.path(), &["--full=2"]).ok();
    let image = dir.path().join("image");
    let (found, usual) = (regions(&image), regions(&disks::gpt().image));
    for (found, usual) in found.iter().zip(&usual) {
        if found["number"] == 2 {
            assert_eq!(
                (&found["method"], &usual["method"]),
                (&"full".into(), &"used".into())
            );
            assert_eq!(found["used_bytes"], found["size"]);
        } else {
            assert_eq!(found, usual);
        }
    }
    assert_eq!(run.json()["warnings"], serde_json::json!([]));
    let target = dir.path().join("target");
    imager!["restore", "-q", image, target].ok();
    disks::gpt().disk.verify(&target);
    // A version that any reader knows: nothing is absent or bad.
    let info = imager!["info", "--json", image].ok().json();
    assert_eq!(info["format_version"], 1);
    // Together with a choice; and the whole disk.
    let both = ["--partition", "2", "--full=2"];
    backup(disks::gpt(), dir.path(), &both).ok();
    assert_eq!(of_number(&regions(&image), 2)["method"], "full");
    assert_eq!(of_number(&regions(&image), 1)["method"], "none");
    backup(disks::gpt(), dir.path(), &["--full"]).ok();
    let all = regions(&image);
    assert!(all.iter().all(|region| region["method"] == "full"));
}

#[test]
fn damage_in_a_partition_that_was_not_asked_for_is_nobodys_business() {
    let dir = folder();
    let mut disk = disks::gpt().disk.clone();
    disk.path = disks::copy(&disk.path, dir.path().join("disk.img"));
    // The ext4 of partition 2 says that it has other blocks than it has.
    let superblock = disk.partitions[1].start + 1024;
    disks::flip(&disk.path, superblock + 4);
    let image = dir.path().join("image");
    let damaged = Imaged { disk, image };
    backup(&damaged, dir.path(), &[]).warns("fs-damaged");
    backup(&damaged, dir.path(), &["--strict"]).refused("fs-damaged");
    let run = backup(&damaged, dir.path(), &["--strict", "--partition", "1"]).ok();
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
}

#[test]
fn partitions_that_are_not_there_or_not_the_ones_that_are_meant() {
    let dir = folder();
    let image = dir.path().join("image");
    let refused = |imaged: &Imaged, options: &[&str], code: &str, named: &str| {
        let run = backup(imaged, dir.path(), options).refused(code);
        let found = run.json()["found"].to_string();
        assert!(found.contains(named), "{found}");
        assert!(!image.exists());
    };
    let gpt = disks::gpt();
    refused(
        gpt,
        &["--partition", "9"],
        "partition-not-found",
        "looked for partition 9",
    );
    refused(
        gpt,
        &["--partition", "9"],
        "partition-not-found",
        "; 2 (16.0 MiB, ext4",
    );
    refused(
        gpt,
        &["--full=7"],
        "partition-not-found",
        "looked for partition 7",
    );
    refused(
        disks::bare(),
        &["--partition", "1"],
        "partition-not-found",
        "no partition table",
    );
    // The extended partition is no partition to copy.
    let extended = ["--partition", "2"];
    refused(
        disks::mbr(),
        &extended,
        "partition-not-found",
        "looked for partition 2",
    );

    let second = of_number(&regions(&gpt.image), 2);
    let right = format!(
        "2,guid={},start={},type={}",
        second["guid"].as_str().unwrap(),
        second["start"],
        second["type"].as_str().unwrap()
    );
    backup(gpt, dir.path(), &["--partition", &right]).ok();
    std::fs::remove_file(&image).unwrap();
    for (wrong, named) in [
        (
            "2,guid=00000000-0000-0000-0000-000000000000",
            "GUID: the job means",
        ),
        (
            "2,start=512",
            "start in bytes: the job means 512, the disk has",
        ),
        ("2,type=0x07", "type: the job means 0x07, the disk has"),
    ] {
        refused(gpt, &["--partition", wrong], "partition-identity", named);
    }
    for wrong in ["0", "x", "2,size=1"] {
        let run = backup(gpt, dir.path(), &["--partition", wrong]);
        assert_eq!(run.exit, Some(crate::run::USAGE), "{}", run.stderr);
    }
}
