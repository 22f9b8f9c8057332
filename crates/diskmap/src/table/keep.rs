//! Partitions that stay on a disk whose other partitions are replaced.
//!
//! Owns: the new table with their entries as they stand on the disk, and the table for
//! the time in between, which lists nothing but them. Does not own: whether image and
//! disk agree about them, and the order of writing.

use super::blobs::parse;
use super::gpt_pair::Pair;
use super::{ParsedTable, TablePartition, chain, mbr};
use crate::bytes::put;
use crate::error::TableError;
use crate::model::{Blob, Geometry, TableKind};

/// Type of a logical partition that is being replaced: "for local use", which nothing
/// mounts. Its entry has to stay, because logical partitions are numbered by counting.
const PLACEHOLDER: u8 = 0x7f;

/// `ours` with the entries of partitions `kept` as they stand in `disks`: GUIDs, names
/// and attributes are the disk's. Both are tables for disks of this geometry.
///
/// # Errors
/// [`TableError::NoSuchPartition`] if the disk has none of that number;
/// [`TableError::Unfit`] if the two tables cannot be put together;
/// [`TableError::Damaged`] as [`super::parse_blobs`].
pub fn keep(
    kind: TableKind,
    ours: &[Blob],
    disks: &[Blob],
    geometry: Geometry,
    kept: &[u32],
) -> Result<Vec<Blob>, TableError> {
    let (Some(new), Some(old)) = (parse(kind, ours, geometry)?, parse(kind, disks, geometry)?)
    else {
        return unfit("a disk without a partition table has no partitions to keep");
    };
    let unit = u64::from(geometry.sector_size);
    for &number in kept {
        let listed = |p: &&TablePartition| p.number == number && !p.extended;
        if !old.parsed.partitions.iter().any(|p| listed(&p)) {
            return Err(TableError::NoSuchPartition { number });
        }
    }
    let span = |table: &ParsedTable, number: u32| {
        let mut parts = table.partitions.iter();
        let part = parts.find(|part| part.number == number)?;
        Some((part.start, part.size))
    };
    let agree = |number: u32| span(&new.parsed, number) == span(&old.parsed, number);
    let merged = match (new.gpt, &old.gpt) {
        (Some(new), Some(old)) => keep_gpt(new, old, kept)?.blobs(unit),
        _ => keep_mbr(new.blobs, &old.blobs, unit, kept, agree)?,
    };
    match parse(kind, &merged, geometry) {
        Ok(_) => Ok(merged),
        Err(error) => unfit(format!(
            "the partitions that are kept do not go with those of the image: {error}"
        )),
    }
}

fn unfit<T>(detail: impl Into<String>) -> Result<T, TableError> {
    let detail = detail.into();
    Err(TableError::Unfit { detail })
}

fn keep_gpt(mut new: Pair, old: &Pair, kept: &[u32]) -> Result<Pair, TableError> {
    let size = new.primary.header.entry_size as usize;
    if old.primary.header.entry_size as usize != size {
        return unfit("the entries of the two partition tables differ in size");
    }
    let mut entries = new.primary.entries.clone();
    for &number in kept {
        let at = (number as usize - 1) * size;
        let raw = old.primary.entries.get(at..at + size);
        let Some(raw) = raw.filter(|_| number <= new.primary.header.count) else {
            return unfit(format!("the image's table has no entry {number}"));
        };
        put(&mut entries, at, raw);
    }
    new.set_entries(&entries);
    let usable = new.primary.header.first_usable..=new.primary.header.last_usable;
    let unit = new.first_sector.len() as u64;
    for part in old
        .primary
        .partitions
        .iter()
        .filter(|p| kept.contains(&p.number))
    {
        if !usable.contains(&(part.start / unit)) || !usable.contains(&(part.end() / unit - 1)) {
            return unfit(format!(
                "partition {} lies outside of what the image's table covers",
                part.number
            ));
        }
    }
    Ok(new)
}

fn keep_mbr(
    mut new: Vec<Blob>,
    old: &[Blob],
    unit: u64,
    kept: &[u32],
    agree: impl Fn(u32) -> bool,
) -> Result<Vec<Blob>, TableError> {
    for &number in kept {
        let place = |blobs| chain::find(blobs, unit, number);
        let theirs = place(old).ok_or(TableError::NoSuchPartition { number })?;
        match theirs.logical {
            None => copy_primary(&mut new, old, number),
            Some(there) => {
                // While both tables exist in part, each must lead to the partition.
                let path = |at: chain::Logical| (at.extended, at.extended_start, at.link);
                let same = agree(number)
                    && place(&new).is_some_and(|ours| {
                        ours.entry == theirs.entry
                            && ours.logical.map(path) == Some(path(there))
                            && records(&new, unit, number) == records(old, unit, number)
                    });
                if !same {
                    return unfit(format!(
                        "logical partition {number}, or the records that lead to it, are not the same \
                         in the image and on the disk"
                    ));
                }
            }
        }
    }
    Ok(new)
}

