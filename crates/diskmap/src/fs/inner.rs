//! Volumes inside a partition, for those who look into them.
//!
//! Owns: the list of logical volumes, of what a member of a mirror holds, and of what is in
//! those again. Does not own: where they lie (`lvm`, `md`), or reading files.

use super::{Fault, MAX_DEPTH, Volume, signature};
use crate::error::ScanError;
use crate::extents::Extent;
use crate::read::DiskRead;
use crate::view::{ReadFailure, View};

/// Most volumes that are listed.
const MAX_VOLUMES: usize = 1024;

/// A volume inside a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerVolume {
    /// Name of a logical volume; that of an array where it holds no other volumes.
    pub name: String,
    /// Its bytes on the disk, one behind the other.
    pub parts: Vec<Extent>,
    /// Name of what is in it, as [`crate::Region::file_system`]; empty if that is unknown,
    /// or more than one thing.
    pub file_system: String,
}

/// The volumes inside of a partition that have all their bytes in it, and what hinders that
/// others are looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InnerVolumes {
    /// Volumes.
    pub volumes: Vec<InnerVolume>,
    /// Names of others, or nothing, and why they are not listed.
    pub others: Vec<(String, String)>,
}

/// What a format holds: names and parts, or a name and why it is not to be had.
pub(super) type Held = Vec<(String, Result<Vec<Extent>, String>)>;

/// Looks for volumes in `size` bytes of a disk from `start` on.
///
/// # Errors
/// A read fails.
pub fn inner_volumes(
    disk: &dyn DiskRead,
    start: u64,
    size: u64,
) -> Result<InnerVolumes, ScanError> {
    let mut found = InnerVolumes::default();
    let view = View::new(disk, start, size);
    match only(&view)? {
        Some(volume) => hold(&view, &volume, 0, &mut found)?,
        None => found.others.push((
            String::new(),
            "it holds nothing that is known, or several things at once".to_owned(),
        )),
    }
    Ok(found)
}

/// The one volume that claims a space, or that wraps the others.
fn only(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let others = signature::find(view)?;
    let mut volumes = super::volumes(view)?;
    let wrapped = volumes.first().is_some_and(|volume| volume.wraps);
    let alone = others.len() + volumes.len() == 1 || wrapped;
    Ok((alone && !volumes.is_empty()).then(|| volumes.swap_remove(0)))
}

fn hold(
    view: &View<'_>,
    volume: &Volume,
    depth: u32,
    found: &mut InnerVolumes,
) -> Result<(), ReadFailure> {
    let held = match volume.map.held(view) {
        Ok(held) => held,
        Err(Fault::Read(failure)) => return Err(failure),
        Err(fault) => vec![(String::new(), Err(why(fault)))],
    };
    for (name, parts) in held {
        if found.volumes.len() + found.others.len() >= MAX_VOLUMES {
            return Ok(());
        }
        let inner = parts.and_then(|parts| {
            let joined = view.joined(&parts);
            joined.ok_or_else(|| "it reaches beyond what holds it".to_owned())
        });
        let inner = match inner {
            Ok(inner) => inner,
            Err(why) => {
                found.others.push((name, why));
                continue;
            }
        };
        let content = only(&inner)?;
        match content {
            Some(volume) if volume.map.holds() && depth < MAX_DEPTH => {
                hold(&inner, &volume, depth + 1, found)?;
            }
            other => found.volumes.push(InnerVolume {
                name,
                parts: inner.places(),
                file_system: other.map_or("", |volume| volume.name).to_owned(),
            }),
        }
    }
    Ok(())
}

fn why(fault: Fault) -> String {
    match fault {
        Fault::Read(failure) => format!("byte {} cannot be read", failure.offset),
        Fault::Damaged(detail) => format!("it is damaged: {detail}"),
        Fault::Dirty(detail) | Fault::Suspended(detail) | Fault::Unsupported(detail) => detail,
        Fault::Inside(found) => format!("it holds {}", found.file_system),
    }
}
