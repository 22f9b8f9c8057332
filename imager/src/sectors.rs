//! The sector size of a disk that does not say it: a file.
//!
//! Owns: finding it by a partition table, and refusing a table that makes sense at another
//! size only. Does not own: what a user says of it, block devices.

use crate::source::{self, Disk, Reader};
use diskmap::{DiskMap, Geometry, RegionKind, ScanOptions, TableKind, table};
use wire::{Code, DiskState, Report};

/// Sector sizes at which a table is looked for.
const SIZES: [u32; 4] = [512, 4096, 2048, 1024];

/// The sector size at which a GPT stands: a valid one, with its first or its last copy; else
/// a damaged one that no other table hides.
pub fn of_gpt(disk: &dyn Disk) -> Option<u32> {
    let at = |sector_size: u32| {
        let geometry = Geometry {
            sector_size,
            ..source::geometry(disk)
        };
        table::read(&Reader(disk), geometry)
    };
    let mut signed = SIZES.into_iter().filter(|&size| is_signed(disk, size));
    let valid = |found: &table::DiskTable| found.parsed.kind == TableKind::Gpt;
    let known = signed
        .clone()
        .find(|&size| matches!(at(size), Ok(Some(found)) if valid(&found)));
    known.or_else(|| signed.find(|&size| at(size).is_err_and(|e| e.code() == "gpt-damaged")))
}

/// Whether something calls itself a GPT where one would stand.
fn is_signed(disk: &dyn Disk, size: u32) -> bool {
    let behind = disk.size_bytes().checked_sub(u64::from(size));
    [Some(u64::from(size)), behind]
        .into_iter()
        .flatten()
        .any(|at| {
            let mut signature = [0; 8];
            disk.read_at(at, &mut signature).is_ok() && signature == *b"EFI PART"
        })
}

/// Refuses an MBR that was read at a size which nobody said, if only another size gives it
/// partitions that hold what is known. All its numbers are in sectors, and seven eighths of
/// a disk of large ones would be taken for free space.
///
/// # Errors
/// `sector-size-mismatch`.
pub fn refuse_doubtful(disk: &dyn Disk, map: &DiskMap) -> Result<(), Report> {
    if map.table != TableKind::Mbr || known(map) > 0 {
        return Ok(());
    }
    let used = map.geometry.sector_size;
    for sector_size in SIZES.into_iter().filter(|&size| size != used) {
        let geometry = Geometry {
            sector_size,
            ..map.geometry
        };
        let other = diskmap::scan(&Reader(disk), geometry, &ScanOptions::default());
        let Some(count) = other
            .ok()
            .filter(|o| o.table == TableKind::Mbr)
            .map(|o| known(&o))
        else {
            continue;
        };
        if count > 0 {
            let found = format!(
                "with sectors of {used} bytes no partition holds anything that is known, with {sector_size} bytes {count} do"
            );
            return Err(
                Report::new(Code::SectorSizeMismatch, found, DiskState::NotInvolved).with_advice(
                    format!("Add --sector-size {sector_size}; or --sector-size {used}, if that is right all the same."),
                ),
            );
        }
    }
    Ok(())
}

/// Partitions with a file system that is known.
fn known(map: &DiskMap) -> usize {
    let parts = map
        .regions
        .iter()
        .filter(|r| r.kind == RegionKind::Partition);
    parts.filter(|r| !r.file_system.is_empty()).count()
}
