//! The checks before the first write that every restore makes.
//!
//! Owns: what holds for whole disks and for partitions alike, and the image's own table.
//! Does not own: what is written where (`whole`, `chosen`), whether the disk is free to be
//! overwritten (holders, confirmation).

use super::plan::{Place, Plan};
use super::{chosen, whole};
use crate::source;
use blockdev::Device;
use diskmap::table::{self, DiskTable, ParsedTable};
use diskmap::{Geometry, TableError, TableKind};
use image::Layout;
use image::layout::Region;
use wire::{Code, DiskState, Report, RestoreScope};

/// The image's side of a restore.
pub struct Image<'a> {
    /// What was imaged.
    pub layout: &'a Layout,
    /// Kind of its table.
    pub kind: TableKind,
    /// Its table's bytes.
    pub blobs: Vec<diskmap::Blob>,
    /// What they say.
    pub table: ParsedTable,
    /// Size of the imaged disk.
    pub geometry: Geometry,
}

/// The disk's side of a restore.
pub struct Target<'a> {
    /// The disk.
    pub device: &'a Device,
    /// Its size.
    pub geometry: Geometry,
}

/// Checks that what is asked for fits image and disk; nothing is written.
pub fn plan(layout: &Layout, device: &Device, scope: &RestoreScope) -> Result<Plan, Report> {
    let target = Target {
        device,
        geometry: source::geometry(device),
    };
    if device.read_only() {
        return Err(refuse(
            Code::DiskInUse,
            format!("{} is write-protected", target.name()),
        )
        .with_advice("Remove the write protection."));
    }
    if layout.disk.sector_size != target.geometry.sector_size {
        return Err(refuse(
            Code::SectorSizeMismatch,
            format!(
                "the image has sectors of {} bytes, the disk of {} bytes",
                layout.disk.sector_size, target.geometry.sector_size
            ),
        ));
    }
    let image = Image::of(layout)?;
    if scope.partitions.is_empty() {
        whole::plan(&image, &target, scope)
    } else {
        chosen::plan(&image, &target, scope)
    }
}

impl<'a> Image<'a> {
    fn of(layout: &'a Layout) -> Result<Self, Report> {
        let kind = match layout.table.kind.as_str() {
            "gpt" => TableKind::Gpt,
            "mbr" => TableKind::Mbr,
            _ => TableKind::None,
        };
        let blobs: Vec<_> = layout
            .table
            .blobs
            .iter()
            .map(|blob| diskmap::Blob {
                offset: blob.offset,
                data: blob.data.clone(),
            })
            .collect();
        let geometry = Geometry {
            size_bytes: layout.disk.size_bytes,
            sector_size: layout.disk.sector_size,
        };
        let table = table::parse_blobs(kind, &blobs, geometry).map_err(|e| bad_table(&e))?;
        let image = Image {
            layout,
            kind,
            blobs,
            table,
            geometry,
        };
        match layout
            .regions
            .iter()
            .find(|region| !image.is_listed(region))
        {
            None => Ok(image),
            Some(region) => Err(refuse(
                Code::ImageDamaged,
                format!(
                    "the region at byte {} ({} bytes) is no partition of the image's table",
                    region.start, region.size
                ),
            )),
        }
    }

    /// Whether a region is what it says: a partition one of the table's, a whole disk one
    /// without a table.
    fn is_listed(&self, region: &Region) -> bool {
        let mut partitions = self.table.partitions.iter().filter(|p| !p.extended);
        match region.kind.as_str() {
            "gap" => true,
            "whole" => self.kind == TableKind::None,
            _ => partitions.any(|part| {
                Some(part.number) == region.number
                    && (part.start, part.size) == (region.start, region.size)
            }),
        }
    }

    /// First byte past the last partition; 0 without partitions.
    pub fn partitions_end(&self) -> u64 {
        let data = self.table.partitions.iter().filter(|part| !part.extended);
        data.map(|part| part.end()).max().unwrap_or(0)
    }

    /// Whether a region is only what a gap behind the last partition happened to hold,
    /// which another disk need not have room for. Behind the partitions of a Windows
    /// dynamic disk stands its database.
    pub fn is_leftover(&self, region: &Region) -> bool {
        let dynamic = |kind: &str| {
            matches!(
                kind,
                "0x42"
                    | "AF9B60A0-1431-4F62-BC68-3311714A69AD"
                    | "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3"
            )
        };
        let end = self.partitions_end();
        region.kind == "gap"
            && end > 0
            && region.start >= end
            && !self.table.partitions.iter().any(|p| dynamic(&p.part_type))
    }
}

impl Target<'_> {
    /// The disk as it is named to people.
    pub fn name(&self) -> String {
        self.device.path().display().to_string()
    }

    /// The disk's partition table, if it can be read.
    pub fn table(&self) -> Result<Option<DiskTable>, Report> {
        table::read(&source::Reader(self.device), self.geometry).map_err(|error| {
            let report = crate::report::scan(&error, DiskState::Untouched);
            Report {
                found: format!("{}: {}", self.name(), report.found),
                ..report
            }
        })
    }

    /// The disk's partition table, which must be of the image's kind.
    pub fn table_like(&self, image: &Image<'_>) -> Result<DiskTable, Report> {
        let found = self.table()?;
        let kind = found.as_ref().map_or(TableKind::None, |t| t.parsed.kind);
        match found {
            Some(found) if kind == image.kind => Ok(found),
            _ => Err(refuse(
                Code::TableTypeMismatch,
                format!(
                    "the image has {}, {} has {}",
                    describe(image.kind),
                    self.name(),
                    describe(kind)
                ),
            )),
        }
    }
}

fn describe(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Gpt => "a GPT",
        TableKind::Mbr => "an MBR",
        TableKind::None => "no partition table",
    }
}

/// No byte of a table may be one that a region is written to, or the table would
/// overwrite data.
pub fn check_overlap(
    layout: &Layout,
    places: &[Place],
    tables: &[diskmap::Blob],
) -> Result<(), Report> {
    for blob in tables {
        let mut written = layout.regions.iter().zip(places);
        let hit = written
            .find(|(_, place)| blob.offset < place.start + place.len && place.start < blob.end());
        if let Some((region, _)) = hit {
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

/// What is wrong with the image's table.
pub fn bad_table(error: &TableError) -> Report {
    let code = match error {
        TableError::TooSmall { .. } => Code::DiskTooSmall,
        _ => Code::ImageDamaged,
    };
    refuse(code, format!("the image's partition table: {error}"))
}

/// A refusal: nothing was written.
pub fn refuse(code: Code, found: impl Into<String>) -> Report {
    Report::new(code, found, DiskState::Untouched)
}
