//! Windows dynamic disks, made by recipe.
//!
//! Oracle: ldmtool reads the same database and must tell the same volumes. No disk made
//! by Windows itself is among them.

#[path = "../common/mod.rs"]
mod common;
mod database;
mod recipe;

use common::{assert_same_tree, disk, fill, ok, peek, poke, s, scan_file, sparse};
use database::{
    CONFIG, Component, DATA_START, GROUP, SECTORS, TWO, Volume, everything, part, simple,
};
use diskmap::{DiskMap, Extent, Extents, Method, Region};
use recipe::dynamic;
use std::path::Path;

/// The partition in which the volumes lie.
fn data_region(map: &DiskMap) -> &Region {
    map.regions.iter().find(|r| r.number == Some(1)).unwrap()
}

/// Whether the map keeps a byte of the disk.
fn kept(map: &DiskMap, byte: u64) -> bool {
    map.blobs.iter().any(|b| b.offset <= byte && byte < b.end())
        || map
            .regions
            .iter()
            .any(|r| byte >= r.start && r.used.contains(byte - r.start))
}

/// What ldmtool shows of a volume or partition, as JSON text without its prompts.
fn show(path: &Path, kind: &str, name: &str) -> String {
    let script = format!("scan {}\nshow {kind} {GROUP} {name}\n", s(path));
    let text = common::ok_with_input("ldmtool", &[], &script);
    let from = text.rfind("show ").unwrap();
    text[from..].to_string()
}

