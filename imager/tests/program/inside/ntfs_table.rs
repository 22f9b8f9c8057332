//! An NTFS whose file table is in two pieces, the second of which is described by a record
//! in the first: as after years of use, which no tool makes on demand.

use super::{Made, assert_same_contents};
use crate::disks::MIB;
use crate::imager;
use std::fs;
use std::ops::Range;
use testkit::loopdev::Mounted;

const RECORD: usize = 1024;
const DATA: u32 = 0x80;

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |all, &byte| all << 8 | u64::from(byte))
}

/// A record without its fixups.
fn plain(disk: &[u8], at: usize) -> Vec<u8> {
    let mut raw = disk[at..at + RECORD].to_vec();
    let list = number(&raw, 4, 2) as usize;
    for end in [1, 2] {
        let (from, to) = (list + 2 * end, 512 * end - 2);
        raw.copy_within(from..from + 2, to);
    }
    raw
}

fn attributes(raw: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut at = number(raw, 0x14, 2) as usize;
    while number(raw, at, 4) != 0xffff_ffff {
        let len = number(raw, at + 4, 4) as usize;
        all.push(raw[at..at + len].to_vec());
        at += len;
    }
    all
}

/// A record of these attributes, with its fixups; what stands before them is that of `like`.
fn record(like: &[u8], base: u64, all: &[Vec<u8>]) -> Vec<u8> {
    let from = number(like, 0x14, 2) as usize;
    let mut raw = like[..from].to_vec();
    raw.extend(all.concat());
    raw.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    let len = raw.len() as u32;
    assert!(len as usize <= RECORD);
    raw[0x16] |= 1;
    raw[0x18..0x1c].copy_from_slice(&len.to_le_bytes());
    raw[0x20..0x28].copy_from_slice(&base.to_le_bytes());
    raw.resize(RECORD, 0);
    let list = number(&raw, 4, 2) as usize;
    for end in [1, 2] {
        let (to, from) = (list + 2 * end, 512 * end - 2);
        raw.copy_within(from..from + 2, to);
        raw.copy_within(list..list + 2, from);
    }
    raw
}

/// A part of the table's content: these clusters of it, which stand from `place` on.
fn part(like: &[u8], id: u16, clusters: Range<u64>, place: u64) -> Vec<u8> {
    let mut raw = like[..0x40].to_vec();
    if clusters.start > 0 {
        raw[0x28..].fill(0);
    }
    raw[14..16].copy_from_slice(&id.to_le_bytes());
    raw[0x10..0x18].copy_from_slice(&clusters.start.to_le_bytes());
    raw[0x18..0x20].copy_from_slice(&(clusters.end - 1).to_le_bytes());
    raw[0x20..0x22].copy_from_slice(&0x40u16.to_le_bytes());
    raw.push(0x44);
    raw.extend((clusters.end as u32 - clusters.start as u32).to_le_bytes());
    raw.extend((place as u32).to_le_bytes());
    raw.resize(0x50, 0);
    raw[4..8].copy_from_slice(&0x50u32.to_le_bytes());
    raw
}

/// An entry of a list of attributes.
fn entry(attribute: &[u8], record: u64) -> Vec<u8> {
    let mut raw = vec![0; 32];
    raw[..4].copy_from_slice(&attribute[..4]);
    raw[4] = 32;
    raw[7] = 26;
    if attribute[8] == 1 {
        raw[8..16].copy_from_slice(&attribute[0x10..0x18]);
    }
    raw[16..24].copy_from_slice(&record.to_le_bytes());
    raw[24..26].copy_from_slice(&attribute[14..16]);
    raw
}

#[test]
fn a_file_table_that_goes_on_behind_its_first_records() {
    let made = Made::new(16 * MIB, &["mkntfs", "-Q", "-F"], |root| {
        fs::write(root.join("victim"), b"").unwrap();
        for n in 0..300 {
            fs::write(root.join(format!("file {n}")), n.to_string()).unwrap();
        }
        fs::remove_file(root.join("victim")).unwrap();
    });
    let Made { dir, disk, image } = made;
    fs::remove_file(image).unwrap();
    let mut bytes = fs::read(&disk).unwrap();
    let cluster = 512 * number(&bytes, 0x0d, 1);
    let place = number(&bytes, 0x30, 8);
    let table = (place * cluster) as usize;
    let own = plain(&bytes, table);
    let mut all = attributes(&own);
    let data = all
        .iter()
        .position(|raw| number(raw, 0, 4) as u32 == DATA)
        .expect("its content");
    let old = all[data].clone();
    let count = number(&old, 0x18, 8) + 1;
    let runs = number(&old, 0x20, 2) as usize;
    let next = runs + 1 + usize::from(old[runs] & 15) + usize::from(old[runs] >> 4);
    assert_eq!(old[next], 0, "the table is in one piece");
    // A free record behind the first sixteen, and the table's cut behind it.
    let free = (24..200)
        .find(|n| {
            let at = table + n * RECORD;
            bytes[at..].starts_with(b"FILE") && bytes[at + 0x16] & 1 == 0
        })
        .expect("a free record");
    let cut = (free as u64 + 1) * RECORD as u64 / cluster + 1;
    assert!(cut < count, "record {free}, {count} clusters");

    let base = number(&own, 0x10, 2) << 48;
    let like = plain(&bytes, table + free * RECORD);
    let holder = free as u64 | number(&like, 0x10, 2) << 48;
    let rest = part(&old, 0, cut..count, place + cut);
    all[data] = part(&old, number(&old, 14, 2) as u16, 0..cut, place);
    let mut list: Vec<Vec<u8>> = all.iter().map(|raw| entry(raw, base)).collect();
    list.insert(data + 1, entry(&rest, holder));
    let list = list.concat();
    let mut attribute = vec![0; 24];
    attribute[0] = 0x20;
    attribute[4..8].copy_from_slice(&(24 + list.len() as u32).to_le_bytes());
    attribute[14] = 0x70;
    attribute[16..20].copy_from_slice(&(list.len() as u32).to_le_bytes());
    attribute[20] = 24;
    attribute.extend(list);
    all.insert(1, attribute);

    let first = record(&own, 0, &all);
    let mirror = (number(&bytes, 0x38, 8) * cluster) as usize;
    bytes[table..table + RECORD].copy_from_slice(&first);
    bytes[mirror..mirror + RECORD].copy_from_slice(&first);
    let at = table + free * RECORD;
    bytes[at..at + RECORD].copy_from_slice(&record(&like, base, &[rest]));
    fs::write(&disk, bytes).unwrap();

    let made = Made::of(dir, disk);
    let out = made.path("out");
    imager!["extract", "-q", made.image, "/", out].ok();
    let mounted = Mounted::new(&made.disk, "loop,ro");
    assert_same_contents(mounted.path(), &out, true);
    assert_eq!(fs::read(out.join("file 299")).unwrap(), b"299");
}
