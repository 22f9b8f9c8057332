//! An editor of NTFS volumes, for layouts that no tool makes on demand: a file's clusters
//! in many pieces, told by one record or by several.
//!
//! Owns: records, lists of clusters, and the bitmaps that follow. Does not own: folders,
//! or values that are in many pieces already.

use super::common::{Numbers, peek, poke};
use super::image::{bytes, sizes};
use std::path::{Path, PathBuf};

/// Bytes in a file record.
pub const RECORD: u64 = 1024;

/// Attribute types.
const LIST: u32 = 0x20;
pub const DATA: u32 = 0x80;
const BITMAP: u32 = 0xb0;

/// A volume with 512-byte sectors that is being changed.
pub struct Editor {
    path: PathBuf,
    cluster: u64,
    clusters: u64,
    /// Where the file table is: its clusters in order.
    table: Vec<u64>,
    /// Which clusters are in use.
    bitmap: Vec<u8>,
}

/// How the pieces of a file are told.
pub struct Plan<'a> {
    /// The file.
    pub number: u64,
    /// So many clusters stay where they are.
    pub keep: usize,
    /// Records that hold the parts behind the first; free ones.
    pub holders: &'a [u64],
    /// Whether the base record holds no part either; then one holder more is needed.
    pub base_empty: bool,
    /// The list of attributes has a cluster of its own.
    pub list_outside: bool,
}

impl Editor {
    pub fn open(path: &Path) -> Editor {
        let sizes = sizes(path);
        let mut editor = Editor {
            path: path.into(),
            cluster: sizes.cluster,
            clusters: sizes.clusters,
            table: Vec::new(),
            bitmap: Vec::new(),
        };
        let first = u64::from_le_bytes(peek(path, 48));
        editor.table = (first..first + RECORD.div_ceil(sizes.cluster)).collect();
        editor.table = editor.places(0, DATA);
        editor
    }

    /// Offset on the volume of a byte of a value.
    fn offset(&self, places: &[u64], at: u64) -> u64 {
        places[(at / self.cluster) as usize] * self.cluster + at % self.cluster
    }

    /// Offset on the volume of a record; with clusters smaller than a record its second
    /// half may be elsewhere.
    pub fn halves(&self, number: u64) -> [u64; 2] {
        [0, 512].map(|half| self.offset(&self.table, number * RECORD + half))
    }

    /// A record as it is meant.
    pub fn record(&self, number: u64) -> Vec<u8> {
        let mut record: Vec<u8> = self
            .halves(number)
            .iter()
            .flat_map(|&half| bytes(&self.path, half, 512))
            .collect();
        let at = usize::from(u16::from_le_bytes([record[4], record[5]]));
        for half in [1, 2] {
            record.copy_within(at + 2 * half..at + 2 * half + 2, half * 512 - 2);
        }
        record
    }

    /// Writes a record as it belongs on disk, and its copy.
    pub fn write_record(&self, number: u64, record: &[u8]) {
        let mut record = record.to_vec();
        let at = usize::from(u16::from_le_bytes([record[4], record[5]]));
        for half in [1, 2] {
            record.copy_within(half * 512 - 2..half * 512, at + 2 * half);
            record.copy_within(at..at + 2, half * 512 - 2);
        }
        for (half, place) in record.chunks(512).zip(self.halves(number)) {
            poke(&self.path, place, half);
        }
        if number < 4 {
            let mirror = u64::from_le_bytes(peek(&self.path, 56)) * self.cluster;
            poke(&self.path, mirror + number * RECORD, &record);
        }
    }

    /// The attributes of a record.
    fn attributes(record: &[u8]) -> Vec<Vec<u8>> {
        let mut at = usize::from(u16::from_le_bytes([record[20], record[21]]));
        let mut found = Vec::new();
        while le32(record, at) != u32::MAX {
            let len = le32(record, at + 4) as usize;
            found.push(record[at..at + len].to_vec());
            at += len;
        }
        found
    }

