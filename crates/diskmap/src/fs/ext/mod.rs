//! ext2, ext3 and ext4: used blocks from the block bitmaps.
//!
//! Owns: whether the bitmaps can be believed, and the map that follows. Does not
//! own: directories, files and the journal's content.
//!
//! A map is made only from a file system that is clean, whose features are all
//! known, and whose checksums, counters and metadata places agree. Metadata is
//! copied whatever the bitmaps say.
//!
//! Inode tables that were never initialised are left out where that is safe: the
//! group's descriptor is checksummed, says how many inodes at the table's end were
//! never used, and lacks INODE_ZEROED. The last means that nobody has cleared that
//! part yet: it holds whatever was on the disk before the file system was made,
//! every reader skips it, and the kernel clears it some time after mounting. Where
//! INODE_ZEROED is set the blocks are known to be zero, the repair tools may rely
//! on it, and they are copied like any others.

mod group;
mod journal;
mod layout;
mod superblock;

use super::bits::for_each_run;
use super::collect::Collector;
use super::{Fault, Map, Mapped, Volume, damaged};
use crate::bytes::le32;
use crate::checksum::crc32c;
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};
use group::Group;
use superblock::Superblock;

/// Looks for a superblock.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    Ok(Superblock::read(view)?.map(|sb| Volume {
        name: sb.flavour(),
        label: sb.label.clone(),
        uuid: sb.uuid_text(),
        size: sb.size_bytes(),
        wraps: false,
        map: Box::new(sb),
    }))
}

impl Map for Superblock {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        used(view, self).map(Mapped::from)
    }
}

/// Bytes to copy, relative to the region.
fn used(view: &View<'_>, sb: &Superblock) -> Result<Extents, Fault> {
    sb.check()?;
    check_multi_mount(view, sb)?;
    journal::check(view, sb)?;

    let mut collected = Collected {
        used: Collector::new(),
        metadata: Vec::new(),
        skipped: Vec::new(),
        unmapped: Extents::new(),
    };
    collected.metadata.extend(layout::boot(sb));
    let per_block = sb.descriptors_per_block();
    for first in (0..sb.groups).step_by(per_block as usize) {
        for group in group::read_block(view, sb, first)? {
            collected.add(view, sb, &group)?;
        }
    }
    collected.finish(sb)
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
    fn add(&mut self, view: &View<'_>, sb: &Superblock, group: &Group) -> Result<(), Fault> {
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
        let initialised = group.initialised_inode_blocks(sb);
        self.skipped
            .push(Extent::between(table.start + initialised, table.end()));
        let span = layout::span(sb, group.number);
        if group.block_uninit(sb) {
            self.unmapped.push(span);
            return Ok(());
        }
        let bitmap = view.bytes(group.block_bitmap * sb.block_size, sb.block_size as usize)?;
        group.check_bitmap(sb, &bitmap)?;
        let clusters = span.len.div_ceil(sb.cluster_blocks);
        let mut free = 0;
        for_each_run(&bitmap, clusters, |from, to, set| {
            if set {
                let start = span.start + from * sb.cluster_blocks;
                let end = span.start + to * sb.cluster_blocks;
                self.used.push(Extent::between(start, end.min(span.end())));
            } else {
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

    fn finish(mut self, sb: &Superblock) -> Result<Extents, Fault> {
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
        if let Some(lost) = metadata.subtract(&known).iter().next() {
            return damaged(format!(
                "block {} holds metadata and is marked as free",
                lost.start
            ));
        }
        let all = used
            .union(&metadata)
            .subtract(&self.skipped.into_iter().collect());
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

/// With multi-mount protection the file system may be in use on another machine.
fn check_multi_mount(view: &View<'_>, sb: &Superblock) -> Result<(), Fault> {
    const MAGIC: u32 = 0x004d_4d50;
    const CLEAN: u32 = 0xff4d_4d50;
    let Some(block) = sb.multi_mount_block() else {
        return Ok(());
    };
    if block == 0 || block >= sb.blocks {
        return damaged(format!("its multi-mount block {block} is outside"));
    }
    let info = view.bytes(block * sb.block_size, 1024)?;
    if le32(&info, 0) != Some(MAGIC) {
        return damaged("its multi-mount block is not one");
    }
    if sb.metadata_checksums() && le32(&info, 1020) != Some(crc32c(sb.seed, &info[..1020])) {
        return damaged("wrong checksum of its multi-mount block");
    }
    if le32(&info, 4) != Some(CLEAN) {
        return Err(Fault::Dirty("it is marked as in use".into()));
    }
    Ok(())
}
