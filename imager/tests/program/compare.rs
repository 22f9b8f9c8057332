//! Is a restored disk the one that was backed up?
//!
//! Owns: the comparison of two disks by what is used, and the proof that it sees one
//! changed byte. Does not own: the map itself: the used bytes are also compared with
//! what the disk was built from, by the file systems' own tools (`testkit`).

use crate::disks::{MIB, copy, flip, folder, gpt, mbr, peek};
use crate::imager;
use serde_json::Value;
use std::path::Path;

/// The map of a disk, with extents; raw files with their sector size.
pub fn map(disk: &Path, sector_size: u32) -> Value {
    let size = sector_size.to_string();
    imager!["map", disk, "--json", "--extents", "--sector-size", size]
        .ok()
        .json()
}

/// The used byte ranges of a map: partitions and gaps.
pub fn extents(map: &Value) -> Vec<(u64, u64)> {
    let regions = ["partitions", "gaps"].into_iter();
    let lists = regions.flat_map(|key| map[key].as_array().expect("a list of regions"));
    lists
        .flat_map(|region| region["extents"].as_array().expect("extents"))
        .map(|pair| {
            let number = |at: usize| pair[at].as_u64().expect("a number");
            (number(0), number(1))
        })
        .collect()
}

/// The first difference between a disk and its copy, which may be larger.
pub fn difference(source: &Path, target: &Path, sector_size: u32) -> Option<String> {
    let (was, mut is) = (map(source, sector_size), map(target, sector_size));
    if was["table"] == "none" && was["size_bytes"] != is["size_bytes"] {
        // The only partition is the whole disk. What lies behind the file system belongs
        // to nobody; the source's part of it is compared below.
        for key in ["size_bytes", "used_bytes", "extents", "reason"] {
            is["partitions"][0][key] = was["partitions"][0][key].clone();
        }
    }
    for key in ["sector_size", "table", "disk_id", "partitions", "warnings"] {
        if was[key] != is[key] {
            return Some(format!("{key}: {} became {}", was[key], is[key]));
        }
    }
    for (start, len) in extents(&was) {
        let mut at = start;
        while at < start + len {
            let count = (start + len - at).min(4 * MIB) as usize;
            let (a, b) = (peek(source, at, count), peek(target, at, count));
            if let Some(place) = a.iter().zip(&b).position(|(a, b)| a != b) {
                return Some(format!("byte {} differs", at + place as u64));
            }
            at += count as u64;
        }
    }
    if was["size_bytes"] == is["size_bytes"] {
        return outside_difference(source, target, &was);
    }
    // What a larger disk changes in the first sector is the protective entry's size; behind
    // it, a GPT's header.
    let mut kept = vec![(0, 440)];
    if was["table"] == "mbr" {
        kept.push((0, first_start(&was)));
    }
    first_difference(source, target, kept)
}

/// The first difference between the partitions of a disk and those of a copy that may be
/// smaller; free space does not count.
pub fn partition_difference(source: &Path, target: &Path, sector_size: u32) -> Option<String> {
    let (was, is) = (map(source, sector_size), map(target, sector_size));
    let mut kept = Vec::new();
    for part in was["partitions"].as_array().expect("a list") {
        let like = is["partitions"].as_array().expect("a list").iter();
        let mut like = like.filter(|other| other["number"] == part["number"]);
        let Some(copy) = like.next() else {
            return Some(format!("partition {} is missing", part["number"]));
        };
        for key in ["start_bytes", "type", "guid", "name", "file_system", "uuid"] {
            if part[key] != copy[key] {
                return Some(format!("{key}: {} became {}", part[key], copy[key]));
            }
        }
        // Behind the file system of a disk without a table there may be more now.
        if was["table"] != "none" && part["size_bytes"] != copy["size_bytes"] {
            return Some(format!("size: {part} became {copy}"));
        }
        for pair in part["extents"].as_array().expect("extents") {
            let number = |at: usize| pair[at].as_u64().expect("a number");
            kept.push((number(0), number(1)));
        }
    }
    first_difference(source, target, kept)
}

/// The first of these byte ranges that differs.
fn first_difference(source: &Path, target: &Path, ranges: Vec<(u64, u64)>) -> Option<String> {
    ranges.into_iter().find_map(|(start, len)| {
        let bytes = |disk| peek(disk, start, len as usize);
        (bytes(source) != bytes(target)).then(|| format!("{len} bytes from {start} on differ"))
    })
}

/// Where the first partition starts: all before it is kept, boot loaders live there.
fn first_start(map: &Value) -> u64 {
    let parts = map["partitions"].as_array().expect("a list");
    let starts = parts.iter().filter_map(|part| part["start_bytes"].as_u64());
    starts.min().expect("a partition")
}

/// On a disk of the same size all tables are the same bytes in the same places, and so is
/// all before the first partition, whatever the map says. What is neither of these nor a
/// partition is not compared: nothing promises it.
fn outside_difference(source: &Path, target: &Path, map: &Value) -> Option<String> {
    let sector = map["sector_size"].as_u64().expect("a number");
    let size = map["size_bytes"].as_u64().expect("a number");
    let entries = (128 * 128_u64).next_multiple_of(sector);
    let mut tables = match map["table"].as_str() {
        Some("gpt") => vec![
            (0, first_start(map)),
            (size - sector - entries, sector + entries),
        ],
        Some("mbr") => vec![(0, first_start(map))],
        _ => Vec::new(),
    };
    if map["table"] == "mbr" {
        // The chain of logical partitions: each has its sector 1 MiB before itself.
        let parts = map["partitions"].as_array().expect("a list");
        let logical = parts
            .iter()
            .filter(|part| part["number"].as_u64() >= Some(5));
        tables.extend(logical.map(|part| {
            (
                part["start_bytes"].as_u64().expect("a number") - MIB,
                sector,
            )
        }));
    }
    first_difference(source, target, tables)
}

/// Asserts that the copy holds what the disk holds.
#[track_caller]
pub fn assert_same(source: &Path, target: &Path, sector_size: u32) {
    assert_eq!(difference(source, target, sector_size), None);
}

#[test]
fn one_changed_byte_is_noticed_wherever_it_counts() {
    let dir = folder();
    for disk in [&gpt().disk, &mbr().disk] {
        let twin = copy(&disk.path, dir.path().join("twin.img"));
        assert_same(&disk.path, &twin, 512);
        let used = extents(&map(&disk.path, 512));
        let places = used.iter().step_by(used.len().div_ceil(12));
        let mut places: Vec<u64> = places.map(|&(start, len)| start + len / 2).collect();
        // Boot code, a table's entry, its end, the last partition's last byte.
        places.extend([100, 450, 511]);
        places.extend(used.last().map(|(start, len)| start + len - 1));
        for place in places {
            flip(&twin, place);
            let found = std::panic::catch_unwind(|| difference(&disk.path, &twin, 512));
            // A table that cannot be read at all ends the comparison.
            assert!(!matches!(found, Ok(None)), "byte {place} is not seen");
            flip(&twin, place);
        }
        assert_same(&disk.path, &twin, 512);
    }
}