    /// Puts attributes into a record.
    fn fill(record: &mut Vec<u8>, mut attributes: Vec<Vec<u8>>) {
        let at = usize::from(u16::from_le_bytes([record[20], record[21]]));
        attributes.sort_by_key(|attribute| le32(attribute, 0));
        record.truncate(at);
        for attribute in attributes {
            record.extend(attribute);
        }
        record.extend([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        assert!(record.len() as u64 <= RECORD, "{} bytes", record.len());
        let end = record.len() as u32;
        record[24..28].copy_from_slice(&end.to_le_bytes());
        record.resize(RECORD as usize, 0);
    }

    /// Clusters of an attribute without a name that is all in one record.
    pub fn places(&self, number: u64, kind: u32) -> Vec<u64> {
        let record = self.record(number);
        let all = Editor::attributes(&record);
        let attribute = all.iter().find(|a| le32(a, 0) == kind).unwrap();
        let mut at = usize::from(u16::from_le_bytes([attribute[32], attribute[33]]));
        let (mut found, mut place) = (Vec::new(), 0i64);
        while attribute[at] != 0 {
            let (lens, offsets) = (attribute[at] & 15, attribute[at] >> 4);
            let signed = |at: usize, len: u8| {
                let raw = &attribute[at..at + usize::from(len)];
                let fill = if raw[raw.len() - 1] & 0x80 != 0 {
                    0xff
                } else {
                    0
                };
                let mut all = [fill; 8];
                all[..raw.len()].copy_from_slice(raw);
                i64::from_le_bytes(all)
            };
            let len = signed(at + 1, lens);
            place += signed(at + 1 + usize::from(lens), offsets);
            found.extend((place..place + len).map(|place| place as u64));
            at += 1 + usize::from(lens + offsets);
        }
        found
    }

    /// All clusters of a value.
    fn value(&self, number: u64, kind: u32) -> Vec<u8> {
        self.places(number, kind)
            .iter()
            .flat_map(|&place| bytes(&self.path, place * self.cluster, self.cluster))
            .collect()
    }

    fn is_used(&self, cluster: u64) -> bool {
        self.bitmap[(cluster / 8) as usize] >> (cluster % 8) & 1 == 1
    }

    fn flip(&mut self, cluster: u64) {
        self.bitmap[(cluster / 8) as usize] ^= 1 << (cluster % 8);
    }

    /// A free cluster anywhere, marked as used.
    fn allocate(&mut self, numbers: &mut Numbers) -> u64 {
        loop {
            let cluster = numbers.below(self.clusters);
            if !self.is_used(cluster) {
                self.flip(cluster);
                return cluster;
            }
        }
    }

    /// Scatters the data of a file over the volume, cluster by cluster.
    pub fn scatter(&mut self, plan: &Plan<'_>) {
        let mut numbers = Numbers(0x1234_5678_9abc_def1);
        self.bitmap = self.value(6, DATA);
        let mut places = self.places(plan.number, DATA);
        for place in &mut places[plan.keep..] {
            let new = self.allocate(&mut numbers);
            let content = bytes(&self.path, *place * self.cluster, self.cluster);
            poke(&self.path, new * self.cluster, &content);
            self.flip(*place);
            *place = new;
        }
        if plan.number == 0 {
            self.table.clone_from(&places);
        }
        let mut record = self.record(plan.number);
        let mut attributes = Editor::attributes(&record);
        let data = attributes.iter().position(|a| le32(a, 0) == DATA).unwrap();
        let old = attributes.remove(data);
        let parts = plan.holders.len() + usize::from(!plan.base_empty);
        let share = (places.len() - plan.keep).div_ceil(parts);
        let (mut first, mut list) = (0, Vec::new());
        for attribute in &attributes {
            list.push((le32(attribute, 0), 0, plan.number, attribute[14]));
        }
        for part in 0..parts {
            let end = (first + share + if part == 0 { plan.keep } else { 0 }).min(places.len());
            let attribute = outside(&old, first, &places[first..end]);
            let holder = match plan.base_empty {
                true => Some(plan.holders[part]),
                false => part.checked_sub(1).map(|part| plan.holders[part]),
            };
            let instance = attribute[14];
            list.push((DATA, first as u64, holder.unwrap_or(plan.number), instance));
            match holder {
                None => attributes.push(attribute),
                Some(holder) => self.write_holder(holder, &record, plan.number, attribute),
            }
            first = end;
        }
        if !plan.holders.is_empty() {
            let list = self.list(list);
            let place = plan.list_outside.then(|| self.allocate(&mut numbers));
            if let Some(place) = place {
                poke(&self.path, place * self.cluster, &list);
            }
            attributes.push(match place {
                None => resident(&list),
                Some(place) => {
                    let mut sizes = vec![0u8; 64];
                    let room = self.cluster;
                    for (at, size) in [(40, room), (48, list.len() as u64), (56, list.len() as u64)]
                    {
                        sizes[at..at + 8].copy_from_slice(&size.to_le_bytes());
                    }
                    sizes[..4].copy_from_slice(&LIST.to_le_bytes());
                    outside(&sizes, 0, &[place])
                }
            });
        }
        Editor::fill(&mut record, attributes);
        self.write_record(plan.number, &record);
        // Now that all is allocated, the bitmap goes where it is by now.
        let own = match plan.number {
            6 => places,
            _ => self.places(6, DATA),
        };
        for (place, content) in own.iter().zip(self.bitmap.chunks(self.cluster as usize)) {
            poke(&self.path, place * self.cluster, content);
        }
    }

    /// Makes a free record one that continues another.
    fn write_holder(&self, number: u64, base: &[u8], of: u64, attribute: Vec<u8>) {
        let bit = self.offset(&self.places(0, BITMAP), number / 8);
        let [byte] = peek::<1>(&self.path, bit);
        assert_eq!(byte >> (number % 8) & 1, 0, "record {number} is in use");
        poke(&self.path, bit, &[byte | 1 << (number % 8)]);
        let mut record = vec![0u8; 56];
        record[..4].copy_from_slice(b"FILE");
        record[4] = 48;
        record[6] = 3;
        record[16] = 1;
        record[20] = 56;
        record[22] = 1;
        record[28..32].copy_from_slice(&(RECORD as u32).to_le_bytes());
        let sequence = u16::from_le_bytes([base[16], base[17]]);
        record[32..40].copy_from_slice(&(of | u64::from(sequence) << 48).to_le_bytes());
        record[40] = 1;
        record[44..48].copy_from_slice(&(number as u32).to_le_bytes());
        record[48] = 1;
        Editor::fill(&mut record, vec![attribute]);
        self.write_record(number, &record);
    }

    /// A list of attributes: type, first cluster, holder and number of each part.
    fn list(&self, mut entries: Vec<(u32, u64, u64, u8)>) -> Vec<u8> {
        let mut list = Vec::new();
        entries.sort_unstable();
        for (kind, first, holder, instance) in entries {
            let record = self.record(holder);
            let sequence = u64::from(u16::from_le_bytes([record[16], record[17]]));
            let named = Editor::attributes(&record)
                .into_iter()
                .find(|a| le32(a, 0) == kind)
                .filter(|a| a[9] > 0);
            assert!(named.is_none(), "names are not provided for");
            list.extend(kind.to_le_bytes());
            list.extend([32, 0, 0, 26]);
            list.extend(first.to_le_bytes());
            list.extend((holder | sequence << 48).to_le_bytes());
            list.extend([instance, 0, 0, 0, 0, 0, 0, 0]);
        }
        list
    }
}

fn le32(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
}

/// A list of attributes inside a record.
fn resident(list: &[u8]) -> Vec<u8> {
    let mut attribute = vec![0u8; 24];
    attribute[..4].copy_from_slice(&LIST.to_le_bytes());
    attribute[4..8].copy_from_slice(&(24 + list.len() as u32).to_le_bytes());
    attribute[10] = 24;
    attribute[14] = 7;
    attribute[16..20].copy_from_slice(&(list.len() as u32).to_le_bytes());
    attribute[20] = 24;
    attribute.extend(list);
    attribute
}

/// A part of an attribute in clusters, with the sizes of `old` if it is the first.
fn outside(old: &[u8], first: usize, places: &[u64]) -> Vec<u8> {
    let mut attribute = old[..64].to_vec();
    attribute[8] = 1;
    attribute[10] = 64;
    attribute[16..24].copy_from_slice(&(first as u64).to_le_bytes());
    let last = (first + places.len()) as u64 - 1;
    attribute[24..32].copy_from_slice(&last.to_le_bytes());
    attribute[32..34].copy_from_slice(&64u16.to_le_bytes());
    if first > 0 {
        attribute[40..64].fill(0);
        attribute[14] = 0;
    }
    let (mut at, mut before) = (0, 0i64);
    while at < places.len() {
        let len = (at..places.len())
            .take_while(|&i| places[i] == places[at] + (i - at) as u64)
            .count();
        let (count, offset) = (signed(len as i64), signed(places[at] as i64 - before));
        attribute.push((count.len() | offset.len() << 4) as u8);
        attribute.extend(count);
        attribute.extend(offset);
        before = places[at] as i64;
        at += len;
    }
    attribute.push(0);
    attribute.resize(attribute.len().next_multiple_of(8), 0);
    let len = attribute.len() as u32;
    attribute[4..8].copy_from_slice(&len.to_le_bytes());
    attribute
}

/// The shortest bytes of a number with a sign.
fn signed(value: i64) -> Vec<u8> {
    let mut bytes = value.to_le_bytes().to_vec();
    let fill = if value < 0 { 0xff } else { 0 };
    while bytes.len() > 1
        && bytes[bytes.len() - 1] == fill
        && (bytes[bytes.len() - 2] & 0x80 != 0) == (value < 0)
    {
        bytes.pop();
    }
    bytes
}
