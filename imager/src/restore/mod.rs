//! Restore: from an image to a disk, in the order that keeps a half-made disk from
//! ever booting.
//!
//! Owns: the order. All checks; the old tables saved; tables and heads zeroed, flushed;
//! chunks verified and written (or, on demand, found on the disk), flushed; read back; heads written, flushed, read back;
//! tables written, flushed, read back; only then "done". Does not own: where chunks
//! come from ([`Source`]), or who is asked before ([`Guard`]).

mod check;
mod chosen;
mod claim;
mod erase;
pub mod fetch;
mod growing;
mod held;
mod on_medium;
mod parts;
mod plan;
mod resume;
pub mod show;
pub mod stream;
mod tables;
mod verify;
mod whole;
mod write;

use crate::boot_entries;
use crate::grow::{self, Outcome};
use crate::progress::ProgressSink;
use crate::report;
use blockdev::{Device, ErrorKind};
use image::manifest::PackedPage;
use image::{BadRange, CellMap, ImageKey, Layout, Root};
use std::path::Path;
use std::sync::Arc;
use wire::{Code, DiskState, Report, RestoreScope, Step, size};

pub use check::plan;
pub use claim::{open, refuse_if_used};
pub(crate) use held::Held as HeldOnDisk;
pub use plan::{HEAD_BYTES, Plan};
pub use resume::is_unfinished;
pub use write::CellWriter;

/// Bytes that are discarded at a time.
const DISCARD_PIECE: u64 = 8 << 30;

/// What a restore is asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Read back everything that was written and compare it.
    pub verify: bool,
    /// What of the disk is replaced.
    pub scope: RestoreScope,
    /// Hash what the disk holds, and write only what differs.
    pub reuse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            verify: true,
            scope: RestoreScope::default(),
            reuse: false,
        }
    }
}

/// Everything that a source delivered, for the read-back.
pub struct Delivered {
    /// The manifest's pages.
    pub pages: Arc<[PackedPage]>,
    /// The root, proved against pages and layout.
    pub root: Root,
    /// What the disk did not give at backup; proved as the pages are.
    pub bad: Vec<BadRange>,
}

/// Where an image comes from: a container as a file or stream, or a server.
pub trait Source {
    /// The image's layout.
    fn layout(&self) -> &Layout;

    /// The key of an encrypted image.
    fn key(&self) -> Option<Arc<ImageKey>>;

    /// Writes every chunk that is not a head, in any order, each verified before it is
    /// written; returns only after the root was proved.
    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report>;

    /// Writes the heads, the last of the disk first; called once, after [`Self::transfer`].
    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report>;
}

/// Who has to agree, or to know, before and after the disk is changed.
pub trait Guard {
    /// All checks have passed and nothing was written. The disk is about to be changed:
    /// the old tables are to be saved now.
    fn before_write(&mut self, device: &Device, plan: &Plan) -> Result<(), Report>;
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Root of the image.
    pub root: Root,
    /// Bytes of the image that were written.
    pub written_bytes: u64,
    /// Bytes of the image that the disk held already, and that were left as they are.
    pub skipped_bytes: u64,
    /// Bytes of the records that came.
    pub wire_bytes: u64,
    /// Whether the disk was read back.
    pub verified: bool,
    /// What the image does not have, and the disk now has zeros for.
    pub bad: Vec<BadRange>,
    /// What became of the partition that was to grow, in words.
    pub grown: Option<String>,
    /// What was changed of the firmware's boot entries, in words.
    pub boot_entries: Vec<String>,
    /// Things worth knowing.
    pub warnings: Vec<Report>,
}

