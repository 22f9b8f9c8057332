//! A partition that grows into the free space behind it.
//!
//! Owns: how far it can grow, and its entry in every table that has it. Does not own:
//! the file system inside.

use super::blobs::parse;
use super::gpt_pair::Pair;
use super::{FoundTable, TablePartition, chain, mbr};
use crate::bytes::put;
use crate::error::TableError;
use crate::model::{Blob, Geometry, TableKind};

/// Partitions that grow end at a multiple of this.
const ALIGN: u64 = 1 << 20;

/// A table with a partition that grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grown {
    /// The table's bytes.
    pub blobs: Vec<Blob>,
    /// First byte of the partition.
    pub start: u64,
    /// Its old size in bytes.
    pub old_size: u64,
    /// Its new size in bytes; the old one if there is no room.
    pub size: u64,
    /// Number of the partition that stands behind it; `None` at the end of the disk.
    pub behind: Option<u32>,
}

/// Lets a partition grow up to the next one, or to the end of the disk. The blobs are a
/// table for a disk of this geometry (see [`super::relocate`]).
///
/// # Errors
/// [`TableError::NoSuchPartition`]; [`TableError::Unfit`] where another table on the disk
/// (a hybrid MBR, the database of a dynamic disk) has the partition's size too;
/// [`TableError::Damaged`] as [`super::parse_blobs`].
pub fn grow(
    kind: TableKind,
    blobs: &[Blob],
    geometry: Geometry,
    number: u32,
) -> Result<Grown, TableError> {
    let missing = TableError::NoSuchPartition { number };
    let Some(found) = parse(kind, blobs, geometry)? else {
        return Err(missing);
    };
    let parts = &found.parsed.partitions;
    let Some(part) = parts.iter().find(|p| p.number == number && !p.extended) else {
        return Err(missing);
    };
    if is_dynamic(part) {
        let detail = format!(
            "partition {number} belongs to a Windows dynamic disk, whose own database has its size"
        );
        return Err(TableError::Unfit { detail });
    }
    let (limit, behind) = limit(&found, part, geometry);
    let end = (limit / ALIGN * ALIGN).max(part.end());
    let mut grown = Grown {
        blobs: found.blobs.clone(),
        start: part.start,
        old_size: part.size,
        size: end - part.start,
        behind,
    };
    if end > part.end() {
        grown.blobs = match &found.gpt {
            Some(pair) => in_gpt(pair, part, end, geometry)?,
            None => in_mbr(found.blobs.clone(), part, end, geometry)?,
        };
        // What was made must pass the checks of a table that was found.
        parse(kind, &grown.blobs, geometry)?;
    }
    Ok(grown)
}

/// Whether a database of its own says how large the partition is.
pub(super) fn is_dynamic(part: &TablePartition) -> bool {
    matches!(
        part.part_type.as_str(),
        "0x42" | "AF9B60A0-1431-4F62-BC68-3311714A69AD" | "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3"
    )
}

/// Where the free space behind the partition ends, and which partition stands there.
fn limit(found: &FoundTable, part: &TablePartition, geometry: Geometry) -> (u64, Option<u32>) {
    let unit = u64::from(geometry.sector_size);
    let disk = geometry.sectors().saturating_mul(unit);
    let end = match &found.gpt {
        Some(pair) => pair
            .primary
            .header
            .last_usable
            .saturating_add(1)
            .saturating_mul(unit)
            .min(disk),
        // Its fields have 32 bits; so does what reads their sum.
        None => disk.min(u64::from(u32::MAX) * unit),
    };
    let holds = |other: &TablePartition| {
        other.extended && other.start <= part.start && part.end() <= other.end()
    };
    let next = found
        .parsed
        .partitions
        .iter()
        .filter(|other| other.number != part.number && !holds(other))
        .filter(|other| other.start >= part.end() && other.start < end)
        .min_by_key(|other| other.start);
    let tables = found.blobs.iter().map(|blob| blob.offset);
    let table = tables.filter(|&at| at >= part.end()).min();
    let limit = next
        .map_or(end, |next| next.start)
        .min(table.unwrap_or(u64::MAX))
        .min(end);
    (limit.max(part.end()), next.map(|next| next.number))
}

/// The table with a partition that ends at `end`.
pub(super) fn in_gpt(
    pair: &Pair,
    part: &TablePartition,
    end: u64,
    geometry: Geometry,
) -> Result<Vec<Blob>, TableError> {
    let unit = u64::from(geometry.sector_size);
    let hybrid = mbr::entries(&pair.first_sector).is_some_and(|entries| {
        let mut used = entries.iter().filter(|e| e.is_used() && !e.is_protective());
        used.any(|e| e.start * unit == part.start)
    });
    if hybrid {
        let detail = format!(
            "partition {} stands in a hybrid MBR too, which has its size",
            part.number
        );
        return Err(TableError::Unfit { detail });
    }
    let mut pair = pair.clone();
    let mut entries = pair.primary.entries.clone();
    let at = (part.number as usize - 1) * pair.primary.header.entry_size as usize;
    put(&mut entries, at + 40, &(end / unit - 1).to_le_bytes());
    pair.set_entries(&entries);
    Ok(pair.blobs(unit))
}

/// The same in an MBR; of logical partitions the last one takes its container with it.
pub(super) fn in_mbr(
    mut blobs: Vec<Blob>,
    part: &TablePartition,
    end: u64,
    geometry: Geometry,
) -> Result<Vec<Blob>, TableError> {
    let unit = u64::from(geometry.sector_size);
    let number = part.number;
    let place = chain::find(&blobs, unit, number).ok_or(TableError::NoSuchPartition { number })?;
    let sectors = |from: u64| u32::try_from(end / unit - from).unwrap_or(u32::MAX);
    let mut set = |at: chain::Slot, start: u64| {
        if let Some(blob) = blobs
            .iter_mut()
            .find(|blob| blob.offset == at.sector * unit)
        {
            mbr::set_sectors(&mut blob.data, at.slot, start, sectors(start));
        }
    };
    set(place.entry, part.start / unit);
    if let Some(logical) = place.logical {
        // The link that leads here says how far the logical partition reaches, and the
        // extended one holds it.
        if let Some(link) = logical.link {
            set(link, place.entry.sector);
        }
        if logical.extended_end < end / unit || end < part.end() {
            set(logical.extended, logical.extended_start);
        }
    }
    Ok(blobs)
}
