//! What of a disk a restore replaces, settled when it is ordered.
//!
//! Owns: what can be checked of it before the machine boots, and the identity that is
//! stored beside each number of the disk. Does not own: the way to it (`choices`), the
//! checks on the disk (the target makes them).

use super::choices;
use crate::db::machines::Machine;
use crate::failure::{Failure, Outcome};
use image::Layout;
use wire::{Code, DiskSelector, RestoreScope};

/// Checks it against the image, and gives the partitions of the disk the identity that they
/// had at the last disk check.
///
/// # Errors
/// A partition is not there or not known, or what is asked for cannot work.
pub fn settle(
    scope: &mut RestoreScope,
    layout: &Layout,
    machine: &Machine,
    disk: Option<&DiskSelector>,
) -> Outcome<()> {
    if !scope.partitions.is_empty() && !scope.keep.is_empty() {
        return Err(Failure::usage(
            "partitions are chosen and others are to be kept: where some are chosen, all others stay",
        ));
    }
    let held = layout.regions.iter().filter(|region| !region.is_absent());
    let numbers: Vec<u32> = held.filter_map(|region| region.number).collect();
    for pair in &scope.partitions {
        // Which are hidden a layout does not tell; the target knows.
        if !scope.number_visible && !numbers.contains(&pair.image.number) {
            let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
            let (number, list) = (pair.image.number, list.join(", "));
            let found = format!("the image does not hold partition {number}; it holds {list}");
            return Err(Failure::new(Code::PartitionNotFound, found));
        }
    }
    let chosen = scope.partitions.iter_mut().map(|pair| &mut pair.disk);
    for part in chosen.chain(&mut scope.keep) {
        let known = choices::partitions(machine, disk, &[part.number], scope.number_visible)?;
        for known in known {
            // What the operator says of it counts more.
            part.guid = part.guid.take().or(known.guid);
            part.start_bytes = part.start_bytes.or(known.start_bytes);
            part.part_type = part.part_type.take().or(known.part_type);
        }
    }
    Ok(())
}
