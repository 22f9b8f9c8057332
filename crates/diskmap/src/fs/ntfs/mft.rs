//! The file table, and values that are spread over clusters and records.
//!
//! Owns: finding a record by its number, and putting together an attribute whose parts
//! stand in several records, with all that must fit. Does not own: what is in the values.

use super::super::{Fault, damaged};
use super::boot::Boot;
use super::record::{ATTRIBUTE_LIST, Attribute, Body, DATA, Record, Reference, same_name};
use super::runs::{self, Run};
use crate::bytes::{array, le16, le64};
use crate::extents::{Extent, Extents};
use crate::view::View;
use std::collections::BTreeSet;

/// Longest list of attributes, in bytes; Windows makes none that is longer.
const MAX_LIST: u64 = 256 << 10;

/// Most runs of one value that are kept (24 bytes each).
const MAX_RUNS: usize = 1 << 19;

/// How often the table is looked at anew while its own parts are being found.
const MAX_STEPS: u32 = 64;

/// The file table of a volume.
pub(super) struct Mft<'a, 'd> {
    pub view: &'a View<'d>,
    pub boot: &'a Boot,
    /// The records, one behind the other.
    data: View<'d>,
    /// Bytes of them that were ever written.
    valid: u64,
}

/// The value of an attribute.
pub(super) enum Value {
    /// It stood in a record.
    Resident(Vec<u8>),
    /// It is in clusters.
    Outside(Outside),
}

/// A value in clusters.
#[derive(Default)]
pub(super) struct Outside {
    pub runs: Vec<Run>,
    /// Clusters of the runs.
    pub count: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that were ever written; what is behind reads as zero.
    pub valid: u64,
    /// Compressed, encrypted, sparse.
    pub flags: u16,
}

/// Where a part of an attribute is.
struct Entry {
    kind: u32,
    /// UTF-16.
    name: Vec<u8>,
    first: u64,
    holder: Reference,
    /// Its number among the attributes of the holder.
    instance: u16,
}

impl<'a, 'd> Mft<'a, 'd> {
    /// Opens the table by its first record, which tells where the table itself is.
    pub fn open(view: &'a View<'d>, boot: &'a Boot) -> Result<Mft<'a, 'd>, Fault> {
        let start = boot.table * boot.cluster;
        if start + boot.record > boot.clusters * boot.cluster {
            return damaged("its file table begins at its end");
        }
        let bytes = view.bytes(start, boot.record as usize)?;
        let own = Record::decode(0, bytes).map_err(Fault::Damaged)?;
        let mut value = Outside::default();
        let mut mft = Mft {
            view,
            boot,
            data: join(view, boot, &value.runs)?,
            valid: u64::MAX,
        };
        let first = own.attributes().map_err(Fault::Damaged)?;
        let Some(first) = first.iter().find(|a| a.is(DATA, "")) else {
            return damaged("its file table has no place");
        };
        value.add(first, boot)?;
        mft.data = join(view, boot, &value.runs)?;
        let mut steps = 0;
        let rest = mft.list(&own)?.unwrap_or_default();
        let rest = rest
            .iter()
            .filter(|e| e.kind == DATA && e.name.is_empty() && e.first > 0);
        for entry in rest {
            if entry.holder.number >= mft.data.size() / boot.record {
                steps += 1;
                if steps > MAX_STEPS {
                    return Err(Fault::Unsupported(
                        "its file table is in too many pieces".into(),
                    ));
                }
                mft.data = join(view, boot, &value.runs)?;
            }
            mft.add_part(&own, entry, &mut value)?;
        }
        let value = value.checked(boot, "file table")?;
        if value.runs.first().and_then(|run| run.start) != Some(boot.table) {
            return damaged("its file table is not where the boot sector says");
        }
        mft.data = join(view, boot, &value.runs)?;
        mft.valid = value.valid;
        Ok(mft)
    }

    /// The record of this number, in use or not.
    pub fn record(&self, number: u64) -> Result<Record, Fault> {
        let size = self.boot.record;
        let end = number.checked_add(1).and_then(|n| n.checked_mul(size));
        let Some(end) = end.filter(|&end| end <= self.valid.min(self.data.size())) else {
            return damaged(format!("file record {number} is outside the file table"));
        };
        let bytes = self.data.bytes(end - size, size as usize)?;
        Record::decode(number, bytes).map_err(Fault::Damaged)
    }

