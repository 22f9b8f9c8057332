//! The block bitmaps of all groups, as one map.
//!
//! Owns: reading them, those in the journal too, and checking them against descriptors
//! and metadata. Does not own: where anything lies (`layout`, `group`, `replay`).

use super::super::bits::for_each_run;
use super::super::collect::Collector;
use super::super::{Fault, damaged};
use super::group::{self, Group};
use super::replay::{self, Replay};
use super::{Superblock, layout};
use crate::extents::{Extent, Extents};
use crate::view::View;
use std::collections::BTreeMap;

/// Bytes to copy, relative to the region.
pub(super) fn used(
    view: &View<'_>,
    sb: &Superblock,
    replay: &Replay<'_>,
) -> Result<Extents, Fault> {
    let mut collected = Collected {
        used: Collector::new(),
        metadata: Vec::new(),
        skipped: Vec::new(),
        unmapped: Extents::new(),
    };
    collected.metadata.extend(layout::boot(sb));
    let batch = u64::from(replay::batch(sb));
    for first in (0..sb.groups).step_by(batch as usize) {
        let logged = logged(sb, replay, first)?;
        let per_block = sb.descriptors_per_block();
        let end = sb.groups.min(first + batch);
        for index in first / per_block..end.div_ceil(per_block) {
            for group in descriptors(view, sb, replay, index)? {
                if (first..end).contains(&group.number) {
                    let logged = logged.get(&group.number);
                    collected.add(view, sb, &group, logged)?;
                }
            }
        }
    }
    collected.finish(sb, replay)
}

/// The groups of a block of descriptors, after a complete replay.
fn descriptors(
    view: &View<'_>,
    sb: &Superblock,
    replay: &Replay<'_>,
    index: u64,
) -> Result<Vec<Group>, Fault> {
    let first = index * sb.descriptors_per_block();
    let mut groups = group::read_block(view, sb, first)?;
    for version in replay.descriptors(index) {
        let later = group::decode_block(sb, first, &replay.content(version)?)?;
        for (group, later) in groups.iter_mut().zip(later) {
            group.update(later)?;
        }
    }
    Ok(groups)
}

/// What the journal says of one bitmap.
#[derive(Default)]
struct Logged {
    /// All versions together.
    union: Vec<u8>,
    /// The version that a complete replay ends with; empty if there is none.
    last: Vec<u8>,
}

/// The logged bitmaps of the batch of groups that starts with `first`.
fn logged(
    sb: &Superblock,
    replay: &Replay<'_>,
    first: u64,
) -> Result<BTreeMap<u64, Logged>, Fault> {
    let mut found: BTreeMap<u64, Logged> = BTreeMap::new();
    for version in replay.bitmaps(sb, first) {
        let bitmap = replay.content(version)?;
        let logged = found.entry(u64::from(version.key)).or_default();
        merge(&mut logged.union, &bitmap);
        if replay.is_committed(version) {
            logged.last = bitmap;
        }
    }
    Ok(found)
}

/// Sets the bits of `more` in `union`, too.
fn merge(union: &mut Vec<u8>, more: &[u8]) {
    if union.len() < more.len() {
        union.resize(more.len(), 0);
    }
    for (byte, more) in union.iter_mut().zip(more) {
        *byte |= more;
    }
}

/// All in blocks, not bytes.
struct Collected {
    /// What the bitmaps say.
    used: Collector,
    /// What must be copied whatever they say.
    metadata: Vec<Extent>,
    /// Inode tables that were never initialised.
    skipped: Vec<Extent>,
    /// Groups without a bitmap.
    unmapped: Extents,
}

impl Collected {
    fn add(
        &mut self,
        view: &View<'_>,
        sb: &Superblock,
        group: &Group,
        logged: Option<&Logged>,
    ) -> Result<(), Fault> {
        self.metadata.extend(layout::base(sb, group.number));
        self.metadata.push(Extent {
            start: group.block_bitmap,
            len: 1,
        });
        self.metadata.push(Extent {
            start: group.inode_bitmap,
            len: 1,
        });
        let table = Extent {
            start: group.inode_table,
            len: sb.inode_table_blocks(),
        };
        self.metadata.push(table);
        self.skipped.push(Extent::between(
            table.start + group.initialised,
            table.end(),
        ));
        let span = layout::span(sb, group.number);
        if group.block_uninit(sb) {
            self.unmapped.push(span);
        }
        let mut bitmap = Vec::new();
        if group.has_bitmap {
            bitmap = view.bytes(group.block_bitmap * sb.block_size, sb.block_size as usize)?;
        }
        let clusters = span.len.div_ceil(sb.cluster_blocks);
        if !group.block_uninit(sb) {
            let last = logged.map(|logged| &logged.last);
            check(
                sb,
                group,
                last.filter(|last| !last.is_empty()).unwrap_or(&bitmap),
                clusters,
            )?;
        }
        if let Some(logged) = logged {
            merge(&mut bitmap, &logged.union);
        }
        for_each_run(&bitmap, clusters, |from, to, set| {
            if set {
                let start = span.start + from * sb.cluster_blocks;
                let end = span.start + to * sb.cluster_blocks;
                self.used.push(Extent::between(start, end.min(span.end())));
            }
        });
        Ok(())
    }

    fn finish(mut self, sb: &Superblock, replay: &Replay<'_>) -> Result<Extents, Fault> {
        self.metadata.sort_unstable();
        if let Some(pair) = self.metadata.windows(2).find(|w| w[0].end() > w[1].start) {
            return damaged(format!(
                "block {} holds two kinds of metadata",
                pair[1].start
            ));
        }
        let metadata: Extents = self.metadata.into_iter().collect();
        let used = self.used.finish();
        // The boot block in front of the first group has no bit.
        let outside = Extents::from_iter([Extent {
            start: 0,
            len: sb.first_data_block,
        }]);
        let known = used.union(&self.unmapped).union(&outside);
        let none = Extents::new();
        let journal = replay.places().unwrap_or(&none);
        if let Some(lost) = metadata.union(journal).subtract(&known).iter().next() {
            return damaged(format!(
                "block {} holds metadata and is marked as free",
                lost.start
            ));
        }
        if metadata.subtract(journal).total() != metadata.total() {
            return damaged("its journal lies upon other metadata");
        }
        if replay.targets.subtract(journal).total() != replay.targets.total() {
            return damaged("its journal writes to itself");
        }
        // Only what was freed is ever revoked.
        if metadata.subtract(&replay.revoked).total() != metadata.total() {
            return damaged("its journal revokes metadata that is always there");
        }
        let all = used
            .union(&metadata)
            .subtract(&self.skipped.into_iter().collect())
            .union(journal)
            .union(&replay.targets);
        let size = sb.block_size;
        Ok(all
            .iter()
            .map(|e| Extent {
                start: e.start * size,
                len: e.len * size,
            })
            .collect())
    }
}

/// Checks the bitmap that is the truth in the end.
fn check(sb: &Superblock, group: &Group, bitmap: &[u8], clusters: u64) -> Result<(), Fault> {
    group.check_bitmap(sb, bitmap)?;
    let mut free = 0;
    for_each_run(bitmap, clusters, |from, to, set| {
        if !set {
            free += to - from;
        }
    });
    if free != group.free_clusters {
        return damaged(format!(
            "group {} has {free} free blocks in its bitmap, {} in its descriptor",
            group.number, group.free_clusters
        ));
    }
    Ok(())
}
