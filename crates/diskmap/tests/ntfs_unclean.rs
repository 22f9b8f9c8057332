//! NTFS that was not closed, or that contradicts itself: every sector is copied, and the
//! reason is told. What ntfs-3g.probe says of the same volume stands beside it.

mod common;
#[path = "common/ntfs.rs"]
mod image;

use common::{peek, poke, restore_onto_garbage, run, s, scan_file, whole, whole_used};
use diskmap::{Extents, Method, WarningKind};
use image::{Image, assert_holds, bytes, filled, is_consistent};
use std::path::Path;

/// Exit codes of ntfs-3g.probe.
const READY: i32 = 0;
const CORRUPT: i32 = 13;
const HIBERNATED: i32 = 14;
const UNCLEAN: i32 = 15;

/// Whether ntfs-3g would mount a volume for writing.
fn probe(path: &Path) -> i32 {
    run("ntfs-3g.probe", &["-w", s(path)])
        .status
        .code()
        .unwrap()
}

/// It is copied whole, and one warning says why.
fn assert_full(path: &Path, kind: WarningKind, words: &[&str]) {
    let (region, map) = whole(path);
    assert_eq!(region.file_system, "ntfs");
    assert_eq!(
        (region.method, &region.used),
        (Method::Full, &Extents::whole(region.size)),
        "{words:?}"
    );
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    let warning = &map.warnings[0];
    assert_eq!(warning.kind, kind, "{}", warning.detail);
    assert!(warning.detail.ends_with("; every sector is copied"));
    for words in words {
        assert!(
            warning.detail.contains(words),
            "{words}: {}",
            warning.detail
        );
    }
}

fn small() -> Image {
    filled(16, &["-c", "4096"])
}

/// Byte offset of a file record, of those in the first run of the table.
fn record(path: &Path, number: u64) -> u64 {
    u64::from_le_bytes(peek(path, 48)) * 4096 + number * 1024
}

/// Offset in a record of what is `at` bytes into the attribute of this type.
fn attribute(path: &Path, number: u64, kind: u32, at: u64) -> u64 {
    let record = record(path, number);
    let mut place = record + u64::from(u16::from_le_bytes(peek(path, record + 20)));
    loop {
        let found = u32::from_le_bytes(peek(path, place));
        assert_ne!(found, u32::MAX, "no attribute {kind:#x}");
        if found == kind {
            return place + at;
        }
        place += u64::from(u32::from_le_bytes(peek(path, place + 4)));
    }
}

#[test]
fn the_dirty_flag() {
    let image = small();
    // Without options it leaves the flag behind, so that Windows checks the volume.
    assert!(run("ntfsfix", &[s(&image.path)]).status.success());
    assert_full(&image.path, WarningKind::FsDirty, &["marked as dirty"]);
    assert!(run("ntfsfix", &["-d", s(&image.path)]).status.success());
    whole_used(&image.path);
    // The flags stand behind eight bytes and the version, in the record and its mirror.
    let flags = attribute(&image.path, 3, 0x70, 24 + 10);
    let mirror = u64::from_le_bytes(peek(&image.path, 56)) * 4096;
    let set = |value: u16| {
        poke(&image.path, flags, &value.to_le_bytes());
        let copy = mirror + flags - record(&image.path, 0);
        poke(&image.path, copy, &value.to_le_bytes());
    };
    set(0x4000);
    assert_full(
        &image.path,
        WarningKind::FsDirty,
        &["check", "not finished"],
    );
    set(0x0200);
    assert_full(&image.path, WarningKind::FsDirty, &["unknown flags 0x0200"]);
    set(0x8000 | 0x10);
    whole_used(&image.path);
    poke(&image.path, flags - 2, &[3, 2]);
    let (region, map) = whole(&image.path);
    assert_eq!((region.method, map.warnings), (Method::Full, vec![]));
    assert!(region.reason.contains("version 3.2"), "{}", region.reason);
}

