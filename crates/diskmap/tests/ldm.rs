//! Windows dynamic disks, made by recipe.
//!
//! Oracle: ldmtool reads the same database and must tell the same volumes. No disk made
//! by Windows itself is among them.

mod common;

use common::{assert_same_tree, disk, fill, ok, peek, poke, s, scan_file, sparse};
use diskmap::{DiskMap, Extent, Extents, Method, Region};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const DISK: &str = "11111111-2222-3333-4444-555555555555";
const OTHER_DISK: &str = "99999999-2222-3333-4444-555555555555";
const GROUP: &str = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee";
/// Sectors of the disk, and where data and database are.
const SECTORS: u64 = 64 * 2048;
const CONFIG: u64 = SECTORS - 2048;
/// Of both tables the partition for data begins here.
const DATA_START: u64 = 2048;

#[derive(Clone)]
struct Volume {
    name: &'static str,
    size: u64,
    components: Vec<Component>,
}

#[derive(Clone)]
struct Component {
    kind: u8,
    stripe: u64,
    parts: Vec<Part>,
}

#[derive(Clone)]
struct Part {
    own: bool,
    start: u64,
    size: u64,
    offset: u64,
}

fn part(start: u64, size: u64, offset: u64) -> Part {
    Part {
        own: true,
        start,
        size,
        offset,
    }
}

fn simple(name: &'static str, parts: Vec<Part>) -> Volume {
    Volume {
        name,
        size: parts.iter().map(|p| p.size).sum(),
        components: vec![Component {
            kind: 2,
            stripe: 0,
            parts,
        }],
    }
}

fn number(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    let skip = bytes.iter().take_while(|&&b| b == 0).count().min(7);
    [&[(8 - skip) as u8], &bytes[skip..]].concat()
}

fn text(value: &str) -> Vec<u8> {
    [&[value.len() as u8], value.as_bytes()].concat()
}

/// A record: flags, type and body.
type Raw = (u8, u8, Vec<u8>);

/// The records of a disk group with two disks.
fn records(volumes: &[Volume]) -> Vec<Raw> {
    let mut list: Vec<Raw> = Vec::new();
    let mut next = 10u64;
    let mut id = || {
        next += 1;
        next
    };
    let group = [number(1), text("group0"), text(GROUP), vec![0; 12]].concat();
    list.push((0, 0x35, group));
    for (number_, name, guid) in [(2, "Disk1", DISK), (3, "Disk2", OTHER_DISK)] {
        let body = [
            number(number_),
            text(name),
            text(guid),
            text(""),
            vec![0; 12],
        ]
        .concat();
        list.push((0, 0x34, body));
    }
    for volume in volumes {
        let volume_id = id();
        let mut state = b"ACTIVE\0".to_vec();
        state.resize(14, 0);
        let body = [
            number(volume_id),
            text(volume.name),
            text("gen"),
            text(""),
            state,
            vec![3, 0, 1, 0, 0, 0, 0],
            number(volume.components.len() as u64),
            vec![0; 16],
            number(volume.size),
            vec![0; 4],
            vec![7],
            vec![0x5a; 16],
        ]
        .concat();
        list.push((0, 0x51, body));
        for component in &volume.components {
            let component_id = id();
            let mut body = [
                number(component_id),
                text(&format!("{}-01", volume.name)),
                text("ACTIVE"),
                vec![component.kind, 0, 0, 0, 0],
                number(component.parts.len() as u64),
                vec![0; 16],
                number(volume_id),
                vec![0],
            ]
            .concat();
            if component.stripe > 0 {
                body.extend(number(component.stripe));
                body.extend(number(component.parts.len() as u64));
            }
            list.push((if component.stripe > 0 { 0x10 } else { 0 }, 0x32, body));
            for (index, part) in component.parts.iter().enumerate() {
                let own = if part.own { 2 } else { 3 };
                let body = [
                    number(id()),
                    text(&format!("Disk{}-{component_id}-{index}", own - 1)),
                    vec![0; 12],
                    part.start.to_be_bytes().to_vec(),
                    part.offset.to_be_bytes().to_vec(),
                    number(part.size),
                    number(component_id),
                    number(own),
                    number(index as u64),
                ]
                .concat();
                list.push((0x08, 0x33, body));
            }
        }
    }
    list
}

fn private_header(disk: &str) -> Vec<u8> {
    let mut raw = vec![0u8; 512];
    raw[..8].copy_from_slice(b"PRIVHEAD");
    raw[12..16].copy_from_slice(&[0, 2, 0, 12]);
    for (at, guid) in [
        (0x30, disk),
        (0x70, "77777777-0000-0000-0000-000000000000"),
        (0xb0, GROUP),
    ] {
        raw[at..at + 36].copy_from_slice(guid.as_bytes());
    }
    raw[0xf0..0xf6].copy_from_slice(b"group0");
    let numbers = [
        DATA_START,
        CONFIG - DATA_START - 2048,
        CONFIG,
        2048,
        2, // tables of contents
        2045,
    ];
    for (index, value) in numbers.iter().enumerate() {
        raw[0x11b + 8 * index..][..8].copy_from_slice(&value.to_be_bytes());
    }
    raw[0x14b..0x14f].copy_from_slice(&1u32.to_be_bytes());
    raw[0x14f..0x153].copy_from_slice(&1u32.to_be_bytes());
    raw[0x153..0x15b].copy_from_slice(&1481u64.to_be_bytes());
    raw[0x15b..0x163].copy_from_slice(&224u64.to_be_bytes());
    raw
}

