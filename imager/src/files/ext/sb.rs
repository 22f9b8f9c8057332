//! The superblock, and where the groups' descriptors are.
//!
//! Owns: the refusal of features under which files would be read wrongly. Does not own:
//! checking bitmaps and counters (`diskmap`, when the image is made), checksums (`diskmap`, too).

use crate::files::Fail;
use crate::files::bytes::{le16, le32};

/// Features without which, or with others than which, files are not read right: file
/// types in directories, recovery, meta_bg, extents, 64 bit, multi-mount protection,
/// flex_bg, values in inodes, checksum seed, large directories, inline data, encryption
/// and folded names. The last three are told by each inode.
const KNOWN: u32 = 0x2
    | 0x4
    | 0x10
    | 0x40
    | 0x80
    | 0x100
    | 0x200
    | 0x400
    | 0x2000
    | 0x4000
    | 0x8000
    | 0x1_0000
    | 0x2_0000;
const FILE_TYPE: u32 = 0x2;
const RECOVER: u32 = 0x4;
const META_BG: u32 = 0x10;
const B64: u32 = 0x80;
const LARGE_DIR: u32 = 0x4000;
const DIR_INDEX: u32 = 0x20;
const SPARSE_SUPER: u32 = 0x1;
const GROUP_CHECKSUMS: u32 = 0x10;
const METADATA_CHECKSUMS: u32 = 0x400;
const SPARSE_SUPER2: u32 = 0x200;

/// What is needed of the superblock; sizes in bytes.
pub(super) struct Super {
    pub block_size: u64,
    pub blocks: u64,
    pub inodes: u64,
    pub inodes_per_group: u64,
    pub inode_size: u64,
    pub descriptor_size: u64,
    pub groups: u64,
    first_data_block: u64,
    blocks_per_group: u64,
    first_meta_bg: u64,
    backup_groups: [u64; 2],
    compat: u32,
    incompat: u32,
    ro_compat: u32,
}

impl Super {
    /// Decodes the 1024 bytes at byte 1024.
    pub fn decode(raw: &[u8]) -> Result<Super, Fail> {
        let u = |at| u64::from(le32(raw, at));
        if le16(raw, 0x38) != 0xef53 {
            return Err(Fail::damaged("it has no superblock"));
        }
        let old = le32(raw, 0x4c) == 0;
        let features = |at| if old { 0 } else { le32(raw, at) };
        let (compat, incompat, ro_compat) = (features(0x5c), features(0x60), features(0x64));
        if incompat & !KNOWN != 0 {
            let odd = incompat & !KNOWN;
            return Err(Fail::Unsupported(format!(
                "it uses features that are not known ({odd:#x})"
            )));
        }
        let shift = u(0x18);
        let wide = incompat & B64 != 0;
        let high = |at| if wide { u(at) << 32 } else { 0 };
        let sb = Super {
            block_size: 1024 << shift.min(6),
            blocks: u(4) | high(0x150),
            inodes: u(0),
            inodes_per_group: u(0x28),
            inode_size: if old { 128 } else { u64::from(le16(raw, 0x58)) },
            descriptor_size: if wide { u64::from(le16(raw, 0xfe)) } else { 32 },
            groups: 0,
            first_data_block: u(0x14),
            blocks_per_group: u(0x20),
            first_meta_bg: u(0x104),
            backup_groups: [u(0x24c), u(0x250)],
            compat,
            incompat,
            ro_compat,
        };
        let sane = shift <= 6
            && sb.blocks < 1 << 48
            && sb.first_data_block < sb.blocks
            && (1..=sb.block_size * 8 * sb.block_size).contains(&sb.blocks_per_group)
            && sb.inodes_per_group > 0
            && sb.inode_size.is_power_of_two()
            && (128..=sb.block_size).contains(&sb.inode_size)
            && sb.descriptor_size.is_power_of_two()
            && (32..=1024).contains(&sb.descriptor_size);
        if !sane {
            return Err(Fail::damaged("the sizes in its superblock are impossible"));
        }
        let groups = (sb.blocks - sb.first_data_block).div_ceil(sb.blocks_per_group);
        Ok(Super { groups, ..sb })
    }

    /// Whether the journal has to be replayed before the file system is used.
    pub fn needs_replay(&self) -> bool {
        self.incompat & RECOVER != 0
    }

    /// Whether descriptors, or all metadata, have checksums.
    pub fn has_checksums(&self) -> bool {
        self.ro_compat & (GROUP_CHECKSUMS | METADATA_CHECKSUMS) != 0
    }

    /// Whether directories may have hash trees.
    pub fn has_hashes(&self) -> bool {
        self.compat & DIR_INDEX != 0
    }

    /// Whether directory entries tell what they name.
    pub fn short_names(&self) -> bool {
        self.incompat & FILE_TYPE != 0
    }

    /// Whether directories may have 4 GiB and more.
    pub fn large_directories(&self) -> bool {
        self.incompat & LARGE_DIR != 0
    }

    /// Block of a group's descriptor, and the byte in it.
    pub fn descriptor(&self, group: u64) -> (u64, u64) {
        let per_block = self.block_size / self.descriptor_size;
        let (index, from) = (
            group / per_block,
            (group % per_block) * self.descriptor_size,
        );
        let block = if self.incompat & META_BG == 0 || index < self.first_meta_bg {
            // Behind the superblock, which begins at byte 1024.
            1024 / self.block_size + 1 + index
        } else {
            let first = index * per_block;
            let start = self
                .first_data_block
                .saturating_add(first.saturating_mul(self.blocks_per_group));
            // Large clusters begin with block 0 also where blocks are small.
            let early = index == 0 && self.block_size == 1024 && self.first_data_block == 0;
            start.saturating_add(u64::from(self.has_super(first)) + u64::from(early))
        };
        (block, from)
    }

    fn has_super(&self, group: u64) -> bool {
        let power = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        if self.compat & SPARSE_SUPER2 != 0 {
            return group == 0 || self.backup_groups.contains(&group);
        }
        self.ro_compat & SPARSE_SUPER == 0 || group <= 1 || power(3) || power(5) || power(7)
    }

    /// First block of the inode table, by a group's descriptor.
    pub fn inode_table(&self, raw: &[u8]) -> u64 {
        let high = if self.descriptor_size >= 64 {
            u64::from(le32(raw, 0x28))
        } else {
            0
        };
        u64::from(le32(raw, 8)) | high << 32
    }
}
