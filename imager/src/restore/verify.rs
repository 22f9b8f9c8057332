//! The read-back: what the disk gives must be what was written.
//!
//! Owns: comparing what is read with the chunks' names. Does not own: the reading
//! (`on_medium`), the verdict on the job.

use super::CellWriter;
use super::on_medium::OnMedium;
use super::stream::WAITING;
use crate::backup::container::worker_count;
use crate::progress::ProgressSink;
use crate::report;
use blockdev::Device;
use crossbeam_channel::bounded;
use image::manifest::PackedPage;
use image::{CellMap, ChunkRef};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Code, DiskState, Report};

/// How many places are named.
const NAMED: usize = 16;

/// Which chunks are looked at.
#[derive(Clone, Copy)]
enum What {
    Data,
    Heads,
    /// All but those of gaps that did not fit whole: there is no telling of these without
    /// their bytes, and nothing needs them.
    Whole,
}

impl What {
    fn is_meant(self, writer: &CellWriter<'_>, cell: &CellMap) -> bool {
        let Some(place) = writer.place(cell) else {
            return false;
        };
        match self {
            What::Data => !writer.is_head(cell),
            What::Heads => writer.is_head(cell),
            What::Whole => !(super::write::is_clipped(cell, place) && is_of_gap(writer, cell)),
        }
    }
}

fn is_of_gap(writer: &CellWriter<'_>, cell: &CellMap) -> bool {
    let region = writer.layout().regions.get(cell.region as usize);
    region.is_some_and(|region| region.kind == "gap")
}

/// Reads every chunk of an image that may stand on the disk, of which nothing was written
/// by this writer.
pub fn held(
    path: &Path,
    writer: &CellWriter<'_>,
    pages: &[PackedPage],
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    check(path, writer, pages, What::Whole, Some(progress))
}

/// Reads back every chunk but the heads.
pub fn data(
    path: &Path,
    writer: &CellWriter<'_>,
    pages: &[PackedPage],
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    check(path, writer, pages, What::Data, Some(progress))
}

/// Reads back the heads.
pub fn heads(path: &Path, writer: &CellWriter<'_>, pages: &[PackedPage]) -> Result<(), Report> {
    check(path, writer, pages, What::Heads, None)
}

fn check(
    path: &Path,
    writer: &CellWriter<'_>,
    pages: &[PackedPage],
    what: What,
    progress: Option<&dyn ProgressSink>,
) -> Result<(), Report> {
    writer
        .device()
        .invalidate_cache()
        .map_err(|e| report::write(&e, DiskState::Incomplete))?;
    let medium =
        Device::open_direct_read(path).map_err(|e| report::open(&e, DiskState::Incomplete))?;
    let workers = worker_count() + WAITING;
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let (work_tx, work_rx) = bounded::<(CellMap, ChunkRef)>(workers * 4);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (work_rx, medium, wrong, stop) = (work_rx.clone(), &medium, &wrong, &stop);
            scope.spawn(move || {
                let mut reader = OnMedium::new(medium, writer.layout().cell_size);
                for (cell, chunk) in work_rx {
                    if let Err(place) = compare(&mut reader, writer, &cell, &chunk) {
                        let mut wrong = wrong
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                        wrong.push(place);
                        if wrong.len() >= NAMED {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                    if let Some(progress) = progress {
                        progress.advance(u64::from(chunk.plain_len), 0);
                    }
                }
            });
        }
        drop(work_rx);
        for page in pages {
            let page = page
                .unpack()
                .map_err(|e| report::image(&e, DiskState::Incomplete))?;
            for (cell, chunk) in page.cells.into_iter().zip(page.chunks) {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                if let Some(progress) = progress {
                    super::stop_if_asked(progress, DiskState::Incomplete)?;
                }
                if what.is_meant(writer, &cell) && work_tx.send((cell, chunk)).is_err() {
                    return Err(report::thread_lost(DiskState::Incomplete));
                }
            }
        }
        drop(work_tx);
        Ok(())
    })?;
    let wrong = wrong
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if wrong.is_empty() {
        return Ok(());
    }
    let more = if wrong.len() >= NAMED {
        " and perhaps more"
    } else {
        ""
    };
    let found = format!("{}{more}", wrong.join("; "));
    Err(Report::new(
        Code::VerifyMismatch,
        found,
        DiskState::Incomplete,
    ))
}

/// Compares a cell with its chunk's name; the error is the place in words.
fn compare(
    medium: &mut OnMedium<'_>,
    writer: &CellWriter<'_>,
    cell: &CellMap,
    chunk: &ChunkRef,
) -> Result<(), String> {
    let Some(place) = writer.place(cell) else {
        return Ok(());
    };
    let clipped = writer.clipped_hash(cell);
    // What was clipped was never a chunk; its hash was made here, and has no key.
    let key = writer.key().filter(|_| clipped.is_none());
    let found = medium
        .hash(cell, place, key)
        .map_err(|e| format!("it cannot be read: {e}"))?;
    if found == clipped.unwrap_or(chunk.name) {
        return Ok(());
    }
    let (first, end) = cell.used.span();
    let (first, end) = (place.start + u64::from(first), place.start + u64::from(end));
    Err(format!(
        "bytes {first} to {end} differ from what was written"
    ))
}
