//! Partitions that something writes to while they are read.
//!
//! Owns: that no map of such a partition is trusted. Does not own: whether a disk in use
//! is read at all (`crate::in_use`).
//!
//! A map is read once, and the blocks minutes later: what the file system allocated in
//! between would be missing. Copied in full, a partition can still be torn, as every copy
//! of what changes, but the journal, the blocks and the bitmaps of the moment of reading
//! are all there.

use blockdev::Holder;
use diskmap::{DiskMap, Extents, Method, Region, RegionKind, Warning, WarningKind};
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Makes every region of a used-sector map full that something may write to.
///
/// # Errors
/// `disk-in-use` if it cannot be told who uses the disk.
pub fn distrust_maps(map: &mut DiskMap, disk: &Path) -> Result<(), Report> {
    let DiskMap {
        regions, warnings, ..
    } = map;
    let mapped = regions
        .iter_mut()
        .filter(|region| region.kind != RegionKind::Gap && region.method == Method::Used);
    for region in mapped {
        let writers = writers(region, disk)?;
        if writers.is_empty() {
            continue;
        }
        region.method = Method::Full;
        region.used = Extents::whole(region.size);
        region.reason = format!(
            "{}: every sector is copied, because something may write to it: {writers}.",
            region.file_system
        );
        warnings.push(Warning {
            kind: WarningKind::FsDirty,
            partition: region.number,
            detail: format!("in use: {writers}; every sector is copied, and may be torn"),
        });
    }
    Ok(())
}

/// What may write to the region, in words. Swap space does not count: nothing of its
/// contents is worth copying, and its header stays as it is.
fn writers(region: &Region, disk: &Path) -> Result<String, Report> {
    let range = region.start..region.start + region.size;
    let holders = blockdev::holders_within(disk, &[range]).map_err(|e| {
        let found = format!("it cannot be told who uses {}: {e}", disk.display());
        Report::new(Code::DiskInUse, found, DiskState::NotInvolved)
    })?;
    let counts = |holder: &&Holder| holder.may_write() && !matches!(holder, Holder::Swap { .. });
    let words: Vec<String> = holders
        .iter()
        .filter(counts)
        .map(ToString::to_string)
        .collect();
    Ok(words.join("; "))
}