fn contents() -> Vec<u8> {
    let mut raw = vec![0u8; 512];
    raw[..8].copy_from_slice(b"TOCBLOCK");
    raw[0x24..0x2a].copy_from_slice(b"config");
    raw[0x2e..0x36].copy_from_slice(&17u64.to_be_bytes());
    raw[0x36..0x3e].copy_from_slice(&1481u64.to_be_bytes());
    raw[0x46..0x49].copy_from_slice(b"log");
    raw[0x50..0x58].copy_from_slice(&1498u64.to_be_bytes());
    raw[0x58..0x60].copy_from_slice(&224u64.to_be_bytes());
    raw
}

/// The list of volumes, in entries of 128 bytes.
fn vmdb(records: &[Raw]) -> Vec<u8> {
    let mut entries = Vec::new();
    for (group, (flags, kind, body)) in records.iter().enumerate() {
        let mut whole = vec![0, 0, *flags, *kind];
        whole.extend((body.len() as u32).to_be_bytes());
        whole.extend(body);
        let pieces: Vec<&[u8]> = whole.chunks(112).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let mut entry = b"VBLK".to_vec();
            entry.extend((entries.len() as u32 + 4).to_be_bytes());
            entry.extend((group as u32 + 1).to_be_bytes());
            entry.extend((index as u16).to_be_bytes());
            entry.extend((pieces.len() as u16).to_be_bytes());
            entry.extend(*piece);
            entry.resize(128, 0);
            entries.push(entry);
        }
    }
    // Unused entries at the end, as real ones have them.
    for _ in 0..8 {
        let mut entry = b"VBLK".to_vec();
        entry.extend((entries.len() as u32 + 4).to_be_bytes());
        entry.resize(128, 0);
        entries.push(entry);
    }
    let count = |kind: u8| records.iter().filter(|r| r.1 == kind).count() as u32;
    let mut raw = vec![0u8; 512];
    raw[..4].copy_from_slice(b"VMDB");
    raw[4..8].copy_from_slice(&(entries.len() as u32 + 4).to_be_bytes());
    raw[8..12].copy_from_slice(&128u32.to_be_bytes());
    raw[12..16].copy_from_slice(&512u32.to_be_bytes());
    raw[16..22].copy_from_slice(&[0, 1, 0, 4, 0, 10]);
    raw[22..28].copy_from_slice(b"group0");
    raw[0x35..0x35 + 36].copy_from_slice(GROUP.as_bytes());
    raw[0x75..0x7d].copy_from_slice(&5u64.to_be_bytes());
    raw[0x7d..0x85].copy_from_slice(&5u64.to_be_bytes());
    for (at, kind) in [(0x85, 0x51), (0x89, 0x32), (0x8d, 0x33), (0x91, 0x34)] {
        raw[at..at + 4].copy_from_slice(&count(kind).to_be_bytes());
    }
    raw.extend(entries.concat());
    raw
}

/// A dynamic disk of 64 MiB with those volumes.
fn dynamic(gpt: bool, volumes: &[Volume]) -> (TempDir, PathBuf) {
    let (dir, path) = disk(SECTORS / 2048);
    let config = if gpt {
        // The database lies in a partition; its last sector is the private header.
        let data_end = CONFIG - 2048 - 1;
        ok(
            "sgdisk",
            &[
                "-a",
                "1",
                "-n",
                &format!("1:{DATA_START}:{data_end}"),
                "-t",
                "1:AF9B60A0-1431-4F62-BC68-3311714A69AD",
                "-n",
                &format!("2:{}:{}", CONFIG - 2048, SECTORS - 34),
                "-t",
                "2:5808C8AA-7E8F-42E0-85D2-E1E90434CFB3",
                s(&path),
            ],
        );
        CONFIG - 1024
    } else {
        let script = format!(
            "label: dos\nstart={DATA_START}, size={}, type=42\n",
            CONFIG - DATA_START - 2048
        );
        common::ok_with_input("sfdisk", &["-q", s(&path)], &script);
        CONFIG
    };
    write_database(&path, gpt, config, volumes);
    (dir, path)
}

fn write_database(path: &Path, gpt: bool, config: u64, volumes: &[Volume]) {
    let mut header = private_header(DISK);
    header[0x12b..0x133].copy_from_slice(&config.to_be_bytes());
    if gpt {
        header[0x133..0x13b].copy_from_slice(&1900u64.to_be_bytes());
        poke(path, (SECTORS - 34) * 512, &header);
    } else {
        poke(path, 6 * 512, &header);
        poke(path, (SECTORS - 1) * 512, &header);
        poke(path, (config + 1856) * 512, &header);
    }
    for sector in [1, 2] {
        poke(path, (config + sector) * 512, &contents());
    }
    poke(path, (config + 17) * 512, &vmdb(&records(volumes)));
}

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

const TWO: u64 = 2048;

fn everything() -> Vec<Volume> {
    vec![
        simple("Volume1", vec![part(0, 16 * TWO, 0)]),
        // Grown on the same disk: the second part lies before the first one, and is
        // listed before it.
        simple(
            "Volume2",
            vec![part(20 * TWO, 8 * TWO, 8 * TWO), part(30 * TWO, 8 * TWO, 0)],
        ),
        Volume {
            name: "Span1",
            size: 6 * TWO,
            components: vec![Component {
                kind: 2,
                stripe: 0,
                parts: vec![
                    part(50 * TWO, 4 * TWO, 0),
                    Part {
                        own: false,
                        ..part(9 * TWO, 2 * TWO, 4 * TWO)
                    },
                ],
            }],
        },
        Volume {
            name: "Stripe1",
            size: 8 * TWO,
            components: vec![Component {
                kind: 1,
                stripe: 128,
                parts: vec![
                    part(40 * TWO, 4 * TWO, 0),
                    Part {
                        own: false,
                        ..part(0, 4 * TWO, 0)
                    },
                ],
            }],
        },
    ]
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
