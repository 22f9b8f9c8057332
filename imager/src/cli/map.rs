//! `imager map`.
//!
//! Owns: its options and how it is printed. Does not own: the map (`crate::map`).

use super::{Output, print_warnings};
use crate::{disks, map, report, source};
use std::path::PathBuf;
use wire::{DiskState, Report};

/// Options of `imager map`.
#[derive(clap::Args)]
pub struct Args {
    /// Block device or raw image file; or number, serial number or WWN of a disk
    disk: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// With --json: list the used extents as [start byte on the disk, length]
    #[arg(long)]
    extents: bool,
    /// Show the map as --full would copy it
    #[arg(long)]
    full: bool,
    /// Refuse damaged or unclean file systems
    #[arg(long)]
    strict: bool,
    /// Number only partitions that are not hidden; the numbers of the table beside them
    #[arg(long)]
    number_visible: bool,
    /// Sector size of a raw image file (a device knows its own)
    #[arg(long, value_name = "BYTES")]
    sector_size: Option<u32>,
}

/// Prints the map of a disk.
pub fn run(args: &Args) -> Result<Output, Report> {
    let disk = &disks::find(&args.disk, disks::list)?;
    let device = source::open(disk, args.sector_size)?;
    let options = diskmap::ScanOptions {
        full: args.full,
        strict: args.strict,
    };
    let map = diskmap::scan(
        &source::Reader(&device),
        source::geometry(&device),
        &options,
    )
    .map_err(|e| report::scan(&e, DiskState::NotInvolved))?;
    if !args.json {
        print_warnings(&map.warnings.iter().map(report::warning).collect::<Vec<_>>());
    }
    Ok(Output {
        text: map::text(disk, &map, args.number_visible),
        json: map::json(&map, args.extents),
        aside: false,
    })
}
