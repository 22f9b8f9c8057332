//! GUID partition tables made by sgdisk, and read by the `gpt` crate, against ours.

mod common;

use common::{
    MIB, assert_disjoint, disk, gpt_disk, ok, partitions, peek, poke, s, scan_file, sparse,
    try_scan,
};
use diskmap::table::{minimum_size, parse_blobs, relocate};
use diskmap::{
    Blob, DiskMap, Geometry, Method, RegionKind, ScanError, ScanOptions, TableError, TableKind,
    WarningKind,
};

#[test]
fn gpt_by_sgdisk() {
    let (_dir, path) = gpt_disk();
    let map = scan_file(&path, 512);
    assert_disjoint(&map);
    assert_eq!((map.table, map.warnings.len()), (TableKind::Gpt, 0));
    assert_eq!(map.disk_id, "11111111-2222-3333-4444-555555555555");
    let parts = partitions(&map);
    let list: Vec<_> = parts
        .iter()
        .map(|r| (r.number.unwrap(), r.start / 512, r.size / 512))
        .collect();
    assert_eq!(
        list,
        [
            (2, 2048, 16384),
            (5, 32768, 32768),
            (11, 81920, 131072 - 34 + 1 - 81920)
        ]
    );
    assert_eq!(parts[0].name, "EFI f\u{f6}r alle");
    assert_eq!(parts[0].guid, "AAAAAAAA-BBBB-CCCC-DDDD-EEEEEEEEEEEE");
    assert_eq!(parts[0].type_name, "EFI system");
    assert_eq!(parts[1].part_type, "0FC63DAF-8483-4772-8E79-3D69D8477DE4");
    assert_eq!(
        parts.iter().map(|p| p.bootable).collect::<Vec<_>>(),
        [false, true, false]
    );
    assert_eq!(
        parts.iter().map(|p| p.hidden).collect::<Vec<_>>(),
        [false, false, true]
    );
    assert_eq!(
        map.blobs.iter().map(|b| b.offset / 512).collect::<Vec<_>>(),
        [0, 1, 2, 131072 - 33, 131072 - 1]
    );
    let gaps: Vec<_> = map
        .regions
        .iter()
        .filter(|r| r.kind == RegionKind::Gap)
        .map(|r| (r.start / 512, r.size / 512))
        .collect();
    assert_eq!(gaps, [(34, 2014), (18432, 2048), (65536, 2048)]);
}

#[test]
fn the_gpt_crate_reads_the_same_partitions() {
    let (_dir, path) = gpt_disk();
    let theirs = gpt::GptConfig::new().writable(false).open(&path).unwrap();
    let map = scan_file(&path, 512);
    let ours: Vec<_> = partitions(&map)
        .iter()
        .map(|r| {
            (
                r.number.unwrap(),
                r.start / 512,
                (r.start + r.size) / 512 - 1,
                r.name.clone(),
                r.guid.to_lowercase(),
            )
        })
        .collect();
    let theirs: Vec<_> = theirs
        .partitions()
        .iter()
        .map(|(&number, p)| {
            (
                number,
                p.first_lba,
                p.last_lba,
                p.name.clone(),
                p.part_guid.to_string(),
            )
        })
        .collect();
    assert_eq!(ours, theirs);
}

#[test]
fn a_gpt_moves_to_other_sizes_and_sgdisk_agrees() {
    let (dir, path) = gpt_disk();
    let map = scan_file(&path, 512);
    let source = map.geometry;
    assert_eq!(
        relocate(map.table, &map.blobs, source, source.size_bytes).unwrap(),
        map.blobs
    );
    // The last partition reaches to the last usable sector: not a sector smaller.
    assert_eq!(
        minimum_size(map.table, &map.blobs, source, 0).unwrap(),
        source.size_bytes
    );
    assert_eq!(
        relocate(map.table, &map.blobs, source, source.size_bytes - 512),
        Err(TableError::TooSmall {
            needed: source.size_bytes,
            actual: source.size_bytes - 512
        })
    );
    for size in [source.size_bytes + 512, 100 * MIB, 3 << 40] {
        let blobs = relocate(map.table, &map.blobs, source, size).unwrap();
        let target = sparse(&dir.path().join("larger"), size);
        blobs
            .iter()
            .for_each(|blob| poke(&target, blob.offset, &blob.data));
        let verdict = ok("sgdisk", &["-v", s(&target)]);
        assert!(
            verdict.contains("No problems found") && !verdict.contains("corrupt GPT"),
            "{verdict}"
        );
        let protected = u64::from(u32::from_le_bytes(peek(&target, 446 + 12)));
        assert_eq!(protected, (size / 512 - 1).min(u64::from(u32::MAX)));
        let moved = scan_file(&target, 512);
        assert_eq!(moved.warnings, []);
        let key = |map: &DiskMap| {
            partitions(map)
                .iter()
                .map(|r| (r.number, r.start, r.size, r.guid.clone(), r.bootable))
                .collect::<Vec<_>>()
        };
        assert_eq!(key(&moved), key(&map));
        // And back again, byte for byte.
        let geometry = Geometry {
            size_bytes: size,
            sector_size: 512,
        };
        assert_eq!(
            relocate(TableKind::Gpt, &blobs, geometry, source.size_bytes).unwrap(),
            map.blobs
        );
    }
}