/// Writes the image to the disk at `path`, which `device` (see [`open`]) has open for
/// writing.
pub fn run(
    device: Device,
    path: &Path,
    source: &mut dyn Source,
    guard: &mut dyn Guard,
    options: &Options,
    progress: &dyn ProgressSink,
) -> Result<Restored, Report> {
    progress.step(Step::Preparing, 0);
    let layout = source.layout().clone();
    let plan = check::plan(&layout, &device, &options.scope)?;
    let claims = claim::partitions(path, &plan)?;
    stop_if_asked(progress, DiskState::Untouched)?;
    guard.before_write(&device, &plan)?;
    stop_if_asked(progress, DiskState::Untouched)?;
    let entries = boot_entries::before(&device);

    // From here on every failure leaves the disk as `Plan::half_made` says.
    let mut restored = write_and_prove(&device, path, source, &layout, &plan, options, progress)
        .map_err(|report| plan.failed(report))?;
    claims.release();
    if !plan.tables().is_empty() {
        restored.warnings.extend(reread(&device, path));
    }
    // What grows a file system has to mount it, which no claim may be in the way of.
    let sector_size = device.sector_size();
    drop(device);
    grow_if_asked(path, sector_size, &plan, &mut restored);
    let entries = boot_entries::after(path, &entries, progress);
    restored.boot_entries = entries.changed;
    restored.warnings.extend(entries.warning);
    Ok(restored)
}

/// Nodes for the new partitions. The disk is right without them; but what is mounted by an
/// old node lies in the wrong place of it. (A program that only reads a partition keeps
/// nobody from writing to the disk, but keeps the kernel from this.)
pub(crate) fn reread(device: &Device, path: &Path) -> Option<Report> {
    let error = device.reread_partitions().err()?;
    // Others than this one have no partitions that could be wrong.
    (error.kind() == ErrorKind::Busy).then(|| {
        let found = format!(
            "a program has a partition of {} open, so that the kernel keeps the old table",
            path.display()
        );
        Report::new(Code::TableNotReread, found, DiskState::Complete)
    })
}

/// An image that a disk holds already.
pub struct Held {
    /// Bytes of it.
    pub bytes: u64,
    /// What the image does not have, and the disk has zeros for.
    pub bad: Vec<BadRange>,
}

/// What the disk holds of the image, if it holds all of it: every chunk, heads and tables
/// too, read past the page cache. (Of what lies behind the last partition and does not fit
/// whole, nothing need be there.) That is what a restore leaves of which only the last word
/// was lost. Nothing is written. The image is one of a whole disk.
pub fn held(
    device: &Device,
    path: &Path,
    image: &fetch::ServerSource,
    progress: &dyn ProgressSink,
) -> Result<Option<Held>, Report> {
    let unknown = |report: Report| Report {
        disk: DiskState::Unknown,
        ..report
    };
    let layout = image.layout();
    let plan = check::plan(layout, device, &RestoreScope::default()).map_err(unknown)?;
    let bytes = plan.used_bytes(layout);
    progress.step(Step::Verifying, bytes);
    let writer = CellWriter::new(device, layout, &plan, progress).of_key(image.key());
    let pages = &image.pages();
    let looked = tables::prove(device, path, plan.tables())
        .and_then(|()| verify::held(path, &writer, pages, progress));
    match looked {
        Ok(()) => Ok(Some(Held {
            bytes,
            bad: plan.written_of(image.bad()),
        })),
        Err(report) if report.code == Code::VerifyMismatch => Ok(None),
        Err(report) => Err(unknown(report)),
    }
}

