//! Tables on disks of another size, with partitions that grow or stay, as sgdisk and
//! sfdisk see them.
//!
//! Owns: the verdict of other people's tools. Does not own: generated tables (`generated`).

mod common;

use common::{MIB, disk, gpt_disk, ok, ok_with_input, poke, s, scan_file, sparse};
use diskmap::table::{Grown, grow, interim, keep, minimum_size, read, relocate};
use diskmap::{Blob, DiskMap, Geometry, TableError};
use std::path::Path;

/// Primary 1, free space, an extended partition with 5, 6 and 7, free space.
const MBR: &str = "label: dos\nlabel-id: 0x12345678\nstart=2048, size=8192, type=83, bootable\n\
    start=12288, size=81920, type=5\nstart=14336, size=4096, type=83\n\
    start=20480, size=8192, type=82\nstart=30720, size=8192, type=1b\n";

fn mbr_disk() -> (tempfile::TempDir, std::path::PathBuf) {
    let (dir, path) = disk(64);
    ok_with_input("sfdisk", &[s(&path)], MBR);
    (dir, path)
}

fn put(path: &Path, size: u64, blobs: &[Blob]) {
    sparse(path, size);
    blobs.iter().for_each(|b| poke(path, b.offset, &b.data));
}

/// The partitions as sfdisk lists them: number, start and size in sectors, type.
fn listed(path: &Path) -> Vec<(String, String)> {
    let dump = ok("sfdisk", &["-d", s(path)]);
    let lines = dump.lines().filter_map(|line| line.split_once(" : "));
    lines
        .map(|(node, fields)| {
            // The folder's name is random, so only the end of the node says it.
            let before = node.trim_end_matches(|c: char| c.is_ascii_digit());
            let number = &node[before.len()..];
            let squeezed: String = fields.chars().filter(|c| *c != ' ').collect();
            (number.to_owned(), squeezed)
        })
        .collect()
}

