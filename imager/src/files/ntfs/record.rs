//! File records and their attributes.
//!
//! Owns: fixups, attributes spread over several records, and joining the parts of a
//! stream. Does not own: what attributes hold.

use super::runs::{self, MAX_CLUSTERS, MAX_RUNS, Run};
use super::{NUMBER, Ntfs, le16, le32, le64};
use crate::files::Fail;
use std::collections::BTreeSet;

const ATTRIBUTE_LIST: u32 = 0x20;
const END: u32 = 0xffff_ffff;
/// Most records of a file.
const MAX_RECORDS: usize = 65_536;
/// The unit of fixups, whatever the sectors are.
const FIXED: usize = 512;

/// A file's record with those that belong to it.
pub(super) struct File {
    pub number: u64,
    pub sequence: u16,
    pub is_directory: bool,
    pub attributes: Vec<Attribute>,
}

/// An attribute, or a part of one.
pub(super) struct Attribute {
    pub kind: u32,
    /// In UTF-16.
    pub name: Vec<u8>,
    pub stream: Stream,
    /// First cluster of a part.
    lowest: u64,
}

/// What an attribute holds.
#[derive(Clone)]
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

    /// Reads a file's record and those that belong to it.
    pub(super) fn load(&self, number: u64) -> Result<File, Fail> {
        let raw = self.raw(number)?;
        if le64(&raw, 0x20) & NUMBER != 0 {
            return Err(Fail::damaged(format!(
                "record {number} is a part of another file"
            )));
        }
        let mut file = File {
            number,
            sequence: le16(&raw, 0x10),
            is_directory: le16(&raw, 0x16) & 2 != 0,
            attributes: self.attributes(&raw)?,
        };
        if let Some(list) = file.stream(ATTRIBUTE_LIST, &[])? {
            for other in others(&self.whole(&list)?, number)? {
                let raw = self.raw(other)?;
                if le64(&raw, 0x20) & NUMBER != number {
                    return Err(Fail::damaged(format!("record {other} is no part of it")));
                }
                file.attributes.extend(self.attributes(&raw)?);
            }
        }
        Ok(file)
    }

    fn attributes(&self, raw: &[u8]) -> Result<Vec<Attribute>, Fail> {
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
                    runs: runs::decode(list, lowest, self.clusters)?,
                    size: le64(own, 0x30),
                    initialised: le64(own, 0x38),
                    flags,
                };
                (clusters, lowest)
            };
            all.push(Attribute {
                kind,
                name: name.to_vec(),
                stream,
                lowest,
            });
            at += len;
        }
    }
}

/// Records that a list of attributes names, other than the file's own.
fn others(list: &[u8], own: u64) -> Result<BTreeSet<u64>, Fail> {
    let mut others = BTreeSet::new();
    let mut at = 0;
    while at + 26 <= list.len() {
        let len = usize::from(le16(list, at + 4));
        let number = le64(list, at + 0x10) & NUMBER;
        if len < 26 || others.len() >= MAX_RECORDS {
            return Err(Fail::damaged("its list of attributes is damaged"));
        }
        if number != own {
            others.insert(number);
        }
        at += len;
    }
    Ok(others)
}
