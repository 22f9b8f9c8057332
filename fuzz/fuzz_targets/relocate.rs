//! Table bytes as an image holds them: kind, sector size, two disk sizes in sectors,
//! then parts as offset (in sectors), length and bytes.
#![no_main]

use diskmap::table::{minimum_size, parse_blobs, relocate};
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
    let least = minimum_size(kind, &blobs, source);
    assert_eq!(parsed.is_ok(), least.is_ok());
    let target = Geometry { size_bytes: size(5), sector_size };
    if let Ok(moved) = relocate(kind, &blobs, source, target.size_bytes) {
        let before = parsed.expect("moved, so it was parsed");
        let after = parse_blobs(kind, &moved, target).expect("a moved table is a good one");
        assert_eq!(before, after, "nothing but places changes");
    }
});
