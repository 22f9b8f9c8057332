//! A table for a disk of another size.
//!
//! Owns: what changes (place of the backup GPT, usable range, checksums, size in
//! the protective MBR, free space at the end of an extended partition) and what never
//! does (slots, GUIDs, attributes, boot code). Does not own: partitions that grow
//! (`grow`) or stay (`keep`).

use super::blobs::parse;
use super::gpt_pair::{Pair, needed_sectors};
use super::{FoundTable, mbr};
use crate::error::TableError;
use crate::model::{Blob, Geometry, TableKind};

/// The table's bytes for a disk of `target_size` bytes with the same sector size.
/// At an unchanged size the bytes of a valid table are unchanged too. On a smaller disk
/// an extended partition loses what it has of free space past the end.
///
/// # Errors
/// [`TableError::TooSmall`] if the partitions do not fit, [`TableError::Damaged`]
/// as [`super::parse_blobs`].
pub fn relocate(
    kind: TableKind,
    blobs: &[Blob],
    source: Geometry,
    target_size: u64,
) -> Result<Vec<Blob>, TableError> {
    let Some(found) = parse(kind, blobs, source)? else {
        return Ok(Vec::new());
    };
    let needed = needed_bytes(&found, source, 0);
    let target = Geometry {
        size_bytes: target_size,
        ..source
    };
    if needed > target.sectors() * u64::from(target.sector_size) {
        return Err(TableError::TooSmall {
            needed,
            actual: target_size,
        });
    }
    Ok(match found.gpt {
        None => cut_extended(found.blobs, target),
        Some(pair) => move_backup(pair, source, target),
    })
}

/// Smallest disk, in bytes, that the partitions and (for GPT) the backup table fit.
/// Of an extended partition only what is before the end of its last logical one counts.
/// Gaps are not counted; what else has to fit ends at byte `data_end`. A disk without table
/// needs its full size.
///
/// # Errors
/// [`TableError::Damaged`] as [`super::parse_blobs`].
pub fn minimum_size(
    kind: TableKind,
    blobs: &[Blob],
    source: Geometry,
    data_end: u64,
) -> Result<u64, TableError> {
    Ok(
        parse(kind, blobs, source)?.map_or(source.size_bytes, |found| {
            needed_bytes(&found, source, data_end)
        }),
    )
}

fn needed_bytes(found: &FoundTable, source: Geometry, data_end: u64) -> u64 {
    let unit = u64::from(source.sector_size);
    let data_end = data_end.div_ceil(unit);
    match &found.gpt {
        // A table that stands on a disk fits it, however it is arranged.
        Some(pair) => needed_sectors(&pair.primary, source, data_end)
            .saturating_mul(unit)
            .min(source.sectors().saturating_mul(unit)),
        None => {
            let parts = found.parsed.partitions.iter().map(|part| {
                if part.extended {
                    part.start.saturating_add(unit)
                } else {
                    part.end()
                }
            });
            let tables = found.blobs.iter().map(Blob::end);
            let end = parts.chain(tables).max().unwrap_or(0).max(unit);
            end.max(data_end.saturating_mul(unit))
        }
    }
}

/// Free space at the end of an extended partition that the disk does not have is cut off.
fn cut_extended(mut blobs: Vec<Blob>, target: Geometry) -> Vec<Blob> {
    let Some(first) = blobs.first_mut().filter(|blob| blob.offset == 0) else {
        return blobs;
    };
    for entry in mbr::entries(&first.data).iter().flatten() {
        if entry.is_used() && entry.is_extended() && entry.start + entry.sectors > target.sectors()
        {
            let left = target.sectors().saturating_sub(entry.start);
            // Less than it was, so it fits the field.
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            mbr::set_sectors(&mut first.data, entry.slot, entry.start, left);
        }
    }
    blobs
}

/// The pair fits the target.
fn move_backup(mut pair: Pair, source: Geometry, target: Geometry) -> Vec<Blob> {
    let unit = u64::from(source.sector_size);
    let (old_last, last) = (source.sectors().saturating_sub(1), target.sectors() - 1);
    let backup = &pair.backup.header;
    if last == old_last && backup.my_lba == old_last {
        return pair.blobs(unit);
    }
    let sectors = backup.entries_sectors(source);
    let used_end = pair.primary.used_end;
    // Distances from the backup header are kept where they make sense and fit.
    let kept = (|| {
        let entries = last.checked_sub(backup.my_lba.checked_sub(backup.entries_lba)?)?;
        let usable = last.checked_sub(backup.my_lba.checked_sub(backup.last_usable)?)?;
        let sane = entries.checked_add(sectors)? <= last
            && usable < entries
            && usable.checked_add(1)? >= used_end.max(backup.first_usable);
        sane.then_some((entries, usable))
    })();
    let tight = (last - sectors, last - sectors - 1);
    let (entries_lba, last_usable) = kept.unwrap_or(tight);
    let primary = &mut pair.primary.header;
    *primary = primary.moved(1, last, primary.entries_lba, last_usable);
    pair.backup.header = pair.backup.header.moved(last, 1, entries_lba, last_usable);
    pair.protect(source.sectors(), target.sectors());
    pair.blobs(unit)
}
