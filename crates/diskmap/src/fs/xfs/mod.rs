//! XFS: used blocks are all that the free space trees do not list.
//!
//! Owns: whether the trees can be believed, and the map that follows. Does not own:
//! inodes, files, quota and the realtime device, whose blocks are on another disk.
//!
//! A map is made only from a file system whose features are all known, whose log needs no
//! replay or one that leaves the free space as it is, and whose checksums, counters and trees agree: both trees of each group must
//! list the same free extents, and none of these may hold what the headers, the log or
//! the trees themselves occupy.

mod btree;
mod group;
mod log;
mod superblock;

use super::collect::Collector;
use super::{Fault, Map, Mapped, Trouble, TroubleKind, Volume, damaged};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};
use btree::{Free, Order};
use group::Group;
use superblock::Superblock;

/// Looks for a superblock.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    Ok(Superblock::read(view)?.map(|sb| Volume {
        name: "xfs",
        label: sb.label.clone(),
        uuid: sb.uuid_text(),
        size: sb.size_bytes(),
        wraps: false,
        map: Box::new(sb),
    }))
}

impl Map for Superblock {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        used(view, self)
    }
}

/// Bytes to copy, relative to the region.
fn used(view: &View<'_>, sb: &Superblock) -> Result<Mapped, Fault> {
    sb.check()?;
    let log = log::check(view, sb)?;
    log.end.check(sb.checksums().then(|| sb.lsn()))?;
    let mut used = Collector::new();
    let mut free = 0;
    for number in 0..sb.groups {
        let group = Group::read(view, sb, &log.end, number)?;
        free += add_group(view, &group, log.pending.as_ref(), &mut used)?;
    }
    let Some(pending) = log.pending else {
        if free != sb.free_blocks {
            return damaged(format!(
                "there are {free} free blocks, its superblock says {}",
                sb.free_blocks
            ));
        }
        return Ok(Mapped::from(used.finish()));
    };
    if !pending.iter().all(|&change| used.covers(change)) {
        return damaged("its log changes what is listed as free");
    }
    Ok(Mapped {
        troubles: vec![Trouble {
            kind: TroubleKind::Dirty,
            detail: "its log has to be replayed, which leaves the free space as it is; \
                     the log and all space in use are copied"
                .into(),
        }],
        ..Mapped::from(used.finish())
    })
}

/// Adds the used bytes of a group; returns how many blocks the superblock's counter has
/// to contain for it.
fn add_group(
    view: &View<'_>,
    group: &Group<'_>,
    pending: Option<&Extents>,
    used: &mut Collector,
) -> Result<u64, Fault> {
    let (sb, number) = (group.sb, group.number);
    let mut by_place = Tally::default();
    let mut at = 0;
    let mut blocks = btree::walk(view, group, group.tree(Order::Place), |free| {
        by_place.add(free);
        let (start, end) = (sb.offset(number, at), sb.offset(number, free.start.into()));
        used.push(Extent::between(start, end));
        at = u64::from(free.start) + u64::from(free.len);
    })?;
    used.push(Extent::between(
        sb.offset(number, at),
        sb.offset(number, group.blocks),
    ));
    let mut by_length = Tally::default();
    let by_length_blocks = btree::walk(view, group, group.tree(Order::Length), |free| {
        by_length.add(free);
    })?;
    if by_place != by_length {
        return damaged(format!("the free space trees of group {number} differ"));
    }
    if (by_place.blocks, by_place.longest) != (group.free_blocks(), group.longest()) {
        return damaged(format!(
            "group {number} has {} free blocks in its tree, {} in its header",
            by_place.blocks,
            group.free_blocks()
        ));
    }
    blocks.extend(by_length_blocks);
    // The roots do not count.
    let counted = blocks.len() as u64 - 2 + group.reverse_map_blocks();
    if sb.lazy_counters() && counted != group.tree_blocks() {
        return damaged(format!(
            "the trees of group {number} have {counted} blocks, {} in its header",
            group.tree_blocks()
        ));
    }
    check_fixed(group, &blocks, used)?;
    let stale = |&block: &u32| pending.is_some_and(|p| p.contains(sb.offset(number, block.into())));
    if blocks.iter().any(stale) {
        return Err(Fault::Dirty(
            "its log has to be replayed, which changes the free space".into(),
        ));
    }
    Ok(group.free_blocks() + group.free_list_blocks() + counted)
}

/// Metadata must not lie in free space.
fn check_fixed(group: &Group<'_>, trees: &[u32], used: &Collector) -> Result<(), Fault> {
    let (sb, number) = (group.sb, group.number);
    let lost = |block: u64, len: u64| {
        !used.covers(Extent {
            start: sb.offset(number, block),
            len: len * sb.block_size,
        })
    };
    let mut fixed = group.fixed.iter().chain(trees);
    if let Some(block) = fixed.find(|&&block| lost(block.into(), 1)) {
        return damaged(format!(
            "block {block} of group {number} holds metadata and is listed as free"
        ));
    }
    if let Some((home, block)) = sb.place(sb.log_start)
        && home == number
        && lost(block, sb.log_blocks)
    {
        return damaged("its log is listed as free");
    }
    Ok(())
}

/// What two lists of the same extents have in common, whatever their order.
#[derive(Default, PartialEq, Eq)]
struct Tally {
    extents: u64,
    blocks: u64,
    longest: u32,
    /// Sum of a scrambled number for each extent.
    print: u64,
}

impl Tally {
    fn add(&mut self, free: Free) {
        self.extents += 1;
        self.blocks += u64::from(free.len);
        self.longest = self.longest.max(free.len);
        let both = u64::from(free.start) << 32 | u64::from(free.len);
        let mixed = (both ^ both >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.print = self.print.wrapping_add(mixed ^ mixed >> 32);
    }
}