/// The records of the logical partitions up to that one.
fn records(blobs: &[Blob], unit: u64, number: u32) -> Vec<chain::Slot> {
    let places = chain::places(blobs, unit).into_iter();
    let upto = places.filter(|(n, place)| place.logical.is_some() && *n <= number);
    upto.map(|(_, place)| place.entry).collect()
}

fn copy_primary(new: &mut [Blob], old: &[Blob], number: u32) {
    let at = mbr::ENTRIES + (number as usize - 1) * 16;
    let raw = old.first().and_then(|blob| blob.data.get(at..at + 16));
    if let (Some(raw), Some(first)) = (raw, new.first_mut()) {
        put(&mut first.data, at, raw);
    }
}

/// The table of the time in between: what `table` says about partitions `kept` and nothing
/// else, without boot code. Its parts stand where those of `table` stand.
///
/// # Errors
/// [`TableError::Damaged`] as [`super::parse_blobs`].
pub fn interim(
    kind: TableKind,
    table: &[Blob],
    geometry: Geometry,
    kept: &[u32],
) -> Result<Vec<Blob>, TableError> {
    let unit = u64::from(geometry.sector_size);
    let Some(found) = parse(kind, table, geometry)? else {
        return Ok(Vec::new());
    };
    let blobs = match found.gpt {
        Some(pair) => interim_gpt(pair, kept).blobs(unit),
        None => interim_mbr(found.blobs, unit, kept),
    };
    parse(kind, &blobs, geometry)?;
    Ok(blobs)
}

fn interim_gpt(mut pair: Pair, kept: &[u32]) -> Pair {
    let size = pair.primary.header.entry_size as usize;
    let mut entries = pair.primary.entries.clone();
    for part in &pair.primary.partitions {
        if !kept.contains(&part.number) {
            put(
                &mut entries,
                (part.number as usize - 1) * size,
                &vec![0; size],
            );
        }
    }
    pair.set_entries(&entries);
    for entry in mbr::entries(&pair.first_sector).iter().flatten() {
        if !entry.is_protective() {
            clear_entry(&mut pair.first_sector, entry.slot);
        }
    }
    clear_code(&mut pair.first_sector);
    pair
}

fn interim_mbr(mut blobs: Vec<Blob>, unit: u64, kept: &[u32]) -> Vec<Blob> {
    let places = chain::places(&blobs, unit);
    let stays: Vec<u32> = places
        .iter()
        .filter(|(number, _)| kept.contains(number))
        .filter_map(|(_, place)| Some(place.logical?.extended.slot))
        .collect();
    let inside = |sector: u64| {
        let mut all = places.iter().filter_map(|(_, place)| place.logical);
        all.any(|l| {
            stays.contains(&l.extended.slot) && (l.extended_start..l.extended_end).contains(&sector)
        })
    };
    blobs.retain(|blob| blob.offset == 0 || inside(blob.offset / unit));
    for (number, place) in &places {
        let blob = blobs
            .iter_mut()
            .find(|b| b.offset == place.entry.sector * unit);
        if let Some(blob) = blob.filter(|_| !kept.contains(number)) {
            match place.logical {
                None => clear_entry(&mut blob.data, place.entry.slot),
                Some(_) => {
                    let at = mbr::ENTRIES + (place.entry.slot as usize - 1) * 16;
                    put(&mut blob.data, at, &[0]);
                    put(&mut blob.data, at + 4, &[PLACEHOLDER]);
                }
            }
        }
    }
    if let Some(first) = blobs.first_mut() {
        for entry in mbr::entries(&first.data).iter().flatten() {
            if entry.is_extended() && !stays.contains(&entry.slot) {
                clear_entry(&mut first.data, entry.slot);
            }
        }
        clear_code(&mut first.data);
    }
    blobs
}

fn clear_entry(sector: &mut [u8], slot: u32) {
    put(sector, mbr::ENTRIES + (slot as usize - 1) * 16, &[0; 16]);
}

/// Boot code ends where the disk signature begins.
fn clear_code(sector: &mut [u8]) {
    put(sector, 0, &[0; 440]);
}
