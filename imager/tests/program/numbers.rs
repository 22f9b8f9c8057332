//! Hidden partitions and what numbers mean.
//!
//! Owns: `--number-visible`. Does not own: counting (`numbering`).

use crate::disks::{MIB, copy, folder, hash, poke};
use crate::imager;
use crate::run::{Run, command, finish};
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::build::{BuiltDisk, DiskBuilder, Tree};

/// A disk whose first partition is hidden, by type in an MBR, by attribute in a GPT.
fn hidden(dir: &Path, gpt: bool) -> (BuiltDisk, PathBuf) {
    let tree = Tree::new(30, 10, 50_000);
    let plan = if gpt {
        DiskBuilder::gpt(40 * MIB, 512)
    } else {
        DiskBuilder::mbr(40 * MIB, 512)
    };
    let plan = plan
        .fat(16, 8 * MIB, &tree)
        .swap(2 * MIB)
        .ext4(12 * MIB, &tree);
    let name = if gpt { "gpt" } else { "mbr" };
    let disk = plan.build(&dir.join(format!("{name}.img")));
    let mut tool = if gpt {
        let mut tool = Command::new("sgdisk");
        tool.args(["-A", "1:set:62"]).arg(&disk.path);
        tool
    } else {
        let mut tool = Command::new("sfdisk");
        tool.arg("--part-type").arg(&disk.path).args(["1", "16"]);
        tool
    };
    assert!(tool.output().unwrap().status.success());
    let image = dir.join(name);
    imager!["backup", "-q", disk.path, image].ok();
    (disk, image)
}

fn restore(image: &Path, target: &Path, more: &[&str]) -> Run {
    let mut restore = command(["restore", "-q", "--json", "--number-visible"]);
    restore.args(more).arg(image).arg(target);
    finish(restore)
}

#[test]
fn the_map_says_what_number_means_what() {
    let dir = folder();
    for gpt in [true, false] {
        let (disk, _) = hidden(dir.path(), gpt);
        let map = imager!["map", "--json", disk.path].ok().json();
        let parts = map["partitions"].as_array().unwrap().clone();
        let numbers: Vec<_> = parts
            .iter()
            .map(|p| {
                (
                    p["number"].as_u64(),
                    p["visible_number"].as_u64(),
                    p["hidden"].as_bool(),
                )
            })
            .collect();
        let wanted = [
            (Some(1), None, Some(true)),
            (Some(2), Some(1), Some(false)),
            (Some(3), Some(2), Some(false)),
        ];
        assert_eq!(numbers, wanted);
        let run = imager!["map", "--number-visible", disk.path].ok();
        let said = String::from_utf8(run.stdout).unwrap();
        for shown in ["hidden = 1", " 1 = 2", " 2 = 3"] {
            assert!(said.contains(shown), "no {shown} in {said}");
        }
    }
}

#[test]
fn all_options_count_the_same_way() {
    let dir = folder();
    for gpt in [true, false] {
        let (disk, image) = hidden(dir.path(), gpt);
        let target = copy(&disk.path, dir.path().join("target.img"));
        for part in &disk.partitions[1..] {
            poke(&target, part.start, &vec![0x77; part.size as usize]);
        }
        // 2 without the hidden one is 3 in the table, and 1 is 2.
        restore(&image, &target, &["--partition", "2"]).ok();
        restore(&image, &target, &["--partition", "1"]).ok();
        disk.verify(&target);
        let before = hash(&target);
        let run = restore(&image, &target, &["--partition", "3"]).refused("partition-not-found");
        let found = run.json()["found"].as_str().unwrap().to_owned();
        for shown in [
            "hidden (1 in the table)",
            "1 (2 in the table)",
            "2 (3 in the table)",
        ] {
            assert!(found.contains(shown), "no {shown} in {found}");
        }
        let plan = restore(&image, &target, &["--plan", "--keep", "2", "--grow", "1"]).ok();
        let json = plan.json();
        let fates: Vec<_> = json["old"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["fate"].clone())
            .collect();
        assert_eq!(fates, ["overwritten", "overwritten", "kept"]);
        assert_eq!(json["new"][1]["name"], "1 (2 in the table)");
        assert_eq!(hash(&target), before);
        std::fs::remove_file(&image).unwrap();
        std::fs::remove_file(&disk.path).unwrap();
    }
}

/// A partition that stays, and that the image does not know, would shift what is counted.
#[test]
fn what_grows_is_counted_in_the_image() {
    let dir = folder();
    let (disk, image) = hidden(dir.path(), true);
    let sgdisk = |args: &[&str], disk: &Path| {
        let output = Command::new("sgdisk").args(args).arg(disk).output();
        assert!(output.unwrap().status.success(), "{args:?}");
    };
    // Of the image, 2 without the hidden one is 4 in the table.
    sgdisk(&["-r", "3:4"], &disk.path);
    imager!["backup", "-q", "--overwrite", disk.path, image].ok();
    let target = copy(&disk.path, dir.path().join("target.img"));
    let file = std::fs::File::options().write(true).open(&target).unwrap();
    file.set_len(80 * MIB).unwrap();
    // Of the disk, 2 is 3 in the table.
    sgdisk(&["-e", "-n", "3:60M:70M"], &target);
    let plan = restore(&image, &target, &["--plan", "--keep", "2", "--grow", "2"]).ok();
    let json = plan.json();
    let parts = json["new"].as_array().unwrap().iter();
    let grown: Vec<_> = parts
        .filter(|part| part["grows_by_bytes"].as_u64().is_some_and(|n| n > 0))
        .map(|part| part["number"].clone())
        .collect();
    assert_eq!(grown, [4], "{json}");
}
