//! The read-back: what the disk gives must be what was written.
//!
//! Owns: reading past the page cache and comparing with the chunks' names. Does not
//! own: the verdict on the job.

use super::CellWriter;
use crate::backup::container::worker_count;
use crate::progress::ProgressSink;
use crate::report;
use blockdev::{AlignedBuf, Device};
use crossbeam_channel::bounded;
use image::manifest::PackedPage;
use image::{CellMap, ChunkRef, Hash};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Code, DiskState, Report};

/// Direct reads start and end at multiples of this.
const ALIGN: u64 = 4096;
/// A hole up to this long is read over.
const READ_OVER: u64 = 256 << 10;
/// How many places are named.
const NAMED: usize = 16;

/// Reads back every chunk but the heads.
pub fn data(
    path: &Path,
    writer: &CellWriter<'_>,
    pages: &[PackedPage],
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    check(path, writer, pages, false, Some(progress))
}

/// Reads back the heads.
pub fn heads(path: &Path, writer: &CellWriter<'_>, pages: &[PackedPage]) -> Result<(), Report> {
    check(path, writer, pages, true, None)
}

fn check(
    path: &Path,
    writer: &CellWriter<'_>,
    pages: &[PackedPage],
    heads: bool,
    progress: Option<&dyn ProgressSink>,
) -> Result<(), Report> {
    writer
        .device()
        .invalidate_cache()
        .map_err(|e| report::write(&e, DiskState::Incomplete))?;
    let medium =
        Device::open_direct_read(path).map_err(|e| report::open(&e, DiskState::Incomplete))?;
    let workers = worker_count();
    let wrong: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    let (work_tx, work_rx) = bounded::<(CellMap, ChunkRef)>(workers * 4);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (work_rx, medium, wrong, stop) = (work_rx.clone(), &medium, &wrong, &stop);
            scope.spawn(move || {
                let mut reader = ReadBack::new(medium, writer);
                for (cell, chunk) in work_rx {
                    if let Err(place) = reader.compare(&cell, &chunk) {
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
                let now = writer.wants(&cell) && writer.is_head(&cell) == heads;
                if now && work_tx.send((cell, chunk)).is_err() {
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

/// Reads cells from the medium; one for each thread.
struct ReadBack<'a> {
    medium: &'a Device,
    writer: &'a CellWriter<'a>,
    buffer: AlignedBuf,
}

impl<'a> ReadBack<'a> {
    fn new(medium: &'a Device, writer: &'a CellWriter<'a>) -> Self {
        let room = writer.layout().cell_size as usize + 2 * ALIGN as usize;
        ReadBack {
            medium,
            writer,
            buffer: AlignedBuf::new(room),
        }
    }

    /// Compares a cell with its chunk's name; the error is the place in words.
    fn compare(&mut self, cell: &CellMap, chunk: &ChunkRef) -> Result<(), String> {
        let Some(place) = self.writer.place(cell) else {
            return Ok(());
        };
        let base = place.start;
        let mut hasher = blake3::Hasher::new();
        let inside = |&(start, len): &(u32, u32)| {
            let room = u32::try_from(place.len).unwrap_or(u32::MAX);
            Some((start, len.min(room.checked_sub(start)?))).filter(|&(_, len)| len > 0)
        };
        let extents: Vec<_> = cell.used.extents().iter().filter_map(inside).collect();
        let mut at = 0;
        while let Some(&(start, len)) = extents.get(at) {
            let first = base + u64::from(start);
            let mut end = first + u64::from(len);
            let mut next = at + 1;
            while let Some(&(s, l)) = extents
                .get(next)
                .filter(|&&(s, _)| base + u64::from(s) - end <= READ_OVER)
            {
                end = base + u64::from(s + l);
                next += 1;
            }
            let from = first / ALIGN * ALIGN;
            let until = end.next_multiple_of(ALIGN).min(self.medium.size_bytes());
            let buffer = &mut self.buffer[..(until - from) as usize];
            self.medium
                .read_exact_at(from, buffer)
                .map_err(|e| format!("it cannot be read: {e}"))?;
            for &(s, l) in &extents[at..next] {
                let offset = (base + u64::from(s) - from) as usize;
                hasher.update(&buffer[offset..offset + l as usize]);
            }
            at = next;
        }
        let expected = self.writer.clipped_hash(cell).unwrap_or(chunk.name);
        if Hash(*hasher.finalize().as_bytes()) == expected {
            Ok(())
        } else {
            let (first, end) = cell.used.span();
            let (first, end) = (base + u64::from(first), base + u64::from(end));
            Err(format!(
                "bytes {first} to {end} differ from what was written"
            ))
        }
    }
}
