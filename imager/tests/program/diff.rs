//! `imager diff`: two images of a disk.
//!
//! Owns: what counts as a difference, and the exit codes. Does not own: how images are cut.

use crate::disks::{self, MIB, copy, flip, folder};
use crate::imager;
use crate::run::FAILED;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Done, and there is a difference.
const DIFFERENT: i32 = 4;

/// A copy of a disk, and its image once it was changed.
fn changed(dir: &Path, change: impl FnOnce(&Path)) -> PathBuf {
    let disk = copy(&disks::gpt().disk.path, dir.join("disk.img"));
    change(&disk);
    let image = dir.join("image");
    imager!["backup", "-q", disk, image].ok();
    image
}

fn part(json: &Value, number: u64) -> Value {
    let parts = json["parts"].as_array().unwrap();
    parts
        .iter()
        .find(|part| part["partition"] == number)
        .unwrap()
        .clone()
}

#[test]
fn two_images_of_one_state_are_the_same() {
    let dir = folder();
    let again = changed(dir.path(), |_| {});
    let run = imager!["diff", "--json", disks::gpt().image, again].ok();
    let json = run.json();
    assert_eq!(json["result"], "same", "{json}");
    assert_eq!(json["complete"], true);
    assert_eq!(json["bytes"], 0);
    let said = imager!["diff", disks::gpt().image, again].ok().said();
    assert!(said.ends_with("The images hold the same.\n"), "{said}");
}

#[test]
fn a_changed_byte_is_charged_to_its_partition() {
    let dir = folder();
    let parts = &disks::gpt().disk.partitions;
    let noise = parts.iter().find(|part| part.number == 4).unwrap();
    let after = changed(dir.path(), |disk| flip(disk, noise.start + MIB + 5));
    for (one, other) in [(&disks::gpt().image, &after), (&after, &disks::gpt().image)] {
        let run = imager!["diff", "--json", one, other];
        assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
        let json = run.json();
        assert_eq!(json["result"], "different");
        assert_eq!(json["disk"], serde_json::json!([]));
        // One cell.
        assert_eq!(json["bytes"], MIB);
        for number in 1..=3 {
            assert_eq!(part(&json, number)["content"], "same");
        }
        let noise = part(&json, 4);
        assert_eq!(noise["content"], "different");
        assert_eq!(noise["bytes"], MIB);
        assert_eq!(noise["changed"], serde_json::json!([]));
    }
    let run = imager!["diff", disks::gpt().image, after];
    assert_eq!(run.exit, Some(DIFFERENT));
    let said = run.said();
    assert!(
        said.contains("partition 4: up to 1.00 MiB (1048576 bytes) differ"),
        "{said}"
    );
    assert!(said.contains("partition 2 (ext4): same content"), "{said}");
}

#[test]
fn what_the_table_says_is_compared_too() {
    let dir = folder();
    let after = changed(dir.path(), |disk| {
        let named = Command::new("sfdisk")
            .arg("--part-label")
            .arg(disk)
            .args(["2", "renamed"])
            .output();
        let named = named.expect("sfdisk is missing: apt-get install fdisk");
        assert!(named.status.success(), "{named:?}");
    });
    let run = imager!["diff", "--json", disks::gpt().image, after];
    assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["disk"], serde_json::json!(["table"]));
    assert_eq!(part(&json, 2)["changed"], serde_json::json!(["name"]));
    assert_eq!(part(&json, 2)["content"], "same");
}

#[test]
fn what_an_image_does_not_hold_is_not_called_the_same() {
    let dir = folder();
    let image = dir.path().join("image");
    imager![
        "backup",
        "-q",
        "--partition",
        "2",
        disks::gpt().disk.path,
        image
    ]
    .ok();
    let run = imager!["diff", "--json", disks::gpt().image, image].ok();
    let json = run.json();
    assert_eq!(json["result"], "same", "{json}");
    assert_eq!(json["complete"], false);
    assert_eq!(part(&json, 4)["content"], "not-held");
    assert_eq!(part(&json, 2)["content"], "same");
}

#[test]
fn images_of_different_disks() {
    let run = imager!["diff", "--json", disks::gpt().image, disks::mbr().image];
    assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["disk"], serde_json::json!(["size", "table"]));
    assert_eq!(part(&json, 5)["content"], "added");
    assert_eq!(part(&json, 2)["content"], "removed");
}

#[test]
fn a_damaged_image_is_no_difference() {
    let dir = folder();
    let bad = copy(&disks::gpt().image, dir.path().join("bad"));
    flip(&bad, 100);
    imager!["diff", "--json", disks::gpt().image, bad].fails("image-damaged", FAILED);
    imager!["diff", "--json", bad, disks::gpt().image].fails("image-damaged", FAILED);
    imager!["diff", "/nonexistent", bad].refused("image-not-found");
}
