//! Restore: from an image to a disk, in the order that keeps a half-made disk from
//! ever booting.
//!
//! Owns: the order. All checks; the old tables saved; tables and heads zeroed, flushed;
//! chunks verified and written, flushed; read back; heads written, flushed, read back;
//! tables written, flushed, read back; only then "done". Does not own: where chunks
//! come from ([`Source`]), or who is asked before ([`Guard`]).

pub mod check;
mod erase;
pub mod fetch;
#[cfg(test)]
mod resume_tests;
pub mod stream;
mod tables;
mod verify;
mod write;

use crate::progress::ProgressSink;
use crate::report;
use blockdev::Device;
use image::manifest::PackedPage;
use image::{BadRange, CellMap, Layout, Root};
use std::path::Path;
use std::sync::Arc;
use wire::{Code, DiskState, Report, Step};

pub use check::{HEAD_BYTES, Plan};
pub use write::CellWriter;

/// What a restore is asked to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Read back everything that was written and compare it.
    pub verify: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { verify: true }
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

    /// Writes every chunk that is not a head, in any order, each verified before it is
    /// written; returns only after the root was proved.
    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report>;

    /// Writes the heads; called once, after [`Self::transfer`].
    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report>;
}

/// Who has to agree, or to know, before and after the disk is changed.
pub trait Guard {
    /// All checks have passed and nothing was written. The disk is about to be changed:
    /// the old tables are to be saved now.
    fn before_write(&mut self, plan: &Plan) -> Result<(), Report>;
}

/// What a restore did.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Root of the image.
    pub root: Root,
    /// Bytes of the records that came.
    pub wire_bytes: u64,
    /// Whether the disk was read back.
    pub verified: bool,
    /// What the image does not have, and the disk now has zeros for.
    pub bad: Vec<BadRange>,
}

/// Writes the image to the disk at `path`, which `device` has open for writing.
pub fn run(
    device: &Device,
    path: &Path,
    source: &mut dyn Source,
    guard: &mut dyn Guard,
    options: Options,
    progress: &dyn ProgressSink,
) -> Result<Restored, Report> {
    progress.step(Step::Preparing, 0);
    let layout = source.layout().clone();
    let plan = check::plan(&layout, device)?;
    stop_if_asked(progress, DiskState::Untouched)?;
    guard.before_write(&plan)?;
    stop_if_asked(progress, DiskState::Untouched)?;

    // From here on every failure leaves a disk without a table.
    progress.step(Step::Running, layout.used_bytes());
    erase::erase(device, &plan).map_err(|e| report::write(&e, DiskState::Incomplete))?;
    let writer = CellWriter::new(device, &layout, progress);
    let delivered = source.transfer(&writer)?;
    if writer.written() + writer.kept_back() != delivered.root.plain_bytes {
        let found = format!(
            "{} bytes were written and {} kept back, but the image has {}",
            writer.written(),
            writer.kept_back(),
            delivered.root.plain_bytes
        );
        return Err(Report::new(Code::Internal, found, DiskState::Incomplete));
    }
    flush(device)?;
    if options.verify {
        progress.step(Step::Verifying, layout.used_bytes());
        verify::data(path, device, &layout, &delivered.pages, progress)?;
    }
    stop_if_asked(progress, DiskState::Incomplete)?;
    progress.step(Step::Finishing, 0);
    source.heads(&writer)?;
    if writer.written() != delivered.root.plain_bytes {
        return Err(Report::new(
            Code::Internal,
            "a head is missing",
            DiskState::Incomplete,
        ));
    }
    flush(device)?;
    if options.verify {
        verify::heads(path, device, &layout, &delivered.pages)?;
    }
    tables::write(device, path, &plan)?;
    // Nodes for the new partitions; nothing depends on it.
    let _ = device.reread_partitions();
    Ok(Restored {
        root: delivered.root,
        wire_bytes: writer.wire_bytes(),
        verified: options.verify,
        bad: delivered.bad,
    })
}

/// Whether a chunk is (part of) a partition's head, which is written last.
pub fn is_head(layout: &Layout, cell: &CellMap) -> bool {
    let in_data = layout
        .regions
        .get(cell.region as usize)
        .is_some_and(|region| region.kind != "gap");
    in_data && cell.cell * u64::from(layout.cell_size) < HEAD_BYTES
}

/// Whether the disk still shows what a restore of this image leaves before its last
/// step. Only then may a restore that was cut off go on.
///
/// With a table that is a first sector of zeros, which is written last of all. Without
/// one it is a first MiB of zeros, if the image has a file system, whose signature would
/// stand there; for contents that nobody knows it cannot be told, so it is `false`.
pub fn is_unfinished(device: &Device, layout: &Layout) -> Result<bool, Report> {
    let known = |region: &image::layout::Region| !region.file_system.is_empty();
    let len = match layout.table.kind.as_str() {
        "none" if !layout.regions.iter().any(known) => return Ok(false),
        "none" => HEAD_BYTES,
        _ => u64::from(device.sector_size().max(512)),
    };
    let mut start = vec![0; len.min(device.size_bytes()) as usize];
    device
        .read_exact_at(0, &mut start)
        .map_err(|e| Report::new(Code::ReadError, e.to_string(), DiskState::Unknown))?;
    Ok(image::record::is_zero(&start))
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
