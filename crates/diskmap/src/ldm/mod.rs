//! Windows dynamic disks (Logical Disk Manager): which volumes lie where.
//!
//! Owns: finding the database (private header, table of contents, VMDB), putting its
//! records together, and the volumes of this disk that follow. Does not own: the
//! records' fields ([`record`]), what is inside a volume, or regions ([`content`]).
//!
//! There is no published specification. Places and fields follow what the Linux kernel
//! (`block/partitions/ldm`) and libldm read; numbers are big-endian, places in sectors
//! of 512 bytes. Whatever does not fit together makes the disk full-sector.

mod content;
mod record;

pub(crate) use content::{findings, is_dynamic};

use crate::extents::{Extent, Extents};
use crate::model::{Geometry, TableKind};
use crate::table::ParsedTable;
use crate::view::{ReadFailure, View};
use record::{Body, Component, Part, Record};

const SECTOR: u64 = 512;
/// Largest database that is read, in sectors; they have 2048.
const MAX_CONFIG: u64 = 8192;
/// Entries that a record is spread over at most.
const MAX_ENTRIES: u16 = 16;

/// What the database says of this disk.
pub(crate) struct Dynamic {
    /// The database, in bytes of the disk.
    pub database: Extent,
    /// The space that volumes are made in, in bytes of the disk.
    pub data: Extent,
    /// Everything in it that belongs to a volume.
    pub volumes: Vec<Volume>,
}

/// A volume, as far as it lies on this disk.
pub(crate) struct Volume {
    pub name: String,
    /// Places in bytes of the disk, in the order of the volume.
    pub parts: Vec<Extent>,
    /// It is nothing but these parts, one behind the other.
    pub simple: bool,
}

/// Outcome of reading: nothing dynamic, or what it is, or why it cannot be told.
pub(crate) type Found = Option<Result<Dynamic, String>>;

/// Reads the database of a disk with that table.
pub(crate) fn read(
    view: &View<'_>,
    geometry: Geometry,
    table: &ParsedTable,
) -> Result<Found, ReadFailure> {
    if !table.partitions.iter().any(|p| is_dynamic(&p.part_type)) {
        return Ok(None);
    }
    if u64::from(geometry.sector_size) != SECTOR {
        return Ok(Some(Err(format!(
            "its sectors have {} bytes, and dynamic disks are understood with {SECTOR} only",
            geometry.sector_size
        ))));
    }
    let place = match table.kind {
        TableKind::Mbr => Some(6),
        TableKind::Gpt => table
            .partitions
            .iter()
            .find(|p| p.part_type == content::METADATA)
            .and_then(|p| (p.end() / SECTOR).checked_sub(1)),
        TableKind::None => None,
    };
    let Some(place) = place else {
        return Ok(Some(Err("the partition of its database is missing".into())));
    };
    match database(view, place) {
        Ok(dynamic) => Ok(Some(Ok(dynamic))),
        Err(Trouble::Read(failure)) => Err(failure),
        Err(Trouble::Wrong(what)) => Ok(Some(Err(what))),
    }
}

enum Trouble {
    Read(ReadFailure),
    Wrong(String),
}