/// Number after a key of that text.
fn value(text: &str, key: &str) -> u64 {
    let rest = text.split(&format!("\"{key}\" : ")).nth(1);
    let rest = rest.unwrap_or_else(|| panic!("no {key} in {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The places of a volume on this disk, in bytes of it, as ldmtool tells them.
fn places(path: &Path, volume: &str) -> Vec<Extent> {
    let text = show(path, "volume", volume);
    let names = text.split("\"Disk1-").skip(1);
    names
        .map(|rest| {
            let name = format!("Disk1-{}", rest.split('"').next().unwrap());
            let text = show(path, "partition", &name);
            Extent {
                start: (DATA_START + value(&text, "start")) * 512,
                len: value(&text, "size") * 512,
            }
        })
        .collect()
}

/// As [`places`], in the order of the volume, which for the recipe's is the wrong way
/// round on the disk.
fn in_order(path: &Path, volume: &str) -> Vec<Extent> {
    let mut list = places(path, volume);
    list.sort_by_key(|e| std::cmp::Reverse(e.start));
    list
}

/// Reads a volume out of its places.
fn gather(disk: &Path, parts: &[Extent], to: &Path) {
    let bytes = std::fs::read(disk).unwrap();
    let volume: Vec<u8> = parts
        .iter()
        .flat_map(|p| bytes[p.start as usize..p.end() as usize].to_vec())
        .collect();
    std::fs::write(to, volume).unwrap();
}

/// Writes a volume to its places.
fn scatter(volume: &Path, parts: &[Extent], disk: &Path) {
    let bytes = std::fs::read(volume).unwrap();
    let mut at = 0;
    for part in parts {
        let len = part.len as usize;
        poke(disk, part.start, &bytes[at..at + len]);
        at += len;
    }
}

/// Everything that the map keeps, on a disk full of garbage.
fn restored(path: &Path, map: &DiskMap) -> Vec<u8> {
    let source = std::fs::read(path).unwrap();
    let mut target = vec![0xa5u8; source.len()];
    let mut copy = |from: u64, to: u64| {
        let range = from as usize..to as usize;
        target[range.clone()].copy_from_slice(&source[range]);
    };
    for blob in &map.blobs {
        copy(blob.offset, blob.end());
    }
    for region in &map.regions {
        for extent in &region.used {
            copy(region.start + extent.start, region.start + extent.end());
        }
    }
    target
}

/// Volumes of unknown content are copied whole, and nothing between them.
#[test]
fn volumes_lie_where_ldmtool_says() {
    for gpt in [false, true] {
        let (_dir, path) = dynamic(gpt, &everything());
        let map = scan_file(&path, 512);
        let region = data_region(&map);
        assert_eq!((&*region.file_system, region.method), ("ldm", Method::Used));
        assert_eq!(map.warnings, []);
        let told: Extents = ["Volume1", "Volume2", "Span1", "Stripe1"]
            .iter()
            .flat_map(|name| places(&path, name))
            .map(|e| Extent {
                start: e.start - region.start,
                ..e
            })
            .collect();
        assert_eq!(told.total(), (16 + 8 + 8 + 4 + 4) << 20);
        assert_eq!(region.used, told, "{gpt}");
        assert!(region.reason.contains("not verified here"));
        // The database, and the last sector with its copy of the private header.
        let config = if gpt { CONFIG - 1024 } else { CONFIG };
        for sector in [config, config + 17, config + 1856, SECTORS - 1] {
            assert!(kept(&map, sector * 512), "{gpt} sector {sector}");
        }
        assert!(kept(&map, 6 * 512));
    }
}

/// A file system in two parts of a disk: only what it uses is copied, and that is enough.
#[test]
fn a_simple_volume_is_copied_by_what_its_file_system_uses() {
    for gpt in [false, true] {
        let (dir, path) = dynamic(gpt, &everything());
        let tree = dir.path().join("tree");
        fill(&tree, 20, 100_000);
        let file = sparse(&dir.path().join("volume"), 16 << 20);
        ok(
            "mke2fs",
            &["-q", "-F", "-t", "ext4", "-d", s(&tree), s(&file)],
        );
        let parts = [places(&path, "Volume1"), in_order(&path, "Volume2")];
        for parts in &parts {
            scatter(&file, parts, &path);
        }
        // One that goes on on another disk: what is here says nothing of what is free.
        let small = sparse(&dir.path().join("small"), 4 << 20);
        ok("mke2fs", &["-q", "-F", "-t", "ext4", s(&small)]);
        scatter(&small, &places(&path, "Span1"), &path);
        let map = scan_file(&path, 512);
        let region = data_region(&map);
        assert_eq!(map.warnings, []);
        assert!(region.reason.contains("Volume1 (ext4) by used sectors"));
        assert!(region.reason.contains("Volume2 (ext4) by used sectors"));
        assert!(
            region.reason.contains("Span1 every sector"),
            "{}",
            region.reason
        );
        assert!(region.used.total() < (20 << 20), "{}", region.used.total());
        let copy = dir.path().join("copy");
        std::fs::write(&copy, restored(&path, &map)).unwrap();
        for parts in &parts {
            let back = dir.path().join("back");
            gather(&copy, parts, &back);
            ok("e2fsck", &["-f", "-n", s(&back)]);
            let out = dir.path().join("out");
            std::fs::create_dir(&out).unwrap();
            for folder in std::fs::read_dir(&tree).unwrap() {
                let folder = folder.unwrap().file_name();
                let command = format!("rdump /{} {}", folder.to_str().unwrap(), s(&out));
                ok("debugfs", &["-R", &command, s(&back)]);
            }
            assert_same_tree(&tree, &out);
            std::fs::remove_dir_all(&out).unwrap();
        }
    }
}

/// A file system that begins where the partition begins is a volume's, not the partition's:
/// the volumes behind it are copied too.
#[test]
fn the_first_volume_does_not_speak_for_the_partition() {
    let (dir, path) = dynamic(false, &everything());
    let file = sparse(&dir.path().join("volume"), 16 << 20);
    ok("mke2fs", &["-q", "-F", "-t", "ext4", s(&file)]);
    scatter(&file, &places(&path, "Volume1"), &path);
    for offset in [20, 30, 40] {
        assert!(kept(&scan_file(&path, 512), (1 + offset) << 20), "{offset}");
    }
    // The same with a database that cannot be read: then every sector.
    poke(&path, 6 * 512, &[0; 8]);
    let map = scan_file(&path, 512);
    assert_eq!(data_region(&map).method, Method::Full);
}

#[test]
fn what_does_not_fit_together_makes_it_full_sector() {
    let mirror = |start| Component {
        kind: 2,
        stripe: 0,
        parts: vec![part(start, TWO, 0)],
    };
    let overlapping = vec![
        simple("Volume1", vec![part(0, 4 * TWO, 0)]),
        simple("Volume2", vec![part(3 * TWO, 4 * TWO, 0)]),
    ];
    let outside = vec![simple("Volume1", vec![part(60 * TWO, 9 * TWO, 0)])];
    for (volumes, says) in [(overlapping, "overlaps"), (outside, "outside")] {
        let (_dir, path) = dynamic(false, &volumes);
        let map = scan_file(&path, 512);
        assert_eq!(data_region(&map).method, Method::Full);
        assert!(
            data_region(&map).reason.contains(says),
            "{}",
            data_region(&map).reason
        );
    }
    // Two components are a mirror: whole, whatever stands in it.
    let mirrored = Volume {
        name: "Mirror1",
        size: TWO,
        components: vec![mirror(0), mirror(2 * TWO)],
    };
    let (_dir, path) = dynamic(false, &[mirrored]);
    let map = scan_file(&path, 512);
    assert_eq!(data_region(&map).used.total(), 2 << 20);
    assert!(data_region(&map).reason.contains("Mirror1 every sector"));

    let (_dir, path) = dynamic(false, &everything());
    let vmdb = (CONFIG + 17) * 512;
    let toc = (CONFIG + 1) * 512;
    // Being changed, a version, counts, a lost entry, a table that lies, another disk.
    for (at, bytes) in [
        (vmdb + 17, &[2u8][..]),
        (vmdb + 19, &[5]),
        (vmdb + 0x88, &[9]),
        (vmdb + 512 + 4 * 128 + 14, &[0, 2]),
        (vmdb + 512 + 128, b"X"),
        (toc + 0x35, &[99]),
        (6 * 512 + 0x30, b"f"),
        (6 * 512 + 15, &[10]),
        (6 * 512 + 0x12b, &[1]),
    ] {
        let before: [u8; 2] = peek(&path, at);
        poke(&path, at, bytes);
        let map = scan_file(&path, 512);
        let region = data_region(&map);
        assert_eq!(region.method, Method::Full, "{at:#x}");
        assert!(
            region.reason.starts_with("Windows dynamic disk: every"),
            "{}",
            region.reason
        );
        // Where the database is cannot be told then; the end of the disk is kept.
        assert!(kept(&map, (CONFIG + 100) * 512), "{at:#x}");
        poke(&path, at, &before);
    }
    assert_eq!(data_region(&scan_file(&path, 512)).method, Method::Used);
}

#[test]
fn larger_sectors_are_copied_whole() {
    let (_dir, path) = disk(64);
    let mut entry = [0u8; 66];
    entry[4] = 0x42;
    entry[8..12].copy_from_slice(&256u32.to_le_bytes());
    entry[12..16].copy_from_slice(&8192u32.to_le_bytes());
    entry[64..].copy_from_slice(&[0x55, 0xaa]);
    poke(&path, 446, &entry);
    let map = scan_file(&path, 4096);
    assert_eq!(data_region(&map).method, Method::Full);
    assert!(data_region(&map).reason.contains("4096 bytes"));
    assert!(kept(&map, (64 << 20) - 1));
}
