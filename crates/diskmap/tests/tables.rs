//! MBRs made by sfdisk, and read by the `mbrman` crate, against ours; disks without
//! a table; options.

mod common;

use common::{
    MIB, assert_disjoint, disk, ok, ok_with_input, partitions, poke, s, scan_file, sparse, try_scan,
};
use diskmap::table::{minimum_size, parse_blobs, relocate};
use diskmap::{Geometry, Method, RegionKind, ScanError, ScanOptions, TableKind, WarningKind, scan};
use std::path::Path;

#[test]
fn mbr_by_sfdisk_with_logical_partitions() {
    let (_dir, path) = disk(64);
    ok_with_input(
        "sfdisk",
        &[s(&path)],
        "label: dos\nlabel-id: 0x12345678\nstart=2048, size=8192, type=83, bootable\nstart=12288, size=81920, type=5\nstart=14336, size=4096, type=83\nstart=20480, size=8192, type=82\nstart=30720, size=8192, type=1b\n",
    );
    let map = scan_file(&path, 512);
    assert_disjoint(&map);
    assert_eq!(
        (map.table, map.disk_id.as_str(), map.warnings.len()),
        (TableKind::Mbr, "12345678", 0)
    );
    let list: Vec<_> = partitions(&map)
        .iter()
        .map(|r| {
            (
                r.number.unwrap(),
                r.start / 512,
                r.size / 512,
                r.part_type.as_str(),
                r.bootable,
                r.hidden,
            )
        })
        .collect();
    assert_eq!(
        list,
        [
            (1, 2048, 8192, "0x83", true, false),
            (5, 14336, 4096, "0x83", false, false),
            (6, 20480, 8192, "0x82", false, false),
            (7, 30720, 8192, "0x1b", false, true),
        ]
    );
    assert_eq!(map.blobs.len(), 4, "the MBR and three records");
    let parsed = parse_blobs(map.table, &map.blobs, map.geometry).unwrap();
    assert_eq!(parsed.partitions.iter().filter(|p| p.extended).count(), 1);
    assert_eq!(
        minimum_size(map.table, &map.blobs, map.geometry, 0).unwrap(),
        38912 * 512,
        "the free space in the extended partition is not needed"
    );
    assert_eq!(
        relocate(map.table, &map.blobs, map.geometry, 94208 * 512).unwrap(),
        map.blobs
    );
    assert!(relocate(map.table, &map.blobs, map.geometry, 38912 * 512 - 1).is_err());

    let mut file = std::fs::File::open(&path).unwrap();
    let theirs = mbrman::MBR::read_from(&mut file, 512).unwrap();
    let theirs: Vec<_> = theirs
        .iter()
        .filter(|(_, p)| p.is_used() && !p.is_extended())
        .map(|(number, p)| {
            (
                number as u32,
                u64::from(p.starting_lba),
                u64::from(p.sectors),
            )
        })
        .collect();
    assert_eq!(
        theirs,
        list.iter().map(|l| (l.0, l.1, l.2)).collect::<Vec<_>>()
    );
}

#[test]
fn bare_file_systems_and_blank_disks_have_no_table() {
    let (_dir, path) = disk(64);
    let whole = |path: &Path| {
        let map = scan_file(path, 512);
        assert_eq!(
            (map.table, map.regions.len(), map.blobs.len()),
            (TableKind::None, 1, 0)
        );
        assert_eq!(map.regions[0].number, Some(0));
        (map.regions[0].file_system.clone(), map.regions[0].method)
    };
    assert_eq!(whole(&path), (String::new(), Method::Full));
    ok("mkfs.fat", &["-F", "32", s(&path)]);
    assert_eq!(whole(&path), ("fat32".into(), Method::Used));
    // Boot code in the place of the entries does not make an MBR of it.
    poke(
        &path,
        446,
        &[
            0x80, 1, 2, 3, 0x83, 9, 9, 9, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f,
        ],
    );
    assert_eq!(whole(&path), ("fat32".into(), Method::Used));
    sparse(&path, 64 * MIB);
    ok("mke2fs", &["-q", "-F", "-t", "ext4", s(&path)]);
    poke(&path, 510, &[0x55, 0xaa]);
    assert_eq!(whole(&path), ("ext4".into(), Method::Used));
    sparse(&path, 64 * MIB);
    ok(
        "mkswap",
        &[
            "-L",
            "spare",
            "-U",
            "01234567-89ab-cdef-0123-456789abcdef",
            s(&path),
        ],
    );
    assert_eq!(whole(&path), ("swap".into(), Method::Used));
    let region = scan_file(&path, 512).regions.remove(0);
    assert_eq!(
        (
            region.label.as_str(),
            region.used.intersect(0..32 * MIB).total()
        ),
        ("spare", 4096)
    );
    assert_eq!(region.uuid, "01234567-89ab-cdef-0123-456789abcdef");
    for size in [0, 1, 511, 513] {
        sparse(&path, size);
        let map = scan_file(&path, 512);
        assert_eq!(map.regions[0].used.total(), size);
    }
}