impl From<ReadFailure> for Trouble {
    fn from(failure: ReadFailure) -> Self {
        Trouble::Read(failure)
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, Trouble> {
    Err(Trouble::Wrong(what.into()))
}

/// `PRIVHEAD`.
struct PrivateHeader {
    disk_guid: String,
    data_start: u64,
    data_size: u64,
    config_start: u64,
    config_size: u64,
}

fn private_header(view: &View<'_>, sector: u64) -> Result<PrivateHeader, Trouble> {
    let raw = view.bytes_up_to(sector.saturating_mul(SECTOR), SECTOR as usize)?;
    let field = |at| record::be64(&raw, at).unwrap_or(0);
    if raw.get(..8) != Some(b"PRIVHEAD") {
        return wrong("its private header is missing");
    }
    if !matches!(record::be32(&raw, 12), Some(0x0002_000b | 0x0002_000c)) {
        return wrong("its private header has an unknown version");
    }
    let header = PrivateHeader {
        disk_guid: crate::bytes::text(raw.get(0x30..0x70).unwrap_or_default()),
        data_start: field(0x11b),
        data_size: field(0x123),
        config_start: field(0x12b),
        config_size: field(0x133),
    };
    let sectors = view.size() / SECTOR;
    let data_end = header.data_start.checked_add(header.data_size);
    let config_end = header.config_start.checked_add(header.config_size);
    let inside = |end: Option<u64>| end.is_some_and(|end| end <= sectors);
    let apart = data_end.is_some_and(|end| end <= header.config_start)
        || config_end.is_some_and(|end| end <= header.data_start);
    if !inside(data_end) || !inside(config_end) || !apart || header.data_size == 0 {
        return wrong("its private header contradicts itself or the disk's size");
    }
    if !(32..=MAX_CONFIG).contains(&header.config_size) {
        return wrong(format!("its database has {} sectors", header.config_size));
    }
    Ok(header)
}

fn database(view: &View<'_>, place: u64) -> Result<Dynamic, Trouble> {
    let header = private_header(view, place)?;
    let config = view.bytes(
        header.config_start * SECTOR,
        (header.config_size * SECTOR) as usize,
    )?;
    let records = records(&config, vmdb_place(&config)?)?;
    let bytes = |start: u64, sectors: u64| Extent {
        start: start * SECTOR,
        len: sectors * SECTOR,
    };
    Ok(Dynamic {
        database: bytes(header.config_start, header.config_size),
        data: bytes(header.data_start, header.data_size),
        volumes: volumes(&header, &records)?,
    })
}

/// Byte offset of the VMDB in the database, from its tables of contents, which must agree.
fn vmdb_place(config: &[u8]) -> Result<usize, Trouble> {
    let mut found = None;
    for sector in [1usize, 2] {
        let at = sector * SECTOR as usize;
        let toc = config.get(at..at + SECTOR as usize).unwrap_or_default();
        if toc.get(..8) != Some(b"TOCBLOCK") {
            continue;
        }
        if toc.get(0x24..0x2b) != Some(b"config\0") {
            return wrong("its table of contents does not begin with the configuration");
        }
        let start = record::be64(toc, 0x2e);
        if found.is_some_and(|other| other != start) {
            return wrong("its tables of contents differ");
        }
        found = Some(start);
    }
    match found.flatten() {
        Some(start) if start < MAX_CONFIG => Ok(start as usize * SECTOR as usize),
        _ => wrong("its table of contents is missing"),
    }
}

/// All records of the VMDB.
fn records(config: &[u8], place: usize) -> Result<Vec<Record>, Trouble> {
    let vmdb = config.get(place..).unwrap_or_default();
    let half = |at| {
        vmdb.get(at..at + 2)
            .map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    };
    let word = |at| record::be32(vmdb, at).unwrap_or(0);
    if vmdb.get(..4) != Some(b"VMDB") {
        return wrong("its list of volumes is missing");
    }
    if (half(0x12), half(0x14)) != (4, 10) {
        return wrong("its list of volumes has an unknown version");
    }
    if half(0x10) != 1 {
        return wrong("its list of volumes was being changed");
    }
    let (size, first, last) = (word(8) as usize, word(12) as usize, word(4) as usize);
    let end = size.checked_mul(last);
    let Some(end) = end.filter(|&end| size >= 32 && end <= vmdb.len() && first >= SECTOR as usize)
    else {
        return wrong("its list of volumes has impossible sizes");
    };
    let mut pieces = record::Pieces::new(MAX_ENTRIES);
    let mut list = Vec::new();
    for raw in vmdb.get(first..end).unwrap_or_default().chunks_exact(size) {
        if let Some(whole) = pieces.add(raw).map_err(Trouble::Wrong)? {
            list.push(Record::parse(&whole).map_err(Trouble::Wrong)?);
        }
    }
    if !pieces.complete() {
        return wrong("a record of its list of volumes is incomplete");
    }
    let count = |kind: fn(&Body) -> bool| list.iter().filter(|r| kind(&r.body)).count() as u64;
    let counted = [
        ("volumes", 0x85, count(|b| matches!(b, Body::Volume { .. }))),
        (
            "components",
            0x89,
            count(|b| matches!(b, Body::Component(_))),
        ),
        ("partitions", 0x8d, count(|b| matches!(b, Body::Part(_)))),
        ("disks", 0x91, count(|b| matches!(b, Body::Disk { .. }))),
    ];
    for (what, at, found) in counted {
        if u64::from(word(at)) != found {
            return wrong(format!(
                "it says it has {} {what} and has {found}",
                word(at)
            ));
        }
    }
    Ok(list)
}

/// The volumes that have a part on this disk.
fn volumes(header: &PrivateHeader, records: &[Record]) -> Result<Vec<Volume>, Trouble> {
    let own = records.iter().find(|record| {
        matches!(&record.body, Body::Disk { guid } if guid.eq_ignore_ascii_case(&header.disk_guid))
    });
    let Some(own) = own else {
        return wrong("its database does not know this disk");
    };
    let parts: Vec<&Part> = records.iter().filter_map(|r| r.body.part()).collect();
    let components: Vec<(u64, &Component)> = records
        .iter()
        .filter_map(|r| Some((r.id, r.body.component()?)))
        .collect();
    let mut list = Vec::new();
    let mut taken = Extents::new();
    for record in records {
        let Body::Volume { simple_kind, size } = record.body else {
            continue;
        };
        let own_components: Vec<_> = components
            .iter()
            .filter(|c| c.1.volume == record.id)
            .collect();
        let of_volume = |part: &&&Part| own_components.iter().any(|c| c.0 == part.component);
        let mut all: Vec<&&Part> = parts.iter().filter(of_volume).collect();
        all.sort_by_key(|part| part.volume_offset);
        let mut places = Vec::new();
        for part in all.iter().filter(|part| part.disk == own.id) {
            let end = part.start.checked_add(part.size);
            let Some(end) = end.filter(|&end| part.size > 0 && end <= header.data_size) else {
                return wrong(format!("a part of volume {} lies outside", record.name));
            };
            let place = Extent {
                start: (header.data_start + part.start) * SECTOR,
                len: (end - part.start) * SECTOR,
            };
            if taken.intersect(place.start..place.end()).total() > 0 {
                return wrong(format!("volume {} overlaps another one", record.name));
            }
            taken.push(place);
            places.push(place);
        }
        if places.is_empty() {
            continue;
        }
        let mut reach = 0u64;
        let gapless = all.iter().all(|part| {
            let fits = part.volume_offset == reach;
            reach = reach.saturating_add(part.size);
            fits
        });
        let simple = matches!(own_components.as_slice(), [(_, only)] if only.concatenated && only.children == all.len() as u64)
            && simple_kind
            && places.len() == all.len()
            && gapless
            && reach == size;
        list.push(Volume {
            name: record.name.clone(),
            parts: places,
            simple,
        });
    }
    let own_parts = parts.iter().filter(|part| part.disk == own.id).count();
    if list.iter().map(|volume| volume.parts.len()).sum::<usize>() != own_parts {
        return wrong("a part of this disk belongs to no volume");
    }
    Ok(list)
}
