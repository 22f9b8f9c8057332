//! The last step of a restore: the partition tables; and the table in between, where
//! partitions stay.
//!
//! Owns: their order (the first sector last of all; of a table that must stay valid, one
//! copy at a time) and their read-back. Does not own: their contents (`diskmap` computed
//! them).

use super::Plan;
use super::plan::TableChange;
use crate::report;
use blockdev::Device;
use diskmap::Blob;
use std::io;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Writes the tables and reads them back.
pub fn write(device: &Device, path: &Path, plan: &Plan) -> Result<(), Report> {
    match &plan.table {
        TableChange::Untouched => Ok(()),
        TableChange::Replace { last } => {
            let failed = |e: io::Error| report::write(&e, DiskState::Incomplete);
            let written = write_replaced(device, last)
                .map_err(failed)
                .and_then(|()| prove(device, path, last));
            // A table that could not be proved must not boot: its first sector goes again.
            written.map_err(|report| {
                let sector = u64::from(device.sector_size());
                taken_back(report, || {
                    device.zero(0, sector).and_then(|()| device.flush())
                })
            })
        }
        TableChange::Keep { interim, last, .. } => {
            let failed = |e: io::Error| report::write(&e, DiskState::Incomplete);
            // The copy at the end first: until it is whole, the one in front lists what stays.
            let written = write_valid(device, last, true)
                .map_err(failed)
                .and_then(|()| prove(device, path, last));
            // Nor may this one list what could not be proved.
            written.map_err(|report| taken_back(report, || write_valid(device, interim, true)))
        }
    }
}

fn taken_back(report: Report, back: impl FnOnce() -> io::Result<()>) -> Report {
    let disk = if back().is_ok() {
        DiskState::Incomplete
    } else {
        DiskState::Unknown
    };
    Report { disk, ..report }
}

/// Puts the table in between in the place of the one that is there. `primary_is_good`:
/// whether the present GPT's copy at the start can be relied on while the other is written.
pub fn write_interim(device: &Device, interim: &[Blob], primary_is_good: bool) -> io::Result<()> {
    write_valid(device, interim, primary_is_good)
}

/// Those at the end of the disk first, the first sector last, with a flush before it, so
/// that no cut leaves a disk that begins to boot.
fn write_replaced(device: &Device, tables: &[Blob]) -> io::Result<()> {
    let mut blobs: Vec<_> = tables.iter().collect();
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.offset));
    for blob in &blobs {
        if blob.offset == 0 {
            let sector = (device.sector_size() as usize).min(blob.data.len());
            let (first, rest) = blob.data.split_at(sector);
            device.write_all_at(sector as u64, rest)?;
            device.flush()?;
            device.write_all_at(0, first)?;
        } else {
            device.write_all_at(blob.offset, &blob.data)?;
        }
    }
    device.flush()
}

/// Writes a table so that at every moment a valid one stands on the disk: of a GPT one
/// copy after the other; of an MBR sector after sector, each of which fits both the old
/// table and the new one.
fn write_valid(device: &Device, tables: &[Blob], backup_first: bool) -> io::Result<()> {
    let unit = u64::from(device.sector_size());
    let header = tables
        .iter()
        .find(|blob| blob.offset == unit && blob.data.starts_with(b"EFI PART"));
    let Some(header) = header else {
        let mut blobs: Vec<_> = tables.iter().collect();
        blobs.sort_by_key(|blob| std::cmp::Reverse(blob.offset));
        for blob in blobs {
            device.write_all_at(blob.offset, &blob.data)?;
            device.flush()?;
        }
        return Ok(());
    };
    let lba = header.data.get(72..80).and_then(|b| b.try_into().ok());
    let entries = lba
        .map(u64::from_le_bytes)
        .unwrap_or(2)
        .saturating_mul(unit);
    let is_front = |blob: &&Blob| [0, unit, entries].contains(&blob.offset);
    let (front, back): (Vec<&Blob>, Vec<&Blob>) = tables.iter().partition(is_front);
    let copies = if backup_first {
        [back, front]
    } else {
        [front, back]
    };
    for mut copy in copies {
        // The header makes a copy valid, so it comes last.
        copy.sort_by_key(|blob| blob.data.starts_with(b"EFI PART"));
        for blob in copy {
            device.write_all_at(blob.offset, &blob.data)?;
            device.flush()?;
        }
    }
    Ok(())
}

/// Reads the tables back.
pub fn prove(device: &Device, path: &Path, tables: &[Blob]) -> Result<(), Report> {
    let failed = |e: io::Error| report::write(&e, DiskState::Incomplete);
    device.invalidate_cache().map_err(failed)?;
    let medium =
        Device::open_direct_read(path).map_err(|e| report::open(&e, DiskState::Incomplete))?;
    for blob in tables {
        let mut back = vec![0; blob.data.len()];
        medium
            .read_exact_at(blob.offset, &mut back)
            .map_err(failed)?;
        if back != blob.data {
            let found = format!(
                "the partition table at bytes {} to {} differs from what was written",
                blob.offset,
                blob.end()
            );
            return Err(Report::new(
                Code::VerifyMismatch,
                found,
                DiskState::Incomplete,
            ));
        }
    }
    Ok(())
}