#[test]
fn a_gpt_without_partitions_at_its_end_fits_smaller_disks() {
    let (_dir, path) = gpt_disk();
    ok("sgdisk", &["-d", "11", s(&path)]);
    let map = scan_file(&path, 512);
    let least = minimum_size(map.table, &map.blobs, map.geometry, 0).unwrap();
    assert_eq!(least, (65536 + 33) * 512);
    let blobs = relocate(map.table, &map.blobs, map.geometry, least).unwrap();
    let (_dir, target) = disk(0);
    sparse(&target, least);
    blobs
        .iter()
        .for_each(|blob| poke(&target, blob.offset, &blob.data));
    let verdict = ok("sgdisk", &["-v", s(&target)]);
    assert!(
        verdict.contains("No problems found") && !verdict.contains("corrupt GPT"),
        "{verdict}"
    );
}

#[test]
fn a_gpt_of_4096_byte_sectors() {
    let (_dir, path) = disk(64);
    // sgdisk and sfdisk take the sector size from the device; the gpt crate is told.
    let config = || gpt::GptConfig::new().logical_block_size(gpt::disk::LogicalBlockSize::Lb4096);
    // Without the protective MBR the table would be read with a warning.
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    gpt::mbr::ProtectiveMBR::with_lb_size(64 * 256 - 1)
        .overwrite_lba0(&mut file)
        .unwrap();
    let mut theirs = config()
        .writable(true)
        .create_from_device(file, None)
        .unwrap();
    theirs
        .add_partition_at("EFI", 1, 256, 2048, gpt::partition_types::EFI, 0)
        .unwrap();
    theirs
        .add_partition_at("root", 2, 4096, 4096, gpt::partition_types::LINUX_FS, 4)
        .unwrap();
    theirs.write().unwrap();
    let map = scan_file(&path, 4096);
    assert_disjoint(&map);
    assert_eq!((map.table, map.warnings.len()), (TableKind::Gpt, 0));
    let list: Vec<_> = partitions(&map)
        .iter()
        .map(|r| {
            (
                r.number,
                r.start / 4096,
                r.size / 4096,
                r.name.as_str(),
                r.bootable,
            )
        })
        .collect();
    assert_eq!(
        list,
        [
            (Some(1), 256, 2048, "EFI", false),
            (Some(2), 4096, 4096, "root", true)
        ]
    );
    for size in [100 * MIB, 40 * MIB] {
        let moved = relocate(map.table, &map.blobs, map.geometry, size).unwrap();
        sparse(&path, size);
        moved
            .iter()
            .for_each(|blob| poke(&path, blob.offset, &blob.data));
        assert_eq!(scan_file(&path, 4096).warnings, []);
        // Only valid headers on both ends: the crate checks the checksums.
        let theirs = config().only_valid_headers(true).open(&path).unwrap();
        assert_eq!(theirs.partitions().len(), 2);
        assert_eq!(theirs.backup_header().unwrap().current_lba, size / 4096 - 1);
    }
    // At the other sector size there is only the protective MBR, and no GPT behind it.
    assert!(matches!(
        try_scan(&path, ScanOptions::default()),
        Err(ScanError::GptDamaged { .. })
    ));
}