/// Writes two restart pages at the start of the log, as Windows does.
fn write_log(image: &Image, version: u16, client: u16, flags: u16) {
    let size = u64::from_le_bytes(peek(&image.path, attribute(&image.path, 2, 0x80, 48)));
    let mut page = vec![0u8; 4096];
    let mut put = |at: usize, value: &[u8]| page[at..at + value.len()].copy_from_slice(value);
    put(0, b"RSTR");
    put(4, &30u16.to_le_bytes());
    put(6, &9u16.to_le_bytes());
    put(16, &4096u32.to_le_bytes());
    put(20, &4096u32.to_le_bytes());
    put(24, &48u16.to_le_bytes());
    put(26, &(version & 0xff).to_le_bytes());
    put(28, &(version >> 8).to_le_bytes());
    // The restart area: sequence, clients, free and used ones, flags, and sizes.
    put(48, &1024u64.to_le_bytes());
    put(56, &1u16.to_le_bytes());
    put(58, &(if client == 0 { 0xffffu16 } else { 0 }).to_le_bytes());
    put(60, &client.to_le_bytes());
    put(62, &flags.to_le_bytes());
    let bits = 67 - (64 - size.leading_zeros());
    put(64, &bits.to_le_bytes());
    put(68, &224u16.to_le_bytes());
    put(70, &64u16.to_le_bytes());
    put(72, &size.to_le_bytes());
    put(84, &48u16.to_le_bytes());
    put(86, &64u16.to_le_bytes());
    // The client, which is NTFS.
    put(48 + 64 + 16, &[0xff; 4]);
    put(48 + 64 + 28, &8u32.to_le_bytes());
    put(48 + 64 + 32, &[b'N', 0, b'T', 0, b'F', 0, b'S', 0]);
    put(30, &1u16.to_le_bytes());
    for stride in 1..=8 {
        put(stride * 512 - 2, &1u16.to_le_bytes());
    }
    let log = first_cluster(image, 2) * 4096;
    poke(&image.path, log, &page);
    poke(&image.path, log + 4096, &page);
}

/// First cluster of the data of a file with one run.
fn first_cluster(image: &Image, number: u64) -> u64 {
    let data = attribute(&image.path, number, 0x80, 0);
    let pairs = data + u64::from(u16::from_le_bytes(peek(&image.path, data + 32)));
    let head = peek::<1>(&image.path, pairs)[0];
    let mut start = [0; 8];
    let len = u64::from(head >> 4);
    let place = bytes(&image.path, pairs + 1 + u64::from(head & 15), len);
    start[..len as usize].copy_from_slice(&place);
    u64::from_le_bytes(start)
}

#[test]
fn the_log() {
    const NO_CLIENT: u16 = 0xffff;
    let image = small();
    assert_eq!(probe(&image.path), READY);
    for (client, flags) in [(0, 2), (NO_CLIENT, 0), (NO_CLIENT, 2)] {
        write_log(&image, 0x0101, client, flags);
        assert_eq!(probe(&image.path), READY);
        whole_used(&image.path);
    }
    write_log(&image, 0x0101, 0, 0);
    assert_eq!(probe(&image.path), UNCLEAN);
    let not_closed = ["its log says that the volume was not closed"];
    assert_full(&image.path, WarningKind::FsDirty, &not_closed);
    write_log(&image, 0x0200, 0, 0);
    assert_ne!(probe(&image.path), READY);
    assert_full(&image.path, WarningKind::FsDirty, &["version 2.0"]);
    // Torn by a power cut.
    write_log(&image, 0x0101, 0, 2);
    poke(&image.path, first_cluster(&image, 2) * 4096 + 8190, &[9]);
    assert_full(
        &image.path,
        WarningKind::FsDirty,
        &["was not written whole"],
    );
    // Everything comes along, so that Windows can replay it.
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, &whole(&image.path).0.used, &target);
    common::ok("cmp", &[s(&image.path), s(&target)]);
}

/// Puts a hiberfil.sys that begins with these bytes into the root folder.
fn hibernate(image: &Image, name: &str, head: &[u8]) {
    let mut content = vec![0u8; 3 << 20];
    content[..head.len()].copy_from_slice(head);
    image.change(|root| std::fs::write(root.join(name), content).unwrap());
}

#[test]
fn a_hibernated_windows() {
    let image = small();
    for (head, name, code) in [
        (&b""[..], "hiberfil.sys", READY),
        (b"wake", "hiberfil.sys", READY),
        (b"HIBR\0\0\0\0", "hiberfil.sys", HIBERNATED),
    ] {
        hibernate(&image, name, head);
        assert_eq!(probe(&image.path), code, "{head:?}");
        if code == READY {
            whole_used(&image.path);
        }
    }
    let words = ["a hibernated Windows is in its hiberfil.sys"];
    assert_full(&image.path, WarningKind::FsDirty, &words);
    // What was hibernated holds the other partitions too.
    write_log(&image, 0x0101, 0, 0);
    let both = [words[0], "was not closed"];
    assert_full(&image.path, WarningKind::FsDirty, &both);
}