    /// A record of the volume's own files, which must be in use.
    pub fn system(&self, number: u64) -> Result<Record, Fault> {
        let record = self.record(number)?;
        if !record.in_use || record.base != 0 {
            return damaged(format!("file record {number} is not in use"));
        }
        Ok(record)
    }

    /// The whole value of an attribute; `None` if the file has none of this type and name.
    pub fn value(&self, file: &Record, kind: u32, name: &str) -> Result<Option<Value>, Fault> {
        let mut outside: Option<Outside> = None;
        let Some(list) = self.list(file)? else {
            let all = file.attributes().map_err(Fault::Damaged)?;
            for attribute in all.iter().filter(|a| a.is(kind, name)) {
                if let Body::Resident(bytes) = attribute.body {
                    return Ok(Some(Value::Resident(bytes.to_vec())));
                }
                outside.get_or_insert_default().add(attribute, self.boot)?;
            }
            return Ok(outside.map(Value::Outside));
        };
        let parts = list
            .iter()
            .filter(|e| e.kind == kind && same_name(&e.name, name));
        for entry in parts {
            let record = self.holder(file, entry.holder)?;
            let record = record.as_ref().unwrap_or(file);
            if let Body::Resident(bytes) = part(record, entry)?.body {
                return Ok(Some(Value::Resident(bytes.to_vec())));
            }
            outside
                .get_or_insert_default()
                .add(&part(record, entry)?, self.boot)?;
        }
        Ok(outside.map(Value::Outside))
    }

    /// A value of the volume's own, which is neither compressed nor sparse, as a space of
    /// at least its size, and its size.
    pub fn open_value(&self, value: Value, what: &str) -> Result<(View<'d>, Outside), Fault> {
        let Value::Outside(value) = value else {
            return damaged(format!("its {what} is not in clusters"));
        };
        let value = value.checked(self.boot, what)?;
        Ok((join(self.view, self.boot, &value.runs)?, value))
    }

    /// The clusters of all attributes of a file.
    pub fn clusters_of(&self, file: &Record, all: &mut Vec<Extent>) -> Result<(), Fault> {
        let list = self.list(file)?.unwrap_or_default();
        let others: BTreeSet<Reference> = list.iter().map(|entry| entry.holder).collect();
        self.add_clusters(file, all)?;
        for other in others {
            if let Some(record) = self.holder(file, other)? {
                self.add_clusters(&record, all)?;
            }
        }
        Ok(())
    }

    fn add_clusters(&self, record: &Record, all: &mut Vec<Extent>) -> Result<(), Fault> {
        for attribute in record.attributes().map_err(Fault::Damaged)? {
            let Body::Outside(body) = attribute.body else {
                continue;
            };
            let runs = runs::decode(body.pairs, body.count, self.boot.clusters);
            let runs = runs.map_err(Fault::Damaged)?;
            all.extend(runs.iter().filter_map(|run| {
                run.start.map(|start| Extent {
                    start,
                    len: run.len,
                })
            }));
            if all.len() > 2 * MAX_RUNS {
                return Err(Fault::Unsupported(
                    "the files of its own are in too many pieces".into(),
                ));
            }
        }
        Ok(())
    }

    /// The list of a file's attributes; `None` if all are in its first record.
    fn list(&self, file: &Record) -> Result<Option<Vec<Entry>>, Fault> {
        let all = file.attributes().map_err(Fault::Damaged)?;
        let Some(list) = all.iter().find(|a| a.kind == ATTRIBUTE_LIST) else {
            return Ok(None);
        };
        let what = format!("list of attributes of file record {}", file.number);
        let bytes = if let Body::Resident(bytes) = list.body {
            bytes.to_vec()
        } else {
            let mut value = Outside::default();
            value.add(list, self.boot)?;
            let (space, value) = self.open_value(Value::Outside(value), &what)?;
            if value.size > MAX_LIST || value.valid < value.size {
                return damaged(format!("the {what} has {} bytes", value.size));
            }
            space.bytes(0, value.size as usize)?
        };
        entries(&bytes).map_or_else(
            || damaged(format!("the {what} makes no sense")),
            |l| Ok(Some(l)),
        )
    }

    /// The record that holds a part of a file; `None` if it is the file's first one.
    fn holder(&self, file: &Record, holder: Reference) -> Result<Option<Record>, Fault> {
        if holder.number == file.number {
            return Ok(None);
        }
        let record = self.record(holder.number)?;
        let base = Reference::new(record.base);
        if !record.in_use
            || record.sequence != holder.sequence
            || base.number != file.number
            || base.sequence != file.sequence
        {
            return damaged(format!(
                "file record {} is not the part of file {} that it should be",
                holder.number, file.number
            ));
        }
        Ok(Some(record))
    }