#[test]
fn one_good_copy_is_enough_and_makes_the_other() {
    let (_dir, path) = gpt_disk();
    let good = scan_file(&path, 512);
    for (offset, words) in [
        (512 + 60, "header in sector 1"),
        (1024 + 128 + 40, "entries of sector 1"),
        (64 * MIB - 512 + 60, "header in sector 131071"),
        (64 * MIB - 33 * 512 + 140, "entries of sector 131071"),
    ] {
        let [byte] = peek::<1>(&path, offset);
        poke(&path, offset, &[byte ^ 1]);
        let map = scan_file(&path, 512);
        assert_eq!(map.warnings.len(), 1);
        assert_eq!(map.warnings[0].kind, WarningKind::GptDamaged);
        assert!(
            map.warnings[0].detail.contains(words),
            "{}",
            map.warnings[0].detail
        );
        assert_eq!(map.blobs, good.blobs, "{words}: the table is whole again");
        assert_eq!(map.regions, good.regions);
        poke(&path, offset, &[byte]);
    }
    // Both: an error, or with full one region.
    poke(&path, 512, b"X");
    poke(&path, 64 * MIB - 512, b"X");
    assert!(matches!(
        try_scan(&path, ScanOptions::default()),
        Err(ScanError::GptDamaged { .. })
    ));
    let map = try_scan(
        &path,
        ScanOptions {
            full: true,
            strict: true,
        },
    )
    .unwrap();
    assert_eq!(
        (map.table, map.blobs.len(), map.regions.len()),
        (TableKind::None, 0, 1)
    );
    assert_eq!(
        (map.regions[0].kind, map.regions[0].method),
        (RegionKind::Whole, Method::Full)
    );
    assert_eq!(map.regions[0].used.total(), 64 * MIB);
}

#[test]
fn copies_that_disagree_and_a_backup_that_is_not_at_the_end() {
    let (_dir, path) = gpt_disk();
    let original = scan_file(&path, 512);
    let old_backup: Vec<Blob> = original.blobs[3..].to_vec();
    ok("sgdisk", &["-c", "5:changed", s(&path)]);
    let changed = scan_file(&path, 512);
    old_backup
        .iter()
        .for_each(|blob| poke(&path, blob.offset, &blob.data));
    let map = scan_file(&path, 512);
    assert!(
        map.warnings[0].detail.contains("disagree (partitions)"),
        "{:?}",
        map.warnings
    );
    assert_eq!(map.blobs, changed.blobs);

    // A disk that was enlarged: table as it is, with a warning; it can be moved.
    let (_dir, path) = gpt_disk();
    let original = scan_file(&path, 512);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(80 * MIB)
        .unwrap();
    let map = scan_file(&path, 512);
    assert!(
        map.warnings[0].detail.contains("not at the end"),
        "{:?}",
        map.warnings
    );
    assert_eq!(map.blobs, original.blobs);
    assert_disjoint(&map);
    let moved = relocate(map.table, &map.blobs, map.geometry, 80 * MIB).unwrap();
    sparse(&path, 80 * MIB);
    moved
        .iter()
        .for_each(|blob| poke(&path, blob.offset, &blob.data));
    let verdict = ok("sgdisk", &["-v", s(&path)]);
    assert!(
        verdict.contains("No problems found") && !verdict.contains("corrupt GPT"),
        "{verdict}"
    );
}

#[test]
fn a_disk_cut_off_says_what_it_needs() {
    let (_dir, path) = gpt_disk();
    let cut = |size: u64| {
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(size)
            .unwrap();
    };
    cut(60 * MIB);
    match try_scan(&path, ScanOptions::default()) {
        Err(ScanError::DiskSmallerThanLayout { needed, actual }) => {
            assert_eq!((needed, actual), (64 * MIB, 60 * MIB));
        }
        other => panic!("{other:?}"),
    }
    assert!(
        try_scan(
            &path,
            ScanOptions {
                full: true,
                strict: false
            }
        )
        .is_ok()
    );
}

