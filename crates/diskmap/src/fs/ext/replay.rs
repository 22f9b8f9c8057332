//! What the journal would write over the metadata that a map is made from.
//!
//! Owns: which logged blocks are block bitmaps, group descriptors or superblocks, and
//! where in the journal their versions are. Does not own: the walk itself (`log`), nor
//! what the versions say together (`bitmaps`).

use super::super::{Fault, damaged};
use super::journal::Journal;
use super::log::{self, Record, Write};
use super::{Superblock, group, layout};
use crate::extents::{Extent, Extents};
use crate::view::View;

/// Most versions of metadata blocks that are kept (16 bytes each): a journal of 4 GiB
/// that holds nothing else.
const MAX_VERSIONS: usize = 1 << 20;
/// Block numbers that are gathered before they are sorted and merged.
const BATCH: usize = 1 << 16;
/// Most extents of other blocks; past it, those that are close together are joined.
const MAX_EXTENTS: usize = 1 << 18;

/// A logged version of a metadata block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    /// Group of a bitmap, or index of a block of descriptors.
    pub key: u32,
    /// Place in the journal.
    at: u32,
    transaction: u32,
    escaped: bool,
}

/// What a journal holds; nothing by default.
#[derive(Default)]
pub(super) struct Replay<'a> {
    journal: Option<Journal<'a>>,
    /// Versions of block bitmaps, those of one batch of groups in the order of the log.
    bitmaps: Vec<Version>,
    /// Versions of blocks of descriptors by index, then in the order of the log.
    descriptors: Vec<Version>,
    /// Number of transactions that were committed.
    committed: u32,
    /// Blocks that the journal writes to.
    pub targets: Extents,
    /// Blocks that older transactions must not write.
    pub revoked: Extents,
}