#[test]
fn an_empty_mbr_and_odd_boot_flags() {
    let (_dir, path) = disk(64);
    poke(&path, 510, &[0x55, 0xaa]);
    let map = scan_file(&path, 512);
    assert_eq!((map.table, map.regions.len()), (TableKind::Mbr, 1));
    assert_eq!(
        (map.regions[0].kind, map.regions[0].size),
        (RegionKind::Gap, 32 * MIB - 512)
    );
    poke(&path, 446, &[0x12]);
    let damaged = |path: &Path| {
        matches!(
            try_scan(path, ScanOptions::default()),
            Err(ScanError::MbrDamaged { .. })
        )
    };
    assert!(damaged(&path));
    // An old file system behind a damaged table decides nothing.
    ok("mke2fs", &["-q", "-F", "-t", "ext2", s(&path)]);
    assert_eq!(scan_file(&path, 512).table, TableKind::None);
    poke(&path, 446, &[0x12]);
    poke(&path, 510, &[0x55, 0xaa]);
    assert!(damaged(&path));
    let overlapping = [0, 0, 0, 0, 0x83, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
    poke(&path, 446, &overlapping);
    assert!(damaged(&path));
}

#[test]
fn two_file_systems_in_one_place_are_copied_in_full() {
    let (_dir, path) = disk(64);
    ok(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", "4096", s(&path)],
    );
    poke(&path, 0, b"LUKS\xba\xbe");
    let map = scan_file(&path, 512);
    assert_eq!(
        (map.regions[0].file_system.as_str(), map.regions[0].method),
        ("luks", Method::Full)
    );
    assert!(
        map.regions[0].reason.contains("LUKS and ext4"),
        "{}",
        map.regions[0].reason
    );
}

#[test]
fn strict_and_full_change_what_a_dirty_file_system_means() {
    let (_dir, path) = disk(64);
    ok_with_input("sfdisk", &[s(&path)], "label: dos\nstart=2048, type=83\n");
    ok(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext2",
            "-E",
            "offset=1048576",
            s(&path),
            "63M",
        ],
    );
    let map = scan_file(&path, 512);
    assert_eq!(partitions(&map)[0].method, Method::Used);
    poke(&path, MIB + 1024 + 0x3a, &[0]);
    let map = scan_file(&path, 512);
    assert_eq!(
        (map.warnings[0].kind, map.warnings[0].partition),
        (WarningKind::FsDirty, Some(1))
    );
    match try_scan(
        &path,
        ScanOptions {
            full: false,
            strict: true,
        },
    ) {
        Err(error @ ScanError::FsDirty { partition: 1, .. }) => {
            assert_eq!(error.code(), "fs-dirty")
        }
        other => panic!("{other:?}"),
    }
    let map = try_scan(
        &path,
        ScanOptions {
            full: true,
            strict: true,
        },
    )
    .unwrap();
    assert_eq!(
        (partitions(&map)[0].method, map.warnings.len()),
        (Method::Full, 0)
    );
    assert_eq!(partitions(&map)[0].file_system, "ext2");
}

#[test]
fn only_known_sector_sizes() {
    for size in [0, 1, 256, 520, 8192] {
        let geometry = Geometry {
            size_bytes: 4096,
            sector_size: size,
        };
        let result = scan(
            &vec![0u8; 4096],
            geometry,
            &ScanOptions {
                full: true,
                strict: false,
            },
        );
        assert!(
            matches!(result, Err(ScanError::SectorSizeUnsupported { .. })),
            "{size}"
        );
    }
}
