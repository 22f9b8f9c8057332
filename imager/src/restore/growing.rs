//! The partition that grows on a disk whose table is new.
//!
//! Owns: which one is meant, and that it may. Does not own: its entry in the table
//! (`diskmap`), the file system inside (`crate::grow`).

use super::check::{Image, Target, bad_table, refuse};
use super::parts::{Parts, region_of};
use super::plan::Growth;
use diskmap::{Blob, TableError, TableKind, table};
use wire::{Code, GrowChoice, Report, RestoreScope};

/// Lets a partition grow in the new table.
pub fn grow(
    image: &Image<'_>,
    target: &Target<'_>,
    scope: &RestoreScope,
    kept: &[u32],
    tables: &mut Vec<Blob>,
) -> Result<Option<Growth>, Report> {
    let Some(choice) = scope.grow else {
        return Ok(None);
    };
    let file_system = |position: Option<usize>| {
        let region = position.and_then(|at| image.layout.regions.get(at));
        region.map_or_else(String::new, |region| region.file_system.clone())
    };
    if image.kind == TableKind::None {
        let whole = image.layout.regions.iter().position(|r| r.kind == "whole");
        if !matches!(choice, GrowChoice::Last | GrowChoice::Partition(0)) {
            return Err(refuse(
                Code::PartitionNotFound,
                "the image has no partition table; what fills its disk is number 0",
            ));
        }
        return Ok(Some(Growth {
            number: 0,
            name: "0".to_owned(),
            range: 0..target.geometry.size_bytes,
            old_size: image.geometry.size_bytes,
            behind: None,
            file_system: file_system(whole),
        }));
    }
    let parsed =
        table::parse_blobs(image.kind, tables, target.geometry).map_err(|e| bad_table(&e))?;
    let parts = Parts::new("the image", &parsed, scope.number_visible);
    // The number is the image's: one that stays of the disk must not shift what is counted.
    let ours = Parts::new("the image", &image.table, scope.number_visible);
    let part = match choice {
        GrowChoice::Partition(number) => ours.find(&number.into())?,
        GrowChoice::Last => parts
            .last()
            .ok_or_else(|| refuse(Code::PartitionNotFound, "the image has no partition"))?,
    };
    let name = parts.numbering.name(part.number);
    if kept.contains(&part.number) {
        let found = format!("partition {name} is to be kept and to grow, which it cannot both");
        return Err(refuse(Code::Usage, found));
    }
    let grown = table::grow(image.kind, tables, target.geometry, part.number).map_err(|e| {
        let code = match e {
            TableError::Unfit { .. } => Code::PartitionTypeMismatch,
            _ => Code::ImageDamaged,
        };
        refuse(code, e.to_string()).with_advice("Restore without --grow.")
    })?;
    *tables = grown.blobs;
    Ok(Some(Growth {
        number: part.number,
        name,
        range: grown.start..grown.start + grown.size,
        old_size: grown.old_size,
        behind: grown.behind.map(|number| parts.numbering.name(number)),
        file_system: file_system(region_of(image.layout, part.number)),
    }))
}
