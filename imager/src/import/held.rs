//! Sources that hold only some bytes of a disk.
//!
//! Owns: that nothing is copied which the source does not hold, and that what a file system
//! needs and the source lacks is told. Does not own: how either is found out.
//!
//! Two maps of one partition: what our scan finds in use, and what the program that made the
//! source found so. The source's is followed. What only it holds is copied too: it is there,
//! and it is what a restore by that program would write. What only our scan wants cannot be
//! copied: zeros in its place would be an invention that nobody could tell from data later.

use super::spare;
use crate::source::Disk;
use diskmap::{DiskMap, Extents, Method, Region, RegionKind};
use wire::{Code, DiskState, Report, size};

/// What the scan ends its warnings with where it gave up a map. Here it is not so.
const ALL_COPIED: &str = "; every sector is copied";

/// Makes a map, made of a disk of which only `held` is known, one of what is known. Gives what
/// has to be told.
pub fn apply(map: &mut DiskMap, held: &Extents, disk: &dyn Disk) -> Vec<Report> {
    let sector = u64::from(map.geometry.sector_size);
    let mut missing = Vec::new();
    let DiskMap {
        regions, warnings, ..
    } = map;
    for region in regions.iter_mut().filter(|r| r.method != Method::Absent) {
        let known = part(held, region);
        if known.total() == region.size {
            continue;
        }
        if region.kind == RegionKind::Gap {
            region.used = region
                .used
                .subtract(&Extents::whole(region.size).subtract(&known));
            region.method = Method::Used;
            region.reason = "Only what the source holds of it is copied.".to_owned();
            continue;
        }
        let mapped = region.method == Method::Used;
        let lacks = region.used.subtract(&known);
        let lacks = match mapped && !lacks.is_empty() {
            true => lacks.subtract(&spare::spare(disk, region)).total(),
            false => 0,
        };
        if lacks > 0 {
            missing.push(report(region, lacks));
        }
        if !mapped {
            missing.push(unmapped(region, known.total()));
        }
        region.used = known.aligned(sector, region.size);
        region.method = Method::Used;
        let name = match region.file_system.as_str() {
            "" => "No known file system",
            name => name,
        };
        region.reason = format!("{name}: the blocks that the source holds are copied.");
        for warning in warnings.iter_mut().filter(|w| w.partition == region.number) {
            if let Some(found) = warning.detail.strip_suffix(ALL_COPIED) {
                warning.detail = format!("{found}; the blocks that the source holds are copied");
            }
        }
    }
    missing
}

/// The bytes of the region that are held, from its start.
fn part(held: &Extents, region: &Region) -> Extents {
    let inside = held.intersect(region.start..region.start + region.size);
    let moved = inside.iter().map(|e| diskmap::Extent {
        start: e.start - region.start,
        len: e.len,
    });
    moved.collect()
}

fn place(region: &Region) -> String {
    let name = match region.file_system.as_str() {
        "" => String::new(),
        name => format!(" ({name})"),
    };
    match region.number {
        Some(0) | None => format!("the file system{name}"),
        Some(number) => format!("the file system of partition {number}{name}"),
    }
}

/// A region of which our scan has no map.
fn unmapped(region: &Region, known: u64) -> Report {
    let found = format!(
        "{}: the source holds {} of {}; whether the rest was in use cannot be told",
        place(region),
        size::bytes(known),
        size::bytes(region.size)
    );
    Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved)
}

fn report(region: &Region, lacks: u64) -> Report {
    let place = place(region);
    let found = format!(
        "{place} has {} that a backup keeps and that the source does not hold; \
         they are left out",
        size::bytes(lacks)
    );
    Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved)
}
