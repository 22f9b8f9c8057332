//! Table bytes as an image holds them: kind, sector size, two disk sizes in sectors,
//! then parts as offset (in sectors), length and bytes.
#![no_main]

use diskmap::table::{grow, interim, keep, minimum_size, parse_blobs, relocate};
use diskmap::{Blob, Geometry, TableKind};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((head, mut rest)) = data.split_first_chunk::<9>() else { return };
    let kind = [TableKind::None, TableKind::Mbr, TableKind::Gpt][usize::from(head[0] & 15) % 3];
    let sector_size = 512u32 << (head[0] >> 4 & 3);
    let unit = u64::from(sector_size);
    let size = |at: usize| u64::from(u32::from_le_bytes(head[at..at + 4].try_into().unwrap())) * unit;
    let source = Geometry { size_bytes: size(1), sector_size };
    let mut blobs = Vec::new();
    while let Some((place, tail)) = rest.split_first_chunk::<6>() {
        let offset = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
        let len = usize::from(u16::from_le_bytes([place[4], place[5]])).min(tail.len());
        let (bytes, tail) = tail.split_at(len);
        blobs.push(Blob { offset: u64::from(offset) * unit, data: bytes.to_vec() });
        rest = tail;
    }
    let parsed = parse_blobs(kind, &blobs, source);
    let least = minimum_size(kind, &blobs, source, 0);
    assert_eq!(parsed.is_ok(), least.is_ok());
    let target = Geometry { size_bytes: size(5), sector_size };
    if let Ok(moved) = relocate(kind, &blobs, source, target.size_bytes) {
        let without_containers = |table: diskmap::table::ParsedTable| {
            let data = table.partitions.into_iter().filter(|p| !p.extended);
            (table.kind, table.disk_id, data.collect::<Vec<_>>())
        };
        let before = without_containers(parsed.expect("moved, so it was parsed"));
        let after = without_containers(
            parse_blobs(kind, &moved, target).expect("a moved table is a good one"),
        );
        assert_eq!(before, after, "nothing but places changes");
        let numbers: Vec<u32> = after.2.iter().map(|part| part.number).collect();
        for &number in numbers.iter().take(3) {
            if let Ok(grown) = grow(kind, &moved, target, number) {
                assert!(grown.size >= grown.old_size);
                let table = parse_blobs(kind, &grown.blobs, target).expect("still a good one");
                assert_eq!(table.partitions.iter().filter(|p| !p.extended).count(), numbers.len());
            }
            if let Ok(same) = keep(kind, &moved, &moved, target, &[number]) {
                assert_eq!(same, moved);
            }
            if let Ok(between) = interim(kind, &moved, target, &[number]) {
                let table = parse_blobs(kind, &between, target).expect("still a good one");
                assert!(table.partitions.iter().any(|p| p.number == number));
            }
        }
    }
});
