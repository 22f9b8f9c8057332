//! FAT12, FAT16 and FAT32, filled by mtools.

use super::{Made, assert_same_contents, noise, tool};
use crate::disks::{self, MIB, folder};
use crate::imager;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use testkit::build::{Tree, hashes_of};

fn files(root: &Path) {
    for n in 0..150 {
        let folder = root.join(format!("Folder {}", n % 3));
        fs::create_dir_all(&folder).unwrap();
        let name = format!("{n:04} {}.bin", "name ".repeat(n % 20));
        fs::write(folder.join(name), noise(n as u64, n * n / 8)).unwrap();
    }
    for name in [
        "SHORT.TXT",
        "lower.txt",
        "Größe ✓.txt",
        "no extension",
        "exactly 13 ch",
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::create_dir_all(root.join("a/b/c")).unwrap();
    fs::write(root.join("a/b/c/empty"), b"").unwrap();
    fs::write(root.join("large"), noise(3, 700_001)).unwrap();
}

#[test]
fn everything_comes_out_as_it_went_in() {
    for (bits, size, sector) in [
        ("12", 4 * MIB, "512"),
        ("16", 24 * MIB, "512"),
        ("32", 48 * MIB, "512"),
        ("16", 80 * MIB, "4096"),
    ] {
        let dir = folder();
        let (root, disk) = (dir.path().join("root"), dir.path().join("disk"));
        fs::create_dir(&root).unwrap();
        files(&root);
        File::create(&disk).unwrap().set_len(size).unwrap();
        tool(&["mkfs.vfat", "-F", bits, "-S", sector], &[&disk]);
        for entry in fs::read_dir(&root).unwrap() {
            let copied = Command::new("mcopy")
                .env("LC_ALL", "C.UTF-8")
                .args(["-s", "-m", "-i"])
                .args([disk.as_path(), &entry.unwrap().path(), Path::new("::")])
                .output();
            let copied = copied.expect("mcopy is missing: apt-get install mtools");
            assert!(copied.status.success(), "{copied:?}");
        }
        let made = Made::of(dir, disk);
        let out = made.path("out");
        imager!["extract", "-q", made.image, "/", out].ok();
        assert_same_contents(&root, &out, false);
        assert_eq!(
            imager!["cat", made.image, "/short.txt"].ok().stdout,
            b"SHORT.TXT"
        );
    }
}

#[test]
fn times_are_those_of_the_disk() {
    let dir = folder();
    let (file, disk) = (dir.path().join("file"), dir.path().join("disk"));
    fs::write(&file, b"x").unwrap();
    tool(&["touch", "-d", "@1000000000"], &[&file]);
    File::create(&disk).unwrap().set_len(4 * MIB).unwrap();
    tool(&["mkfs.vfat"], &[&disk]);
    let copied = Command::new("mcopy")
        .env("TZ", "UTC")
        .args(["-m", "-i"])
        .args([&disk, &file])
        .arg("::")
        .status();
    assert!(copied.unwrap().success());
    let made = Made::of(dir, disk);
    let json = imager!["ls", "--json", made.image].ok().json();
    assert_eq!(json["entries"][0]["modified"], "2001-09-09T01:46:40Z");
    assert_eq!(json["file_system"], "fat12");
}

#[test]
fn partitions_of_disks_with_either_sector_size() {
    for (imaged, seed, largest) in [(disks::gpt(), 1, 150_000), (disks::gpt_4k(), 2, 150_000)] {
        let dir = folder();
        let out = dir.path().join("out");
        imager!["extract", "-q", imaged.image, "--partition", "1", "/", out].ok();
        assert_eq!(hashes_of(&out), Tree::new(seed, 24, largest).hashes());
    }
}

#[test]
fn damage_anywhere_is_told_and_ends() {
    let dir = folder();
    let (root, disk) = (dir.path().join("root"), dir.path().join("disk"));
    fs::create_dir(&root).unwrap();
    for n in 0..40 {
        fs::write(
            root.join(format!("a file number {n}")),
            vec![n as u8; n * 300],
        )
        .unwrap();
    }
    File::create(&disk).unwrap().set_len(4 * MIB).unwrap();
    tool(&["mkfs.vfat", "-F", "12"], &[&disk]);
    tool(&["mcopy", "-s", "-i"], &[&disk, &root, Path::new("::")]);
    let bytes = fs::read(&disk).unwrap();
    let image = dir.path().join("image");
    let mut random = testkit::build::Random::new(13);
    for round in 0..10u64 {
        let mut bytes = bytes.clone();
        for _ in 0..1 + round % 30 {
            // Tables and the first folders.
            bytes[512 + random.below(40_000) as usize] = random.below(256) as u8;
        }
        fs::write(&disk, &bytes).unwrap();
        imager!["backup", "-q", "--overwrite", disk, image].ok();
        let out = dir.path().join("out");
        for run in [
            imager!["ls", "-lR", image],
            imager!["extract", "-q", image, "/", out],
        ] {
            assert!(
                matches!(run.exit, Some(0 | 1 | 3)),
                "{:?} {}",
                run.exit,
                run.stderr
            );
        }
        let _ = fs::remove_dir_all(&out);
    }
}
