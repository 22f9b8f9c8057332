//! File systems that contradict themselves, that are elsewhere in part, or that need
//! more than a look at their bitmaps.

use crate::common::{ok, peek, poke, s, sparse, whole, whole_used};
use crate::image::{assert_full, image, number};
use diskmap::{Method, WarningKind};

/// Group descriptors of a file system of 4 KiB blocks start in block 1.
const DESCRIPTORS: u64 = 4096;
const PLAIN: &[&str] = &["-t", "ext2", "-b", "4096"];
const MODERN: &[&str] = &["-t", "ext4", "-b", "4096"];

#[test]
fn damage_of_checksummed_metadata_is_seen() {
    let image = image(40, MODERN);
    let dump = ok("dumpe2fs", &[s(&image.path)]);
    let bitmap = dump
        .lines()
        .find_map(|l| l.trim().strip_prefix("Block bitmap at "))
        .map(number);
    for (offset, words) in [
        (1024 + 0x08, "checksum of the superblock"),
        (DESCRIPTORS + 0x30, "checksum of the descriptor of group 0"),
        (
            bitmap.unwrap() * 4096 + 700,
            "checksum of the block bitmap of group 0",
        ),
    ] {
        let [byte] = peek::<1>(&image.path, offset);
        poke(&image.path, offset, &[byte ^ 4]);
        assert_full(&image.path, WarningKind::FsDamaged, words);
        poke(&image.path, offset, &[byte]);
    }
    whole_used(&image.path);
}

#[test]
fn lies_without_checksums_are_seen() {
    let image = image(40, PLAIN);
    let poke_back = |offset: u64, bytes: &[u8], kind, words: &str| {
        let old = peek::<4>(&image.path, offset);
        poke(&image.path, offset, bytes);
        assert_full(&image.path, kind, words);
        poke(&image.path, offset, &old);
    };
    use WarningKind::{FsDamaged, FsDirty};
    poke_back(
        DESCRIPTORS,
        &u32::MAX.to_le_bytes(),
        FsDamaged,
        "block bitmap of group 0 is at",
    );
    poke_back(
        DESCRIPTORS + 8,
        &10_200u32.to_le_bytes(),
        FsDamaged,
        "inode table of group 0",
    );
    poke_back(
        DESCRIPTORS,
        &1u32.to_le_bytes(),
        FsDamaged,
        "free blocks in its bitmap",
    );
    poke_back(
        DESCRIPTORS + 4,
        &1u32.to_le_bytes(),
        FsDamaged,
        "two kinds of metadata",
    );
    poke_back(
        DESCRIPTORS + 12,
        &[1, 0, 1, 0],
        FsDamaged,
        "free blocks in its bitmap",
    );
    poke_back(
        1024 + 0x04,
        &1_000_000u32.to_le_bytes(),
        FsDamaged,
        "says it has 4096000000 bytes",
    );
    poke_back(1024 + 0x28, &8u32.to_le_bytes(), FsDamaged, "inodes");
    poke_back(1024 + 0x20, &8u32.to_le_bytes(), FsDamaged, "impossible");
    poke_back(1024 + 0x3a, &[0, 0], FsDirty, "not cleanly unmounted");
    poke_back(1024 + 0x3a, &[3, 0], FsDirty, "errors");
    poke_back(1024 + 0x3a, &[5, 0], FsDirty, "did not come to its end");
    poke_back(1024 + 0x60, &[6, 0], FsDamaged, "has no journal");
    poke_back(1024 + 0x5c, &[0, 1], FsDirty, "unknown features");
    poke_back(1024 + 0x60, &[2, 0, 0, 0x40], FsDirty, "unknown features");
    poke_back(1024 + 0x64, &[3, 0, 0, 0x40], FsDirty, "unknown features");
    whole_used(&image.path);
}

/// A bitmap that frees its own group's metadata, with the counter made to match.
#[test]
fn metadata_marked_as_free_is_seen() {
    let image = image(40, PLAIN);
    let bitmap = u64::from(u32::from_le_bytes(peek(&image.path, DESCRIPTORS)));
    let [free] = [u16::from_le_bytes(peek(&image.path, DESCRIPTORS + 12))];
    let [byte] = peek::<1>(&image.path, bitmap * 4096);
    assert_eq!(byte & 2, 2);
    poke(&image.path, bitmap * 4096, &[byte & !2]);
    poke(&image.path, DESCRIPTORS + 12, &(free + 1).to_le_bytes());
    assert_full(
        &image.path,
        WarningKind::FsDamaged,
        "block 1 holds metadata and is marked as free",
    );
}

/// What deleted files take is still in use until they are cleaned up.
#[test]
fn deleted_files_that_wait_do_not_make_a_map_wrong() {
    let image = image(40, PLAIN);
    let before = whole_used(&image.path).used;
    poke(&image.path, 1024 + 0xe8, &[12, 0]);
    let (region, map) = whole(&image.path);
    assert_eq!((region.method, region.used), (Method::Used, before));
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
    assert!(map.warnings[0].detail.contains("deleted files"));
}

#[test]
fn journals_that_hold_something_or_are_elsewhere() {
    let image = image(40, &["-t", "ext3", "-b", "4096"]);
    let map = ok("debugfs", &["-R", "bmap <8> 0", s(&image.path)]);
    let journal = number(&map) * 4096;
    poke(&image.path, journal + 0x1c, &[0, 0, 0, 1]);
    assert_full(&image.path, WarningKind::FsDirty, "journal is not empty");
    poke(&image.path, journal + 0x1c, &[0, 0, 0, 0]);
    poke(&image.path, journal + 0x20, &[0, 0, 0, 5]);
    assert_full(&image.path, WarningKind::FsDirty, "recorded an error");
    poke(&image.path, journal, &[0]);
    assert_full(&image.path, WarningKind::FsDamaged, "journal superblock");
    poke(&image.path, 1024 + 0xe0, &u32::MAX.to_le_bytes());
    assert_full(&image.path, WarningKind::FsDamaged, "journal is inode");
    poke(&image.path, 1024 + 0xe0, &[0; 4]);
    assert_full(
        &image.path,
        WarningKind::FsDirty,
        "journal is on another disk",
    );
}

#[test]
fn a_journal_device_is_copied_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("journal"), 16 << 20);
    ok(
        "mke2fs",
        &["-q", "-F", "-O", "journal_dev", "-b", "4096", s(&path)],
    );
    let (region, map) = whole(&path);
    assert_eq!((region.method, map.warnings.len()), (Method::Full, 0));
    assert!(
        region.reason.contains("journal of another"),
        "{}",
        region.reason
    );
}
