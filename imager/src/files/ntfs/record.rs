//! File records and their attributes.
//!
//! Owns: fixups, attributes spread over several records, and joining the parts of a
//! stream. Does not own: what attributes hold.

use super::runs::{self, MAX_CLUSTERS, MAX_RUNS, Run};
use super::{NUMBER, Ntfs, le16, le32, le64};
use crate::files::Fail;
use std::collections::{BTreeMap, BTreeSet};

const ATTRIBUTE_LIST: u32 = 0x20;
const END: u32 = 0xffff_ffff;
/// Longest list of attributes, in bytes: no system makes or takes a longer one.
const MAX_LIST: u64 = 256 << 10;
/// Most attributes of a file.
const MAX_ATTRIBUTES: usize = 1 << 16;
/// Most bytes of a file's attributes that stand in its records.
const MAX_RESIDENT: usize = 64 << 20;
/// The unit of fixups, whatever the sectors are.
const FIXED: usize = 512;

/// A file's record with those that belong to it.
#[derive(Debug)]
pub(super) struct File {
    pub number: u64,
    pub sequence: u16,
    pub is_directory: bool,
    pub attributes: Vec<Attribute>,
    room: Room,
}

/// An attribute, or a part of one.
#[derive(Debug)]
pub(super) struct Attribute {
    pub kind: u32,
    /// In UTF-16.
    pub name: Vec<u8>,
    pub stream: Stream,
    /// First cluster of a part.
    pub lowest: u64,
    /// The record that it stands in, and its number there.
    place: (u64, u16),
}

/// What a list of attributes says of one, or of a part of one.
pub(super) struct Entry {
    pub kind: u32,
    /// In UTF-16.
    pub name: Vec<u8>,
    pub lowest: u64,
    pub record: u64,
    /// Of the record; 0 is any.
    pub sequence: u16,
    id: u16,
}

impl Entry {
    /// Whether it is about that attribute.
    pub fn names(&self, attribute: &Attribute) -> bool {
        (self.record, self.id) == attribute.place
            && self.lowest == attribute.lowest
            && attribute.is(self.kind, &self.name)
    }
}

/// What a file's attributes may still take: bounds its memory.
#[derive(Debug)]
struct Room {
    attributes: usize,
    runs: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Room {
            attributes: MAX_ATTRIBUTES,
            runs: MAX_RUNS,
            bytes: MAX_RESIDENT,
        }
    }
}

impl Room {
    fn take(&mut self, stream: &Stream) -> Result<(), Fail> {
        let (runs, bytes) = match stream {
            Stream::Resident { value } => (0, value.len()),
            Stream::Clusters { runs, .. } => (runs.len(), 0),
        };
        let less = |room: &mut usize, by| room.checked_sub(by).map(|left| *room = left);
        let taken = less(&mut self.attributes, 1)
            .and_then(|()| less(&mut self.runs, runs))
            .and_then(|()| less(&mut self.bytes, bytes));
        taken.ok_or_else(|| Fail::damaged("it has more attributes than a file can have"))
    }
}

/// What an attribute holds.
#[derive(Clone, Debug)]
pub(super) enum Stream {
    Resident {
        value: Vec<u8>,
    },
    Clusters {
        runs: Vec<Run>,
        size: u64,
        initialised: u64,
        flags: u16,
    },
}

impl Stream {
    /// Bytes.
    pub fn size(&self) -> u64 {
        match self {
            Stream::Resident { value } => value.len() as u64,
            Stream::Clusters { size, .. } => *size,
        }
    }
}

impl File {
    /// The attribute of that kind and name, its parts joined.
    pub fn stream(&self, kind: u32, name: &[u8]) -> Result<Option<Stream>, Fail> {
        let mut parts: Vec<&Attribute> = self
            .attributes
            .iter()
            .filter(|attribute| attribute.is(kind, name))
            .collect();
        parts.sort_by_key(|part| part.lowest);
        let Some((first, rest)) = parts.split_first() else {
            return Ok(None);
        };
        let mut joined = first.stream.clone();
        let Stream::Clusters { runs, .. } = &mut joined else {
            if !rest.is_empty() {
                return Err(Fail::damaged("a stream has two contents"));
            }
            return Ok(Some(joined));
        };
        if first.lowest != 0 {
            return Err(Fail::damaged("the first part of a stream is missing"));
        }
        for part in rest {
            let Stream::Clusters { runs: more, .. } = &part.stream else {
                return Err(Fail::damaged("a stream has two contents"));
            };
            let end = runs.last().map_or(0, |run| run.at + run.count);
            if part.lowest != end || runs.len() + more.len() > MAX_RUNS {
                return Err(Fail::damaged("the parts of a stream do not fit together"));
            }
            runs.extend_from_slice(more);
        }
        Ok(Some(joined))
    }
}

