//! The first change to a disk: what could make it boot or be taken for something is
//! zeroed.
//!
//! Owns: which areas. Does not own: how zeros are written (`blockdev`).

use super::{HEAD_BYTES, Plan};
use blockdev::Device;
use std::io;

/// Gives the old contents back to the device, then zeroes the tables' places at both
/// ends of the disk and the first and last part of every partition, where file systems,
/// RAID, LVM and ZFS have their signatures; flushed when it returns.
pub fn erase(device: &Device, plan: &Plan) -> io::Result<()> {
    // The table goes first and is flushed first: from here on nothing on the disk is
    // found by a boot loader.
    zero_within(device, 0, HEAD_BYTES)?;
    zero_within(
        device,
        plan.disk_bytes.saturating_sub(HEAD_BYTES),
        HEAD_BYTES,
    )?;
    device.flush()?;
    // The whole disk is replaced, so all of it may be discarded. A device that cannot
    // is none the worse for it; what reads as what afterwards is not relied upon.
    device.discard(0, plan.disk_bytes)?;
    zero_within(device, 0, HEAD_BYTES)?;
    zero_within(
        device,
        plan.disk_bytes.saturating_sub(HEAD_BYTES),
        HEAD_BYTES,
    )?;
    for area in &plan.areas {
        zero_within(device, area.start, HEAD_BYTES.min(area.end - area.start))?;
        let tail = area.end.saturating_sub(HEAD_BYTES).max(area.start);
        zero_within(device, tail, area.end - tail)?;
    }
    device.flush()
}

fn zero_within(device: &Device, offset: u64, len: u64) -> io::Result<()> {
    let len = len.min(device.size_bytes().saturating_sub(offset));
    if len == 0 {
        Ok(())
    } else {
        device.zero(offset, len)
    }
}
