//! Records of the database of a dynamic disk (`VBLK`).
//!
//! Owns: putting a record together from its entries, and its fields. Does not own: what
//! follows from them. Numbers of varying length are one byte of length and that many
//! bytes, the highest first; texts the same.

/// Bytes in front of each entry.
const ENTRY: usize = 16;
/// Bytes of the record's own head, behind the first entry's.
const HEAD: usize = 8;
/// Most records in pieces at once: a database has their entries close together.
const MAX_OPEN: usize = 1024;

pub(super) fn be32(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)
        .and_then(|b| b.try_into().ok())
        .map(u32::from_be_bytes)
}

pub(super) fn be64(data: &[u8], at: usize) -> Option<u64> {
    data.get(at..at.checked_add(8)?)
        .and_then(|b| b.try_into().ok())
        .map(u64::from_be_bytes)
}

/// Records whose entries have not all come yet.
pub(super) struct Pieces {
    open: Vec<Open>,
    most: u16,
}

struct Open {
    group: u32,
    entries: Vec<Option<Vec<u8>>>,
}

impl Pieces {
    /// Of at most that many entries each.
    pub fn new(most: u16) -> Pieces {
        Pieces {
            open: Vec::new(),
            most,
        }
    }

    /// Takes an entry; gives the record that it completes, without the entries' heads.
    pub fn add(&mut self, raw: &[u8]) -> Result<Option<Vec<u8>>, String> {
        if raw.get(..4) != Some(b"VBLK") {
            return Err("an entry of its list of volumes is no entry".into());
        }
        let half = |at| {
            raw.get(at..at + 2)
                .map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
        };
        let (index, total) = (half(12), half(14));
        let payload = raw.get(ENTRY..).unwrap_or_default().to_vec();
        match total {
            0 => return Ok(None),
            1 if index == 0 => return Ok(Some(payload)),
            _ if index < total && total <= self.most => {}
            _ => return Err(format!("a record is said to be entry {index} of {total}")),
        }
        let group = be32(raw, 8).unwrap_or(0);
        let known = self.open.iter().position(|open| open.group == group);
        if known.is_none() && self.open.len() >= MAX_OPEN {
            return Err("too many records of its list of volumes are incomplete".into());
        }
        let place = known.unwrap_or_else(|| {
            self.open.push(Open {
                group,
                entries: vec![None; usize::from(total)],
            });
            self.open.len() - 1
        });
        let open = &mut self.open[place];
        match open.entries.get_mut(usize::from(index)) {
            Some(slot @ None) => *slot = Some(payload),
            _ => return Err("entries of a record do not fit together".into()),
        }
        if open.entries.iter().all(Option::is_some) {
            let whole = self.open.swap_remove(place);
            return Ok(Some(
                whole.entries.into_iter().flatten().flatten().collect(),
            ));
        }
        Ok(None)
    }

    /// Whether no entry is missing.
    pub fn complete(&self) -> bool {
        self.open.is_empty()
    }
}

/// A record.
pub(super) struct Record {
    pub id: u64,
    pub name: String,
    pub body: Body,
}

/// What a record describes.
pub(super) enum Body {
    Volume {
        /// Neither RAID 5 nor something unknown.
        simple_kind: bool,
        /// Sectors.
        size: u64,
    },
    Component(Component),
    Part(Part),
    Disk {
        guid: String,
    },
    /// A disk group.
    Other,
}

/// How the parts of a volume are put together.
pub(super) struct Component {
    pub volume: u64,
    pub children: u64,
    /// One behind the other; else striped or RAID.
    pub concatenated: bool,
}

/// A part of a disk; sectors, counted from where the disk's data begin.
pub(super) struct Part {
    pub start: u64,
    pub size: u64,
    pub volume_offset: u64,
    pub component: u64,
    pub disk: u64,
}

impl Body {
    pub fn part(&self) -> Option<&Part> {
        match self {
            Body::Part(part) => Some(part),
            _ => None,
        }
    }

