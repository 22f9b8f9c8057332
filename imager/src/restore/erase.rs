//! The first change to a disk: what could make it boot or be taken for something is
//! zeroed.
//!
//! Owns: which areas. Does not own: how zeros are written (`blockdev`), tables (`tables`),
//! whether anything is discarded (the caller).

use super::plan::{HEAD_BYTES, Plan, TableChange};
use super::tables;
use blockdev::Device;
use diskmap::{Blob, Extent, Extents};
use std::io;
use std::ops::Range;

/// Gives a range of the old contents back to the device, or leaves it: nothing relies on it.
pub type GiveBack<'a> = &'a dyn Fn(u64, u64) -> io::Result<()>;

/// Gives the old contents back to the device, then zeroes the first and last part of
/// every partition that is written, where file systems, RAID, LVM and ZFS have their
/// signatures, and the tables' places at both ends of a disk that is replaced; flushed
/// when it returns. What stays is neither discarded nor zeroed.
pub fn erase(device: &Device, plan: &Plan, give_back: GiveBack<'_>) -> io::Result<()> {
    match &plan.table {
        TableChange::Replace { .. } => whole(device, plan, give_back),
        TableChange::Keep {
            interim,
            last,
            old,
            kept,
            primary_is_good,
        } => {
            tables::write_interim(device, interim, *primary_is_good)?;
            let replaced = replaced(device, kept, interim);
            for extent in &replaced {
                give_back(extent.start, extent.len)?;
            }
            around(device, plan, &replaced, old, last)
        }
        TableChange::Untouched => partitions(device, plan, give_back),
    }
}

fn whole(device: &Device, plan: &Plan, give_back: GiveBack<'_>) -> io::Result<()> {
    // The table goes first and is flushed first: from here on nothing on the disk is
    // found by a boot loader.
    zero_ends(device, plan)?;
    device.flush()?;
    // The whole disk is replaced, so all of it may be discarded. A device that cannot is
    // none the worse for it; what reads as what afterwards is not relied upon.
    give_back(0, plan.disk_bytes)?;
    zero_ends(device, plan)?;
    for area in &plan.areas {
        zero_head_and_tail(device, area)?;
    }
    device.flush()
}

fn zero_ends(device: &Device, plan: &Plan) -> io::Result<()> {
    zero_within(device, 0, HEAD_BYTES)?;
    let tail = plan.disk_bytes.saturating_sub(HEAD_BYTES);
    zero_within(device, tail, HEAD_BYTES)
}

/// Only the partitions that are written. Their heads go first and are flushed first, so
/// that nothing half-made is mounted.
fn partitions(device: &Device, plan: &Plan, give_back: GiveBack<'_>) -> io::Result<()> {
    for area in &plan.areas {
        zero_within(device, area.start, HEAD_BYTES.min(area.end - area.start))?;
    }
    device.flush()?;
    for area in &plan.areas {
        give_back(area.start, area.end - area.start)?;
    }
    for area in &plan.areas {
        zero_head_and_tail(device, area)?;
    }
    device.flush()
}

/// What is neither kept nor a part of the table in between.
fn replaced(device: &Device, kept: &[Range<u64>], interim: &[Blob]) -> Extents {
    let kept = kept
        .iter()
        .map(|kept| Extent::between(kept.start, kept.end));
    let tables = interim.iter().map(|b| Extent::between(b.offset, b.end()));
    Extents::whole(device.size_bytes()).subtract(&kept.chain(tables).collect())
}

/// A disk on which partitions stay: everything else, and of the tables what does not stand
/// in the one in between.
fn around(
    device: &Device,
    plan: &Plan,
    replaced: &Extents,
    old: &[Range<u64>],
    last: &[Blob],
) -> io::Result<()> {
    let size = device.size_bytes();
    let mut zeroed = vec![
        0..HEAD_BYTES.min(size),
        size.saturating_sub(HEAD_BYTES)..size,
    ];
    zeroed.extend(old.iter().cloned());
    zeroed.extend(last.iter().map(|blob| blob.offset..blob.end()));
    for area in &plan.areas {
        zeroed.push(area.start..area.end.min(area.start + HEAD_BYTES));
        zeroed.push(area.end.saturating_sub(HEAD_BYTES).max(area.start)..area.end);
    }
    for range in zeroed {
        for extent in &replaced.intersect(range) {
            device.zero(extent.start, extent.len)?;
        }
    }
    device.flush()
}

fn zero_head_and_tail(device: &Device, area: &Range<u64>) -> io::Result<()> {
    zero_within(device, area.start, HEAD_BYTES.min(area.end - area.start))?;
    let tail = area.end.saturating_sub(HEAD_BYTES).max(area.start);
    zero_within(device, tail, area.end - tail)
}

fn zero_within(device: &Device, offset: u64, len: u64) -> io::Result<()> {
    let len = len.min(device.size_bytes().saturating_sub(offset));
    if len == 0 {
        Ok(())
    } else {
        device.zero(offset, len)
    }
}
