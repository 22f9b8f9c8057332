//! The plan of a restore of a whole disk, with partitions that stay or grow if that is
//! asked for.
//!
//! Owns: the smallest disk that will do, the new table, what is clipped. Does not own:
//! single partitions (`chosen`).

use super::check::{Image, Target, bad_table, check_overlap, refuse};
use super::growing;
use super::parts::{Parts, range, region_of};
use super::plan::{Growth, NewPartition, OldPartition, Place, Plan, TableChange};
use diskmap::table::{self, DiskTable, ParsedTable, TablePartition};
use diskmap::{Blob, TableKind};
use std::ops::Range;
use wire::{Code, Report, RestoreScope, size};

/// Plans it.
pub fn plan(image: &Image<'_>, target: &Target<'_>, scope: &RestoreScope) -> Result<Plan, Report> {
    refuse_partial(image)?;
    let minimum_bytes = minimum(image)?;
    let disk_bytes = target.geometry.size_bytes;
    if disk_bytes < minimum_bytes {
        return Err(refuse(
            Code::DiskTooSmall,
            format!(
                "the image needs a disk of at least {minimum_bytes} bytes ({}), {} has \
                 {disk_bytes} bytes ({})",
                size::bytes(minimum_bytes),
                target.name(),
                size::bytes(disk_bytes)
            ),
        ));
    }
    let mut notes = Vec::new();
    let old = old_table(target, image, scope, &mut notes)?;
    let stays = kept(image, target, old.as_ref(), scope, &mut notes)?;
    let numbers: Vec<u32> = stays.iter().map(|part| part.number).collect();

    let mut tables = match image.kind {
        TableKind::None => Vec::new(),
        kind => table::relocate(kind, &image.blobs, image.geometry, disk_bytes)
            .map_err(|e| bad_table(&e))?,
    };
    if let (Some(old), false) = (&old, numbers.is_empty()) {
        tables = table::keep(image.kind, &tables, &old.blobs, target.geometry, &numbers)
            .map_err(|e| refuse(Code::PartitionIdentity, e.to_string()))?;
    }
    let growth = growing::grow(image, target, scope, &numbers, &mut tables)?;
    let parsed =
        table::parse_blobs(image.kind, &tables, target.geometry).map_err(|e| bad_table(&e))?;
    let may_be_clipped = growth.is_some() || !numbers.is_empty();
    let places = places(
        image,
        target,
        &parsed,
        &tables,
        &numbers,
        may_be_clipped,
        &mut notes,
    );
    check_overlap(image.layout, &places, &tables)?;
    check_kept(image, &places, &stays)?;

    let new = new_partitions(image, &parsed, scope, &numbers);
    if !numbers.is_empty() && new.iter().all(|part| part.region.is_none()) {
        return Err(refuse(
            Code::Usage,
            "every partition of the image is to be kept: nothing is left to restore",
        ));
    }
    let areas = written(image, &places, growth.as_ref());
    Ok(Plan {
        kind: image.kind,
        disk_bytes,
        minimum_bytes,
        places,
        areas,
        old: old_partitions(target, old.as_ref(), scope, &numbers),
        new,
        free_bytes: free_behind(&parsed, &tables, disk_bytes),
        growth,
        notes,
        table: change(image, target, tables, old, &stays)?,
    })
}

/// The table of the disk as it is now. Where it is to be replaced anyway it may be
/// unreadable.
fn old_table(
    target: &Target<'_>,
    image: &Image<'_>,
    scope: &RestoreScope,
    notes: &mut Vec<String>,
) -> Result<Option<DiskTable>, Report> {
    if !scope.keep.is_empty() {
        return target.table_like(image).map(Some);
    }
    Ok(target.table().unwrap_or_else(|report| {
        notes.push(format!(
            "what is on the disk now cannot be told: {}",
            report.found
        ));
        None
    }))
}

