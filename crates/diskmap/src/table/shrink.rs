//! A partition that becomes smaller, with its file system, which has been made smaller
//! before.
//!
//! Owns: its entry in every table that has it. Does not own: the file system inside, nor
//! whether what is cut off was in use.

use super::blobs::parse;
use super::grow::{in_gpt, in_mbr, is_dynamic};
use crate::error::TableError;
use crate::model::{Blob, Geometry, TableKind};

/// The table with the last partition of the disk cut to `size` bytes, whole sectors.
///
/// # Errors
/// [`TableError::NoSuchPartition`]; [`TableError::Unfit`] if another partition stands
/// behind it, if it is not larger than that, or where another table on the disk has its
/// size too; [`TableError::Damaged`] as [`super::parse_blobs`].
pub fn shrink(
    kind: TableKind,
    blobs: &[Blob],
    geometry: Geometry,
    number: u32,
    size: u64,
) -> Result<Vec<Blob>, TableError> {
    let unfit = |detail: String| Err(TableError::Unfit { detail });
    let missing = TableError::NoSuchPartition { number };
    let Some(found) = parse(kind, blobs, geometry)? else {
        return Err(missing);
    };
    let parts = &found.parsed.partitions;
    let Some(part) = parts.iter().find(|p| p.number == number && !p.extended) else {
        return Err(missing);
    };
    let mut others = parts.iter().filter(|p| !p.extended && p.number != number);
    if let Some(behind) = others.find(|p| p.start >= part.end()) {
        return unfit(format!(
            "partition {} stands behind partition {number}",
            behind.number
        ));
    }
    if is_dynamic(part) {
        return unfit(format!(
            "partition {number} belongs to a Windows dynamic disk, whose own database has its size"
        ));
    }
    let unit = u64::from(geometry.sector_size);
    if size == 0 || size >= part.size || !size.is_multiple_of(unit) {
        return unfit(format!(
            "partition {number} has {} bytes and cannot be cut to {size}",
            part.size
        ));
    }
    let end = part.start + size;
    let cut = match &found.gpt {
        Some(pair) => in_gpt(pair, part, end, geometry)?,
        None => in_mbr(found.blobs.clone(), part, end, geometry)?,
    };
    // What was made must pass the checks of a table that was found.
    parse(kind, &cut, geometry)?;
    Ok(cut)
}
