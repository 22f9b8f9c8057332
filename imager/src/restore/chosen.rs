//! The plan of a restore of chosen partitions into existing ones.
//!
//! Owns: the checks of each pair. Does not own: whole disks (`whole`). The disk's table
//! stays as it is.

use super::check::{Image, Target, refuse};
use super::parts::{Parts, range, region_of};
use super::plan::{Growth, NewPartition, OldPartition, Place, Plan, TableChange};
use diskmap::table::TablePartition;
use wire::{Code, GrowChoice, Report, RestoreScope, size};

/// A partition of the image and the one of the disk that it goes to.
struct Pair<'a> {
    region: usize,
    ours: &'a TablePartition,
    disk: &'a TablePartition,
}

/// Plans it.
pub fn plan(image: &Image<'_>, target: &Target<'_>, scope: &RestoreScope) -> Result<Plan, Report> {
    if !scope.keep.is_empty() {
        let found = "--keep goes with a whole disk: where partitions are chosen all others stay";
        return Err(refuse(Code::Usage, found));
    }
    let table = target.table_like(image)?;
    let ours = Parts::new("the image", &image.table, scope.number_visible);
    let there = Parts::new(target.name(), &table.parsed, scope.number_visible);
    let mut pairs: Vec<Pair<'_>> = Vec::new();
    for choice in &scope.partitions {
        let (from, into) = (ours.find(&choice.image)?, there.find(&choice.disk)?);
        let position = region_of(image.layout, from.number);
        let held = |&at: &usize| image.layout.regions.get(at).is_some_and(|r| !r.is_absent());
        let Some(region) = position.filter(held) else {
            let name = ours.numbering.name(from.number);
            let found =
                format!("the image lists partition {name}, but was made without what it holds");
            return Err(refuse(Code::PartitionNotFound, found));
        };
        if pairs
            .iter()
            .any(|p| p.region == region || p.disk.number == into.number)
        {
            return Err(refuse(
                Code::Usage,
                "a partition is chosen twice; each can be read from and written to once",
            ));
        }
        pairs.push(Pair {
            region,
            ours: from,
            disk: into,
        });
    }
    let growth = growth(image, scope, &there, &pairs)?;
    for pair in &pairs {
        check(pair, &ours, &there, growth.as_ref())?;
    }
    let mut places = vec![Place::NOWHERE; image.layout.regions.len()];
    for pair in &pairs {
        if let Some(place) = places.get_mut(pair.region) {
            *place = Place {
                start: pair.disk.start,
                len: pair.ours.size,
            };
        }
    }
    let pair_of = |number: u32| pairs.iter().find(|pair| pair.disk.number == number);
    let old = there.iter().map(|part| OldPartition {
        number: part.number,
        name: there.numbering.name(part.number),
        range: range(part),
        type_name: part.type_name.clone(),
        stays: pair_of(part.number).is_none(),
    });
    let new = there.iter().map(|part| NewPartition {
        number: part.number,
        name: there.numbering.name(part.number),
        range: range(part),
        type_name: part.type_name.clone(),
        region: pair_of(part.number).map(|pair| pair.region),
    });
    let mut notes: Vec<String> = table
        .warnings
        .iter()
        .map(|warning| format!("{}: {warning}", target.name()))
        .collect();
    notes.extend(pairs.iter().filter_map(|pair| moved(image, pair, &there)));
    Ok(Plan {
        kind: image.kind,
        disk_bytes: target.geometry.size_bytes,
        minimum_bytes: pairs.iter().map(|p| p.disk.end()).max().unwrap_or(0),
        areas: pairs.iter().map(|pair| range(pair.disk)).collect(),
        old: old.collect(),
        new: new.collect(),
        places,
        table: TableChange::Untouched,
        growth,
        free_bytes: 0,
        notes,
    })
}

/// The partition whose file system grows to the size of the partition it goes to.
fn growth(
    image: &Image<'_>,
    scope: &RestoreScope,
    there: &Parts,
    pairs: &[Pair<'_>],
) -> Result<Option<Growth>, Report> {
    let Some(choice) = scope.grow else {
        return Ok(None);
    };
    let pair = match choice {
        GrowChoice::Last => pairs.iter().max_by_key(|pair| pair.disk.start),
        GrowChoice::Partition(number) => {
            let part = there.find(&number.into())?;
            pairs.iter().find(|pair| pair.disk.number == part.number)
        }
    };
    let Some(pair) = pair else {
        return Err(refuse(
            Code::Usage,
            "--grow names a partition of the disk that is not restored",
        ));
    };
    let region = image.layout.regions.get(pair.region);
    Ok(Some(Growth {
        number: pair.disk.number,
        name: there.numbering.name(pair.disk.number),
        range: range(pair.disk),
        old_size: pair.ours.size,
        behind: None,
        file_system: region.map_or_else(String::new, |region| region.file_system.clone()),
    }))
}

/// Whether the image's partition can go into the disk's.
fn check(
    pair: &Pair<'_>,
    ours: &Parts,
    there: &Parts,
    growth: Option<&Growth>,
) -> Result<(), Report> {
    let names = format!(
        "partition {} of the image has {{}}, partition {} of the disk has {{}}",
        ours.numbering.name(pair.ours.number),
        there.numbering.name(pair.disk.number)
    );
    let differ =
        |code, a: &str, b: &str| refuse(code, names.replacen("{}", a, 1).replacen("{}", b, 1));
    let (a, b) = (pair.ours, pair.disk);
    if a.part_type != b.part_type {
        let kind = |part: &TablePartition| format!("type {} ({})", part.part_type, part.type_name);
        return Err(differ(Code::PartitionTypeMismatch, &kind(a), &kind(b)));
    }
    let may_grow = growth.is_some_and(|growth| growth.number == b.number);
    if a.size > b.size || (a.size < b.size && !may_grow) {
        let bytes =
            |part: &TablePartition| format!("{} bytes ({})", part.size, size::bytes(part.size));
        let report = differ(Code::PartitionSizeMismatch, &bytes(a), &bytes(b));
        return Err(if a.size < b.size {
            report.with_advice(format!(
                "Choose a partition of the same size, or add --grow {}.",
                there.numbering.given(b.number).unwrap_or(b.number)
            ))
        } else {
            report
        });
    }
    Ok(())
}

/// Some boot sectors say where on the disk their partition begins.
fn moved(image: &Image<'_>, pair: &Pair<'_>, there: &Parts) -> Option<String> {
    let region = image.layout.regions.get(pair.region)?;
    let tells = matches!(
        region.file_system.as_str(),
        "ntfs" | "fat12" | "fat16" | "fat32" | "exfat"
    );
    (tells && pair.ours.start != pair.disk.start).then(|| {
        format!(
            "partition {} begins elsewhere than in the image: the {} in it keeps the old place \
             in its boot sector, and a system that boots from it may need its boot repaired",
            there.numbering.name(pair.disk.number),
            region.file_system
        )
    })
}
