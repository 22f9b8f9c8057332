//! Whether a restore that was cut off may go on.
//!
//! Owns: what a disk shows in the middle of a restore, and at no other time. Does not own:
//! who asks (a job that says "resume").

use super::check;
use super::plan::{HEAD_BYTES, Plan, TableChange};
use blockdev::Device;
use diskmap::Blob;
use image::Layout;
use image::layout::Region;
use wire::{Code, DiskState, Report, RestoreScope};

/// Whether the disk still shows what a restore of this image leaves before its last step.
/// Only then may one that was cut off go on.
///
/// - A whole disk with a table: its first sector is zero; it is written last of all.
/// - A whole disk without one: its first MiB is zero, if the image has a file system,
///   whose signature would stand there.
/// - Partitions that stay: the table is the one in between, in whole or in part.
/// - Chosen partitions: the heads of all that have a known file system are zero.
///
/// For contents that nobody knows it cannot be told, so it is `false`.
pub fn is_unfinished(
    device: &Device,
    layout: &Layout,
    scope: &RestoreScope,
) -> Result<bool, Report> {
    if scope.partitions.is_empty() && scope.keep.is_empty() {
        return match layout.table.kind.as_str() {
            "none" if !layout.regions.iter().any(has_signature_in_head) => Ok(false),
            "none" => is_zero(device, 0, HEAD_BYTES),
            _ => is_zero(device, 0, u64::from(device.sector_size().max(512))),
        };
    }
    let plan = check::plan(layout, device, scope).map_err(|report| Report {
        disk: DiskState::Unknown,
        ..report
    })?;
    match &plan.table {
        TableChange::Keep { interim, last, .. } => is_in_between(device, interim, last),
        _ => heads_are_zero(device, layout, &plan),
    }
}

/// Whether a region that was restored cannot begin with a MiB of zeros.
fn has_signature_in_head(region: &Region) -> bool {
    // md, dynamic disks and what is unknown may have their signature elsewhere, or none.
    !matches!(region.file_system.as_str(), "" | "ldm") && !region.file_system.starts_with("md")
}

fn heads_are_zero(device: &Device, layout: &Layout, plan: &Plan) -> Result<bool, Report> {
    let mut known = false;
    for (region, place) in layout.regions.iter().zip(&plan.places) {
        if place.len == 0 || !has_signature_in_head(region) {
            continue;
        }
        known = true;
        if !is_zero(device, place.start, HEAD_BYTES.min(place.len))? {
            return Ok(false);
        }
    }
    Ok(known)
}

/// Whether every sector of the table is that of the table in between or of the last one,
/// and one at least is still the former.
fn is_in_between(device: &Device, interim: &[Blob], last: &[Blob]) -> Result<bool, Report> {
    let mut between = false;
    let unit = device.sector_size().max(512) as usize;
    for blob in interim {
        let found = read(device, blob.offset, blob.data.len())?;
        let fine = last.iter().find(|l| l.offset == blob.offset);
        let places = (0..blob.data.len()).step_by(unit);
        for at in places {
            let sector = |data: &[u8]| {
                data.get(at..(at + unit).min(data.len()))
                    .map(<[u8]>::to_vec)
            };
            let (is, was) = (sector(&found), sector(&blob.data));
            let will = fine.and_then(|fine| sector(&fine.data));
            if is != was && is != will {
                return Ok(false);
            }
            between |= is == was && was != will;
        }
    }
    Ok(between)
}

fn is_zero(device: &Device, offset: u64, len: u64) -> Result<bool, Report> {
    let len = len.min(device.size_bytes().saturating_sub(offset));
    Ok(image::record::is_zero(&read(device, offset, len as usize)?))
}

fn read(device: &Device, offset: u64, len: usize) -> Result<Vec<u8>, Report> {
    let mut bytes = vec![0; len];
    device
        .read_exact_at(offset, &mut bytes)
        .map_err(|e| Report::new(Code::ReadError, e.to_string(), DiskState::Unknown))?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "resume_tests.rs"]
mod tests;
