//! Writing a chunk to its place.
//!
//! Owns: the way from a verified chunk to the device, and the count of what was
//! written. Does not own: verifying (the record's decoder), threads.

use super::is_head;
use super::plan::{Place, Plan};
use crate::progress::ProgressSink;
use crate::report;
use blockdev::Device;
use image::{CellMap, Hash, ImageKey, Layout};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use wire::{Code, DiskState, Report};

/// Bytes after which a restore from a server flushes. With what three connections have in
/// their hands meanwhile, a power cut takes back less than 64 MiB.
const FLUSH_EVERY: u64 = 24 << 20;

/// Writes chunks of an image to a disk; many threads may use it at once.
pub struct CellWriter<'a> {
    device: &'a Device,
    layout: &'a Layout,
    plan: &'a Plan,
    progress: &'a dyn ProgressSink,
    /// Bytes on the disk.
    written: AtomicU64,
    /// Bytes of chunks that were written or held, as far as they have a place.
    consumed: AtomicU64,
    kept_back: AtomicU64,
    left_out: AtomicU64,
    wire: AtomicU64,
    /// Bytes that the disk held already.
    skipped: AtomicU64,
    /// The disk past the page cache, if what it holds is to be used.
    medium: Option<Device>,
    /// Bytes written since the last flush.
    unflushed: AtomicU64,
    /// Held during a flush.
    flushing: Mutex<()>,
    /// Hash of what was written of a cell that is clipped; there are only a few.
    clipped: Mutex<BTreeMap<(u32, u64), Hash>>,
    key: Option<Arc<ImageKey>>,
}

impl<'a> CellWriter<'a> {
    /// A writer for the image of that layout.
    pub fn new(
        device: &'a Device,
        layout: &'a Layout,
        plan: &'a Plan,
        progress: &'a dyn ProgressSink,
    ) -> Self {
        let zero = || AtomicU64::new(0);
        CellWriter {
            device,
            layout,
            plan,
            progress,
            written: zero(),
            consumed: zero(),
            kept_back: zero(),
            left_out: zero(),
            wire: zero(),
            skipped: zero(),
            medium: None,
            unflushed: zero(),
            flushing: Mutex::default(),
            clipped: Mutex::default(),
            key: None,
        }
    }

    /// The same writer, which leaves alone what the disk holds; `medium` is the disk, open
    /// for reading past the page cache.
    #[must_use]
    pub fn reusing(self, medium: Device) -> Self {
        CellWriter {
            medium: Some(medium),
            ..self
        }
    }

    /// The disk past the page cache, if what it holds is to be used.
    pub(super) fn medium(&self) -> Option<&Device> {
        self.medium.as_ref()
    }

    /// The image's chunks are named with this key, if there is one.
    pub fn of_key(mut self, key: Option<Arc<ImageKey>>) -> Self {
        self.key = key;
        self
    }

    /// The key of an encrypted image, for a decoder.
    pub fn key_shared(&self) -> Option<Arc<ImageKey>> {
        self.key.clone()
    }

    /// The key of an encrypted image.
    pub fn key(&self) -> Option<&ImageKey> {
        self.key.as_deref()
    }

    /// The disk.
    pub fn device(&self) -> &Device {
        self.device
    }

    /// What the image is of.
    pub fn layout(&self) -> &Layout {
        self.layout
    }

    /// Whether any byte of the chunk goes to the disk.
    pub fn wants(&self, cell: &CellMap) -> bool {
        self.place(cell).is_some()
    }

    /// Where the cell goes.
    pub fn place(&self, cell: &CellMap) -> Option<Place> {
        self.plan.place(self.layout, cell)
    }

    /// Whether the chunk has to wait for [`super::Source::heads`].
    pub fn is_head(&self, cell: &CellMap) -> bool {
        is_head(self.layout, cell)
    }

    /// Counts a chunk that waits.
    pub fn keep_back(&self, cell: &CellMap) {
        self.kept_back
            .fetch_add(u64::from(cell.used.len()), Ordering::Relaxed);
    }

