//! MBR and GPT: any first sectors. One knob makes the checksums right, so that what
//! is behind them is reached too.
#![no_main]

mod disk;

use diskmap::TableKind;
use diskmap::table::{minimum_size, parse_blobs, relocate};
use libfuzzer_sys::fuzz_target;

/// Makes the checksums of a GPT copy right, as far as its sizes make sense.
fn repair(disk: &mut [u8], header: usize, unit: usize) {
    let Some(sector) = disk.get(header..header + unit) else { return };
    if !sector.starts_with(b"EFI PART") {
        return;
    }
    let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().unwrap());
    let entries = u64::from_le_bytes(sector[72..80].try_into().unwrap());
    let len = u64::from(u32_at(80)) * u64::from(u32_at(84));
    let size = u32_at(12) as usize;
    let entries = entries.checked_mul(unit as u64).and_then(|at| Some(at..at.checked_add(len)?));
    let table = entries.and_then(|r| disk.get(r.start as usize..r.end as usize));
    if let Some(crc) = table.map(crc32fast::hash) {
        disk[header + 88..header + 92].copy_from_slice(&crc.to_le_bytes());
    }
    disk[header + 16..header + 20].fill(0);
    if let Some(bytes) = disk[header..header + unit].get(..size) {
        let crc = crc32fast::hash(bytes);
        disk[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else { return };
    let mut bytes = rest.to_vec();
    if knobs & 32 != 0 {
        let unit = 512 << (knobs & 3);
        repair(&mut bytes, unit, unit);
        if let Some(last) = (bytes.len() / unit).checked_sub(1).filter(|&last| last > 1) {
            repair(&mut bytes, last * unit, unit);
        }
    }
    let Some((map, geometry)) = disk::run(knobs, &bytes) else { return };
    let same = relocate(map.table, &map.blobs, geometry, geometry.size_bytes);
    parse_blobs(map.table, &map.blobs, geometry).expect("what a scan gives is a good table");
    let least = minimum_size(map.table, &map.blobs, geometry, 0).expect("of a good table");
    if map.warnings.is_empty() && map.table != TableKind::None && least <= geometry.size_bytes {
        assert_eq!(same.as_ref(), Ok(&map.blobs));
    }
});
