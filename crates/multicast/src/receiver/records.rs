//! From blocks to records.
//!
//! Owns: records of which only a part came, and the queue of whole ones. Does not own:
//! whether a record is what it claims: who takes it compares it with its name.

use super::Record;
use crate::bits::Bits;
use crate::plan::Plan;
use std::collections::{HashMap, VecDeque};

/// Whole records that wait, and parts of others.
pub(super) struct Records {
    /// Wanted, and not given out or in the queue.
    pub lacking: Bits,
    parts: HashMap<u32, Part>,
    bytes: usize,
    queue: VecDeque<Record>,
    queued: usize,
}

struct Part {
    bytes: Vec<u8>,
    /// Its blocks that did not come: one may come twice, if another record of it was
    /// forgotten.
    blocks: Bits,
}

impl Records {
    pub(super) fn new(wanted: Bits) -> Self {
        Records {
            lacking: wanted,
            parts: HashMap::new(),
            bytes: 0,
            queue: VecDeque::new(),
            queued: 0,
        }
    }

    /// Bytes of parts in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes in the queue.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn next(&mut self) -> Option<Record> {
        let record = self.queue.pop_front()?;
        self.queued -= record.bytes.len();
        Some(record)
    }

    /// Takes the bytes of a block that is complete.
    pub(super) fn put(&mut self, plan: &Plan, block: u32, bytes: &[u8]) {
        let Some(place) = plan.block(block) else {
            return;
        };
        let block_end = place.start + u64::from(place.len);
        for record in plan.records_in(block) {
            if !self.lacking.has(record) {
                continue;
            }
            let range = plan.record_range(record);
            let (start, end) = (range.start.max(place.start), range.end.min(block_end));
            let from = (start - place.start) as usize;
            let piece = bytes.get(from..from + (end - start) as usize);
            let piece = piece.unwrap_or_default();
            let whole = (range.end - range.start) as usize;
            if piece.len() == whole {
                self.finish(record, piece.to_vec());
                continue;
            }
            let blocks = plan.blocks_of(record);
            let part = self.parts.entry(record).or_insert_with(|| {
                self.bytes += whole;
                Part {
                    bytes: vec![0; whole],
                    blocks: Bits::all(blocks.end - blocks.start),
                }
            });
            let at = (start - range.start) as usize;
            if let Some(room) = part.bytes.get_mut(at..at + piece.len()) {
                room.copy_from_slice(piece);
                part.blocks.remove(block - blocks.start);
            }
            if part.blocks.count() == 0
                && let Some(part) = self.parts.remove(&record)
            {
                self.bytes -= whole;
                self.finish(record, part.bytes);
            }
        }
    }

    fn finish(&mut self, record: u32, bytes: Vec<u8>) {
        self.lacking.remove(record);
        self.queued += bytes.len();
        self.queue.push_back(Record { record, bytes });
    }

    /// Forgets the record of which the most is missing; the blocks that have to come again.
    pub(super) fn evict(&mut self, plan: &Plan) -> Option<std::ops::Range<u32>> {
        let most = self
            .parts
            .iter()
            .map(|(&record, part)| (part.blocks.count(), record))
            .max()?
            .1;
        let part = self.parts.remove(&most)?;
        self.bytes -= part.bytes.len();
        Some(plan.blocks_of(most))
    }
}
