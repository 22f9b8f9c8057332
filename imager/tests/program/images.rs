//! Images that are cut, changed, or newer than this program.
//!
//! Owns: that none is ever taken for good, and that a restore refuses before it writes
//! whenever that can be seen before. Does not own: the format's own cases (`image`).

use crate::disks::{self, MIB, copy, flip, folder, garbage, hash, peek, poke};
use crate::imager;
use crate::run::{FAILED, REFUSED};
use std::fs::File;
use std::path::Path;

/// Asserts that a restore refuses the image and writes nothing, to a file that is there
/// and to one that is not.
fn assert_refused(image: &Path, code: &str) {
    let dir = folder();
    let new = dir.path().join("new.img");
    imager!["restore", "-q", "--json", image, new]
        .refused(code)
        .disk("untouched");
    assert!(!new.exists(), "a refused restore made a file");
    let old = garbage(dir.path().join("old.img"), 73 * MIB);
    let before = hash(&old);
    imager!["restore", "-q", "--json", image, old]
        .refused(code)
        .disk("untouched");
    assert_eq!(hash(&old), before, "a refused restore wrote");
}

fn truncate(path: &Path, len: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(len).unwrap();
}

#[test]
fn truncated() {
    let dir = folder();
    let image = &disks::gpt().image;
    let len = image.metadata().unwrap().len();
    for cut in [
        0,
        1,
        31,
        32,
        40,
        64,
        1000,
        len / 2,
        len - 33,
        len - 32,
        len - 1,
    ] {
        let cut_image = copy(image, dir.path().join("cut.dpl"));
        truncate(&cut_image, cut);
        let run = imager!["verify", "-q", "--json", cut_image];
        run.fails("image-damaged", FAILED);
        imager!["info", cut_image].fails("image-damaged", FAILED);
        assert_refused(&cut_image, "image-damaged");
    }
}

#[test]
fn longer_than_it_says() {
    let dir = folder();
    let image = copy(&disks::gpt().image, dir.path().join("long.dpl"));
    truncate(&image, image.metadata().unwrap().len() + 1);
    imager!["verify", "-q", image].fails("image-damaged", FAILED);
    assert_refused(&image, "image-damaged");
}

#[test]
fn a_flipped_bit_anywhere_is_never_a_success() {
    let dir = folder();
    let imaged = disks::mbr();
    let image = copy(&imaged.image, dir.path().join("flipped.dpl"));
    let len = image.metadata().unwrap().len();
    let target = dir.path().join("target.img");
    // Evenly spread places, and every field of the header and the footer.
    let spread = (0..24).map(|n| n * (len / 24) + 17 * n);
    let header = [0, 8, 10, 12, 28, 32, 36, 40, 48, 52, 60, 64].into_iter();
    let footer = [32, 24, 16, 8, 1].into_iter().map(|back| len - back);
    for place in spread.chain(header).chain(footer) {
        flip(&image, place);
        let verify = imager!["verify", "-q", "--json", image];
        assert_eq!(
            verify.exit,
            Some(if place == 8 { REFUSED } else { FAILED }),
            "byte {place}"
        );
        let restore = imager!["restore", "-q", "--json", image, target];
        let json = restore.json();
        let code = if place == 8 {
            "image-version"
        } else {
            "image-damaged"
        };
        assert_eq!(json["code"], code, "byte {place}: {json}");
        match json["disk"].as_str() {
            Some("untouched") => assert_eq!(restore.exit, Some(REFUSED)),
            Some("incomplete") => assert_eq!(restore.exit, Some(FAILED)),
            other => panic!("byte {place}: disk {other:?}"),
        }
        assert!(!target.exists(), "byte {place}: half a disk stays");
        flip(&image, place);
    }
    imager!["verify", "-q", image].ok();
}

#[test]
fn a_damaged_record_leaves_no_table_on_the_disk() {
    let dir = folder();
    let image = copy(&disks::noise().image, dir.path().join("flipped.dpl"));
    // Far inside the noise: only reading that record shows it.
    flip(&image, image.metadata().unwrap().len() / 2);
    let target = copy(&disks::noise().disk.path, dir.path().join("target.img"));
    imager!["restore", "-q", "--json", image, target]
        .fails("image-damaged", FAILED)
        .disk("incomplete");
    crate::order::assert_not_bootable(&target, &disks::noise().disk);
}

#[test]
fn of_a_newer_version() {
    let dir = folder();
    let image = copy(&disks::gpt().image, dir.path().join("newer.dpl"));
    poke(&image, 8, &4_u16.to_le_bytes());
    let header = peek(&image, 0, 28);
    poke(&image, 28, &crc32fast::hash(&header).to_le_bytes());
    imager!["info", "--json", image].refused("image-version");
    imager!["verify", "-q", "--json", image].refused("image-version");
    assert_refused(&image, "image-version");
    let found = imager!["info", "--json", image].json()["found"].to_string();
    assert!(
        found.contains("version 4") && found.contains('3'),
        "{found}"
    );
}

#[test]
fn not_an_image_at_all() {
    let dir = folder();
    imager!["info", disks::gpt().disk.path].fails("image-damaged", FAILED);
    assert_refused(&disks::gpt().disk.path, "image-damaged");
    assert_refused(&garbage(dir.path().join("garbage"), MIB), "image-damaged");
    assert_refused(Path::new("/dev/null"), "image-damaged");
    let missing = dir.path().join("missing.dpl");
    imager!["info", missing].refused("image-not-found");
    imager!["verify", "-q", missing].refused("image-not-found");
    assert_refused(&missing, "image-not-found");
    imager!["restore", "-q", dir.path(), dir.path().join("new.img")].refused("image-damaged");
}
