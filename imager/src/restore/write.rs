//! Writing a chunk to its place.
//!
//! Owns: the way from a verified chunk to the device, and the count of what was
//! written. Does not own: verifying (the record's decoder), threads.

use super::is_head;
use crate::progress::ProgressSink;
use crate::report;
use blockdev::Device;
use image::{CellMap, Layout};
use std::sync::atomic::{AtomicU64, Ordering};
use wire::{Code, DiskState, Report};

/// Writes chunks of an image to a disk; many threads may use it at once.
pub struct CellWriter<'a> {
    device: &'a Device,
    layout: &'a Layout,
    progress: &'a dyn ProgressSink,
    written: AtomicU64,
    kept_back: AtomicU64,
    wire: AtomicU64,
}

impl<'a> CellWriter<'a> {
    /// A writer for the image of that layout.
    pub fn new(device: &'a Device, layout: &'a Layout, progress: &'a dyn ProgressSink) -> Self {
        let zero = || AtomicU64::new(0);
        CellWriter {
            device,
            layout,
            progress,
            written: zero(),
            kept_back: zero(),
            wire: zero(),
        }
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

    /// Writes a chunk, whose bytes were verified against its name; `wire_bytes` is what it
    /// cost on the way.
    pub fn write(&self, cell: &CellMap, plain: &[u8], wire_bytes: u64) -> Result<(), Report> {
        let region = self.layout.regions.get(cell.region as usize);
        let Some(region) = region.filter(|_| plain.len() == cell.used.len() as usize) else {
            return Err(Report::new(
                Code::Internal,
                "a chunk that fits no cell",
                DiskState::Incomplete,
            ));
        };
        let base = region.start + cell.cell * u64::from(self.layout.cell_size);
        let mut rest = plain;
        for &(start, len) in cell.used.extents() {
            let (part, after) = rest.split_at(len as usize);
            self.device
                .write_all_at(base + u64::from(start), part)
                .map_err(|e| report::write(&e, DiskState::Incomplete))?;
            rest = after;
        }
        self.written
            .fetch_add(plain.len() as u64, Ordering::Relaxed);
        self.wire.fetch_add(wire_bytes, Ordering::Relaxed);
        self.progress.advance(plain.len() as u64, wire_bytes);
        Ok(())
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
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