    fn add_part(&self, file: &Record, entry: &Entry, to: &mut Outside) -> Result<(), Fault> {
        let record = self.holder(file, entry.holder)?;
        to.add(&part(record.as_ref().unwrap_or(file), entry)?, self.boot)
    }
}

/// The part of an attribute that an entry of a list stands for.
fn part<'r>(record: &'r Record, entry: &Entry) -> Result<Attribute<'r>, Fault> {
    let all = record.attributes().map_err(Fault::Damaged)?;
    let wanted = all.into_iter().find(|a| {
        let first = match &a.body {
            Body::Resident(_) => 0,
            Body::Outside(body) => body.first,
        };
        a.kind == entry.kind
            && a.name == entry.name
            && a.instance == entry.instance
            && first == entry.first
    });
    wanted.map_or_else(
        || {
            damaged(format!(
                "file record {} lacks an attribute that is listed",
                record.number
            ))
        },
        Ok,
    )
}

/// Entries of a list of attributes.
fn entries(bytes: &[u8]) -> Option<Vec<Entry>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let len = usize::from(le16(bytes, at + 4)?);
        let entry = bytes.get(at..at + len).filter(|_| len >= 26)?;
        let [name_len, name_at] = array(entry, 6)?;
        let name_at = usize::from(name_at);
        found.push(Entry {
            kind: crate::bytes::le32(entry, 0)?,
            name: match usize::from(name_len) * 2 {
                0 => Vec::new(),
                len => entry.get(name_at..name_at + len)?.to_vec(),
            },
            first: le64(entry, 8)?,
            holder: Reference::new(le64(entry, 16)?),
            instance: le16(entry, 24)?,
        });
        at += len;
    }
    Some(found)
}

impl Outside {
    /// Adds the next part.
    fn add(&mut self, part: &Attribute<'_>, boot: &Boot) -> Result<(), Fault> {
        let Body::Outside(body) = &part.body else {
            return damaged("an attribute is in clusters and in its record at once");
        };
        if body.first != self.count {
            return damaged(format!(
                "an attribute goes on at its cluster {} after {}",
                body.first, self.count
            ));
        }
        if self.count == 0 {
            (self.size, self.valid, self.flags) = (body.size, body.valid, part.flags);
        }
        let runs = runs::decode(body.pairs, body.count, boot.clusters).map_err(Fault::Damaged)?;
        self.count = self.count.saturating_add(body.count);
        self.runs.extend(runs);
        if self.runs.len() > MAX_RUNS {
            return Err(Fault::Unsupported(
                "a file of its own is in too many pieces".into(),
            ));
        }
        Ok(())
    }

    /// The value, if it is complete, without holes and stored as it is.
    fn checked(self, boot: &Boot, what: &str) -> Result<Outside, Fault> {
        if self.flags != 0 || self.runs.iter().any(|run| run.start.is_none()) {
            return damaged(format!("its {what} is compressed, encrypted or has holes"));
        }
        // All runs lie on the volume, but there may be more of them than it holds.
        let room = self.count.min(boot.clusters) * boot.cluster;
        if self.count > boot.clusters || self.size > room || self.valid > self.size {
            return damaged(format!(
                "its {what} has {} bytes in {} clusters",
                self.size, self.count
            ));
        }
        Ok(self)
    }
}

/// Runs as one space.
fn join<'d>(view: &View<'d>, boot: &Boot, runs: &[Run]) -> Result<View<'d>, Fault> {
    let extents: Option<Vec<Extent>> = runs
        .iter()
        .map(|run| {
            run.start.map(|start| Extent {
                start: start * boot.cluster,
                len: run.len * boot.cluster,
            })
        })
        .collect();
    match extents.and_then(|extents| view.joined(&extents)) {
        Some(joined) => Ok(joined),
        None => damaged("a file of its own has holes"),
    }
}

/// Sorted, if no cluster is in it twice.
pub(super) fn disjoint(mut all: Vec<Extent>) -> Result<Extents, Fault> {
    all.sort_unstable();
    if let Some(pair) = all.windows(2).find(|w| w[0].end() > w[1].start) {
        return damaged(format!(
            "cluster {} belongs to two of its own files",
            pair[1].start
        ));
    }
    Ok(all.into_iter().collect())
}
