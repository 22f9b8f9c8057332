//! A disk's map: table, file systems and gaps put together.
//!
//! Owns: the order of the steps, what options change, and the final shape of
//! regions. Does not own: any on-disk format.

use crate::error::ScanError;
use crate::extents::{Extent, Extents};
use crate::fs::{self, Content, DiskRaid, Findings, TroubleKind};
use crate::gaps::gaps;
use crate::ldm;
use crate::model::{
    DiskMap, Geometry, Method, Region, RegionKind, ScanOptions, Selection, TableKind, Warning,
    WarningKind,
};
use crate::read::DiskRead;
use crate::table::{self, FoundTable, ParsedTable, TablePartition};
use crate::view::{ReadFailure, View};

/// Reads the partition table and the file systems of a disk and says what to copy.
///
/// Regions are in whole sectors; only the last one of a disk without table may end
/// with the disk itself.
///
/// # Errors
/// [`ScanError`]: the table is damaged or reaches beyond the disk, or metadata
/// cannot be read. With [`ScanOptions::full`] none of these is an error: the disk
/// becomes one region that is copied in full. File systems that are damaged or not
/// clean are warnings, and errors only with [`ScanOptions::strict`].
pub fn scan(
    disk: &dyn DiskRead,
    geometry: Geometry,
    options: &ScanOptions,
) -> Result<DiskMap, ScanError> {
    scan_selected(disk, geometry, options, &Selection::default())
}

/// As [`scan`], of parts of the disk, or with regions that are copied in full.
///
/// # Errors
/// As [`scan`]. What is [`Method::Absent`] is looked at and never an error.
pub fn scan_selected(
    disk: &dyn DiskRead,
    geometry: Geometry,
    options: &ScanOptions,
    selection: &Selection,
) -> Result<DiskMap, ScanError> {
    if !geometry.is_supported() {
        return Err(ScanError::SectorSizeUnsupported {
            size: geometry.sector_size,
        });
    }
    let view = View::new(disk, 0, geometry.size_bytes);
    let bare = || fs::identify(&view).map_err(ScanError::from);
    let table = match table::detect(&view, geometry, bare) {
        Err(_) if options.full => None,
        // The table is the one of a whole set of disks, of which this is a part.
        Err(_) if selection.only.is_none() && is_spread(&view, &[])? => None,
        // What made a copy of the table unusable may be what the set keeps in its place: it
        // must not be written over by a copy that was made good. Where that cannot be read,
        // nothing speaks of a set.
        Ok(Some(found)) if selection.only.is_none() && found.is_rebuilt() => {
            let spread = is_spread(&view, &found.parsed.places()).unwrap_or(false);
            (!spread).then_some(found)
        }
        other => other?,
    };
    let mut scanner = Scanner {
        disk,
        geometry,
        options,
        selection,
        warnings: Vec::new(),
        suspended: None,
        dynamic: None,
        raid: None,
    };
    match table {
        None => {
            let mut regions =
                vec![scanner.region(RegionKind::Whole, 0, geometry.size_bytes, None)?];
            scanner.heed_suspended(&mut regions);
            Ok(DiskMap {
                geometry,
                table: TableKind::None,
                blobs: Vec::new(),
                disk_id: String::new(),
                regions,
                warnings: scanner.warnings,
            })
        }
        Some(found) => scanner.with_table(found),
    }
}

/// Whether the disk belongs to a RAID set that spreads its blocks.
fn is_spread(view: &View<'_>, partitions: &[Extent]) -> Result<bool, ScanError> {
    let raid = fs::whole_disk(view, partitions)?;
    Ok(raid.is_some_and(|raid| raid.spread.is_some()))
}

struct Scanner<'a> {
    disk: &'a dyn DiskRead,
    geometry: Geometry,
    options: &'a ScanOptions,
    selection: &'a Selection,
    warnings: Vec<Warning>,
    /// Number of a partition to which a system is suspended, and whether that is certain.
    suspended: Option<(u32, bool)>,
    /// The volumes of a Windows dynamic disk.
    dynamic: ldm::Found,
    /// The RAID set that a partitioned disk belongs to.
    raid: Option<DiskRaid>,
}

