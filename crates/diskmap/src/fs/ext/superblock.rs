//! The superblock: 1024 bytes at offset 1024.
//!
//! Owns: its fields and their ranges. Does not own: whether its features and state
//! allow a map (`verdict`), nor where the other metadata lies (`layout`).

use super::super::{Fault, damaged};
use super::features::{compat, incompat, ro_compat};
use crate::bytes::{array, has, le16, le32, text};
use crate::checksum::crc32c;
use crate::guid;
use crate::view::{ReadFailure, View};

const OFFSET: u64 = 1024;
const BYTES: usize = 1024;
/// Fewer blocks in a group are made by no tool; each group costs time.
const MIN_GROUP: u64 = 256;

/// What a map needs of the superblock. Counts are in blocks unless named otherwise.
pub(in crate::fs) struct Superblock {
    /// Its 1024 bytes.
    pub raw: Vec<u8>,
    pub compat: u32,
    pub incompat: u32,
    pub ro_compat: u32,
    pub block_size: u64,
    pub blocks: u64,
    pub first_data_block: u64,
    pub blocks_per_group: u64,
    /// Blocks in a cluster; 1 without bigalloc.
    pub cluster_blocks: u64,
    pub clusters_per_group: u64,
    pub inodes_per_group: u64,
    pub inode_size: u64,
    pub descriptor_size: u64,
    pub reserved_gdt: u64,
    pub first_meta_bg: u64,
    pub backup_groups: [u64; 2],
    /// Number of groups, from blocks and group size.
    pub groups: u64,
    /// Start value of the checksums of other metadata.
    pub seed: u32,
    pub uuid: [u8; 16],
    pub label: String,
}

impl Superblock {
    /// Reads the superblock; `None` if there is none.
    pub fn read(view: &View<'_>) -> Result<Option<Superblock>, ReadFailure> {
        if view.size() < OFFSET + BYTES as u64 {
            return Ok(None);
        }
        let raw = view.bytes(OFFSET, BYTES)?;
        Ok(if has(&raw, 0x38, &[0x53, 0xef]) {
            Superblock::decode(raw)
        } else {
            None
        })
    }

    /// `None` if two of its bytes match but the sizes are those of no ext at all.
    pub fn decode(raw: Vec<u8>) -> Option<Superblock> {
        let u32_at = |at| le32(&raw, at);
        let wide = |at| u32_at(at).map(u64::from);
        let (compat, incompat, ro_compat) = (u32_at(0x5c)?, u32_at(0x60)?, u32_at(0x64)?);
        let log_block = u32_at(0x18)?;
        let revision = u32_at(0x4c)?;
        if log_block > 6 || revision > 1 {
            return None;
        }
        let block_size = 1024u64 << log_block;
        let has64 = incompat & incompat::B64 != 0;
        let high = if has64 { wide(0x150)? } else { 0 };
        let blocks = wide(0x04)? | high << 32;
        let blocks_per_group = wide(0x20)?;
        let first_data_block = wide(0x14)?;
        let groups = blocks
            .checked_sub(first_data_block)?
            .checked_add(blocks_per_group)?;
        let groups = groups.checked_sub(1)?.checked_div(blocks_per_group)?;
        let bigalloc = ro_compat & ro_compat::BIGALLOC != 0;
        let (cluster_blocks, clusters_per_group) = if bigalloc {
            let log = u32_at(0x1c)?
                .checked_sub(log_block)
                .filter(|&log| log <= 20)?;
            (1 << log, wide(0x24)?)
        } else {
            (1, blocks_per_group)
        };
        let uuid: [u8; 16] = array(&raw, 0x68)?;
        let seed = if incompat & incompat::CSUM_SEED != 0 {
            u32_at(0x270)?
        } else {
            crc32c(!0, &uuid)
        };
        Some(Superblock {
            compat,
            incompat,
            ro_compat,
            block_size,
            blocks,
            first_data_block,
            blocks_per_group,
            cluster_blocks,
            clusters_per_group,
            inodes_per_group: wide(0x28)?,
            inode_size: if revision == 0 {
                128
            } else {
                u64::from(le16(&raw, 0x58)?)
            },
            descriptor_size: if has64 {
                u64::from(le16(&raw, 0xfe)?)
            } else {
                32
            },
            reserved_gdt: u64::from(le16(&raw, 0xce)?),
            first_meta_bg: wide(0x104)?,
            backup_groups: [wide(0x24c)?, wide(0x250)?],
            groups,
            seed,
            uuid,
            label: text(raw.get(0x78..0x88)?),
            raw,
        })
    }

