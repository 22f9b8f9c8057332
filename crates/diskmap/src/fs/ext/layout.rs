//! Where the fixed metadata of a group lies.
//!
//! Owns: copies of superblock and group descriptors, reserved descriptor blocks,
//! for every arrangement (all groups, sparse_super, sparse_super2, meta_bg). Does
//! not own: bitmaps and inode tables, whose places the descriptors tell.

use super::Superblock;
use crate::extents::Extent;

/// Block of the first superblock.
fn super_block(sb: &Superblock) -> u64 {
    u64::from(sb.block_size == 1024)
}

/// What lies before the first superblock's block: boot code.
pub(super) fn boot(sb: &Superblock) -> Option<Extent> {
    (super_block(sb) > 0).then_some(Extent { start: 0, len: 1 })
}

/// Blocks of a group.
pub(super) fn span(sb: &Superblock, group: u64) -> Extent {
    let start = sb.first_data_block + group * sb.blocks_per_group;
    Extent::between(
        start,
        sb.blocks.min(start.saturating_add(sb.blocks_per_group)),
    )
}

/// Whether a group has a copy of the superblock.
pub(super) fn has_super(sb: &Superblock, group: u64) -> bool {
    let power_of = |base: u64| {
        let mut power = base;
        while power < group {
            power = power.saturating_mul(base);
        }
        power == group
    };
    if group == 0 {
        true
    } else if sb.two_backups() {
        sb.backup_groups.contains(&group)
    } else {
        !sb.sparse() || group == 1 || power_of(3) || power_of(5) || power_of(7)
    }
}

/// First block of a group that can hold fixed metadata.
fn first_block(sb: &Superblock, group: u64) -> u64 {
    if group == 0 {
        super_block(sb)
    } else {
        span(sb, group).start
    }
}

/// Number of blocks that all group descriptors take.
fn descriptor_blocks(sb: &Superblock) -> u64 {
    sb.groups.div_ceil(sb.descriptors_per_block())
}

/// Whether descriptor block `index` lies in the groups that it describes.
fn in_groups(sb: &Superblock, index: u64) -> bool {
    sb.meta_bg() && index >= sb.first_meta_bg
}

/// Block that holds descriptor block `index`.
pub(super) fn descriptor_block(sb: &Superblock, index: u64) -> u64 {
    if in_groups(sb, index) {
        let group = index * sb.descriptors_per_block();
        first_block(sb, group) + u64::from(has_super(sb, group))
    } else {
        super_block(sb) + 1 + index
    }
}

/// Copies of superblock and descriptors at the start of a group.
pub(super) fn base(sb: &Superblock, group: u64) -> Option<Extent> {
    let per_block = sb.descriptors_per_block();
    let copies = u64::from(has_super(sb, group));
    let descriptors = if in_groups(sb, group / per_block) {
        let place = group % per_block;
        u64::from(place == 0 || place == 1 || place == per_block - 1)
    } else if copies == 0 {
        0
    } else if sb.meta_bg() {
        sb.first_meta_bg.min(descriptor_blocks(sb))
    } else {
        descriptor_blocks(sb) + sb.reserved_gdt
    };
    let start = first_block(sb, group);
    let end = span(sb, group)
        .end()
        .min(start.saturating_add(copies + descriptors));
    (start < end).then(|| Extent::between(start, end))
}
