//! The checks before the first write, and what will be written where.
//!
//! Owns: whether an image fits a disk. Does not own: whether the disk is free to be
//! overwritten (holders, confirmation).

use crate::source;
use blockdev::Device;
use diskmap::{Geometry, TableError, TableKind, table};
use image::Layout;
use std::ops::Range;
use wire::{Code, DiskState, Report};

/// Length of a head: the first part of a partition, written last.
pub const HEAD_BYTES: u64 = 1 << 20;

/// What a restore will do to a disk.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Kind of partition table.
    pub kind: TableKind,
    /// The tables as they will stand on this disk.
    pub tables: Vec<diskmap::Blob>,
    /// Partitions (and a disk without a table), as byte ranges of the disk.
    pub areas: Vec<Range<u64>>,
    /// Size of the disk.
    pub disk_bytes: u64,
}

/// Checks that the image fits the disk; nothing is written.
pub fn plan(layout: &Layout, device: &Device) -> Result<Plan, Report> {
    let target = source::geometry(device);
    if device.read_only() {
        return Err(refuse(
            Code::DiskInUse,
            format!("{} is write-protected", device.path().display()),
        )
        .with_advice("Remove the write protection."));
    }
    if layout.is_partial() {
        return Err(refuse(Code::ImagePartial, partial(layout)));
    }
    if layout.disk.sector_size != target.sector_size {
        return Err(refuse(
            Code::SectorSizeMismatch,
            format!(
                "the image has sectors of {} bytes, the disk of {} bytes",
                layout.disk.sector_size, target.sector_size
            ),
        ));
    }
    let kind = match layout.table.kind.as_str() {
        "gpt" => TableKind::Gpt,
        "mbr" => TableKind::Mbr,
        _ => TableKind::None,
    };
    let blobs: Vec<diskmap::Blob> = layout
        .table
        .blobs
        .iter()
        .map(|blob| diskmap::Blob {
            offset: blob.offset,
            data: blob.data.clone(),
        })
        .collect();
    let source = Geometry {
        size_bytes: layout.disk.size_bytes,
        sector_size: layout.disk.sector_size,
    };
    let minimum = minimum_size(layout, kind, &blobs, source)?;
    if target.size_bytes < minimum {
        return Err(refuse(
            Code::DiskTooSmall,
            format!(
                "the image needs a disk of at least {minimum} bytes ({}), {} has {} bytes ({})",
                wire::size::bytes(minimum),
                device.path().display(),
                target.size_bytes,
                wire::size::bytes(target.size_bytes)
            ),
        ));
    }
    let tables = match kind {
        TableKind::None => Vec::new(),
        kind => {
            table::relocate(kind, &blobs, source, target.size_bytes).map_err(|e| bad_table(&e))?
        }
    };
    check_overlap(layout, &tables)?;
    let areas = layout
        .regions
        .iter()
        .filter(|region| region.kind != "gap")
        .map(|region| region.start..region.start + region.size)
        .collect();
    Ok(Plan {
        kind,
        tables,
        areas,
        disk_bytes: target.size_bytes,
    })
}

/// Which partitions a partial image has, and which it lacks.
fn partial(layout: &Layout) -> String {
    let numbers = |absent: bool| -> String {
        let wanted = layout
            .regions
            .iter()
            .filter(|region| region.kind == "partition" && region.is_absent() == absent);
        let list: Vec<String> = wanted
            .filter_map(|region| region.number.map(|number| number.to_string()))
            .collect();
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    format!(
        "the image holds of its disk's partitions only {}; not in it: {}",
        numbers(false),
        numbers(true)
    )
}

/// Smallest disk that the image fits on, in bytes.
fn minimum_size(
    layout: &Layout,
    kind: TableKind,
    blobs: &[diskmap::Blob],
    source: Geometry,
) -> Result<u64, Report> {
    let regions = layout
        .regions
        .iter()
        .map(|region| region.start + region.size)
        .max()
        .unwrap_or(0);
    let table = match kind {
        TableKind::None => 0,
        kind => table::minimum_size(kind, blobs, source).map_err(|e| bad_table(&e))?,
    };
    // Behind the last partition a GPT needs room for its backup.
    let last_partition = layout
        .regions
        .iter()
        .filter(|region| region.kind == "partition")
        .map(|region| region.start + region.size)
        .max()
        .unwrap_or(0);
    let behind = table.saturating_sub(last_partition);
    Ok(if kind == TableKind::Gpt {
        table.max(regions.saturating_add(behind))
    } else {
        table.max(regions)
    }
    .min(layout.disk.size_bytes))
}

/// No byte of a table may be one of a region, or the table would overwrite data.
fn check_overlap(layout: &Layout, tables: &[diskmap::Blob]) -> Result<(), Report> {
    for blob in tables {
        let hit = layout
            .regions
            .iter()
            .find(|region| blob.offset < region.start + region.size && region.start < blob.end());
        if let Some(region) = hit {
            return Err(refuse(
                Code::ImageDamaged,
                format!(
                    "the table at byte {} overlaps the region at byte {} ({} bytes)",
                    blob.offset, region.start, region.size
                ),
            ));
        }
    }
    Ok(())
}

fn bad_table(error: &TableError) -> Report {
    let code = match error {
        TableError::TooSmall { .. } => Code::DiskTooSmall,
        _ => Code::ImageDamaged,
    };
    refuse(code, format!("the image's partition table: {error}"))
}

fn refuse(code: Code, found: String) -> Report {
    Report::new(code, found, DiskState::Untouched)
}
