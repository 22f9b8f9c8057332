//! Group descriptors.
//!
//! Owns: their fields, checksums and ranges, and what several versions of one say
//! together. Does not own: what the bitmaps say.

use super::super::{Fault, damaged};
use super::{Superblock, layout};
use crate::bytes::{le16, le32};
use crate::checksum::{crc16, crc32c};
use crate::extents::Extent;
use crate::view::View;

const INODE_UNINIT: u16 = 1;
const BLOCK_UNINIT: u16 = 2;
const INODE_ZEROED: u16 = 4;
/// Offset of the descriptor's own checksum.
const CHECKSUM: usize = 0x1e;

/// A descriptor whose checksum and ranges are right.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub number: u64,
    pub block_bitmap: u64,
    pub inode_bitmap: u64,
    pub inode_table: u64,
    pub free_clusters: u64,
    /// Blocks at the start of the inode table that hold something, in some version; the
    /// rest was never initialised by anybody (see the module `ext`).
    pub initialised: u64,
    /// Some version says that there is a block bitmap.
    pub has_bitmap: bool,
    flags: u16,
    itable_unused: u64,
    bitmap_checksum: u32,
    /// The upper half of the bitmap's checksum is there.
    wide_checksum: bool,
}

/// The descriptors of one block, from group `first` on.
pub(super) fn read_block(
    view: &View<'_>,
    sb: &Superblock,
    first: u64,
) -> Result<Vec<Group>, Fault> {
    let per_block = sb.descriptors_per_block();
    let block = layout::descriptor_block(sb, first / per_block);
    if block >= sb.blocks {
        return damaged(format!("the descriptors of group {first} are outside"));
    }
    let raw = view.bytes(block * sb.block_size, sb.block_size as usize)?;
    decode_block(sb, first, &raw)
}

/// As [`read_block`], from the block's bytes.
pub(super) fn decode_block(sb: &Superblock, first: u64, raw: &[u8]) -> Result<Vec<Group>, Fault> {
    (first..sb.groups.min(first + sb.descriptors_per_block()))
        .zip(raw.chunks_exact(sb.descriptor_size as usize))
        .map(|(number, raw)| Group::decode(sb, number, raw))
        .collect()
}

impl Group {
    fn decode(sb: &Superblock, number: u64, raw: &[u8]) -> Result<Group, Fault> {
        check_checksum(sb, number, raw)?;
        let low = |at| u64::from(le32(raw, at).unwrap_or(0));
        let half = |at| u64::from(le16(raw, at).unwrap_or(0));
        let high = |value: u64, shift: u32| if sb.has64() { value << shift } else { 0 };
        let mut group = Group {
            number,
            block_bitmap: low(0x00) | high(low(0x20), 32),
            inode_bitmap: low(0x04) | high(low(0x24), 32),
            inode_table: low(0x08) | high(low(0x28), 32),
            free_clusters: half(0x0c) | high(half(0x2c), 16),
            initialised: 0,
            has_bitmap: false,
            flags: half(0x12) as u16,
            itable_unused: half(0x1c) | high(half(0x32), 16),
            bitmap_checksum: (half(0x18) | high(half(0x38), 16)) as u32,
            wide_checksum: sb.has64(),
        };
        group.check_ranges(sb)?;
        group.initialised = group.initialised_inode_blocks(sb);
        group.has_bitmap = !group.block_uninit(sb);
        Ok(group)
    }

    /// Takes what a later version says, without forgetting what this one said.
    pub fn update(&mut self, mut later: Group) -> Result<(), Fault> {
        let places = |group: &Group| (group.block_bitmap, group.inode_bitmap, group.inode_table);
        if places(self) != places(&later) {
            return damaged(format!(
                "its journal moves the metadata of group {}",
                self.number
            ));
        }
        later.initialised = later.initialised.max(self.initialised);
        later.has_bitmap |= self.has_bitmap;
        *self = later;
        Ok(())
    }

    /// Without flex_bg a group's metadata lies in the group itself.
    fn check_ranges(&self, sb: &Superblock) -> Result<(), Fault> {
        let room = if sb.flex() {
            Extent::between(sb.first_data_block, sb.blocks)
        } else {
            layout::span(sb, self.number)
        };
        let parts = [
            ("block bitmap", self.block_bitmap, 1),
            ("inode bitmap", self.inode_bitmap, 1),
            ("inode table", self.inode_table, sb.inode_table_blocks()),
        ];
        for (what, start, len) in parts {
            let end = start.checked_add(len);
            if start < room.start || end.is_none_or(|end| end > room.end()) {
                return damaged(format!(
                    "the {what} of group {} is at block {start}",
                    self.number
                ));
            }
        }
        Ok(())
    }

    /// Flags mean something only where a checksum covers them.
    fn flag(&self, sb: &Superblock, flag: u16) -> bool {
        (sb.group_checksums() || sb.metadata_checksums()) && self.flags & flag != 0
    }

    /// The block bitmap was never written: only metadata is in use.
    pub fn block_uninit(&self, sb: &Superblock) -> bool {
        self.flag(sb, BLOCK_UNINIT)
    }

    /// As [`Group::initialised`], of this version alone.
    fn initialised_inode_blocks(&self, sb: &Superblock) -> u64 {
        let all = sb.inode_table_blocks();
        let checksummed = sb.group_checksums() || sb.metadata_checksums();
        if !checksummed || self.flags & INODE_ZEROED != 0 {
            return all;
        }
        if self.flags & INODE_UNINIT != 0 {
            return 0;
        }
        let inodes = sb.inodes_per_group.saturating_sub(self.itable_unused);
        (inodes * sb.inode_size).div_ceil(sb.block_size).min(all)
    }

    /// Checks the block bitmap against its checksum, where there is one.
    pub fn check_bitmap(&self, sb: &Superblock, bitmap: &[u8]) -> Result<(), Fault> {
        if !sb.metadata_checksums() {
            return Ok(());
        }
        let bytes = bitmap
            .get(..(sb.clusters_per_group / 8) as usize)
            .unwrap_or(bitmap);
        let mask = if self.wide_checksum { u32::MAX } else { 0xffff };
        if crc32c(sb.seed, bytes) & mask != self.bitmap_checksum & mask {
            return damaged(format!(
                "wrong checksum of the block bitmap of group {}",
                self.number
            ));
        }
        Ok(())
    }
}

/// Whether a descriptor is as it was written; true where there are no checksums.
pub(super) fn checksum_is_right(sb: &Superblock, number: u64, raw: &[u8]) -> bool {
    let index = (number as u32).to_le_bytes();
    let head = raw.get(..CHECKSUM).unwrap_or_default();
    let tail = raw.get(CHECKSUM + 2..).unwrap_or_default();
    let right = if sb.metadata_checksums() {
        let crc = crc32c(crc32c(sb.seed, &index), head);
        crc32c(crc32c(crc, &[0, 0]), tail) as u16
    } else if sb.group_checksums() {
        let crc = crc16(crc16(crc16(!0, &sb.uuid), &index), head);
        if sb.has64() { crc16(crc, tail) } else { crc }
    } else {
        return true;
    };
    le16(raw, CHECKSUM) == Some(right)
}

fn check_checksum(sb: &Superblock, number: u64, raw: &[u8]) -> Result<(), Fault> {
    if checksum_is_right(sb, number, raw) {
        return Ok(());
    }
    damaged(format!(
        "wrong checksum of the descriptor of group {number}"
    ))
}
