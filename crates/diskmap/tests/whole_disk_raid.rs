//! RAID sets of whole disks: what stands at a disk's end decides what its table means.

mod common;

use common::md::{Recipe, examine};
use common::{
    FileDisk, MIB, fill, ok, ok_with_input, partitions, peek, poke, restore_onto_garbage, s,
    scan_file, sparse, try_scan,
};
use diskmap::{DiskMap, Extent, Extents, Method, ScanOptions, WarningKind};
use std::path::PathBuf;
use tempfile::TempDir;

/// A disk of 96 MiB with a table, and an ext4 in its first partition.
fn disk(table: &str) -> (TempDir, PathBuf, DiskMap) {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("disk"), 96 * MIB);
    let tree = dir.path().join("tree");
    fill(&tree, 20, 30_000);
    let fs = sparse(&dir.path().join("fs"), 32 * MIB);
    ok("mke2fs", &["-q", "-t", "ext4", "-d", s(&tree), s(&fs)]);
    let script = format!("label: {table}\nstart=2048, size=65536\nstart=67584, size=65536\n");
    ok_with_input("sfdisk", &["-q", s(&path)], &script);
    poke(&path, MIB, &std::fs::read(&fs).unwrap());
    let plain = scan_file(&path, 512);
    assert_eq!(partitions(&plain)[0].method, Method::Used);
    (dir, path, plain)
}

/// All bytes that are copied, the table included.
fn copied(map: &DiskMap) -> Extents {
    let regions = map.regions.iter().flat_map(|region| {
        region.used.iter().map(|e| Extent {
            start: region.start + e.start,
            len: e.len,
        })
    });
    let blobs = map.blobs.iter().map(|blob| Extent {
        start: blob.offset,
        len: blob.data.len() as u64,
    });
    regions.chain(blobs).collect()
}

fn assert_whole(map: &DiskMap, said: &str) {
    assert_eq!(copied(map), Extents::whole(96 * MIB), "{map:?}");
    for region in partitions(map) {
        assert_eq!(region.method, Method::Full);
        assert!(region.reason.contains(said) || region.file_system.is_empty());
    }
    assert!(partitions(map)[0].reason.contains(said), "{map:?}");
}

#[test]
fn half_of_a_mirror_keeps_its_superblock() {
    for version in ["0.90", "1.0"] {
        let (dir, path, plain) = disk("dos");
        let recipe = Recipe::new(version);
        recipe.write(&path, 90 * MIB);
        assert_eq!(examine(&path)("Raid Level"), "raid1");
        let map = scan_file(&path, 512);
        assert_eq!(map.warnings, []);
        let (before, now) = (copied(&plain), copied(&map));
        assert_eq!(partitions(&map)[0].used, partitions(&plain)[0].used);
        // All behind the array's data.
        let end = Extent::between(90 * MIB, 96 * MIB);
        assert_eq!(now, before.union(&Extents::from_iter([end])));
        let restored = dir.path().join("restored");
        restore_onto_garbage(&path, &now, &restored);
        assert!(examine(&restored)("Checksum").contains("correct"));
    }
}

/// With a GPT, whose second copy is at the end of the array.
#[test]
fn half_of_a_mirror_with_a_gpt() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("disk"), 64 * MIB);
    ok("sgdisk", &["-n", "1:2048:+8M", "-n", "2:0:0", s(&path)]);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(64 * MIB + 100_000).unwrap();
    Recipe::new("1.0").write(&path, 64 * MIB);
    let map = scan_file(&path, 512);
    let whole = 64 * MIB + 100_000 / 512 * 512;
    let kept = Extent::between(64 * MIB, whole);
    assert!(copied(&map).contains_all(kept), "{map:?}");
}