/// The folder is a tree of many blocks then; and Windows does not care for case.
#[test]
fn a_hibernated_windows_among_many_files() {
    let image = small();
    image.change(|root| {
        for i in 0..3000 {
            let name = format!(
                "{:x} is a name of some length",
                (i * 0x9e37_79b9u64) % 0xffff_ffff
            );
            std::fs::write(root.join(name), b"").unwrap();
        }
    });
    whole_used(&image.path);
    hibernate(&image, "HiberFil.Sys", b"hibr");
    assert_full(&image.path, WarningKind::FsDirty, &["hiberfil.sys"]);
    image.change(|root| std::fs::remove_file(root.join("HiberFil.Sys")).unwrap());
    whole_used(&image.path);
    hibernate(&image, "hiberfil.sys", b"Hi there");
    assert_full(
        &image.path,
        WarningKind::FsDirty,
        &["may hold a hibernated system"],
    );
}

#[test]
fn a_hibernated_windows_makes_its_whole_disk_full_sector() {
    let image = small();
    let dir = tempfile::tempdir().unwrap();
    let disk = common::sparse(&dir.path().join("disk"), 64 << 20);
    let (start, other) = (1 << 20, 32 << 20);
    common::ok(
        "sgdisk",
        &["-n", "1:2048:+16M", "-n", "2:65536:+16M", s(&disk)],
    );
    let size = image.path.metadata().unwrap().len();
    poke(&disk, start, &bytes(&image.path, 0, size));
    poke(&disk, other, &bytes(&image.path, 0, size));
    let methods = || {
        let map = scan_file(&disk, 512);
        let parts = common::partitions(&map);
        (parts[0].method, parts[1].method, map.warnings.len())
    };
    assert_eq!(methods(), (Method::Used, Method::Used, 0));
    hibernate(&image, "hiberfil.sys", b"hibr");
    poke(&disk, start, &bytes(&image.path, 0, size));
    assert_eq!(methods(), (Method::Full, Method::Full, 1));
}

/// ntfs-3g empties the log when it mounts a volume and sets no flag. It marks clusters as
/// used before files have them, so that a copy taken at any time can be mapped.
#[test]
fn a_copy_of_a_volume_that_ntfs_3g_has_mounted() {
    let image = small();
    let torn = image.work.join("torn");
    image.change(|root| {
        for i in 0..20u8 {
            let content = vec![i; 10_000 * usize::from(i)];
            for place in [root, &image.tree] {
                std::fs::write(place.join(format!("late{i}")), &content).unwrap();
            }
            if i % 3 == 0 {
                std::fs::File::open(root.join(format!("late{i}")))
                    .unwrap()
                    .sync_all()
                    .unwrap();
            }
        }
        std::fs::copy(&image.path, &torn).unwrap();
    });
    let used = whole_used(&torn).used;
    let target = image.work.join("restored");
    restore_onto_garbage(&torn, &used, &target);
    is_consistent(&target).unwrap();
    assert_holds(&target, &image.tree, &image.work);
}

#[test]
fn contradictions() {
    let image = small();
    let path = &image.path;
    let with = |offset: u64, change: &[u8], words: &[&str]| {
        let old = bytes(path, offset, change.len() as u64);
        poke(path, offset, change);
        assert_full(path, WarningKind::FsDamaged, words);
        poke(path, offset, &old);
    };
    with(13, &[3], &["0x03 for the cluster size"]);
    with(42, &[0x90], &["says it has", "there are"]);
    with(48, &[9], &["its file table has no place"]);
    with(48, &[200], &["file record 0 begins with"]);
    with(56, &[1], &["mirror is not where"]);
    with(record(path, 0), b"BAAD", &["file record 0 begins with"]);
    with(
        record(path, 6) + 510,
        &[0xee, 0xee],
        &["file record 6 was not written whole"],
    );
    with(record(path, 1) + 64, &[0xee], &["file record 1"]);
    with(record(path, 6) + 22, &[0], &["file record 6 is not in use"]);
    let mirror = u64::from_le_bytes(peek(path, 56)) * 4096;
    with(
        mirror + 1024 * 3 + 9,
        &[0xee],
        &["file record 3 and its mirror differ"],
    );
    with(mirror + 510, &[0xee], &["in its mirror, file record 0"]);
    with(
        attribute(path, 6, 0x80, 56),
        &100u64.to_le_bytes(),
        &["its bitmap has 100 bytes"],
    );
    // A bit of the file table, of the log, of the bitmap itself, of the boot sector.
    let bitmap = first_cluster(&image, 6) * 4096;
    for number in [0, 1, 2, 6, 7, 10] {
        let cluster = first_cluster(&image, number);
        let at = bitmap + cluster / 8;
        let [old] = peek::<1>(path, at);
        let words = format!("cluster {cluster} holds a file of its own");
        with(at, &[old & !(1 << (cluster % 8))], &[&words]);
    }
    assert_ne!(probe(path), CORRUPT);
    whole_used(path);
}
