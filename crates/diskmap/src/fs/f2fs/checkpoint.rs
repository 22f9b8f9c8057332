//! Checkpoints of F2FS: the last consistent state, and what may follow it.
//!
//! Owns: choosing among the two packs, their checksums and ranges (`struct
//! f2fs_checkpoint` of the kernel's `f2fs_fs.h`), the journal of segment entries, the
//! sign of data to roll forward. Does not own: what the segments hold.

use super::super::{Fault, damaged};
use super::superblock::Superblock;
use super::{BLOCK, MAGIC, SEGMENT_BLOCKS, crc};
use crate::bytes::{le16, le32, le64};
use crate::view::View;

/// Fixed fields before the version bitmaps.
const FIXED: usize = 192;
/// Last place of a checkpoint's checksum.
const LAST_CHECKSUM: usize = 4092;
/// Segments that are written to: three for nodes, three for data.
const LOGS: usize = 3;
/// The log of nodes of files, whose blocks are chained for recovery.
const WARM: usize = 1;

const UNMOUNTED: u32 = 0x0001;
const COMPACT: u32 = 0x0004;
const ERROR: u32 = 0x0008;
const NEEDS_CHECK: u32 = 0x0010;
const FAST_BOOT: u32 = 0x0020;
const LARGE_BITMAP: u32 = 0x0400;
const DISABLED: u32 = 0x3000;
const RESIZING: u32 = 0x4000;
/// Flags that change nothing about which blocks are in use: orphans, checksums in node
/// versions, free node bits, trimmed, quota to be checked.
const HARMLESS: u32 = 0x0bc2;

/// Bytes of a journal in a summary block.
const JOURNAL: usize = 507;
/// Offset of the journal in a whole summary block.
const JOURNAL_AT: usize = 3584;
/// Bytes of a journal's entry: segment number and segment entry.
const JOURNAL_ENTRY: usize = 78;

/// The checkpoint that counts.
pub(super) struct Checkpoint {
    /// First block of its pack.
    start: u64,
    version: u64,
    flags: u32,
    /// Blocks in the pack.
    total: u64,
    /// Its blocks that hold bitmaps.
    raw: Vec<u8>,
    pub valid_blocks: u64,
    pub valid_nodes: u64,
}

impl Checkpoint {
    /// The newer one of two valid packs, or the first.
    pub fn read(view: &View<'_>, sb: &Superblock) -> Result<Checkpoint, Fault> {
        let first = Checkpoint::pack(view, sb, sb.checkpoints)?;
        let second = Checkpoint::pack(view, sb, sb.checkpoints + SEGMENT_BLOCKS)?;
        let chosen = match (first, second) {
            // Of the same version it is the first: the tools copy what counts to the second
            // place, and change the first without a new version.
            (Some(first), Some(second)) => {
                let newer = second.version.wrapping_sub(first.version) as i64 > 0;
                if newer { second } else { first }
            }
            (None, None) => return damaged("neither of its checkpoints is valid"),
            _ => {
                return Err(Fault::Dirty(
                    "one of its two checkpoints is not valid".into(),
                ));
            }
        };
        chosen.check(sb)?;
        Ok(chosen)
    }

    /// A pack; `None` if it is not a valid one.
    fn pack(view: &View<'_>, sb: &Superblock, start: u64) -> Result<Option<Checkpoint>, Fault> {
        let raw = view.bytes(start * BLOCK, ((1 + sb.payload) * BLOCK) as usize)?;
        let word = |at| le32(&raw, at).unwrap_or(0);
        let total = u64::from(word(136));
        let Some(version) = valid_version(&raw[..BLOCK as usize]) else {
            return Ok(None);
        };
        if total <= 2 + sb.payload || total > SEGMENT_BLOCKS {
            return Ok(None);
        }
        let last = view.bytes((start + total - 1) * BLOCK, BLOCK as usize)?;
        if valid_version(&last) != Some(version) {
            return Ok(None);
        }
        Ok(Some(Checkpoint {
            start,
            version,
            flags: word(132),
            total,
            valid_blocks: le64(&raw, 16).unwrap_or(0),
            valid_nodes: u64::from(word(144)),
            raw,
        }))
    }

    fn word(&self, at: usize) -> u32 {
        le32(&self.raw, at).unwrap_or(0)
    }

    /// Current segment and the next block in it, of a log of nodes or of data.
    fn log(&self, nodes: bool, index: usize) -> (u32, u64) {
        let (segments, offsets) = if nodes { (36, 68) } else { (84, 116) };
        let offset = le16(&self.raw, offsets + 2 * index).unwrap_or(0);
        (self.word(segments + 4 * index), u64::from(offset))
    }

    /// Every current segment, and the next block in it.
    pub fn logs(&self) -> impl Iterator<Item = (u32, u64)> {
        let of = |nodes| (0..LOGS).map(move |index| self.log(nodes, index));
        of(true).chain(of(false))
    }