/// The `gpt` crate panics on this table.
#[test]
fn entry_sizes_other_than_128() {
    let (_dir, path) = gpt_disk();
    let good = scan_file(&path, 512);
    for (count, size, valid) in [
        (64u32, 256u32, true),
        (32, 512, true),
        (120, 136, true),
        (128, 64, false),
        (130, 126, false),
        (u32::MAX, 128, false),
        (128, u32::MAX, false),
    ] {
        let mut entries = good.blobs[2].data.clone();
        let mut spread = vec![0u8; entries.len()];
        for (i, old) in entries.chunks(128).enumerate() {
            if let Some(slot) = spread
                .get_mut(i.saturating_mul(size as usize)..)
                .and_then(|s| s.get_mut(..128))
            {
                slot.copy_from_slice(old);
            }
        }
        entries.copy_from_slice(&spread);
        let len = (u64::from(count) * u64::from(size)).min(entries.len() as u64) as usize;
        for (header, table) in [(1, 2), (4, 3)] {
            let mut sector = good.blobs[header].data.clone();
            sector[80..84].copy_from_slice(&count.to_le_bytes());
            sector[84..88].copy_from_slice(&size.to_le_bytes());
            sector[88..92].copy_from_slice(&crc32fast::hash(&entries[..len]).to_le_bytes());
            sector[16..20].fill(0);
            let crc = crc32fast::hash(&sector[..92]);
            sector[16..20].copy_from_slice(&crc.to_le_bytes());
            poke(&path, good.blobs[header].offset, &sector);
            poke(&path, good.blobs[table].offset, &entries);
        }
        match try_scan(&path, ScanOptions::default()) {
            Ok(map) => {
                assert!(valid, "{count} {size}");
                assert_eq!(map.warnings, []);
                let numbers: Vec<_> = partitions(&map).iter().map(|r| r.number.unwrap()).collect();
                assert_eq!(numbers, [2, 5, 11]);
                let same = relocate(map.table, &map.blobs, map.geometry, map.geometry.size_bytes);
                assert_eq!(same.unwrap(), map.blobs);
            }
            Err(ScanError::GptDamaged { detail }) => {
                assert!(
                    !valid && detail.contains("entry table"),
                    "{count} {size}: {detail}"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_plain_mbr_wins_over_a_stale_gpt() {
    let (_dir, path) = gpt_disk();
    let mut sector: [u8; 512] = peek(&path, 0);
    sector[446..510].fill(0);
    sector[446 + 4] = 0x83;
    sector[446 + 9] = 8;
    sector[446 + 13] = 8;
    poke(&path, 0, &sector);
    let map = scan_file(&path, 512);
    assert_eq!((map.table, partitions(&map).len()), (TableKind::Mbr, 1));
    // With neither entries nor a protective MBR the header speaks, with a warning.
    poke(&path, 446, &[0; 64]);
    let map = scan_file(&path, 512);
    assert_eq!((map.table, partitions(&map).len()), (TableKind::Gpt, 3));
    assert!(map.warnings[0].detail.contains("no protective MBR"));
}

#[test]
fn a_hybrid_mbr_is_kept_as_it_is() {
    let (_dir, path) = gpt_disk();
    ok("sgdisk", &["-h", "2", s(&path)]);
    let map = scan_file(&path, 512);
    assert_eq!((map.table, map.warnings.len()), (TableKind::Gpt, 0));
    let moved = relocate(map.table, &map.blobs, map.geometry, 200 * MIB).unwrap();
    assert_eq!(moved[0], map.blobs[0]);
}

#[test]
fn foreign_table_bytes_are_checked_again() {
    let (_dir, path) = gpt_disk();
    let map = scan_file(&path, 512);
    let parse = |blobs: &[Blob], kind| parse_blobs(kind, blobs, map.geometry);
    assert_eq!(
        parse(&map.blobs, TableKind::Gpt).unwrap().partitions.len(),
        3
    );
    let mut shuffled = map.blobs.clone();
    shuffled.reverse();
    assert_eq!(
        parse(&shuffled, TableKind::Gpt),
        parse(&map.blobs, TableKind::Gpt)
    );
    assert!(parse(&map.blobs, TableKind::Mbr).is_err());
    assert!(parse(&map.blobs, TableKind::None).is_err());
    assert!(parse(&map.blobs[..3], TableKind::Gpt).is_err(), "no backup");
    let mut more = map.blobs.clone();
    more.push(Blob {
        offset: 10 * MIB,
        data: vec![1; 512],
    });
    assert!(
        parse(&more, TableKind::Gpt).is_err(),
        "bytes in a partition"
    );
    let mut far = map.blobs.clone();
    far[4].offset = u64::MAX - 3;
    assert!(parse(&far, TableKind::Gpt).is_err());
    let mut bent = map.blobs.clone();
    bent[2].data[130] ^= 1;
    assert!(parse(&bent, TableKind::Gpt).is_err());
    assert_eq!(
        parse_blobs(
            TableKind::None,
            &[],
            Geometry {
                size_bytes: 1,
                sector_size: 520
            }
        ),
        Err(TableError::SectorSizeUnsupported { size: 520 })
    );
}
