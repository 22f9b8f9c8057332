//! Backup into a container: a file or a stream.
//!
//! Owns: the pipeline of reader, compressing threads and writer, which run at the same
//! time over a fixed set of buffers. Does not own: the format, or the file's name.

use super::readers::{Cells, Readers, stop_if_asked};
use super::{CellReader, Options, Plan};
use crate::progress::ProgressSink;
use crate::report;
use crate::source::Disk;
use crossbeam_channel::{Receiver, Sender, bounded};
use image::container::ContainerWriter;
use image::record::RecordHeader;
use image::{BadRange, CellMap, PAGE_CHUNKS, Root};
use std::collections::BTreeMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use wire::{DiskState, Report, Step};

/// One chunk on its way; the buffers go round and round.
struct Parcel {
    number: u64,
    cell: Option<CellMap>,
    plain: Vec<u8>,
    record: Vec<u8>,
    header: Option<RecordHeader>,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// The image's root.
    pub root: Root,
    /// Bytes of the container.
    pub bytes: u64,
    /// What the disk did not give.
    pub bad: Vec<BadRange>,
}

/// Threads that compress: one for each core.
pub fn worker_count() -> usize {
    std::thread::available_parallelism()
        .map_or(2, usize::from)
        .clamp(1, 64)
}

/// Copies the disk into `out`. On an error `out` holds a torn container, which its owner
/// has to remove.
pub fn write<W: Write + Send>(
    device: &dyn Disk,
    plan: &Plan,
    options: &Options,
    out: W,
    progress: &dyn ProgressSink,
) -> Result<(W, Written), Report> {
    let workers = worker_count();
    progress.step(Step::Running, plan.used_bytes());
    // Every buffer is in exactly one place, so memory is this many cells, twice.
    let buffers = workers * 3 + 4;
    let (free_tx, free_rx) = bounded::<Parcel>(buffers);
    for _ in 0..buffers {
        let parcel = Parcel {
            number: 0,
            cell: None,
            plain: Vec::new(),
            record: Vec::new(),
            header: None,
        };
        let _ = free_tx.send(parcel);
    }
    let (work_tx, work_rx) = bounded::<Parcel>(buffers);
    let (done_tx, done_rx) = bounded::<Result<Parcel, Report>>(buffers);
    std::thread::scope(|scope| {
        let failed = done_tx.clone();
        let cells = Arc::new(Cells::of(plan));
        let readers = Readers::start(
            scope,
            device,
            plan,
            options.skip_bad,
            progress,
            move |reader| read_all(reader, &cells, &free_rx, &work_tx, progress),
            move |report| drop(failed.send(Err(report))),
        );
        for _ in 0..workers {
            let (work_rx, done_tx) = (work_rx.clone(), done_tx.clone());
            scope.spawn(move || compress_all(options, &work_rx, &done_tx));
        }
        drop((work_rx, done_tx));
        // When this returns, on whatever way, its ends of the channels are dropped and
        // the threads end at their next send or receive.
        let channels = (done_rx, free_tx);
        write_all(device, plan, options, out, channels, readers, progress)
    })
}

fn read_all(
    reader: &mut CellReader<'_>,
    cells: &Cells<'_>,
    free: &Receiver<Parcel>,
    work: &Sender<Parcel>,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    // A closed channel means that the writer failed and tells why. First the buffer, then
    // the cell: the earliest cell that is wanted always has one.
    while let Ok(mut parcel) = free.recv() {
        let (number, mut cell) = cells.take(0);
        let Some(cell) = cell.pop() else { break };
        stop_if_asked(progress)?;
        reader.read(&cell, &mut parcel.plain)?;
        parcel.number = number as u64;
        parcel.cell = Some(cell);
        if work.send(parcel).is_err() {
            break;
        }
    }
    Ok(())
}

fn compress_all(options: &Options, work: &Receiver<Parcel>, done: &Sender<Result<Parcel, Report>>) {
    let mut encoder = match options.encoder() {
        Ok(encoder) => encoder,
        Err(error) => {
            let _ = done.send(Err(report::image(&error, DiskState::NotInvolved)));
            return;
        }
    };
    for mut parcel in work {
        parcel.record.clear();
        // A panic is told like an error: the writer would wait for its chunk for ever.
        let encode = || encoder.encode(&parcel.plain, &mut parcel.record);
        let Ok(encoded) = catch_unwind(AssertUnwindSafe(encode)) else {
            let _ = done.send(Err(report::thread_lost(DiskState::NotInvolved)));
            return;
        };
        let result = match encoded {
            Ok(header) => {
                parcel.header = Some(header);
                Ok(parcel)
            }
            Err(error) => Err(report::image(&error, DiskState::NotInvolved)),
        };
        if done.send(result).is_err() {
            return;
        }
    }
}

fn write_all<W: Write>(
    device: &dyn Disk,
    plan: &Plan,
    options: &Options,
    out: W,
    (done, free): (Receiver<Result<Parcel, Report>>, Sender<Parcel>),
    readers: Readers<'_>,
    progress: &dyn ProgressSink,
) -> Result<(W, Written), Report> {
    let output = |e: std::io::Error| report::output(&e);
    let layout = options.stored_layout(&plan.layout)?;
    let writer = if options.skip_bad {
        ContainerWriter::of_bad_disk(out, &layout)
    } else {
        ContainerWriter::new(out, &layout)
    };
    let mut writer = writer.map_err(output)?.sealed_with(options.key());
    let mut early: BTreeMap<u64, Parcel> = BTreeMap::new();
    let mut number = 0;
    let mut cells = plan.cells();
    loop {
        let page: Vec<CellMap> = cells.by_ref().take(PAGE_CHUNKS).collect();
        if page.is_empty() {
            break;
        }
        writer.begin_page(&page).map_err(output)?;
        for _ in &page {
            let mut parcel = loop {
                if let Some(parcel) = early.remove(&number) {
                    break parcel;
                }
                let parcel = done
                    .recv()
                    .map_err(|_| report::thread_lost(DiskState::NotInvolved))??;
                early.insert(parcel.number, parcel);
            };
            let Some(header) = parcel.header.take() else {
                return Err(report::thread_lost(DiskState::NotInvolved));
            };
            writer.record(&header, &parcel.record).map_err(output)?;
            progress.advance(u64::from(header.plain_len), parcel.record.len() as u64);
            number += 1;
            // The readers may be gone already: they have read everything.
            let _ = free.send(parcel);
        }
    }
    progress.step(Step::Finishing, 0);
    // They have read every cell, or the loop above would have failed.
    drop(free);
    let bad = readers.join()?;
    if !options.in_use {
        device.refuse_if_written_now()?;
    }
    let (out, root, bytes) = writer.finish_with(&bad).map_err(output)?;
    Ok((out, Written { root, bytes, bad }))
}