    fn check(&self, sb: &Superblock) -> Result<(), Fault> {
        self.check_flags()?;
        let user_blocks = le64(&self.raw, 8).unwrap_or(0);
        let main = u64::from(sb.main_segments) * SEGMENT_BLOCKS;
        if self.valid_blocks > user_blocks || user_blocks >= main {
            return damaged(format!(
                "its checkpoint counts {} blocks in use of {user_blocks}",
                self.valid_blocks
            ));
        }
        let mut segments: Vec<u32> = Vec::with_capacity(2 * LOGS);
        for (segment, next) in self.logs() {
            if segment >= sb.main_segments || next >= SEGMENT_BLOCKS || segments.contains(&segment)
            {
                return damaged(format!("its checkpoint writes to segment {segment}"));
            }
            segments.push(segment);
        }
        let bits = |segments: u64| segments / 2 * SEGMENT_BLOCKS / 8;
        if u64::from(self.word(156)) != bits(sb.sit_segments)
            || u64::from(self.word(160)) != bits(sb.nat_segments)
        {
            return damaged("the bitmaps of its checkpoint have a wrong size");
        }
        let summaries = u64::from(self.word(140));
        if summaries < 1 + sb.payload || summaries + 1 >= self.total {
            return damaged("the summaries of its checkpoint lie outside");
        }
        // Without compaction all of them are there, and nothing else is behind them.
        if self.flags & COMPACT == 0 && summaries + self.summary_blocks() + 1 != self.total {
            return damaged("its checkpoint has a wrong number of summaries");
        }
        Ok(())
    }

    fn check_flags(&self) -> Result<(), Fault> {
        if self.flags & ERROR != 0 {
            return damaged("its checkpoint says that there were errors");
        }
        if self.flags & NEEDS_CHECK != 0 {
            return damaged("its checkpoint says that it needs a check");
        }
        if self.flags & RESIZING != 0 {
            return Err(Fault::Dirty("a change of its size was interrupted".into()));
        }
        if self.flags & DISABLED != 0 {
            return Err(Fault::Dirty("its checkpoints are switched off".into()));
        }
        let known = UNMOUNTED | COMPACT | FAST_BOOT | LARGE_BITMAP | HARMLESS;
        if self.flags & !known != 0 {
            return Err(Fault::Unsupported(format!(
                "the flags {:#x} of its checkpoint are not all known",
                self.flags
            )));
        }
        Ok(())
    }

    /// Number of whole summary blocks in a pack that is not compacted.
    fn summary_blocks(&self) -> u64 {
        if self.flags & (UNMOUNTED | FAST_BOOT) != 0 {
            2 * LOGS as u64
        } else {
            LOGS as u64
        }
    }

    /// Whether this was written by an unmount.
    pub fn unmounted(&self) -> bool {
        self.flags & UNMOUNTED != 0
    }

    /// Which of their two copies the blocks of segment entries have, a bit for each from
    /// the most significant one on.
    pub fn sit_versions(&self, sb: &Superblock) -> Result<&[u8], Fault> {
        let (sit, nat) = (self.word(156) as usize, self.word(160) as usize);
        let at = if self.flags & LARGE_BITMAP != 0 {
            // The checksum stands in front then.
            if self.word(164) as usize != FIXED {
                return Err(Fault::Unsupported(
                    "it has large bitmaps of an older layout".into(),
                ));
            }
            FIXED + 4 + nat
        } else if sb.payload > 0 {
            BLOCK as usize
        } else {
            FIXED
        };
        match self.raw.get(at..at + sit) {
            Some(bits) => Ok(bits),
            None => damaged("the bitmaps of its checkpoint do not fit"),
        }
    }

    /// Segment entries that are newer than those in their own area.
    pub fn journal(&self, view: &View<'_>) -> Result<Vec<(u32, Vec<u8>)>, Fault> {
        let summaries = self.start + u64::from(self.word(140));
        // Compacted, the journal of nodes is in front of that of segments; else this is
        // in the summary of the third data log.
        let (block, at) = if self.flags & COMPACT != 0 {
            (summaries, JOURNAL)
        } else {
            (summaries + 2, JOURNAL_AT)
        };
        let raw = view.bytes(block * BLOCK, BLOCK as usize)?;
        let journal = &raw[at..at + JOURNAL];
        let count = usize::from(le16(journal, 0).unwrap_or(0));
        let Some(entries) = journal[2..].get(..count * JOURNAL_ENTRY) else {
            return damaged(format!("the journal of its checkpoint has {count} entries"));
        };
        let mut list: Vec<(u32, Vec<u8>)> = entries
            .chunks_exact(JOURNAL_ENTRY)
            .map(|raw| (le32(raw, 0).unwrap_or(0), raw[4..].to_vec()))
            .collect();
        list.sort_by_key(|(segment, _)| *segment);
        if list.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return damaged("the journal of its checkpoint names a segment twice");
        }
        Ok(list)
    }

    /// The segment to which nodes of files are written, and the block that is next.
    pub fn recovery_start(&self) -> (u32, u64) {
        self.log(true, WARM)
    }

    /// Whether a block looks like a node that was written after this checkpoint and
    /// before the next one: the systems compare more or less of its version, according
    /// to flags, so the part that always counts is taken.
    pub fn is_followed_by(&self, node: &[u8]) -> bool {
        le32(node, 4096 - 12) == Some(self.version as u32)
    }
}

/// Version of a checkpoint block with a right checksum.
fn valid_version(raw: &[u8]) -> Option<u64> {
    let at = le32(raw, 164)? as usize;
    if !(FIXED..=LAST_CHECKSUM).contains(&at) {
        return None;
    }
    let mut sum = crc(MAGIC, raw.get(..at)?);
    if at < LAST_CHECKSUM {
        sum = crc(sum, raw.get(at + 4..)?);
    }
    (le32(raw, at)? == sum).then(|| le64(raw, 0))?
}
