//! Restore from a container: a file or a stream.
//!
//! Owns: the pipeline of one thread that reads and many that decompress, verify and
//! write; and the heads, which are kept in memory (compressed) until the root is proved.
//! Does not own: the format.

use super::held::Held;
use super::{CellWriter, Delivered, Source};
use crate::backup::container::worker_count;
use crate::keyring::Keyring;
use crate::{report, trust};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use image::container::{ContainerReader, Event};
use image::manifest::Page;
use image::record::{Decoder, RecordHeader};
use image::{CellMap, ChunkRef, ImageKey, Layout};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Code, DiskState, Report};

/// Most bytes of heads that are kept in memory, compressed: enough for every table that a
/// partitioning tool makes; an image that asks for more is not one of ours.
const MAX_KEPT: usize = 192 << 20;

/// Threads beyond one for each core: while they wait for the disk, the others work.
pub const WAITING: usize = 2;

/// A container that is read from its start to its end.
pub struct ContainerSource<R> {
    reader: ContainerReader<R>,
    heads: Vec<Parcel>,
    keyring: Keyring,
    key: Option<Arc<ImageKey>>,
}

/// A record on its way; the payload buffers go round and round.
struct Parcel {
    cell: CellMap,
    header: RecordHeader,
    offset: u64,
    payload: Vec<u8>,
}

impl<R: Read> ContainerSource<R> {
    /// Reads header and layout. What the keyring demands of signatures is looked at before
    /// the heads are written.
    pub fn open(input: R, keyring: &Keyring) -> Result<Self, Report> {
        let damaged = |e: image::Error| report::image(&e, DiskState::Untouched);
        let mut reader = ContainerReader::open(input).map_err(damaged)?;
        let key = keyring.for_image(reader.layout())?;
        if let Some(key) = &key {
            reader.unlock(Arc::clone(key)).map_err(damaged)?;
        }
        Ok(ContainerSource {
            reader,
            heads: Vec::new(),
            keyring: keyring.clone(),
            key,
        })
    }
}

impl<R: Read> Source for ContainerSource<R> {
    fn layout(&self) -> &Layout {
        self.reader.layout()
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.key.clone()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        let workers = worker_count() + WAITING;
        // The bound of this channel bounds the memory: a record each, and one more in
        // each worker's hands.
        let (work_tx, work_rx) = bounded::<Parcel>(workers * 2 + 2);
        let (free_tx, free_rx) = unbounded::<Vec<u8>>();
        let (error_tx, error_rx) = bounded::<Report>(workers);
        // Set by the first worker that fails, so that the others do not go on for hours.
        let failed = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (work_rx, free_tx, error_tx) =
                    (work_rx.clone(), free_tx.clone(), error_tx.clone());
                scope.spawn(move || {
                    if let Err(report) = write_all(writer, &work_rx, &free_tx) {
                        failed.store(true, Ordering::Relaxed);
                        let _ = error_tx.send(report);
                    }
                });
            }
            // Only the workers hold these now: when all have ended, the channels close.
            drop((work_rx, free_tx, error_tx));
            let read = self.read_all(writer, &free_rx, work_tx, failed);
            // Ends when the last worker has dropped its sender: all is written then.
            match error_rx.iter().next() {
                Some(report) => Err(report),
                None => read,
            }
        })
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        let mut decoder = Decoder::new().opened_with(self.key.clone());
        let mut plain = Vec::new();
        // Last what a file system is known by: until then nothing looks whole that is not.
        self.heads
            .drain(..)
            .rev()
            .try_for_each(|parcel| write_one(writer, &mut decoder, &parcel, &mut plain))
    }
}

impl<R: Read> ContainerSource<R> {
    fn read_all(
        &mut self,
        writer: &CellWriter<'_>,
        free: &Receiver<Vec<u8>>,
        work: Sender<Parcel>,
        failed: &AtomicBool,
    ) -> Result<Delivered, Report> {
        let damaged = |e: image::Error| report::image(&e, DiskState::Incomplete);
        let mut pages = Vec::new();
        let mut kept = 0;
        let mut page = Page::default();
        let mut decoder = Decoder::new().opened_with(self.key.clone());
        let mut plain = Vec::new();
        let mut payload = Vec::new();
        loop {
            writer.stop_if_asked()?;
            if failed.load(Ordering::Relaxed) {
                return Err(report::thread_lost(DiskState::Incomplete));
            }
            match self.reader.next_event(&mut payload).map_err(damaged)? {
                Event::Page(cells) => {
                    page = Page {
                        cells,
                        chunks: Vec::new(),
                    }
                }
                Event::End(root) => {
                    let signatures = self.reader.signatures();
                    trust::demand(self.keyring.trusted, signatures, DiskState::Incomplete)?;
                    return Ok(Delivered {
                        pages: pages.into(),
                        root,
                        bad: self.reader.bad().to_vec(),
                    });
                }
                Event::Record { header, offset } => {
                    let Some(cell) = page.cells.get(page.chunks.len()).cloned() else {
                        return Err(report::thread_lost(DiskState::Incomplete));
                    };
                    page.chunks.push(ChunkRef {
                        name: header.name,
                        plain_len: header.plain_len,
                    });
                    if page.chunks.len() == page.cells.len() {
                        pages.push(page.pack());
                    }
                    if !writer.wants(&cell) {
                        writer.leave_out(&cell);
                        continue;
                    }
                    let next = free.try_recv().unwrap_or_default();
                    let parcel = Parcel {
                        cell,
                        header,
                        offset,
                        payload: std::mem::replace(&mut payload, next),
                    };
                    if writer.is_head(&parcel.cell) {
                        // Checked now, so that damage is known before the last step.
                        decoder
                            .decode(&header, &parcel.payload, offset, &mut plain)
                            .map_err(damaged)?;
                        writer.keep_back(&parcel.cell);
                        kept += parcel.payload.len();
                        if kept > MAX_KEPT {
                            let found = format!("partition heads of more than {MAX_KEPT} bytes");
                            return Err(Report::new(
                                Code::ImageDamaged,
                                found,
                                DiskState::Incomplete,
                            ));
                        }
                        self.heads.push(parcel);
                    } else if work.send(parcel).is_err() {
                        // Every worker has failed; the first one's report is the reason.
                        return Err(report::thread_lost(DiskState::Incomplete));
                    }
                }
            }
        }
    }
}

fn write_all(
    writer: &CellWriter<'_>,
    work: &Receiver<Parcel>,
    free: &Sender<Vec<u8>>,
) -> Result<(), Report> {
    let mut decoder = Decoder::new().opened_with(writer.key_shared());
    let mut plain = Vec::new();
    let mut held = Held::new(writer);
    for parcel in work {
        if !held.skips(&parcel.cell, parcel.header.name) {
            write_one(writer, &mut decoder, &parcel, &mut plain)?;
        }
        // The reader may have ended; then nobody needs the buffer.
        let _ = free.send(parcel.payload);
    }
    Ok(())
}

fn write_one(
    writer: &CellWriter<'_>,
    decoder: &mut Decoder,
    parcel: &Parcel,
    plain: &mut Vec<u8>,
) -> Result<(), Report> {
    decoder
        .decode(&parcel.header, &parcel.payload, parcel.offset, plain)
        .map_err(|e| report::image(&e, DiskState::Incomplete))?;
    writer.write(&parcel.cell, plain, parcel.header.record_len())
}