/// An image of some partitions only cannot make a whole disk: the space of the boot loader
/// is not in it either.
fn refuse_partial(image: &Image<'_>) -> Result<(), Report> {
    if !image.layout.is_partial() {
        return Ok(());
    }
    let numbers = |absent: bool| -> String {
        let regions = image.layout.regions.iter();
        let wanted = regions.filter(|r| r.kind == "partition" && r.is_absent() == absent);
        let list: Vec<String> = wanted
            .filter_map(|region| region.number.map(|number| number.to_string()))
            .collect();
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    Err(refuse(
        Code::ImagePartial,
        format!(
            "the image holds of its disk's partitions only {}; not in it: {}",
            numbers(false),
            numbers(true)
        ),
    ))
}

/// The partitions of the disk that stay; they must be what the image has at their place.
fn kept(
    image: &Image<'_>,
    target: &Target<'_>,
    old: Option<&DiskTable>,
    scope: &RestoreScope,
    notes: &mut Vec<String>,
) -> Result<Vec<TablePartition>, Report> {
    let Some(old) = old.filter(|_| !scope.keep.is_empty()) else {
        return Ok(Vec::new());
    };
    notes.extend(
        old.warnings
            .iter()
            .map(|w| format!("{}: {w}", target.name())),
    );
    let there = Parts::new(target.name(), &old.parsed, scope.number_visible);
    let ours = Parts::new("the image", &image.table, scope.number_visible);
    let mut stays: Vec<TablePartition> = Vec::new();
    for wanted in &scope.keep {
        let part = there.find(wanted)?;
        let name = there.numbering.name(part.number);
        match ours.by_number(part.number) {
            None => notes.push(format!(
                "partition {name} is not in the image; it stays in the table"
            )),
            Some(our) => same(&name, our, part, target)?,
        }
        if !stays.iter().any(|other| other.number == part.number) {
            stays.push(part.clone());
        }
    }
    Ok(stays)
}

/// Whether a partition that stays is where and what the image has it.
fn same(
    name: &str,
    ours: &TablePartition,
    part: &TablePartition,
    target: &Target<'_>,
) -> Result<(), Report> {
    let differ = |code, what: &str, a: String, b: String| {
        let found = format!(
            "partition {name}, which is to be kept, {what} {a} in the image and {b} on {}",
            target.name()
        );
        Err(refuse(code, found).with_advice(
            "Keep a partition only where image and disk agree about it, or restore without it.",
        ))
    };
    let bytes = |n: u64| format!("{n} bytes");
    if ours.start != part.start {
        let at = |n: u64| format!("at byte {n}");
        return differ(
            Code::PartitionIdentity,
            "begins",
            at(ours.start),
            at(part.start),
        );
    }
    if ours.size != part.size {
        return differ(
            Code::PartitionSizeMismatch,
            "has",
            bytes(ours.size),
            bytes(part.size),
        );
    }
    if ours.part_type != part.part_type {
        let kind = |kind: &str| format!("type {kind}");
        let (a, b) = (kind(&ours.part_type), kind(&part.part_type));
        return differ(Code::PartitionTypeMismatch, "has", a, b);
    }
    Ok(())
}

/// Smallest disk that the image fits on, in bytes.
fn minimum(image: &Image<'_>) -> Result<u64, Report> {
    let regions = image.layout.regions.iter();
    let needed = regions
        .filter(|region| !image.is_leftover(region))
        .map(|region| region.start + region.size)
        .max()
        .unwrap_or(0);
    match image.kind {
        // Its one file system has no table that says how large it is.
        TableKind::None => Ok(needed),
        kind => table::minimum_size(kind, &image.blobs, image.geometry, needed)
            .map_err(|e| bad_table(&e)),
    }
}

/// No byte of what stays may be one that a region is written to. A sound image and a sound
/// table cannot come to this; what stays is somebody's only copy, so it is looked at again.
fn check_kept(image: &Image<'_>, places: &[Place], stays: &[TablePartition]) -> Result<(), Report> {
    let mut written = image.layout.regions.iter().zip(places);
    let hit = written.find(|(_, place)| {
        let end = place.start + place.len;
        let mut kept = stays.iter().filter(|_| place.len > 0);
        kept.any(|kept| place.start < kept.end() && kept.start < end)
    });
    match hit {
        None => Ok(()),
        Some((region, _)) => Err(refuse(
            Code::ImageDamaged,
            format!(
                "the region at byte {} ({} bytes) would be written over a partition that is to \
                 be kept",
                region.start, region.size
            ),
        )),
    }
}

/// Where each region goes: to its own place, unless it stays; of a gap what is still one.
/// `may_be_clipped`: whether partitions stand elsewhere than in the image's own table.
fn places(
    image: &Image<'_>,
    target: &Target<'_>,
    parsed: &ParsedTable,
    tables: &[Blob],
    kept: &[u32],
    may_be_clipped: bool,
    notes: &mut Vec<String>,
) -> Vec<Place> {
    let parts = parsed.partitions.iter().filter(|part| !part.extended);
    let mut taken: Vec<Range<u64>> = parts.map(range).collect();
    taken.extend(tables.iter().map(|blob| blob.offset..blob.end()));
    taken.push(target.geometry.size_bytes..u64::MAX);
    let mut places = Vec::with_capacity(image.layout.regions.len());
    for region in &image.layout.regions {
        let own = Place {
            start: region.start,
            len: region.size,
        };
        if region.kind != "gap" {
            let stays = region.number.is_some_and(|number| kept.contains(&number));
            places.push(if stays { Place::NOWHERE } else { own });
            continue;
        }
        let end = region.start + region.size;
        let hits = taken
            .iter()
            .filter(|taken| taken.start < end && region.start < taken.end);
        let first = hits.map(|taken| taken.start.max(region.start)).min();
        // The boot loader's space has its size from the image's own table, which overlaps
        // none of it: only what stays or grows on the disk may be in its way.
        let may_be_clipped = may_be_clipped || image.is_leftover(region);
        let len = first.filter(|_| may_be_clipped).unwrap_or(end) - region.start;
        if len < region.size {
            notes.push(format!(
                "of the free space that the image holds from byte {} on, the last {} bytes are \
                 left out: there is no room for them, or a partition stands there",
                region.start,
                region.size - len
            ));
        }
        places.push(Place { len, ..own });
    }
    places
}

fn new_partitions(
    image: &Image<'_>,
    parsed: &ParsedTable,
    scope: &RestoreScope,
    kept: &[u32],
) -> Vec<NewPartition> {
    let parts = Parts::new("the image", parsed, scope.number_visible);
    let one = |part: &TablePartition| NewPartition {
        number: part.number,
        name: parts.numbering.name(part.number),
        range: range(part),
        type_name: part.type_name.clone(),
        region: region_of(image.layout, part.number).filter(|_| !kept.contains(&part.number)),
    };
    parts.iter().map(one).collect()
}

fn old_partitions(
    target: &Target<'_>,
    old: Option<&DiskTable>,
    scope: &RestoreScope,
    kept: &[u32],
) -> Vec<OldPartition> {
    let Some(old) = old else {
        return Vec::new();
    };
    let parts = Parts::new(target.name(), &old.parsed, scope.number_visible);
    let one = |part: &TablePartition| OldPartition {
        number: part.number,
        name: parts.numbering.name(part.number),
        range: range(part),
        type_name: part.type_name.clone(),
        stays: kept.contains(&part.number),
    };
    parts.iter().map(one).collect()
}

/// Partitions (and a disk without a table) that are written, as large as they become: at
/// the end of one that grows an earlier one may have left its signature.
fn written(image: &Image<'_>, places: &[Place], growth: Option<&Growth>) -> Vec<Range<u64>> {
    let regions = image.layout.regions.iter().zip(places);
    let area = |(_, place): (_, &Place)| {
        let grown = growth.filter(|growth| growth.range.start == place.start);
        let end = place.start + place.len;
        place.start..grown.map_or(end, |growth| growth.range.end.max(end))
    };
    regions
        .filter(|(region, place)| region.kind != "gap" && place.len > 0)
        .map(area)
        .collect()
}

/// Bytes between the last partition and the end, or the backup table there.
fn free_behind(parsed: &ParsedTable, tables: &[Blob], disk_bytes: u64) -> u64 {
    let parts = parsed.partitions.iter().filter(|part| !part.extended);
    let Some(last) = parts.map(TablePartition::end).max() else {
        return 0;
    };
    let behind = tables
        .iter()
        .map(|blob| blob.offset)
        .filter(|&at| at >= last);
    behind.min().unwrap_or(disk_bytes).saturating_sub(last)
}

fn change(
    image: &Image<'_>,
    target: &Target<'_>,
    last: Vec<Blob>,
    old: Option<DiskTable>,
    stays: &[TablePartition],
) -> Result<TableChange, Report> {
    let Some(old) = old.filter(|_| !stays.is_empty()) else {
        return Ok(TableChange::Replace { last });
    };
    let numbers: Vec<u32> = stays.iter().map(|part| part.number).collect();
    let interim =
        table::interim(image.kind, &last, target.geometry, &numbers).map_err(|e| bad_table(&e))?;
    Ok(TableChange::Keep {
        interim,
        last,
        old: old
            .blobs
            .iter()
            .map(|blob| blob.offset..blob.end())
            .collect(),
        kept: stays.iter().map(range).collect(),
        primary_is_good: old.primary_is_good,
    })
}