impl<'a> Replay<'a> {
    /// Walks the whole journal.
    pub fn read(
        view: &View<'_>,
        sb: &Superblock,
        journal: Journal<'a>,
    ) -> Result<Replay<'a>, Fault> {
        let known = Known::read(view, sb)?;
        let mut bitmaps = Vec::new();
        let mut descriptors = Vec::new();
        let mut superblocks = Vec::new();
        let mut targets = Blocks::default();
        let mut revoked = Blocks::default();
        let committed = log::walk(
            &journal.shape,
            |at| journal.block(at),
            |record| {
                let write = match record {
                    Record::Revoke(block, _) => {
                        revoked.push(block);
                        return Ok(());
                    }
                    Record::Write(write) => write,
                };
                targets.push(write.target);
                let (list, key) = if let Some(group) = Known::find(&known.bitmaps, write.target) {
                    (&mut bitmaps, group)
                } else if let Some(index) = Known::find(&known.descriptors, write.target) {
                    (&mut descriptors, index)
                } else if write.target == sb.place().0 {
                    (&mut superblocks, 0)
                } else {
                    return Ok(());
                };
                if list.len() >= MAX_VERSIONS {
                    return Err(Fault::Dirty("its journal is too large".into()));
                }
                list.push(Version::new(key, write));
                Ok(())
            },
        )?;
        bitmaps.sort_by_key(|version| version.key / batch(sb));
        descriptors.sort_by_key(|version| version.key);
        let replay = Replay {
            journal: Some(journal),
            bitmaps,
            descriptors,
            committed,
            targets: targets.finish(),
            revoked: revoked.finish(),
        };
        replay.check_superblocks(sb, &superblocks)?;
        Ok(replay)
    }

    fn check_superblocks(&self, sb: &Superblock, versions: &[Version]) -> Result<(), Fault> {
        for version in versions.iter().filter(|v| self.is_committed(v)) {
            let block = self.content(version)?;
            sb.check_copy(block.get(sb.place().1..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Whether every replay that gets so far writes this version.
    pub fn is_committed(&self, version: &Version) -> bool {
        version.transaction < self.committed
    }

    /// What replay would write.
    pub fn content(&self, version: &Version) -> Result<Vec<u8>, Fault> {
        match &self.journal {
            Some(journal) => journal.content(u64::from(version.at), version.escaped),
            None => damaged("it has no journal"),
        }
    }

    /// Versions of the bitmaps of the batch that starts with group `first`.
    pub fn bitmaps(&self, sb: &Superblock, first: u64) -> &[Version] {
        let number = first / u64::from(batch(sb));
        run(&self.bitmaps, |version| {
            u64::from(version.key / batch(sb)).cmp(&number)
        })
    }

    /// Committed versions of a block of descriptors.
    pub fn descriptors(&self, index: u64) -> impl Iterator<Item = &Version> {
        run(&self.descriptors, |version| {
            u64::from(version.key).cmp(&index)
        })
        .iter()
        .filter(|version| self.is_committed(version))
    }

    /// Blocks of the journal itself.
    pub fn places(&self) -> Option<&Extents> {
        self.journal.as_ref().map(|journal| &journal.places)
    }
}

/// Groups whose bitmaps are looked at together: two of each are in memory at once.
pub(super) fn batch(sb: &Superblock) -> u32 {
    const BYTES: u64 = 4 << 20;
    (BYTES / sb.block_size).max(1) as u32
}

/// The elements of a sorted list that compare as equal.
fn run(list: &[Version], order: impl Fn(&Version) -> std::cmp::Ordering) -> &[Version] {
    let from = list.partition_point(|version| order(version).is_lt());
    let len = list[from..].partition_point(|version| order(version).is_eq());
    &list[from..from + len]
}

impl Version {
    fn new(key: u32, write: Write) -> Version {
        Version {
            key,
            // Fits: no journal is longer than `journal::MAX_LEN`.
            at: write.at as u32,
            transaction: write.transaction,
            escaped: write.escaped,
        }
    }
}

/// Where bitmaps and descriptors are, by the descriptors on the disk.
struct Known {
    /// Block and group, by block.
    bitmaps: Vec<(u64, u32)>,
    /// Block and index, by block.
    descriptors: Vec<(u64, u32)>,
}

impl Known {
    fn read(view: &View<'_>, sb: &Superblock) -> Result<Known, Fault> {
        let mut known = Known {
            bitmaps: Vec::new(),
            descriptors: Vec::new(),
        };
        let per_block = sb.descriptors_per_block();
        for (index, first) in (0..sb.groups).step_by(per_block as usize).enumerate() {
            let place = layout::descriptor_block(sb, index as u64);
            known.descriptors.push((place, index as u32));
            for group in group::read_block(view, sb, first)? {
                // Fits: groups are fewer than inodes, which are counted in 32 bits.
                known
                    .bitmaps
                    .push((group.block_bitmap, group.number as u32));
            }
        }
        known.bitmaps.sort_unstable();
        known.descriptors.sort_unstable();
        Ok(known)
    }

    fn find(list: &[(u64, u32)], block: u64) -> Option<u32> {
        let at = list.binary_search_by_key(&block, |entry| entry.0).ok()?;
        Some(list[at].1)
    }
}

/// A set of blocks that come in any order.
#[derive(Default)]
struct Blocks {
    new: Vec<u64>,
    merged: Extents,
}

impl Blocks {
    fn push(&mut self, block: u64) {
        self.new.push(block);
        if self.new.len() >= BATCH {
            self.merge();
        }
    }

    fn merge(&mut self) {
        self.new.sort_unstable();
        let new = self.new.drain(..).map(|start| Extent { start, len: 1 });
        self.merged = self.merged.union(&new.collect());
        let mut gap = 8;
        while self.merged.len() > MAX_EXTENTS {
            self.merged.coarsen(gap);
            gap *= 2;
        }
    }

    fn finish(mut self) -> Extents {
        self.merge();
        self.merged
    }
}
