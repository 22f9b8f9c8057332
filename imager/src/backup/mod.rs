//! Backup: from a disk to records and a manifest.
//!
//! Owns: the plan (what is copied) and its description in the image. Does not own:
//! where the records go: [`container`] writes them into a file, [`upload`] sends those
//! that a server lacks.

pub mod container;
mod in_use;
mod proof;
mod read;
mod readers;
pub mod upload;

use crate::keyring::Opened;
use crate::partitions::{self, Choice};
use crate::progress::ProgressSink;
use crate::{report, source};
use blockdev::Device;
use diskmap::{DiskMap, ScanOptions, Selection};
use image::layout::{Blob, Disk, Layout, Machine, Region, Table};
use image::record::Encoder;
use image::{CellMap, ImageKey, cells};
use std::fmt::Display;
use std::sync::Arc;
use wire::{Code, DiskInfo, DiskState, Report};

pub use read::CellReader;

/// What a backup is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Copy every sector.
    pub full: bool,
    /// Refuse damaged or unclean file systems instead of copying them whole.
    pub strict: bool,
    /// The partitions to copy; all of the disk if there is none.
    pub only: Vec<Choice>,
    /// Partitions of which every sector is copied.
    pub full_partitions: Vec<u32>,
    /// Go on past sectors that cannot be read, and record them in the image.
    pub skip_bad: bool,
    /// The disk may be in use: what something writes to is copied in full.
    pub in_use: bool,
    /// The key that the image is encrypted with.
    pub seal: Option<Opened>,
    /// Compression of the records.
    pub compression: image::record::Compression,
    /// Grid in bytes.
    pub cell_size: u32,
}

impl Options {
    /// Makes records as they are asked for; one for each thread.
    ///
    /// # Errors
    /// The compressor cannot be set up.
    fn encoder(&self) -> Result<Encoder, image::Error> {
        let encoder = Encoder::new(self.compression)?;
        Ok(encoder.sealed_with(self.key()))
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.seal.as_ref().map(|seal| Arc::clone(&seal.key))
    }

    /// The layout as it is stored.
    ///
    /// # Errors
    /// No random numbers to encrypt it with.
    fn stored_layout(&self, layout: &Layout) -> Result<Layout, Report> {
        match &self.seal {
            None => Ok(layout.clone()),
            Some(seal) => layout
                .sealed(&seal.key, &seal.wrapped)
                .map_err(|e| report::image(&e, DiskState::NotInvolved)),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            full: false,
            strict: false,
            only: Vec::new(),
            full_partitions: Vec::new(),
            skip_bad: false,
            in_use: false,
            seal: None,
            compression: image::record::Compression::Zstd(1),
            cell_size: image::DEFAULT_CELL_SIZE,
        }
    }
}

/// What will be copied.
pub struct Plan {
    /// The map of the disk.
    pub map: DiskMap,
    /// Its description for the image.
    pub layout: Layout,
}

impl Plan {
    /// Looks at the disk; nothing is written anywhere.
    pub fn make(
        device: &Device,
        info: &DiskInfo,
        machine: Machine,
        options: &Options,
        progress: &dyn ProgressSink,
    ) -> Result<Plan, Report> {
        let mut map = look(device, &device.path().display(), options, progress)?;
        if options.in_use {
            in_use::distrust_maps(&mut map, device.path())?;
        }
        Ok(Plan::of(map, info, machine, options))
    }

    /// The plan to copy what a map says.
    pub fn of(map: DiskMap, info: &DiskInfo, machine: Machine, options: &Options) -> Plan {
        let layout = describe(&map, info, machine, options.cell_size);
        Plan { map, layout }
    }

    /// The cells that are copied, in the order of the disk.
    pub fn cells(&self) -> impl Iterator<Item = CellMap> + '_ {
        let size = self.layout.cell_size;
        self.map
            .regions
            .iter()
            .enumerate()
            .flat_map(move |(number, region)| {
                cells::cut(
                    number as u32,
                    size,
                    region.used.iter().map(|e| (e.start, e.len)),
                )
            })
    }

    /// Bytes that are copied.
    pub fn used_bytes(&self) -> u64 {
        self.layout.used_bytes()
    }

    /// Warnings for people.
    pub fn warnings(&self) -> Vec<Report> {
        self.map.warnings.iter().map(report::warning).collect()
    }
}

/// The map of a disk, of what the options ask for; `name` is what it is called.
pub fn look(
    disk: &dyn source::Disk,
    name: &dyn Display,
    options: &Options,
    progress: &dyn ProgressSink,
) -> Result<DiskMap, Report> {
    let geometry = source::geometry(disk);
    if geometry.size_bytes == 0 {
        return Err(Report::new(
            Code::DiskNotFound,
            format!("{name} has no bytes"),
            DiskState::NotInvolved,
        ));
    }
    let scan = ScanOptions {
        full: options.full,
        strict: options.strict,
    };
    let only: Vec<u32> = options.only.iter().map(|choice| choice.number).collect();
    let selection = Selection {
        only: (!only.is_empty()).then_some(only),
        full: options.full_partitions.clone(),
        skip_bad: options.skip_bad,
    };
    let reader = source::Watched(disk, progress);
    let map = diskmap::scan_selected(&reader, geometry, &scan, &selection)
        .map_err(|e| report::scan(&e, DiskState::NotInvolved));
    // Before the map is believed, or its failure.
    if progress.interrupted() {
        let found = "stopped by an operator while the disk was looked at";
        return Err(Report::new(
            Code::Interrupted,
            found,
            DiskState::NotInvolved,
        ));
    }
    let map = map?;
    partitions::check(&map, &options.only, DiskState::NotInvolved)?;
    partitions::check_numbers(&map, &options.full_partitions, DiskState::NotInvolved)?;
    Ok(map)
}

/// The map in the words of the image format.
fn describe(map: &DiskMap, info: &DiskInfo, machine: Machine, cell_size: u32) -> Layout {
    let region = |region: &diskmap::Region| Region {
        kind: match region.kind {
            diskmap::RegionKind::Gap => "gap",
            diskmap::RegionKind::Partition => "partition",
            diskmap::RegionKind::Whole => "whole",
        }
        .to_owned(),
        number: region.number,
        start: region.start,
        size: region.size,
        part_type: region.part_type.clone(),
        type_name: region.type_name.clone(),
        name: region.name.clone(),
        guid: region.guid.clone(),
        file_system: region.file_system.clone(),
        label: region.label.clone(),
        uuid: region.uuid.clone(),
        method: region.method.as_str().to_owned(),
        reason: region.reason.clone(),
        used_bytes: region.used.total(),
    };
    Layout {
        created: crate::clock::now_rfc3339(),
        tool: format!("imager {}", wire::SOFTWARE_VERSION),
        machine,
        disk: Disk {
            size_bytes: map.geometry.size_bytes,
            sector_size: map.geometry.sector_size,
            physical_sector_size: info.physical_sector_size,
            model: info.model.clone(),
            serial: info.serial.clone(),
            wwn: info.wwn.clone(),
        },
        cell_size,
        table: Table {
            kind: map.table.as_str().to_owned(),
            blobs: map
                .blobs
                .iter()
                .map(|blob| Blob {
                    offset: blob.offset,
                    data: blob.data.clone(),
                })
                .collect(),
        },
        regions: map.regions.iter().map(region).collect(),
        warnings: map
            .warnings
            .iter()
            .map(|w| {
                let told = report::warning(w);
                format!("{}: {}", told.code, told.found)
            })
            .collect(),
        encryption: None,
    }
}