/// Puts the bytes back that every 512 bytes of a structure end with.
pub(super) fn fix(raw: &mut [u8], signature: &[u8; 4]) -> Result<(), Fail> {
    let bad = |what: &str| Fail::damaged(format!("a record {what}"));
    if raw.get(..4) != Some(signature) {
        return Err(bad("has a wrong signature"));
    }
    let (at, count) = (usize::from(le16(raw, 4)), usize::from(le16(raw, 6)));
    if count != raw.len() / FIXED + 1 || at + 2 * count > FIXED - 2 {
        return Err(bad("has a damaged head"));
    }
    let number = le16(raw, at);
    for index in 1..count {
        let end = index * FIXED - 2;
        if le16(raw, end) != number {
            return Err(bad("was not completely written"));
        }
        let (first, second) = (raw[at + 2 * index], raw[at + 2 * index + 1]);
        raw[end] = first;
        raw[end + 1] = second;
    }
    Ok(())
}

impl Ntfs<'_> {
    fn raw(&self, number: u64) -> Result<Vec<u8>, Fail> {
        let size = self.record_size as u64;
        let at = number.checked_mul(size);
        let at = at.filter(|at| {
            at.checked_add(size)
                .is_some_and(|end| end <= self.table_size)
        });
        let at = at.ok_or_else(|| Fail::damaged(format!("there is no record {number}")))?;
        let mut raw = vec![0; self.record_size];
        self.read_runs(&self.table, at, &mut raw)?;
        fix(&mut raw, b"FILE")?;
        if le16(&raw, 0x16) & 1 == 0 {
            return Err(Fail::damaged(format!("record {number} is not in use")));
        }
        Ok(raw)
    }

    /// Reads a file's own record.
    pub(super) fn base(&self, number: u64) -> Result<File, Fail> {
        let raw = self.raw(number)?;
        if le64(&raw, 0x20) & NUMBER != 0 {
            return Err(Fail::damaged(format!(
                "record {number} is a part of another file"
            )));
        }
        let mut room = Room::default();
        Ok(File {
            number,
            sequence: le16(&raw, 0x10),
            is_directory: le16(&raw, 0x16) & 2 != 0,
            attributes: attributes(&raw, number, self.clusters, &mut room)?,
            room,
        })
    }

    /// What the file's list of attributes says, if it has one.
    pub(super) fn listed(&self, file: &File) -> Result<Vec<Entry>, Fail> {
        match file.stream(ATTRIBUTE_LIST, &[])? {
            None => Ok(Vec::new()),
            Some(list) if list.size() > MAX_LIST => Err(bad_list()),
            Some(list) => entries(&self.whole(&list)?),
        }
    }

    /// The attributes in another record of the file.
    pub(super) fn extension(
        &self,
        file: &mut File,
        number: u64,
        sequence: u16,
    ) -> Result<Vec<Attribute>, Fail> {
        let raw = self.raw(number)?;
        let is_its = le64(&raw, 0x20) & NUMBER == file.number
            && (sequence == 0 || le16(&raw, 0x10) == sequence);
        if !is_its {
            return Err(Fail::damaged(format!("record {number} is no part of it")));
        }
        attributes(&raw, number, self.clusters, &mut file.room)
    }

    /// Reads a file's record and those that belong to it.
    pub(super) fn load(&self, number: u64) -> Result<File, Fail> {
        let mut file = self.base(number)?;
        let listed = self.listed(&file)?;
        if listed.is_empty() {
            return Ok(file);
        }
        let others = listed.iter().filter(|entry| entry.record != number);
        let others: BTreeSet<_> = others.map(|entry| (entry.record, entry.sequence)).collect();
        for (record, sequence) in others {
            let more = self.extension(&mut file, record, sequence)?;
            file.attributes.extend(more);
        }
        // What the list does not name is left from before; what it names has to be there.
        let mut wanted: BTreeMap<_, _> = listed
            .into_iter()
            .map(|entry| ((entry.record, entry.id), entry))
            .collect();
        file.attributes.retain(|attribute| {
            let is_named = wanted
                .get(&attribute.place)
                .is_some_and(|entry| entry.names(attribute));
            if is_named {
                wanted.remove(&attribute.place);
            }
            is_named
        });
        if !wanted.is_empty() {
            return Err(Fail::damaged(
                "an attribute is missing that its list of attributes names",
            ));
        }
        Ok(file)
    }
}

fn bad_list() -> Fail {
    Fail::damaged("its list of attributes is damaged")
}

