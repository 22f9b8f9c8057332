//! Generated partition tables and mutated disks.
//!
//! Tables of any valid shape are read back as they were made, at 512 and 4096-byte
//! sectors; any other bytes end in an answer, never in a panic.

use diskmap::table::{grow, interim, keep, minimum_size, parse_blobs, relocate};
use diskmap::{Blob, DiskMap, Extents, Geometry, RegionKind, ScanOptions, TableKind, scan};
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, proptest,
};

/// A partition to be made: slot, first sector, sectors.
type Part = (u32, u64, u64);

/// Partitions in ascending order with random holes, from sector 40 on.
fn layout(slots: u32, most: usize) -> impl Strategy<Value = (Vec<Part>, u64)> {
    let parts = prop::collection::vec((0..30u64, 1..50u64), 0..most);
    let order = Just((1..=slots).collect::<Vec<_>>()).prop_shuffle();
    (parts, order, 0..100u64).prop_map(|(parts, order, rest)| {
        let mut at = 40;
        let list = parts.iter().zip(order).map(|(&(hole, sectors), slot)| {
            let start = at + hole;
            at = start + sectors;
            (slot, start, sectors)
        });
        let list: Vec<Part> = list.collect();
        (list, at + rest)
    })
}

/// A disk with the given GPT of 128 entries; room for the backup is added, and before
/// it a reserve that the table calls unusable.
fn gpt_disk(parts: &[Part], sectors: u64, reserve: u64, unit: u64) -> Vec<u8> {
    let entry_sectors = (128u64 * 128).div_ceil(unit);
    let sectors = sectors + reserve + entry_sectors + 1;
    let mut disk = vec![0u8; (sectors * unit) as usize];
    let mut entries = vec![0u8; (entry_sectors * unit) as usize];
    for &(slot, start, len) in parts {
        let entry = &mut entries[(slot as usize - 1) * 128..][..128];
        entry[..32].fill(slot as u8);
        entry[32..40].copy_from_slice(&start.to_le_bytes());
        entry[40..48].copy_from_slice(&(start + len - 1).to_le_bytes());
    }
    let last = sectors - 1;
    for (my, other, table) in [(1, last, 2), (last, 1, last - entry_sectors)] {
        let mut header = vec![0u8; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..16].copy_from_slice(&[0, 0, 1, 0, 92, 0, 0, 0]);
        for (at, value) in [
            (24, my),
            (32, other),
            (40, 2 + entry_sectors),
            (48, last - entry_sectors - reserve - 1),
            (72, table),
        ] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[80..88].copy_from_slice(&[128, 0, 0, 0, 128, 0, 0, 0]);
        header[88..92].copy_from_slice(&crc32fast::hash(&entries[..128 * 128]).to_le_bytes());
        let crc = crc32fast::hash(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk[(my * unit) as usize..][..92].copy_from_slice(&header);
        disk[(table * unit) as usize..][..entries.len()].copy_from_slice(&entries);
    }
    put_entry(&mut disk, 0, 1, 0xee, 1, last as u32);
    disk
}

fn put_entry(disk: &mut [u8], sector: usize, slot: usize, kind: u8, start: u32, sectors: u32) {
    let at = sector + 446 + (slot - 1) * 16;
    disk[at + 4] = kind;
    disk[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
    disk[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[sector + 510..sector + 512].copy_from_slice(&[0x55, 0xaa]);
}

/// One primary partition, then an extended one with the given logical partitions,
/// each of which has its record in the sector before it.
fn mbr_disk(parts: &[Part], sectors: u64, unit: u64) -> Vec<u8> {
    let mut disk = vec![0u8; (sectors * unit) as usize];
    put_entry(&mut disk, 0, 1, 0x83, 1, 20);
    let extended = 30u64;
    put_entry(
        &mut disk,
        0,
        2,
        0x0f,
        extended as u32,
        (sectors - extended) as u32,
    );
    let mut record = extended;
    for (i, &(_, start, len)) in parts.iter().enumerate() {
        let at = (record * unit) as usize;
        put_entry(&mut disk, at, 1, 0x83, (start - record) as u32, len as u32);
        if let Some(next) = parts.get(i + 1) {
            let next = next.1 - 1;
            put_entry(
                &mut disk,
                at,
                2,
                0x05,
                (next - extended) as u32,
                next as u32,
            );
            record = next;
        }
    }
    disk
}

fn run(disk: &[u8], unit: u64) -> DiskMap {
    let geometry = Geometry {
        size_bytes: disk.len() as u64,
        sector_size: unit as u32,
    };
    scan(&disk, geometry, &ScanOptions::default()).unwrap()
}

fn found(map: &DiskMap, unit: u64) -> Vec<Part> {
    map.regions
        .iter()
        .filter(|r| r.kind == RegionKind::Partition)
        .map(|r| (r.number.unwrap(), r.start / unit, r.size / unit))
        .collect()
}

/// What holds for every map, whatever the disk.
fn assert_sound(map: &DiskMap) {
    let size = map.geometry.size_bytes;
    let mut spans: Vec<_> = map
        .regions
        .iter()
        .map(|r| (r.start, r.start + r.size))
        .collect();
    spans.extend(map.blobs.iter().map(|b| (b.offset, b.end())));
    spans.sort_unstable();
    assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "{spans:?}");
    assert!(spans.last().is_none_or(|s| s.1 <= size));
    for region in &map.regions {
        assert!(region.used.end() <= region.size, "{region:?}");
        assert!(!region.reason.is_empty());
        let unit = u64::from(map.geometry.sector_size);
        assert!(
            region
                .used
                .iter()
                .all(|e| e.start % unit == 0 && (e.end() % unit == 0 || e.end() == region.size))
        );
        Extents::try_from(Vec::from(region.used.clone())).unwrap();
    }
}

fn units() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![512u64, 1024, 2048, 4096])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn gpt_is_read_as_made_and_moves((parts, sectors) in layout(128, 20), reserve in 0..20u64, unit in units(), more in 0..5000u64) {
        let disk = gpt_disk(&parts, sectors, reserve, unit);
        let map = run(&disk, unit);
        assert_sound(&map);
        prop_assert_eq!(map.table, TableKind::Gpt);
        prop_assert_eq!(&map.warnings, &[]);
        prop_assert_eq!(found(&map, unit), parts.clone());
        let (source, same) = (map.geometry, map.geometry.size_bytes);
        prop_assert_eq!(&relocate(map.table, &map.blobs, source, same).unwrap(), &map.blobs);
        // The same slots on a larger and on the smallest disk.
        let least = minimum_size(map.table, &map.blobs, source, 0).unwrap();
        prop_assert!(least <= same);
        prop_assert!(relocate(map.table, &map.blobs, source, least - 1).is_err());
        for target in [same + more * unit, least] {
            let blobs = relocate(map.table, &map.blobs, source, target).unwrap();
            let mut moved = vec![0u8; target as usize];
            put(&mut moved, &blobs);
            if target >= same {
                // What the table leaves free at its end, it leaves free again.
                let usable = |disk: &[u8]| u64::from_le_bytes(disk[unit as usize + 48..][..8].try_into().unwrap());
                prop_assert_eq!(usable(&moved), usable(&disk) + (target - same) / unit);
            }
            let map = run(&moved, unit);
            prop_assert_eq!(&map.warnings, &[]);
            prop_assert_eq!(found(&map, unit), parts.clone());
        }
    }

    #[test]
    fn mbr_is_read_as_made((parts, sectors) in layout(1, 20), unit in units()) {
        let parts: Vec<Part> = parts.iter().enumerate().map(|(i, p)| (i as u32 + 5, p.1 + 2 * i as u64, p.2)).collect();
        let disk = mbr_disk(&parts, sectors + 50, unit);
        let map = run(&disk, unit);
        assert_sound(&map);
        let mut wanted = vec![(1, 1, 20)];
        wanted.extend(&parts);
        prop_assert_eq!(found(&map, unit), wanted);
        prop_assert_eq!(map.blobs.len(), 1 + parts.len());
        let same = map.geometry.size_bytes;
        prop_assert_eq!(&relocate(map.table, &map.blobs, map.geometry, same).unwrap(), &map.blobs);
        prop_assert_eq!(&relocate(map.table, &map.blobs, map.geometry, 2 * same).unwrap(), &map.blobs);
        // The extended partition gives up its free space on a smaller disk, and no more.
        let least = minimum_size(map.table, &map.blobs, map.geometry, 0).unwrap();
        let end = parts.iter().map(|p| p.1 + p.2).max().unwrap_or(31).max(21);
        prop_assert_eq!(least, end * unit);
        prop_assert!(relocate(map.table, &map.blobs, map.geometry, least - unit).is_err());
        let blobs = relocate(map.table, &map.blobs, map.geometry, least).unwrap();
        let mut moved = vec![0u8; least as usize];
        put(&mut moved, &blobs);
        prop_assert_eq!(found(&run(&moved, unit), unit), found(&map, unit));
    }

    /// A partition grows up to what stands behind it, and nothing else changes.
    #[test]
    fn one_partition_grows_and_the_others_do_not(
        (parts, sectors) in layout(128, 8), gpt in any::<bool>(), unit in units(), more in 0..9000u64, pick in any::<prop::sample::Index>(),
    ) {
        if parts.is_empty() {
            return Ok(());
        }
        let (disk, parts) = if gpt {
            (gpt_disk(&parts, sectors, 0, unit), parts)
        } else {
            let logical: Vec<Part> = parts.iter().enumerate().map(|(i, p)| (i as u32 + 5, p.1 + 2 * i as u64, p.2)).collect();
            let disk = mbr_disk(&logical, sectors + 50, unit);
            (disk, [vec![(1, 1, 20)], logical].concat())
        };
        let map = run(&disk, unit);
        let target = Geometry { size_bytes: map.geometry.size_bytes + more * unit, ..map.geometry };
        let blobs = relocate(map.table, &map.blobs, map.geometry, target.size_bytes).unwrap();
        let (number, start, len) = *pick.get(&parts);
        let grown = grow(map.table, &blobs, target, number).unwrap();
        prop_assert_eq!((grown.start, grown.old_size), (start * unit, len * unit));
        prop_assert!(grown.size >= grown.old_size);
        let mut enlarged = vec![0u8; target.size_bytes as usize];
        put(&mut enlarged, &grown.blobs);
        let after = run(&enlarged, unit);
        assert_sound(&after);
        let mut wanted = parts.clone();
        wanted.iter_mut().filter(|p| p.0 == number).for_each(|p| p.2 = grown.size / unit);
        prop_assert_eq!(found(&after, unit), wanted);
        // What it gained ends at a whole MiB, and another one does not fit.
        let end = grown.start + grown.size;
        if grown.size > grown.old_size {
            prop_assert_eq!(end % (1 << 20), 0);
        }
        let behind = parts.iter().filter(|p| p.1 >= start + len).min_by_key(|p| p.1);
        let records = blobs.iter().map(|b| b.offset).filter(|&at| at >= (start + len) * unit);
        let limit = behind.map_or(target.size_bytes, |p| p.1 * unit).min(records.min().unwrap_or(u64::MAX));
        prop_assert!(end <= limit && limit - end < (1 << 20) + 40 * unit);
        prop_assert_eq!(grown.behind.is_some(), gpt && behind.is_some() || !gpt && (number == 1 || behind.is_some()));
        // Growing again finds no room.
        let again = grow(map.table, &grown.blobs, target, number).unwrap();
        prop_assert_eq!((again.old_size, again.size), (grown.size, grown.size));
    }

    /// A table in between lists what stays, and nothing else that could be mounted.
    #[test]
    fn what_stays_is_listed_all_the_time(
        (parts, sectors) in layout(128, 8), gpt in any::<bool>(), unit in units(), stay in prop::collection::vec(any::<bool>(), 10),
    ) {
        let (disk, parts) = if gpt {
            (gpt_disk(&parts, sectors, 0, unit), parts)
        } else {
            let logical: Vec<Part> = parts.iter().enumerate().map(|(i, p)| (i as u32 + 5, p.1 + 2 * i as u64, p.2)).collect();
            let disk = mbr_disk(&logical, sectors + 50, unit);
            (disk, [vec![(1, 1, 20)], logical].concat())
        };
        let map = run(&disk, unit);
        let mut kept: Vec<Part> = parts.iter().zip(&stay).filter(|(_, stays)| **stays).map(|(p, _)| *p).collect();
        kept.sort_unstable();
        let numbers: Vec<u32> = kept.iter().map(|p| p.0).collect();
        let same = keep(map.table, &map.blobs, &map.blobs, map.geometry, &numbers).unwrap();
        prop_assert_eq!(&same, &map.blobs);
        let between = interim(map.table, &map.blobs, map.geometry, &numbers).unwrap();
        let mut bytes = vec![0u8; map.geometry.size_bytes as usize];
        put(&mut bytes, &between);
        if numbers.is_empty() && !gpt {
            return Ok(());
        }
        let listed = parse_blobs(map.table, &between, map.geometry).unwrap();
        let usable: Vec<Part> = listed.partitions.iter().filter(|p| !p.extended && p.part_type != "0x7f").map(|p| (p.number, p.start / unit, p.size / unit)).collect();
        prop_assert_eq!(usable, kept);
        prop_assert!(bytes[..440].iter().all(|&b| b == 0));
    }

    /// Random bytes over a valid disk: an answer, and a sound one.
    #[test]
    fn mutated_disks_never_panic(
        (parts, sectors) in layout(128, 6),
        unit in units(),
        kind in any::<bool>(),
        pokes in prop::collection::vec((0..20_000usize, prop::sample::select(vec![0u8, 1, 5, 0x7f, 0x80, 0xee, 0xff])), 1..40),
        full in any::<bool>(), strict in any::<bool>(), cut in 0..40_000usize,
    ) {
        let mut disk = if kind { gpt_disk(&parts, sectors, 0, unit) } else { mbr_disk(&parts[..parts.len().min(1)], sectors + 50, unit) };
        for (at, value) in pokes {
            let len = disk.len();
            disk[at % len] = value;
        }
        let len = disk.len();
        disk.truncate(len.max(40_000) - cut);
        let geometry = Geometry { size_bytes: disk.len() as u64, sector_size: unit as u32 };
        match scan(&disk, geometry, &ScanOptions { full, strict }) {
            Ok(map) => {
                assert_sound(&map);
                let parsed = parse_blobs(map.table, &map.blobs, geometry);
                prop_assert!(parsed.is_ok(), "what a scan gives can be restored: {:?}", parsed);
                if let Ok(blobs) = relocate(map.table, &map.blobs, geometry, geometry.size_bytes + 8192) {
                    let target = Geometry { size_bytes: geometry.size_bytes + 8192, ..geometry };
                    prop_assert!(parse_blobs(map.table, &blobs, target).is_ok());
                }
            }
            Err(_) => prop_assert!(!full, "full never fails on bytes that can be read"),
        }
    }
}

fn put(disk: &mut [u8], blobs: &[Blob]) {
    for blob in blobs {
        disk[blob.offset as usize..][..blob.data.len()].copy_from_slice(&blob.data);
    }
}
