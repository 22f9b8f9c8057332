//! Import: from another program's image to one of ours.
//!
//! Owns: that a foreign image is read as a disk is, by the same scan, grid and pipeline as a
//! backup, and that damage which shows up on the way fails the job. Does not own: the foreign
//! formats (`foreign`), what is copied how (`backup`), the output's name (`cli`).

mod claim;
mod clonezilla;
mod disk;
mod held;
mod open;
mod partclone;
mod pieces;
mod scratch;
mod spare;

use crate::backup::{self, Plan, container};
use crate::progress::ProgressSink;
use crate::sectors;
use diskmap::{DiskMap, Extents, Method, RegionKind, Warning, WarningKind};
use image::layout::Machine;
use std::io::Write;
use std::path::{Path, PathBuf};
use wire::{DiskInfo, Report};

pub use open::{Format, Imported, open};

/// What an import is asked to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The source's format; found out by its bytes if it is not said.
    pub format: Option<Format>,
    /// Which disk of a folder with several.
    pub disk: Option<String>,
    /// Files that a qcow2 image names as its base may be read, too.
    pub backing: bool,
    /// Files that are written or replaced: a source that any of them belongs to is refused.
    pub outputs: Vec<PathBuf>,
    /// Folder for the disk that a source's pieces are put together to.
    pub scratch: PathBuf,
    /// Sector size of the disk, if it is known.
    pub sector_size: Option<u32>,
    /// What is copied how; and whether something may write to the source meanwhile.
    pub backup: backup::Options,
}

/// The plan for an open source, and everything to tell of it.
///
/// # Errors
/// As a backup; what is wrong with the source comes first.
pub fn plan(
    source: &Imported,
    path: &Path,
    options: &Options,
    progress: &dyn ProgressSink,
) -> Result<(Plan, Vec<Report>), Report> {
    let disk = source.disk();
    let map = backup::look(disk, &path.display(), &options.backup, progress);
    // A scan calls it a read error, or gets past it.
    source.check()?;
    let mut map = map?;
    source.check_guess(&map, path)?;
    let whole_disk = matches!(source.format(), Format::Raw | Format::Qcow2);
    if whole_disk && options.sector_size.is_none() {
        sectors::refuse_doubtful(disk, &map)?;
    }
    source.check_partitions(&map)?;
    let mut warnings = source.warnings.clone();
    if options.backup.in_use {
        distrust_maps(&mut map, source.held().is_some());
    }
    if let Some(held) = source.held() {
        let mut missing = source.missing.clone();
        missing.extend(held::apply(&mut map, held, disk));
        if let Some(report) = missing.first().filter(|_| options.backup.strict) {
            return Err(report.clone());
        }
        warnings.extend(missing);
    }
    let info = DiskInfo {
        size_bytes: disk.size_bytes(),
        sector_size: disk.sector_size(),
        physical_sector_size: disk.sector_size(),
        model: format!("imported from {}", source.format().as_str()),
        ..DiskInfo::default()
    };
    // Nothing is known of the machine; this one has nothing to do with it.
    let machine = Machine::default();
    let mut plan = Plan::of(map, &info, machine, &options.backup);
    let said = warnings.iter().map(|w| format!("{}: {}", w.code, w.found));
    plan.layout.warnings.extend(said);
    warnings.extend(plan.warnings());
    Ok((plan, warnings))
}

/// Makes every region full whose map something may have made untrue, as a backup does, and
/// tells that the image may be torn. What holds only some bytes stays as it is.
fn distrust_maps(map: &mut DiskMap, holds_some: bool) {
    let DiskMap {
        regions, warnings, ..
    } = map;
    let mapped = regions
        .iter_mut()
        .filter(|r| !holds_some && r.kind != RegionKind::Gap && r.method == Method::Used);
    for region in mapped {
        region.method = Method::Full;
        region.used = Extents::whole(region.size);
        region.reason = format!(
            "{}: every sector is copied, because something may write to the source.",
            region.file_system
        );
    }
    let copied = match holds_some {
        true => "",
        false => "every sector is copied, and ",
    };
    warnings.push(Warning {
        kind: WarningKind::FsDirty,
        partition: None,
        detail: format!(
            "imported by force: something may have written to the source meanwhile; {copied}the image may be torn"
        ),
    });
}

/// Copies what the plan says into `out`, as a container. On an error `out` is torn.
///
/// # Errors
/// As a backup; what is wrong with the source comes first. `disk-in-use` if a file of it
/// changed meanwhile.
pub fn write<W: Write + Send>(
    source: &Imported,
    plan: &Plan,
    options: &Options,
    out: W,
    progress: &dyn ProgressSink,
) -> Result<(W, container::Written), Report> {
    let written = container::write(source.disk(), plan, &options.backup, out, progress);
    source.check()?;
    let written = written?;
    source.check_unchanged()?;
    Ok(written)
}
