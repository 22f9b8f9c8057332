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

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::superblock;
    use super::{Extent, base, boot, descriptor_block, has_super};

    #[test]
    fn copies_are_in_the_groups_that_the_features_say() {
        let groups = |sb| (0..60).filter(|&g| has_super(&sb, g)).collect::<Vec<u64>>();
        assert_eq!(groups(superblock(0, 0, 1)), [0, 1, 3, 5, 7, 9, 25, 27, 49]);
        assert_eq!(groups(superblock(0, 0, 0)), (0..60).collect::<Vec<_>>());
        assert_eq!(groups(superblock(0x200, 0, 1)), [0, 1, 59]);
    }

    /// 60 groups of 256 blocks of 1 KiB, 32 descriptors in a block, 3 blocks reserved.
    #[test]
    fn descriptors_in_front_or_in_their_groups() {
        let plain = superblock(0, 0, 1);
        assert_eq!(boot(&plain), Some(Extent { start: 0, len: 1 }));
        assert_eq!(base(&plain, 0), Some(Extent { start: 1, len: 6 }));
        assert_eq!(base(&plain, 2), None);
        assert_eq!(
            base(&plain, 3),
            Some(Extent {
                start: 1 + 3 * 256,
                len: 6
            })
        );
        assert_eq!(
            [descriptor_block(&plain, 0), descriptor_block(&plain, 1)],
            [2, 3]
        );

        let meta = superblock(0, 0x10, 1);
        assert_eq!(
            [descriptor_block(&meta, 0), descriptor_block(&meta, 1)],
            [2, 1 + 32 * 256]
        );
        for (group, len) in [
            (0, 2),
            (1, 2),
            (2, 0),
            (3, 1),
            (31, 1),
            (32, 1),
            (33, 1),
            (34, 0),
        ] {
            assert_eq!(
                base(&meta, group).map_or(0, |e| e.len),
                len,
                "group {group}"
            );
        }
    }
}