    pub fn component(&self) -> Option<&Component> {
        match self {
            Body::Component(component) => Some(component),
            _ => None,
        }
    }
}

impl Record {
    /// Parses a whole record.
    pub fn parse(raw: &[u8]) -> Result<Record, String> {
        parse(raw).ok_or_else(|| "a record of its list of volumes cannot be read".into())
    }
}

fn parse(raw: &[u8]) -> Option<Record> {
    let (flags, kind) = (*raw.get(2)?, *raw.get(3)?);
    let len = be32(raw, 4)? as usize;
    let mut fields = Fields(raw.get(HEAD..HEAD.checked_add(len)?)?);
    let id = fields.number()?;
    let name = fields.text()?;
    let body = match kind {
        0x51 => volume(&mut fields)?,
        0x32 => component(&mut fields, flags)?,
        0x33 => part(&mut fields)?,
        0x34 => Body::Disk {
            guid: fields.text()?,
        },
        0x44 => Body::Disk {
            guid: guid(fields.take(16)?),
        },
        0x35 | 0x45 => Body::Other,
        _ => return None,
    };
    Some(Record { id, name, body })
}

fn volume(fields: &mut Fields<'_>) -> Option<Body> {
    let kind = fields.text()?;
    fields.text()?; // a flag for drive letters
    let state = fields.take(14)?;
    fields.take(7)?;
    fields.number()?; // components
    fields.take(16)?;
    let size = fields.number()?;
    let active = state.starts_with(b"ACTIVE\0");
    Some(Body::Volume {
        simple_kind: kind == "gen" && active,
        size,
    })
}

fn component(fields: &mut Fields<'_>, flags: u8) -> Option<Body> {
    const STRIPED: u8 = 0x10;
    let state = fields.text()?;
    let kind = *fields.take(5)?.first()?;
    let children = fields.number()?;
    fields.take(16)?;
    let volume = fields.number()?;
    Some(Body::Component(Component {
        volume,
        children,
        concatenated: kind == 2 && flags & STRIPED == 0 && state == "ACTIVE",
    }))
}

fn part(fields: &mut Fields<'_>) -> Option<Body> {
    fields.take(12)?;
    let start = be64(fields.take(8)?, 0)?;
    let volume_offset = be64(fields.take(8)?, 0)?;
    Some(Body::Part(Part {
        start,
        volume_offset,
        size: fields.number()?,
        component: fields.number()?,
        disk: fields.number()?,
    }))
}

/// A GUID whose fields are big-endian, as text.
fn guid(raw: &[u8]) -> String {
    raw.try_into()
        .map(|raw: &[u8; 16]| crate::guid::plain(raw))
        .unwrap_or_default()
}

/// What is left of a record.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let len = usize::from(*self.take(1)?.first()?);
        if len > 8 {
            return None;
        }
        let digits = self.take(len)?;
        Some(digits.iter().fold(0, |n, &b| n << 8 | u64::from(b)))
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::from(*self.take(1)?.first()?);
        Some(crate::bytes::text(self.take(len)?))
    }
}

#[cfg(test)]
mod tests {
    use super::Pieces;

    #[test]
    fn only_so_many_records_can_be_in_pieces_at_once() {
        let entry = |group: u32, index: u8| {
            let mut raw = b"VBLK".to_vec();
            raw.resize(32, 0);
            raw[8..12].copy_from_slice(&group.to_be_bytes());
            raw[13] = index;
            raw[15] = 2;
            raw
        };
        let mut pieces = Pieces::new(16);
        for group in 0..1024 {
            assert!(pieces.add(&entry(group, 0)).unwrap().is_none());
        }
        assert!(pieces.add(&entry(9, 1)).unwrap().is_some());
        assert!(pieces.add(&entry(5000, 0)).unwrap().is_none());
        assert!(pieces.add(&entry(5001, 0)).is_err());
    }
}