impl Scanner<'_> {
    fn with_table(mut self, found: FoundTable) -> Result<DiskMap, ScanError> {
        for detail in found.warnings {
            self.warnings.push(Warning {
                kind: WarningKind::GptDamaged,
                partition: None,
                detail,
            });
        }
        self.dynamic = self.read_dynamic(&found.parsed)?;
        let mut regions = Vec::new();
        let occupied = found.parsed.places();
        for part in found.parsed.partitions.iter().filter(|p| !p.extended) {
            regions.push(self.region(RegionKind::Partition, part.start, part.size, Some(part))?);
        }
        let tables = found
            .blobs
            .iter()
            .map(|blob| Extent {
                start: blob.offset,
                len: blob.data.len() as u64,
            })
            .collect();
        self.raid = self.read_raid(&occupied)?;
        let end = self.geometry.sectors() * u64::from(self.geometry.sector_size);
        let keep = self.kept_behind().union(&self.kept_by_raid());
        for gap in &gaps(end, &occupied.into_iter().collect(), &tables, &keep) {
            let mut region = empty_region(RegionKind::Gap, gap.start, gap.len);
            if self.selection.only.is_some() {
                leave_out(&mut region);
            } else {
                region.used = Extents::whole(gap.len);
                region.reason = "Space outside partitions, where boot loaders may live.".into();
            }
            regions.push(region);
        }
        regions.sort_by_key(|region| region.start);
        self.heed_suspended(&mut regions);
        self.heed_raid(&mut regions);
        Ok(DiskMap {
            geometry: self.geometry,
            table: found.parsed.kind,
            blobs: found.blobs,
            disk_id: found.parsed.disk_id,
            regions,
            warnings: self.warnings,
        })
    }

    fn read_dynamic(&self, table: &ParsedTable) -> Result<ldm::Found, ScanError> {
        let view = View::new(self.disk, 0, self.geometry.size_bytes);
        match ldm::read(&view, self.geometry, table) {
            Err(failure) if self.options.full || self.selection.skip_bad => Ok(Some(Err(format!(
                "its database cannot be read at byte {}",
                failure.offset
            )))),
            other => Ok(other?),
        }
    }

    /// Looks for a RAID set, and tells what is wrong with it.
    fn read_raid(&mut self, partitions: &[Extent]) -> Result<Option<DiskRaid>, ScanError> {
        let size = self.geometry.size_bytes;
        let view = View::new(self.disk, 0, size);
        let mut raid = match fs::whole_disk(&view, partitions) {
            Err(failure) if self.options.full || self.selection.skip_bad => Some(DiskRaid {
                kept: Extent::between(0, size),
                spread: Some(format!(
                    "what would tell whether the disk belongs to a RAID set cannot be read at \
                     byte {}",
                    failure.offset
                )),
                troubles: Vec::new(),
            }),
            other => other?,
        };
        if let Some(raid) = raid.as_mut().filter(|_| !self.options.full) {
            self.tell(0, std::mem::take(&mut raid.troubles))?;
        }
        Ok(raid)
    }

    /// Where blocks are spread over several disks, the partitions of this one's table are
    /// not on this disk.
    fn heed_raid(&self, regions: &mut [Region]) {
        let Some(why) = self.raid.as_ref().and_then(|raid| raid.spread.as_ref()) else {
            return;
        };
        for region in regions.iter_mut().filter(|r| r.method == Method::Used) {
            region.method = Method::Full;
            region.used = Extents::whole(region.size);
            region.reason = format!("Every sector is copied, because {why}.");
        }
    }

    /// Free space that somebody keeps something in: a RAID set.
    fn kept_by_raid(&self) -> Extents {
        let size = self.geometry.size_bytes;
        match &self.raid {
            None => Extents::new(),
            Some(raid) if raid.spread.is_some() => Extents::whole(size),
            Some(raid) => Extents::from_iter([raid.kept]),
        }
    }

    /// Free space that somebody keeps something in: the database of a dynamic disk, or
    /// all of its end if that is not understood.
    fn kept_behind(&self) -> Extents {
        const END: u64 = 32 << 20;
        let size = self.geometry.size_bytes;
        let kept = match &self.dynamic {
            None => return Extents::new(),
            Some(Ok(dynamic)) => dynamic.database,
            Some(Err(_)) => Extent::between(size.saturating_sub(END), size),
        };
        // A private header stands in the last sector too.
        let last = Extent::between(size.saturating_sub(1 << 20), size);
        Extents::from_iter([kept, last])
    }

    /// A partition or the whole disk, with its file system looked into.
    fn region(
        &mut self,
        kind: RegionKind,
        start: u64,
        size: u64,
        part: Option<&TablePartition>,
    ) -> Result<Region, ScanError> {
        let mut region = empty_region(kind, start, size);
        if let Some(part) = part {
            region.part_type.clone_from(&part.part_type);
            region.type_name.clone_from(&part.type_name);
            region.name.clone_from(&part.name);
            region.guid.clone_from(&part.guid);
            region.bootable = part.bootable;
            region.hidden = part.hidden;
        }
        let number = part.map_or(0, |part| part.number);
        region.number = Some(number);
        let only = self.selection.only.as_ref();
        let absent = only.is_some_and(|only| !only.contains(&number));
        let full = self.options.full || self.selection.full.contains(&number);
        let view = View::new(self.disk, start, size);
        let dynamic = part.filter(|part| ldm::is_dynamic(&part.part_type));
        let probed = match (&self.dynamic, dynamic) {
            (Some(dynamic), Some(_)) => ldm::findings(dynamic, &view, start),
            _ => fs::probe(&view),
        };
        let mut findings = match probed {
            Ok(findings) => findings,
            Err(failure) if full || absent || self.selection.skip_bad => {
                self.unreadable(number, &view, &failure, !full && !absent)
            }
            Err(failure) => return Err(failure.into()),
        };
        region.file_system = std::mem::take(&mut findings.file_system);
        region.label = std::mem::take(&mut findings.label);
        region.uuid = std::mem::take(&mut findings.uuid);
        if findings.suspended {
            self.suspended = Some((number, true));
        }
        if absent {
            leave_out(&mut region);
            return Ok(region);
        }
        self.fill(&mut region, findings.content, full);
        if !full {
            self.tell(number, findings.troubles)?;
        }
        Ok(region)
    }

    /// What is known of a region whose metadata cannot be read.
    fn unreadable(
        &mut self,
        number: u32,
        view: &View<'_>,
        failure: &ReadFailure,
        tell: bool,
    ) -> Findings {
        let mut findings = Findings::unknown();
        match fs::known_file_system(view) {
            Some(name) => findings.file_system = name.to_owned(),
            None if self.suspended.is_none() => self.suspended = Some((number, false)),
            None => {}
        }
        let place = format!(
            "what tells its used sectors cannot be read at byte {}: {}",
            failure.offset, failure.source
        );
        findings.content = Content::Full {
            reason: format!("Every sector is copied, because {place}."),
        };
        if tell {
            self.warnings.push(Warning {
                kind: WarningKind::ReadError,
                partition: Some(number),
                detail: format!("{place}; every sector is copied"),
            });
        }
        findings
    }

    /// Sets method, extents and reason.
    fn fill(&self, region: &mut Region, content: Content, full: bool) {
        region.used = Extents::whole(region.size);
        match content {
            _ if full => {
                region.reason = "Every sector is copied, as was asked for.".into();
            }
            Content::Used { used, reason } => {
                let unit = u64::from(self.geometry.sector_size);
                region.used = used.intersect(0..region.size).aligned(unit, region.size);
                region.method = Method::Used;
                region.reason = reason;
            }
            Content::Full { reason } => region.reason = reason,
        }
    }

    /// Turns what is wrong into warnings, or into an error if that was asked for.
    fn tell(&mut self, partition: u32, troubles: Vec<fs::Trouble>) -> Result<(), ScanError> {
        for fs::Trouble { kind, detail } in troubles {
            let kind = match kind {
                TroubleKind::Damaged if self.options.strict => {
                    return Err(ScanError::FsDamaged { partition, detail });
                }
                TroubleKind::Dirty if self.options.strict => {
                    return Err(ScanError::FsDirty { partition, detail });
                }
                TroubleKind::Damaged => WarningKind::FsDamaged,
                TroubleKind::Dirty => WarningKind::FsDirty,
            };
            self.warnings.push(Warning {
                kind,
                partition: Some(partition),
                detail,
            });
        }
        Ok(())
    }

    /// A suspended system goes on with what its memory knows of the file systems: maps
    /// made from the disk alone are not to be trusted then.
    fn heed_suspended(&self, regions: &mut [Region]) {
        let Some((number, certain)) = self.suspended else {
            return;
        };
        let why = if certain {
            format!("a system is suspended to partition {number}")
        } else {
            format!("partition {number} cannot be read, to which a system may be suspended")
        };
        for region in regions.iter_mut().filter(|r| r.method == Method::Used) {
            region.method = Method::Full;
            region.used = Extents::whole(region.size);
            region.reason = format!(
                "{}: every sector is copied, because {why}.",
                region.file_system
            );
        }
    }
}

/// Only lists a region.
fn leave_out(region: &mut Region) {
    region.method = Method::Absent;
    region.used = Extents::new();
    region.reason = "Not asked for.".into();
}

fn empty_region(kind: RegionKind, start: u64, size: u64) -> Region {
    Region {
        kind,
        number: None,
        start,
        size,
        part_type: String::new(),
        type_name: String::new(),
        name: String::new(),
        guid: String::new(),
        bootable: false,
        hidden: false,
        file_system: String::new(),
        label: String::new(),
        uuid: String::new(),
        method: Method::Full,
        used: Extents::new(),
        reason: String::new(),
    }
}
