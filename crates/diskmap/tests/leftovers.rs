//! What stands behind a file system or beside another signature, and still matters.
//!
//! Owns: spaces that are not a file system's own, and suspended systems that are hard to see.

mod common;

use common::{
    MIB, fill, ok, ok_with_input, partitions, poke, restore_onto_garbage, s, scan_file, sparse,
    whole_used,
};
use diskmap::{Extent, Method, WarningKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An ext4 of 32 MiB in a space of 48 MiB.
fn with_room() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("disk"), 48 * MIB);
    let tree = dir.path().join("tree");
    fill(&tree, 20, 30_000);
    ok(
        "mke2fs",
        &["-q", "-t", "ext4", "-d", s(&tree), s(&path), "32M"],
    );
    (dir, path)
}

/// Hash trees of dm-verity are appended like this, in the same partition.
#[test]
fn what_was_appended_to_a_file_system_is_copied_with_it() {
    let (dir, path) = with_room();
    let plain = whole_used(&path).used;
    assert!(!plain.contains(32 * MIB) && !plain.contains(40 * MIB));
    let behind = Extent::between(32 * MIB, 48 * MIB);
    for (place, tree) in [(32 * MIB, 0x76u8), (33 * MIB, 1)] {
        let (_dir, path) = with_room();
        poke(&path, place, &vec![tree; 3 << 20]);
        let region = whole_used(&path);
        assert!(region.used.contains_all(behind), "{region:?}");
        assert!(region.reason.contains("right behind it"), "{region:?}");
        assert!(region.used.total() < 32 * MIB, "the file system by itself");
        let restored = dir.path().join("restored");
        restore_onto_garbage(&path, &region.used, &restored);
        ok("e2fsck", &["-fn", s(&restored)]);
        let end = |path: &Path| std::fs::read(path).unwrap()[32 << 20..].to_vec();
        assert_eq!(end(&restored), end(&path));
    }
}

/// An earlier signature in the same space must not hide that a system sleeps in it.
#[test]
fn a_suspended_system_is_seen_beside_another_signature() {
    let (dir, fs) = with_room();
    let path = sparse(&dir.path().join("two"), 96 * MIB);
    let script = "label: dos\nstart=2048, size=98304\nstart=100352, size=65536, type=82\n";
    ok_with_input("sfdisk", &["-q", s(&path)], script);
    poke(&path, MIB, &std::fs::read(&fs).unwrap());
    let swap = sparse(&dir.path().join("swap"), 32 * MIB);
    ok("mkswap", &["-q", s(&swap)]);
    poke(&path, 49 * MIB, &std::fs::read(&swap).unwrap()[..8192]);
    poke(&path, 49 * MIB + (64 << 10) + 64, b"_BHRfS_M");
    let map = scan_file(&path, 512);
    assert_eq!(partitions(&map)[0].method, Method::Used);
    assert!(partitions(&map)[1].reason.contains("at once"), "{map:?}");
    assert_eq!(map.warnings, []);
    poke(&path, 49 * MIB + 4086, b"S1SUSPEND\0");
    let map = scan_file(&path, 512);
    for region in partitions(&map) {
        assert_eq!(region.method, Method::Full, "{map:?}");
    }
    assert!(map.warnings.iter().any(|w| w.kind == WarningKind::FsDirty));
}