#[test]
fn other_sets_are_copied_whole() {
    for version in ["0.90", "1.0"] {
        for level in [0, 5, 10] {
            let (_dir, path, _) = disk("dos");
            let mut recipe = Recipe::new(version);
            recipe.level = level;
            recipe.write(&path, 90 * MIB);
            let map = scan_file(&path, 512);
            assert_whole(&map, &format!("a member of a RAID{level} array"));
            assert_eq!(map.warnings, []);
        }
        let (_dir, path, _) = disk("gpt");
        // Room for a superblock behind the table's second copy is only in an array's disk.
        let mut recipe = Recipe::new(version);
        (recipe.state, recipe.resync) = (0, 5);
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(95 * MIB).unwrap();
        ok("sgdisk", &["-e", s(&path)]);
        file.set_len(96 * MIB).unwrap();
        recipe.write(&path, 90 * MIB);
        let map = scan_file(&path, 512);
        assert_whole(&map, "not stopped cleanly");
        assert!(map.warnings.iter().any(|w| w.kind == WarningKind::FsDirty));
        let strict = ScanOptions {
            strict: true,
            ..ScanOptions::default()
        };
        assert_eq!(try_scan(&path, strict).unwrap_err().code(), "fs-dirty");
    }
}

#[test]
fn firmware_raid_is_copied_whole_and_named() {
    let imsm: (u64, &[u8]) = (96 * MIB - 1024, b"Intel Raid ISM Cfg Sig. 1.3.00");
    let ddf: (u64, &[u8]) = (96 * MIB - 512, b"\xde\x11\xde\x11");
    for ((place, magic), name) in [(imsm, "Intel firmware RAID"), (ddf, "DDF firmware RAID")] {
        let (_dir, path, _) = disk("dos");
        poke(&path, place, magic);
        assert_whole(&scan_file(&path, 512), name);
        // The table of a set that is larger than each of its disks.
        let [mut sectors] = peek::<1>(&path, 446 + 16 + 15);
        sectors += 1;
        poke(&path, 446 + 16 + 15, &[sectors]);
        let map = scan_file(&path, 512);
        assert_eq!(map.regions.len(), 1);
        assert!(map.regions[0].reason.contains(name), "{map:?}");
        assert_eq!(map.regions[0].used, Extents::whole(96 * MIB));
        // Nothing but the set explains such a table.
        poke(&path, place, &[0; 4]);
        assert!(try_scan(&path, ScanOptions::default()).is_err());
    }
}

/// The last partition is a member itself: its superblock is at the disk's end too.
#[test]
fn the_superblock_of_the_last_partition_is_not_the_disks() {
    for version in ["0.90", "1.0"] {
        let (dir, path, plain) = disk("dos");
        let script = "label: dos\nstart=2048, size=65536\nstart=67584\n";
        ok_with_input("sfdisk", &["-q", s(&path)], script);
        let mut recipe = Recipe::new(version);
        recipe.level = 5;
        let member = sparse(&dir.path().join("member"), 96 * MIB - 33 * MIB);
        recipe.write(&member, 60 * MIB);
        poke(&path, 33 * MIB, &std::fs::read(&member).unwrap());
        let map = scan_file(&path, 512);
        let found = partitions(&map);
        assert_eq!(found[0].used, partitions(&plain)[0].used);
        assert_eq!(found[1].method, Method::Full);
        assert!(found[1].reason.contains("RAID5"), "{}", found[1].reason);
        assert_eq!(FileDisk::open(&path).size(), 96 * MIB);
    }
}

/// A superblock that leaves the first sectors alone: tables of earlier days stay in front of
/// the array's data, and are none of its.
#[test]
fn a_table_in_front_of_a_superblock_is_not_believed() {
    let (_dir, path, _) = disk("dos");
    Recipe::new("1.2").write(&path, 90 * MIB);
    assert_eq!(examine(&path)("Raid Level"), "raid1");
    assert_whole(&scan_file(&path, 512), "left over");

    let (_dir, path, _) = disk("gpt");
    Recipe::new("1.2").write(&path, 90 * MIB);
    let map = scan_file(&path, 512);
    // The table's second copy is whole, but its first must not be put over the superblock.
    assert_eq!(map.blobs, []);
    assert_eq!(map.regions.len(), 1);
    assert_eq!(map.regions[0].method, Method::Full);

    let (_dir, path, _) = disk("dos");
    let uberblock = 0x00ba_b10cu64.to_le_bytes();
    poke(&path, (128 << 10) + 5 * 1024, &uberblock);
    assert_whole(&scan_file(&path, 512), "ZFS");
}
