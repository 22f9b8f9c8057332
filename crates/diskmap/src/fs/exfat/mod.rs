//! exFAT: used clusters from the allocation bitmap.
//!
//! Owns: whether the bitmap can be believed, and the map that follows. Does not own:
//! files and directories below the root; what a cluster belongs to does not matter
//! for whether it is in use.
//!
//! A map is made only from a volume that was cleanly unmounted. There is no journal,
//! and the allocation bitmap, the table and the directories are written in no order
//! that would hold after a crash: a directory entry may be on disk while the bits of
//! its clusters are not, and a file in a row has no chain that would tell either.

mod boot;
mod chain;
mod root;

use super::bits::for_each_run;
use super::collect::Collector;
use super::{Fault, Map, Mapped, Volume, damaged};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};
use boot::Boot;
use root::Root;

/// Bytes of the bitmap that are worked on at once.
const STEP: u64 = 1 << 20;

/// Looks for a boot sector.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let sector = view.bytes_up_to(0, 512)?;
    if !boot::claims(&sector) {
        return Ok(None);
    }
    let boot = Boot::decode(&sector).ok().filter(|b| b.size <= view.size());
    let root = match boot.as_ref().map(|boot| Root::read(view, boot)) {
        Some(Err(Fault::Read(failure))) => return Err(failure),
        Some(Ok(root)) => Some(root),
        _ => None,
    };
    Ok(Some(Volume {
        name: "exfat",
        label: root.map(|root| root.label).unwrap_or_default(),
        uuid: boot.as_ref().map(Boot::serial_text).unwrap_or_default(),
        size: Boot::decode(&sector).map_or(0, |boot| boot.size),
        wraps: false,
        map: Box::new(Exfat { sector }),
    }))
}

/// A boot sector that claims to be one of exFAT.
struct Exfat {
    sector: Vec<u8>,
}

impl Map for Exfat {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        let boot = Boot::decode(&self.sector)?;
        boot.check_regions(view)?;
        boot.check_flags()?;
        used(view, &boot).map(Mapped::from)
    }
}

/// Bytes to copy: everything before cluster 2, the clusters in use, and what is
/// behind the last cluster.
fn used(view: &View<'_>, boot: &Boot) -> Result<Extents, Fault> {
    let root = Root::read(view, boot)?;
    let bitmap = root.bitmap(view, boot)?;
    let upcase = root.upcase(view, boot)?;
    check_marked(view, boot, bitmap, "the allocation bitmap", bitmap)?;
    check_marked(view, boot, bitmap, "the up-case table", upcase)?;
    for &piece in &root.pieces {
        check_marked(view, boot, bitmap, "the root directory", piece)?;
    }
    let mut used = Collector::new();
    used.push(Extent::between(0, boot.heap));
    let clusters = u64::from(boot.clusters);
    for from in (0..clusters.div_ceil(8)).step_by(STEP as usize) {
        let len = STEP.min(clusters.div_ceil(8) - from);
        let bytes = view.bytes(bitmap.start + from, len as usize)?;
        for_each_run(&bytes, clusters - from * 8, |first, end, set| {
            let at = |bit: u64| boot.heap + (from * 8 + bit) * boot.cluster;
            if set {
                used.push(Extent::between(at(first), at(end)));
            }
        });
    }
    used.push(Extent::between(boot.heap_end(), boot.size));
    Ok(used.finish())
}

/// The volume's own structures must be marked as in use.
fn check_marked(
    view: &View<'_>,
    boot: &Boot,
    bitmap: Extent,
    what: &str,
    place: Extent,
) -> Result<(), Fault> {
    let first = (place.start - boot.heap) / boot.cluster;
    let end = first + place.len / boot.cluster;
    let bytes = view.bytes(
        bitmap.start + first / 8,
        (end.div_ceil(8) - first / 8) as usize,
    )?;
    let skipped = first / 8 * 8;
    let mut free = false;
    for_each_run(&bytes, end - skipped, |_, to, set| {
        free |= !set && to > first - skipped;
    });
    if free {
        return damaged(format!("{what} lies in clusters that are marked as free"));
    }
    Ok(())
}