fn write_and_prove(
    device: &Device,
    path: &Path,
    source: &mut dyn Source,
    layout: &Layout,
    plan: &Plan,
    options: &Options,
    progress: &dyn ProgressSink,
) -> Result<Restored, Report> {
    let used_bytes = plan.used_bytes(layout);
    progress.step(Step::Running, used_bytes);
    let give_back = |start, len| {
        if options.reuse {
            return Ok(());
        }
        discard(device, start, len, progress)
    };
    erase::erase(device, plan, &give_back).map_err(|e| report::write(&e, DiskState::Incomplete))?;
    stop_if_asked(progress, DiskState::Incomplete)?;
    let mut writer = CellWriter::new(device, layout, plan, progress).of_key(source.key());
    if options.reuse {
        // Only now, so that what was just zeroed is seen so.
        let medium =
            Device::open_direct_read(path).map_err(|e| report::open(&e, DiskState::Incomplete))?;
        writer = writer.reusing(medium);
    }
    let delivered = source.transfer(&writer)?;
    if writer.accounted() != delivered.root.plain_bytes {
        let found = format!(
            "{} bytes of the image were written, kept back or left out, but it has {}",
            writer.accounted(),
            delivered.root.plain_bytes
        );
        return Err(Report::new(Code::Internal, found, DiskState::Incomplete));
    }
    flush(device)?;
    if options.verify {
        progress.step(Step::Verifying, used_bytes);
        verify::data(path, &writer, &delivered.pages, progress)?;
    }
    stop_if_asked(progress, DiskState::Incomplete)?;
    progress.step(Step::Finishing, 0);
    let before_heads = writer.consumed();
    source.heads(&writer)?;
    if writer.consumed() - before_heads != writer.kept_back() {
        return Err(Report::new(
            Code::Internal,
            "a head is missing",
            DiskState::Incomplete,
        ));
    }
    flush(device)?;
    if options.verify {
        verify::heads(path, &writer, &delivered.pages)?;
    }
    tables::write(device, path, plan)?;
    Ok(Restored {
        root: delivered.root,
        written_bytes: writer.written(),
        skipped_bytes: writer.skipped(),
        wire_bytes: writer.wire_bytes(),
        verified: options.verify,
        bad: plan.written_of(&delivered.bad),
        grown: None,
        boot_entries: Vec::new(),
        warnings: Vec::new(),
    })
}

/// Discards in pieces: a whole disk may take long, and nobody waits for it who has asked
/// the job to stop.
fn discard(
    device: &Device,
    start: u64,
    len: u64,
    progress: &dyn ProgressSink,
) -> std::io::Result<()> {
    let mut done = 0;
    while done < len && !progress.interrupted() {
        let piece = (len - done).min(DISCARD_PIECE);
        if !device.discard(start + done, piece)? {
            return Ok(());
        }
        done += piece;
    }
    Ok(())
}

/// Lets the file system fill the partition that grew. The disk is complete and proved by
/// now, so what fails here is a warning.
fn grow_if_asked(path: &Path, sector_size: u32, plan: &Plan, restored: &mut Restored) {
    let Some(growth) = &plan.growth else {
        return;
    };
    if growth.gained() == 0 {
        restored.grown = Some(format!("partition {} did not grow: no room", growth.name));
        return;
    }
    let size = growth.range.end - growth.range.start;
    let place = grow::Place {
        disk: path,
        start: growth.range.start,
        size,
        sector_size,
    };
    let partition = format!(
        "partition {} is {} larger",
        growth.name,
        size::bytes(growth.gained())
    );
    restored.grown = Some(match grow::file_system(place, &growth.file_system) {
        Outcome::Grown => format!("{partition}, and its file system fills it"),
        Outcome::AsBefore(why) => {
            let found = format!("{partition}, but what it holds is not: {why}");
            restored.warnings.push(
                Report::new(Code::FsNotGrown, &found, DiskState::Complete)
                    .with_advice("Everything is there; only the new space is not used yet."),
            );
            found
        }
    });
}

/// Whether a chunk is (part of) a partition's head, which is written last.
pub fn is_head(layout: &Layout, cell: &CellMap) -> bool {
    let in_data = layout
        .regions
        .get(cell.region as usize)
        .is_some_and(|region| region.kind != "gap");
    in_data && cell.cell * u64::from(layout.cell_size) < HEAD_BYTES
}

fn flush(device: &Device) -> Result<(), Report> {
    device
        .flush()
        .map_err(|e| report::write(&e, DiskState::Incomplete))
}

fn stop_if_asked(progress: &dyn ProgressSink, disk: DiskState) -> Result<(), Report> {
    if progress.interrupted() {
        Err(Report::new(
            Code::Interrupted,
            "stopped by an operator",
            disk,
        ))
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "interrupt_tests.rs"]
mod tests;