    /// `ext2`, `ext3` or `ext4`, by what it uses.
    pub fn flavour(&self) -> &'static str {
        let modern = self.incompat & !incompat::OLD != 0 || self.ro_compat & !ro_compat::OLD != 0;
        match (modern, self.has_journal()) {
            (true, _) => "ext4",
            (false, true) => "ext3",
            (false, false) => "ext2",
        }
    }

    /// UUID as text.
    pub fn uuid_text(&self) -> String {
        guid::plain(&self.uuid)
    }

    /// Size in bytes, as the superblock says.
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size)
    }

    /// Block and offset in it of the first superblock.
    pub fn place(&self) -> (u64, usize) {
        (
            OFFSET / self.block_size,
            (OFFSET % self.block_size) as usize,
        )
    }

    /// Whether the sizes are possible ones.
    pub fn check_sizes(&self) -> Result<(), Fault> {
        let bits = self.block_size * 8;
        let group_fits = self.blocks_per_group >= MIN_GROUP
            && self.clusters_per_group <= bits
            && self.clusters_per_group.is_multiple_of(8)
            && self.clusters_per_group.checked_mul(self.cluster_blocks)
                == Some(self.blocks_per_group);
        let first_fits = match self.block_size {
            1024 => {
                self.first_data_block == 1 || self.first_data_block == 0 && self.cluster_blocks > 1
            }
            _ => self.first_data_block == 0,
        };
        let inodes_fit = self.inode_size.is_power_of_two()
            && (128..=self.block_size).contains(&self.inode_size)
            && (1..=bits).contains(&self.inodes_per_group);
        let descriptors_fit = self.descriptor_size.is_power_of_two()
            && match self.incompat & incompat::B64 {
                0 => true,
                _ => (64..=1024).contains(&self.descriptor_size),
            };
        let inodes = le32(&self.raw, 0).map(u64::from);
        if !(group_fits && first_fits && inodes_fit && descriptors_fit) || self.groups == 0 {
            return damaged("the sizes in its superblock are impossible");
        }
        if inodes != self.groups.checked_mul(self.inodes_per_group) {
            return damaged("its number of inodes does not match its number of groups");
        }
        if self.reserved_gdt > self.block_size / 4 {
            return damaged("it reserves too many blocks for group descriptors");
        }
        Ok(())
    }

    /// Whether there is a journal.
    pub fn has_journal(&self) -> bool {
        self.compat & compat::HAS_JOURNAL != 0
    }

    /// Inode of the journal, if it is inside.
    pub fn journal_inode(&self) -> Option<u64> {
        let (inode, device) = (le32(&self.raw, 0xe0)?, le32(&self.raw, 0xe4)?);
        (inode != 0 && device == 0).then_some(u64::from(inode))
    }

    /// Number of inodes in all groups.
    pub fn inodes(&self) -> u64 {
        self.groups.saturating_mul(self.inodes_per_group)
    }

    /// CRC-32C on all metadata.
    pub fn metadata_checksums(&self) -> bool {
        self.ro_compat & ro_compat::METADATA_CSUM != 0
    }

    /// CRC-16 on group descriptors.
    pub fn group_checksums(&self) -> bool {
        self.ro_compat & ro_compat::GDT_CSUM != 0
    }

    /// Block of the multi-mount protection, if it is on.
    pub fn multi_mount_block(&self) -> Option<u64> {
        (self.incompat & incompat::MMP != 0)
            .then(|| crate::bytes::le64(&self.raw, 0x168).unwrap_or(0))
    }

    /// Bitmaps and inode tables may lie in other groups.
    pub fn flex(&self) -> bool {
        self.incompat & incompat::FLEX_BG != 0
    }

    /// Group descriptors from [`Self::first_meta_bg`] on lie in their own groups.
    pub fn meta_bg(&self) -> bool {
        self.incompat & incompat::META_BG != 0
    }

    /// Backups of the superblock are in two named groups only.
    pub fn two_backups(&self) -> bool {
        self.compat & compat::SPARSE_SUPER2 != 0
    }

    /// Backups of the superblock are in few groups.
    pub fn sparse(&self) -> bool {
        self.ro_compat & ro_compat::SPARSE_SUPER != 0
    }

    /// 64-bit group descriptors.
    pub fn has64(&self) -> bool {
        self.incompat & incompat::B64 != 0
    }

    /// Group descriptors in a block. Sizes were checked.
    pub fn descriptors_per_block(&self) -> u64 {
        (self.block_size / self.descriptor_size.max(32)).max(1)
    }

    /// Blocks of one group's inode table.
    pub fn inode_table_blocks(&self) -> u64 {
        (self.inodes_per_group * self.inode_size).div_ceil(self.block_size)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Fault, Superblock};

    /// 60 groups of 256 blocks of 1 KiB with the given features, clean.
    pub(crate) fn superblock(compat: u32, incompat: u32, ro_compat: u32) -> Superblock {
        Superblock::decode(raw(compat, incompat, ro_compat)).unwrap()
    }

    pub(crate) fn raw(compat: u32, incompat: u32, ro_compat: u32) -> Vec<u8> {
        let mut raw = vec![0u8; 1024];
        let fields = [
            (0x00, 60 * 16),
            (0x04, 1 + 60 * 256),
            (0x14, 1),
            (0x20, 256),
            (0x28, 16),
            (0x38, 0x1_ef53),
            (0x4c, 1),
            (0x58, 128),
            (0x5c, compat),
            (0x60, incompat),
            (0x64, ro_compat),
            (0xcc, 3 << 16),
            (0x24c, 1),
            (0x250, 59),
        ];
        for (at, value) in fields {
            raw[at..at + 4].copy_from_slice(&u32::to_le_bytes(value));
        }
        raw
    }

    #[test]
    fn flavours() {
        assert_eq!(superblock(0, 0, 1).flavour(), "ext2");
        assert_eq!(superblock(4, 2, 1).flavour(), "ext3");
        assert_eq!(superblock(4, 0x40, 1).flavour(), "ext4");
        assert_eq!(superblock(0, 0, 0x400).flavour(), "ext4");
    }

    #[test]
    fn impossible_sizes_are_no_ext_or_damage() {
        let with = |at: usize, value: u32| {
            let mut bytes = raw(0, 0, 1);
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
            Superblock::decode(bytes)
        };
        for (at, value) in [(0x18, 7), (0x20, 0), (0x4c, 2), (0x04, 0)] {
            assert!(with(at, value).is_none(), "{at:#x} {value}");
        }
        for (at, value) in [
            (0x20, 8),
            (0x20, 8193),
            (0x28, 0),
            (0x28, 9000),
            (0x58, 100),
            (0x14, 0),
            (0, 1),
            (0xcc, 300 << 16),
        ] {
            let verdict = with(at, value).unwrap().check_sizes();
            assert!(matches!(verdict, Err(Fault::Damaged(_))), "{at:#x} {value}");
        }
    }
}