    /// Counts a chunk that is not wanted.
    pub fn leave_out(&self, cell: &CellMap) {
        self.left_out
            .fetch_add(u64::from(cell.used.len()), Ordering::Relaxed);
    }

    /// Writes a chunk, whose bytes were verified against its name; `wire_bytes` is what it
    /// cost on the way.
    pub fn write(&self, cell: &CellMap, plain: &[u8], wire_bytes: u64) -> Result<(), Report> {
        let fits = plain.len() == cell.used.len() as usize;
        let Some(place) = self.place(cell).filter(|_| fits) else {
            return Err(Report::new(
                Code::Internal,
                "a chunk that fits no cell",
                DiskState::Incomplete,
            ));
        };
        let mut rest = plain;
        let mut hasher = blake3::Hasher::new();
        let mut written = 0;
        for &(start, len) in cell.used.extents() {
            let (part, after) = rest.split_at(len as usize);
            rest = after;
            let start = u64::from(start);
            let room = usize::try_from(place.len.saturating_sub(start)).unwrap_or(usize::MAX);
            let part = part.get(..room).unwrap_or(part);
            if part.is_empty() {
                continue;
            }
            self.device
                .write_all_at(place.start + start, part)
                .map_err(|e| report::write(&e, DiskState::Incomplete))?;
            written += part.len();
            if is_clipped(cell, place) {
                hasher.update(part);
            }
        }
        if is_clipped(cell, place) {
            let hash = Hash(*hasher.finalize().as_bytes());
            self.clipped().insert((cell.region, cell.cell), hash);
        }
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        self.unflushed.fetch_add(written as u64, Ordering::Relaxed);
        self.consumed
            .fetch_add(plain.len() as u64, Ordering::Relaxed);
        self.wire.fetch_add(wire_bytes, Ordering::Relaxed);
        self.progress.advance(written as u64, wire_bytes);
        Ok(())
    }

    /// Counts a chunk that the disk holds: it is as good as written.
    pub(super) fn skip(&self, cell: &CellMap) {
        let len = u64::from(cell.used.len());
        self.skipped.fetch_add(len, Ordering::Relaxed);
        self.consumed.fetch_add(len, Ordering::Relaxed);
        self.progress.advance(len, 0);
    }

    /// Flushes once [`FLUSH_EVERY`] bytes were written, so that a power cut costs little:
    /// what it takes back has to come again. Waits for a flush that another thread makes.
    pub fn flush_in_time(&self) -> Result<(), Report> {
        let _turn = self
            .flushing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.unflushed.load(Ordering::Relaxed) < FLUSH_EVERY {
            return Ok(());
        }
        // Before the flush: what is written while it runs may not be in it.
        self.unflushed.store(0, Ordering::Relaxed);
        super::flush(self.device)
    }

    /// Hash of what was written of a cell of which not everything was.
    pub fn clipped_hash(&self, cell: &CellMap) -> Option<Hash> {
        self.clipped().get(&(cell.region, cell.cell)).copied()
    }

    fn clipped(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u32, u64), Hash>> {
        self.clipped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes that the disk held already.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Plain bytes of the chunks that were written or held so far, clipped ones whole.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// Plain bytes of all chunks that were seen so far, whatever became of them.
    pub fn accounted(&self) -> u64 {
        self.consumed() + self.kept_back() + self.left_out.load(Ordering::Relaxed)
    }

    /// Bytes that came as records so far.
    pub fn wire_bytes(&self) -> u64 {
        self.wire.load(Ordering::Relaxed)
    }

    /// Bytes kept back so far.
    pub fn kept_back(&self) -> u64 {
        self.kept_back.load(Ordering::Relaxed)
    }

    /// Stops the job if an operator asked for it.
    pub fn stop_if_asked(&self) -> Result<(), Report> {
        super::stop_if_asked(self.progress, DiskState::Incomplete)
    }

    /// Something that a person should see.
    pub fn note(&self, text: &str) {
        self.progress.note(text);
    }
}

/// Whether some used bytes of the cell have no place.
pub(super) fn is_clipped(cell: &CellMap, place: Place) -> bool {
    u64::from(cell.used.span().1) > place.len
}