fn sfdisk_is_content(path: &Path) {
    let verdict = ok("sfdisk", &["-V", s(path)]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
}

fn at(map: &DiskMap, size: u64, number: u32) -> (Vec<Blob>, Geometry, Grown) {
    let target = Geometry {
        size_bytes: size,
        ..map.geometry
    };
    let blobs = relocate(map.table, &map.blobs, map.geometry, size).unwrap();
    let grown = grow(map.table, &blobs, target, number).unwrap();
    (blobs, target, grown)
}

#[test]
fn an_extended_partition_gives_up_its_free_space() {
    let (_dir, path) = mbr_disk();
    let map = scan_file(&path, 512);
    let before = listed(&path);
    let least = minimum_size(map.table, &map.blobs, map.geometry, 0).unwrap();
    assert_eq!(least, 38912 * 512);
    for size in [least, least + 512, least + 5 * MIB] {
        let blobs = relocate(map.table, &map.blobs, map.geometry, size).unwrap();
        put(&path, size, &blobs);
        sfdisk_is_content(&path);
        let mut wanted = before.clone();
        let sectors = size / 512 - 12288;
        wanted[1].1 = wanted[1]
            .1
            .replace("size=81920", &format!("size={sectors}"));
        assert_eq!(listed(&path), wanted);
    }
}

#[test]
fn partitions_of_a_gpt_grow() {
    let (_dir, path) = gpt_disk();
    let map = scan_file(&path, 512);
    // Number 11 is the last one; 2 and 5 have another one behind them.
    for (number, size) in [
        (11, 100 * MIB),
        (11, 64 * MIB + 512),
        (2, 64 * MIB),
        (5, 80 * MIB),
    ] {
        let (blobs, _, grown) = at(&map, size, number);
        put(&path, size, &blobs);
        let before = listed(&path);
        put(&path, size, &grown.blobs);
        let verdict = ok("sgdisk", &["-v", s(&path)]);
        assert!(
            verdict.contains("No problems found") && !verdict.contains("corrupt GPT"),
            "{verdict}"
        );
        let after = listed(&path);
        for (old, new) in before.iter().zip(&after) {
            let sectors = format!("size={},", grown.size / 512);
            let was = format!("size={},", grown.old_size / 512);
            let wanted = if old.0 == number.to_string() {
                old.1.replace(&was, &sectors)
            } else {
                old.1.clone()
            };
            assert_eq!(new.1, wanted);
        }
        if number == 11 && size == 100 * MIB {
            assert_eq!(grown.behind, None);
            assert_eq!(grown.start + grown.size, 99 * MIB);
        }
        let behind = [(2, Some(5)), (5, Some(11)), (11, None)];
        let wanted = behind.iter().find(|(n, _)| *n == number).unwrap().1;
        assert_eq!(grown.behind, wanted);
    }
}

#[test]
fn logical_partitions_grow_with_what_holds_them() {
    let (_dir, path) = mbr_disk();
    let map = scan_file(&path, 512);
    // 7 is the last one: the extended partition has to reach as far as it.
    let (_, _, grown) = at(&map, 96 * MIB, 7);
    assert_eq!((grown.start + grown.size, grown.behind), (96 * MIB, None));
    put(&path, 96 * MIB, &grown.blobs);
    sfdisk_is_content(&path);
    let list = listed(&path);
    assert!(
        list[1].1.contains(&format!("size={}", 96 * 2048 - 12288)),
        "{list:?}"
    );
    assert!(
        list[4].1.contains(&format!("size={}", 96 * 2048 - 30720)),
        "{list:?}"
    );
    let theirs = mbrman::MBR::read_from(&mut std::fs::File::open(&path).unwrap(), 512).unwrap();
    assert_eq!(theirs.iter().filter(|(_, p)| p.is_used()).count(), 5);

    // 6 ends where the record of 7 stands; 1 where the extended one begins.
    let (_, _, grown) = at(&map, 96 * MIB, 6);
    assert_eq!(grown.start + grown.size, 14 * MIB);
    assert_eq!(grown.behind, Some(7));
    put(&path, 96 * MIB, &grown.blobs);
    sfdisk_is_content(&path);
    let (_, _, grown) = at(&map, 96 * MIB, 1);
    assert_eq!((grown.start + grown.size, grown.behind), (6 * MIB, Some(2)));
    put(&path, 96 * MIB, &grown.blobs);
    sfdisk_is_content(&path);
}

#[test]
fn an_mbr_grows_no_further_than_its_fields_reach() {
    let (_dir, path) = mbr_disk();
    let map = scan_file(&path, 512);
    let (_, target, grown) = at(&map, 5 << 40, 7);
    let end = (grown.start + grown.size) / 512;
    assert!(
        end <= u64::from(u32::MAX) && end > u64::from(u32::MAX) - 2048,
        "{end}"
    );
    assert_eq!(
        grow(map.table, &grown.blobs, target, 7).unwrap().size,
        grown.size
    );
}

#[test]
fn what_cannot_grow_is_named() {
    let (_dir, path) = mbr_disk();
    let map = scan_file(&path, 512);
    for number in [0, 2, 3, 8] {
        let error = grow(map.table, &map.blobs, map.geometry, number).unwrap_err();
        assert_eq!(error, TableError::NoSuchPartition { number });
    }
    ok("sfdisk", &["--part-type", s(&path), "7", "42"]);
    let map = scan_file(&path, 512);
    let error = grow(map.table, &map.blobs, map.geometry, 7).unwrap_err();
    assert!(error.to_string().contains("dynamic disk"), "{error}");

    let (_dir, path) = gpt_disk();
    ok("sgdisk", &["-h", "2", s(&path)]);
    let map = scan_file(&path, 512);
    let error = grow(map.table, &map.blobs, map.geometry, 2).unwrap_err();
    assert!(error.to_string().contains("hybrid"), "{error}");
    assert!(grow(map.table, &map.blobs, map.geometry, 5).is_ok());
}

#[test]
fn entries_that_stay_are_the_disk_s() {
    let (_dir, path) = gpt_disk();
    let image = scan_file(&path, 512);
    ok(
        "sgdisk",
        &["-c", "5:mine", "-u", "5:R", "-c", "2:other", s(&path)],
    );
    let disk = scan_file(&path, 512);
    let merged = keep(image.table, &image.blobs, &disk.blobs, disk.geometry, &[5]).unwrap();
    put(&path, disk.geometry.size_bytes, &merged);
    let verdict = ok("sgdisk", &["-v", s(&path)]);
    assert!(
        verdict.contains("No problems found") && !verdict.contains("corrupt GPT"),
        "{verdict}"
    );
    let map = scan_file(&path, 512);
    let of = |map: &DiskMap, number| {
        let mut found = map.regions.iter().filter(|r| r.number == Some(number));
        let region = found.next().unwrap();
        (region.guid.clone(), region.name.clone())
    };
    assert_eq!(of(&map, 5), of(&disk, 5));
    assert_ne!(of(&map, 5), of(&image, 5));
    assert_eq!(of(&map, 2), of(&image, 2));

    let between = interim(map.table, &merged, map.geometry, &[5]).unwrap();
    put(&path, disk.geometry.size_bytes, &between);
    let verdict = ok("sgdisk", &["-v", s(&path)]);
    assert!(
        verdict.contains("No problems found") && !verdict.contains("corrupt GPT"),
        "{verdict}"
    );
    assert_eq!(listed(&path).len(), 1);
    let table = read(&std::fs::read(&path).unwrap(), map.geometry)
        .unwrap()
        .unwrap();
    assert!(table.primary_is_good && table.warnings.is_empty());
    assert_eq!(table.blobs, between);
}

#[test]
fn what_stays_may_not_be_in_the_way() {
    let (_dir, path) = gpt_disk();
    let image = scan_file(&path, 512);
    ok(
        "sgdisk",
        &["-a", "1", "-d", "2", "-n", "7:40:100", s(&path)],
    );
    ok("sgdisk", &["-a", "1", "-n", "9:3000:5000", s(&path)]);
    let disk = scan_file(&path, 512);
    let put_together = |numbers: &[u32]| {
        keep(
            image.table,
            &image.blobs,
            &disk.blobs,
            disk.geometry,
            numbers,
        )
    };
    let error = put_together(&[2]).unwrap_err();
    assert_eq!(error, TableError::NoSuchPartition { number: 2 });
    let error = put_together(&[9]).unwrap_err();
    assert!(error.to_string().contains("overlap"), "{error}");
    // One that the image does not know, where it has free space.
    assert!(put_together(&[7]).is_ok());
}

#[test]
fn logical_partitions_stay_where_both_tables_lead_to_them() {
    let (_dir, path) = mbr_disk();
    let image = scan_file(&path, 512);
    let merged = |disk: &DiskMap, numbers: &[u32]| {
        keep(
            image.table,
            &image.blobs,
            &disk.blobs,
            disk.geometry,
            numbers,
        )
    };
    assert_eq!(merged(&image, &[6]).unwrap(), image.blobs);
    let between = interim(image.table, &image.blobs, image.geometry, &[1, 6]).unwrap();
    put(&path, 64 * MIB, &between);
    sfdisk_is_content(&path);
    let list = listed(&path);
    let kinds: Vec<_> = list
        .iter()
        .map(|(n, f)| (n.as_str(), f.contains("type=7f")))
        .collect();
    let wanted = [
        ("1", false),
        ("2", false),
        ("5", true),
        ("6", false),
        ("7", true),
    ];
    assert_eq!(kinds, wanted, "{list:?}");
    // Nothing logical stays: no extended partition either.
    let between = interim(image.table, &image.blobs, image.geometry, &[1]).unwrap();
    assert_eq!(between.len(), 1);

    ok_with_input(
        "sfdisk",
        &[s(&path)],
        &MBR.replace("start=14336, size=4096", "start=14336, size=2048"),
    );
    ok("sfdisk", &["--delete", s(&path), "5"]);
    let moved = scan_file(&path, 512);
    let error = merged(&moved, &[5]).unwrap_err();
    assert!(error.to_string().contains("not the same"), "{error}");
    // Nor where the records stand elsewhere.
    let elsewhere = MBR.replace("start=12288, size=81920", "start=12290, size=81918");
    ok_with_input("sfdisk", &["--wipe", "never", s(&path)], &elsewhere);
    let moved = scan_file(&path, 512);
    let error = merged(&moved, &[6]).unwrap_err();
    assert!(error.to_string().contains("not the same"), "{error}");
}
