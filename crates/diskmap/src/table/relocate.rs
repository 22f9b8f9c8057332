//! A table for a disk of another size.
//!
//! Owns: what changes (place of the backup GPT, usable range, checksums, size in
//! the protective MBR) and what never does (slots, GUIDs, attributes, boot code).

use super::blobs::parse;
use super::gpt_pair::{Pair, needed_sectors};
use super::{FoundTable, TablePartition};
use crate::error::TableError;
use crate::model::{Blob, Geometry, TableKind};

/// The table's bytes for a disk of `target_size` bytes with the same sector size.
/// At an unchanged size the bytes of a valid table are unchanged too.
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
    let needed = needed_bytes(&found, source);
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
    match found.gpt {
        None => Ok(found.blobs),
        Some(pair) => Ok(move_backup(pair, source, target)),
    }
}

/// Smallest disk, in bytes, that the partitions and (for GPT) the backup table fit.
/// Gaps are not counted: what of a gap region lies past this may be left out. A disk
/// without table needs its full size.
///
/// # Errors
/// [`TableError::Damaged`] as [`super::parse_blobs`].
pub fn minimum_size(kind: TableKind, blobs: &[Blob], source: Geometry) -> Result<u64, TableError> {
    Ok(parse(kind, blobs, source)?.map_or(source.size_bytes, |found| needed_bytes(&found, source)))
}

fn needed_bytes(found: &FoundTable, source: Geometry) -> u64 {
    let unit = u64::from(source.sector_size);
    match &found.gpt {
        Some(pair) => needed_sectors(&pair.primary, source).saturating_mul(unit),
        None => {
            let parts = found
                .parsed
                .partitions
                .iter()
                .map(TablePartition::end)
                .max();
            parts.unwrap_or(0).max(unit)
        }
    }
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
