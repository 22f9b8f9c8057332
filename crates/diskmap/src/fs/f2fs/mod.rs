//! F2FS: valid blocks from the segment entries of the last checkpoint.
//!
//! Owns: whether these can be believed, and the map that follows. Does not own: nodes,
//! files and directories.
//!
//! The kernel always starts from the newest valid checkpoint. After an unmount nothing
//! else counts. After a crash it goes on from there: nodes that were written for an
//! `fsync` since then form a chain, whose first block is the next free one of a certain
//! log, and which is taken in if that block carries the checkpoint's version. These
//! blocks, and the data that they name, are free by the segment entries. So:
//!
//! - the block is of that version: there is data to recover, every sector is copied;
//! - it is not: the checkpoint is the whole truth, whether there was an unmount or not,
//!   and its valid blocks are a complete map. Without an unmount that is told.
//!
//! The whole segment of that log is always copied, its free blocks too: what a target
//! disk held there before could be nodes of the very same file system, written later
//! after the very same checkpoint, and must not be taken for such a chain.
//!
//! The summary of a segment says to which nodes its valid blocks belong. Where there are
//! none and nothing is being written, it says nothing: a segment that is taken into use
//! gets a new one. These summaries are left out.

mod checkpoint;
mod segments;
mod superblock;

use super::bits::for_each_run;
use super::collect::Collector;
use super::{Fault, Map, Mapped, Trouble, TroubleKind, Volume, damaged};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};
use checkpoint::Checkpoint;
use segments::Segment;
use superblock::Superblock;

const MAGIC: u32 = 0xf2f5_2010;
/// Bytes of a block; there are others, but not here.
const BLOCK: u64 = 4096;
/// Blocks of a segment.
const SEGMENT_BLOCKS: u64 = 512;

/// Looks for a superblock.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    Ok(superblock::find(view)?.map(|raw| Volume {
        name: "f2fs",
        label: superblock::label(&raw),
        uuid: superblock::uuid(&raw),
        size: superblock::size(&raw),
        wraps: false,
        map: Box::new(F2fs { superblock: raw }),
    }))
}

/// The bytes of a superblock.
struct F2fs {
    superblock: Vec<u8>,
}

impl Map for F2fs {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        let sb = Superblock::read(view, &self.superblock)?;
        let checkpoint = Checkpoint::read(view, &sb)?;
        let (log, next) = checkpoint.recovery_start();
        let node = sb.main + u64::from(log) * SEGMENT_BLOCKS + next;
        if checkpoint.is_followed_by(&view.bytes(node * BLOCK, BLOCK as usize)?) {
            return Err(Fault::Dirty(
                "it was not cleanly unmounted and has data to recover".into(),
            ));
        }
        let mut mapped = Mapped::from(used(view, &sb, &checkpoint)?);
        if !checkpoint.unmounted() {
            mapped.troubles.push(Trouble {
                kind: TroubleKind::Dirty,
                detail: "it was not cleanly unmounted and has nothing to recover; what its last \
                         checkpoint holds is copied"
                    .into(),
            });
        }
        Ok(mapped)
    }
}

/// Bytes to copy: everything before the main area but summaries of empty segments, its
/// valid blocks, and what is behind.
fn used(view: &View<'_>, sb: &Superblock, checkpoint: &Checkpoint) -> Result<Extents, Fault> {
    let journal = checkpoint.journal(view)?;
    let mut newer = journal.iter().peekable();
    let mut found = Found::new(sb, checkpoint);
    segments::each(view, sb, checkpoint.sit_versions(sb)?, |number, entry| {
        let entry = newer
            .next_if(|(segment, _)| *segment == number)
            .map_or(entry, |(_, entry)| entry);
        found.add(number, &Segment::decode(number, entry)?);
        Ok(())
    })?;
    if let Some((segment, _)) = newer.next() {
        return damaged(format!(
            "the journal names segment {segment}, which is not there"
        ));
    }
    // Blocks that are promised to files but not written yet are only in the total.
    if found.nodes != checkpoint.valid_nodes || found.valid > checkpoint.valid_blocks {
        return damaged(format!(
            "its segments have {} valid blocks, {} of them nodes; its checkpoint counts {} and {}",
            found.valid, found.nodes, checkpoint.valid_blocks, checkpoint.valid_nodes
        ));
    }
    Ok(found.finish())
}

/// What the segments add up to.
struct Found<'a> {
    sb: &'a Superblock,
    /// Segments that are being written to.
    current: Vec<u32>,
    /// The one of them to which nodes of files go.
    log: u32,
    /// Bytes before the main area, and in it.
    front: Collector,
    main: Collector,
    /// Valid blocks, and those of them that are nodes.
    valid: u64,
    nodes: u64,
}

impl Found<'_> {
    fn new<'a>(sb: &'a Superblock, checkpoint: &Checkpoint) -> Found<'a> {
        let mut front = Collector::new();
        front.push(bytes(0, sb.summaries));
        Found {
            sb,
            current: checkpoint.logs().map(|(segment, _)| segment).collect(),
            log: checkpoint.recovery_start().0,
            front,
            main: Collector::new(),
            valid: 0,
            nodes: 0,
        }
    }

    /// Takes in the next segment.
    fn add(&mut self, number: u32, segment: &Segment) {
        self.valid += segment.valid;
        if segment.nodes {
            self.nodes += segment.valid;
        }
        if segment.valid > 0 || self.current.contains(&number) {
            let summary = self.sb.summaries + u64::from(number);
            self.front.push(bytes(summary, summary + 1));
        }
        let start = self.sb.main + u64::from(number) * SEGMENT_BLOCKS;
        if number == self.log {
            self.main.push(bytes(start, start + SEGMENT_BLOCKS));
        } else if segment.valid > 0 {
            for_each_run(&segment.map(), SEGMENT_BLOCKS, |from, to, set| {
                if set {
                    self.main.push(bytes(start + from, start + to));
                }
            });
        }
    }

    fn finish(mut self) -> Extents {
        let summaries = self.sb.summaries + u64::from(self.sb.main_segments);
        self.front.push(bytes(summaries, self.sb.main));
        self.main.push(bytes(self.sb.main_end(), self.sb.blocks));
        self.front.finish().union(&self.main.finish())
    }
}

/// Blocks as bytes.
fn bytes(from: u64, to: u64) -> Extent {
    Extent::between(from * BLOCK, to * BLOCK)
}

/// The CRC-32 of F2FS: the common polynomial, neither input nor output inverted.
fn crc(seed: u32, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!seed);
    hasher.update(data);
    !hasher.finalize()
}