/// Decodes the attributes of record `number`, in a volume of so many clusters.
fn attributes(
    raw: &[u8],
    number: u64,
    clusters: u64,
    room: &mut Room,
) -> Result<Vec<Attribute>, Fail> {
    let bad = || Fail::damaged("an attribute is damaged");
    let mut all = Vec::new();
    let mut at = usize::from(le16(raw, 0x14));
    loop {
        let kind = le32(raw, at);
        if kind == END {
            return Ok(all);
        }
        let len = le32(raw, at + 4) as usize;
        let own = raw
            .get(at..at.saturating_add(len))
            .filter(|own| own.len() >= 24);
        let own = own.ok_or_else(bad)?;
        let name_at = usize::from(le16(own, 10));
        let name = own
            .get(name_at..name_at + 2 * usize::from(own[9]))
            .ok_or_else(bad)?;
        let flags = le16(own, 12);
        let (stream, lowest) = if own[8] == 0 {
            let from = usize::from(le16(own, 0x14));
            let value = own.get(from..from.saturating_add(le32(own, 0x10) as usize));
            let value = value.ok_or_else(bad)?.to_vec();
            (Stream::Resident { value }, 0)
        } else {
            let lowest = le64(own, 0x10);
            let list = own.get(usize::from(le16(own, 0x20))..).ok_or_else(bad)?;
            let first = own.len() >= 0x40;
            if !first || lowest >= MAX_CLUSTERS {
                return Err(bad());
            }
            let clusters = Stream::Clusters {
                runs: runs::decode(list, lowest, clusters)?,
                size: le64(own, 0x30),
                initialised: le64(own, 0x38),
                flags,
            };
            (clusters, lowest)
        };
        room.take(&stream)?;
        all.push(Attribute {
            kind,
            name: name.to_vec(),
            stream,
            lowest,
            place: (number, le16(own, 14)),
        });
        at += len;
    }
}

/// Decodes a list of attributes.
fn entries(list: &[u8]) -> Result<Vec<Entry>, Fail> {
    let mut all = Vec::new();
    let mut left = list;
    // Whoever fills it up does so with zeros.
    while left.iter().any(|&byte| byte != 0) {
        let len = usize::from(le16(left, 4));
        let own = left.get(..len).filter(|own| own.len() >= 26);
        let own = own.ok_or_else(bad_list)?;
        let name_at = usize::from(own[7]);
        let name = own.get(name_at..name_at + 2 * usize::from(own[6]));
        let reference = le64(own, 0x10);
        all.push(Entry {
            kind: le32(own, 0),
            name: name.ok_or_else(bad_list)?.to_vec(),
            lowest: le64(own, 8),
            record: reference & NUMBER,
            sequence: (reference >> 48) as u16,
            id: le16(own, 0x18),
        });
        left = &left[len..];
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u32, id: u16, body: &[u8], resident: bool) -> Vec<u8> {
        let mut raw = vec![0; if resident { 24 } else { 64 }];
        let head = raw.len() as u16;
        raw.extend(body);
        raw.resize(raw.len().next_multiple_of(8), 0);
        raw[..4].copy_from_slice(&kind.to_le_bytes());
        let len = raw.len() as u32;
        raw[4..8].copy_from_slice(&len.to_le_bytes());
        raw[8] = u8::from(!resident);
        raw[14..16].copy_from_slice(&id.to_le_bytes());
        let place = if resident { 0x14 } else { 0x20 };
        raw[place..place + 2].copy_from_slice(&head.to_le_bytes());
        if resident {
            raw[0x10..0x14].copy_from_slice(&(body.len() as u32).to_le_bytes());
        }
        raw
    }

    fn record(all: &[Vec<u8>]) -> Vec<u8> {
        let mut raw = vec![0; 0x38];
        raw[0x14] = 0x38;
        raw.extend(all.concat());
        raw.extend(END.to_le_bytes());
        raw
    }

    /// Runs of two bytes, values, attributes: many of each in many records.
    #[test]
    fn memory_is_bounded_over_all_records() {
        let holes = [1u8, 1].repeat(1000);
        let runs = record(&[attribute(0x80, 0, &holes, false)]);
        let value = record(&[attribute(0x80, 0, &[7; 1000], true)]);
        let mut room = Room {
            attributes: 100,
            runs: 3500,
            bytes: 3500,
        };
        for raw in [&runs, &value] {
            for round in 0..4 {
                let taken = attributes(raw, 30 + round, 99, &mut room);
                assert_eq!(taken.is_ok(), round < 3, "{round}");
            }
        }
        let small = record(&vec![attribute(0x80, 0, &[], true); 200]);
        assert!(attributes(&small, 40, 99, &mut room).is_err());
    }

    #[test]
    fn entries_of_a_list_and_damaged_ones() {
        let mut raw = vec![0; 32];
        raw[0] = 0x80;
        raw[4] = 32;
        raw[6..8].copy_from_slice(&[2, 26]);
        raw[8] = 9;
        raw[0x10] = 70;
        raw[0x16] = 3;
        raw[0x18] = 5;
        raw[26..30].copy_from_slice(b"a\0b\0");
        let all = entries(&raw.repeat(3)).unwrap();
        assert_eq!(all.len(), 3);
        let one = &all[2];
        assert_eq!((one.kind, one.lowest, one.record), (0x80, 9, 70));
        assert_eq!(
            (one.sequence, one.id, &one.name[..]),
            (3, 5, &b"a\0b\0"[..])
        );
        for (at, byte) in [(4, 0), (4, 25), (4, 33), (6, 4), (7, 200)] {
            let mut raw = raw.clone();
            raw[at] = byte;
            assert!(entries(&raw).is_err(), "{at} {byte}");
        }
        assert!(entries(&raw[..31]).is_err());
    }
}
