//! The last step of a restore: the partition tables.
//!
//! Owns: their order (the first sector last of all) and their read-back. Does not own:
//! their contents (`diskmap` computed them).

use super::Plan;
use crate::report;
use blockdev::Device;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Writes the tables: those at the end of the disk first, the first sector last, with a
/// flush before it, so that no cut leaves a disk that begins to boot.
pub fn write(device: &Device, path: &Path, plan: &Plan) -> Result<(), Report> {
    let written = write_and_prove(device, path, plan);
    if written.is_ok() {
        return Ok(());
    }
    // A table that could not be proved must not boot: its first sector goes again.
    let taken_back = device
        .zero(0, u64::from(device.sector_size()))
        .and_then(|()| device.flush())
        .is_ok();
    written.map_err(|report| Report {
        disk: if taken_back {
            DiskState::Incomplete
        } else {
            DiskState::Unknown
        },
        ..report
    })
}

fn write_and_prove(device: &Device, path: &Path, plan: &Plan) -> Result<(), Report> {
    let failed = |e: std::io::Error| report::write(&e, DiskState::Incomplete);
    let mut blobs: Vec<_> = plan.tables.iter().collect();
    blobs.sort_by_key(|blob| std::cmp::Reverse(blob.offset));
    for blob in &blobs {
        if blob.offset == 0 {
            let sector = (device.sector_size() as usize).min(blob.data.len());
            let (first, rest) = blob.data.split_at(sector);
            device.write_all_at(sector as u64, rest).map_err(failed)?;
            device.flush().map_err(failed)?;
            device.write_all_at(0, first).map_err(failed)?;
        } else {
            device
                .write_all_at(blob.offset, &blob.data)
                .map_err(failed)?;
        }
    }
    device.flush().map_err(failed)?;
    device.invalidate_cache().map_err(failed)?;
    let medium =
        Device::open_direct_read(path).map_err(|e| report::open(&e, DiskState::Incomplete))?;
    for blob in &blobs {
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
