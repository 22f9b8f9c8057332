//! The superblock of an XFS: the first sector of every allocation group.
//!
//! Owns: its fields, its checksum, where things lie, and which versions and features
//! allow a map. Does not own: the log, or what the allocation groups hold.
//!
//! Field offsets are those of `struct xfs_dsb` ("XFS Algorithms & Data Structures",
//! chapter "Superblocks"). Integers are big-endian, checksums little-endian.

use super::super::{Fault, damaged};
use crate::bytes::{array, be16, be32, be64, has, text};
use crate::checksum::crc32c;
use crate::guid;
use crate::view::{ReadFailure, View};

const MAGIC: &[u8] = b"XFSB";
/// Limits of the kernel, in bytes.
const BLOCK_SIZES: std::ops::RangeInclusive<u64> = 512..=64 << 10;
const SECTOR_SIZES: std::ops::RangeInclusive<u64> = 512..=32 << 10;
const GROUP_SIZES: std::ops::RangeInclusive<u64> = 16 << 20..=1 << 40;
/// Fewest blocks of the last group.
const MIN_LAST_GROUP: u64 = 64;

/// Bits of the version number.
mod version {
    pub const NUMBER: u16 = 0xf;
    pub const SHARED: u16 = 0x200;
    pub const LOG_V2: u16 = 0x400;
    pub const MORE: u16 = 0x8000;
}
/// Further bits of version 4.
mod features2 {
    pub const LAZY_COUNTERS: u32 = 0x2;
    pub const CRC: u32 = 0x100;
    /// lazy counters, attr2, 32-bit project ids, file types.
    pub const KNOWN: u32 = LAZY_COUNTERS | 0x8 | 0x80 | 0x200;
}
mod ro_compat {
    pub const FREE_INODES: u32 = 0x1;
    pub const REVERSE_MAP: u32 = 0x2;
    pub const REFLINK: u32 = 0x4;
    /// And counters of the inode trees' blocks.
    pub const KNOWN: u32 = FREE_INODES | REVERSE_MAP | REFLINK | 0x8;
}
mod incompat {
    pub const META_UUID: u32 = 0x4;
    pub const NEEDS_REPAIR: u32 = 0x10;
    /// File types, sparse inodes, metadata UUID, wide times, needs repair, wide extent
    /// counters, exchange of file ranges, parent pointers. None of them changes what the
    /// free space trees mean. The metadata directory (0x100) and zones (0x200) may put
    /// realtime space behind the data, and are left to a full copy.
    pub const KNOWN: u32 = 0x1 | 0x2 | META_UUID | 0x8 | NEEDS_REPAIR | 0x20 | 0x40 | 0x80;
}
/// Logged attributes; the bit is set only while they may be in the log.
const LOG_INCOMPAT_KNOWN: u32 = 0x1;

/// What a map needs of the superblock. Counts are in blocks unless named otherwise.
pub(super) struct Superblock {
    /// The whole sector, as far as it is there.
    raw: Vec<u8>,
    version: u16,
    features2: u32,
    ro_compat: u32,
    incompat: u32,
    /// Bytes of a block.
    pub block_size: u64,
    /// Bytes of a sector, the unit of the groups' headers.
    pub sector_size: u64,
    pub blocks: u64,
    pub group_blocks: u64,
    pub groups: u64,
    /// Bits of a block number that count within a group.
    group_bits: u32,
    /// Block number of the internal log; 0 with an external one.
    pub log_start: u64,
    pub log_blocks: u64,
    /// Free blocks, as of the last clean unmount.
    pub free_blocks: u64,
    pub uuid: [u8; 16],
    /// The UUID that checksummed metadata carries.
    pub meta_uuid: [u8; 16],
    pub label: String,
}

impl Superblock {
    /// Reads the superblock; `None` if there is none.
    pub fn read(view: &View<'_>) -> Result<Option<Superblock>, ReadFailure> {
        let mut raw = view.bytes_up_to(0, 512)?;
        if raw.len() < 512 || !has(&raw, 0, MAGIC) {
            return Ok(None);
        }
        let sector = be16(&raw, 102).map_or(0, u64::from);
        if sector > 512 && SECTOR_SIZES.contains(&sector) {
            raw = view.bytes_up_to(0, sector as usize)?;
        }
        Ok(Superblock::decode(raw))
    }

    /// `None` if `raw` is shorter than the fields.
    pub fn decode(raw: Vec<u8>) -> Option<Superblock> {
        let wide = |at| be32(&raw, at).map(u64::from);
        let uuid = array(&raw, 32)?;
        let incompat = be32(&raw, 216)?;
        let version = be16(&raw, 100)?;
        let own_uuid = version & version::NUMBER == 5 && incompat & incompat::META_UUID != 0;
        Some(Superblock {
            version,
            features2: be32(&raw, 200)?,
            ro_compat: be32(&raw, 212)?,
            incompat,
            block_size: wide(4)?,
            sector_size: u64::from(be16(&raw, 102)?),
            blocks: be64(&raw, 8)?,
            group_blocks: wide(84)?,
            groups: wide(88)?,
            group_bits: u32::from(*raw.get(124)?),
            log_start: be64(&raw, 48)?,
            log_blocks: wide(96)?,
            free_blocks: be64(&raw, 144)?,
            uuid,
            meta_uuid: if own_uuid { array(&raw, 248)? } else { uuid },
            label: text(raw.get(108..120)?),
            raw,
        })
    }

    /// Bytes of its sector.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> Option<&[u8]> {
        self.raw.get(range)
    }

    /// Size of the file system in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.blocks.saturating_mul(self.block_size)
    }

    pub fn uuid_text(&self) -> String {
        guid::plain(&self.uuid)
    }

    /// Whether metadata has checksums and names its owner.
    pub fn checksums(&self) -> bool {
        self.version & version::NUMBER == 5
    }

    /// Whether the free space is counted exactly, with the blocks of the free space trees.
    pub fn lazy_counters(&self) -> bool {
        self.checksums() || self.features2() & features2::LAZY_COUNTERS != 0
    }

    pub fn log_v2(&self) -> bool {
        self.version & version::LOG_V2 != 0
    }

    pub fn reverse_map(&self) -> bool {
        self.checksums() && self.ro_compat & ro_compat::REVERSE_MAP != 0
    }

    pub fn reflink(&self) -> bool {
        self.checksums() && self.ro_compat & ro_compat::REFLINK != 0
    }

    pub fn free_inode_tree(&self) -> bool {
        self.checksums() && self.ro_compat & ro_compat::FREE_INODES != 0
    }

    /// Sequence number of the log record that last changed this sector.
    pub fn lsn(&self) -> u64 {
        be64(&self.raw, 240).unwrap_or(0)
    }

    /// Blocks of a group; the last one may be short.
    pub fn blocks_of_group(&self, group: u64) -> u64 {
        self.blocks
            .saturating_sub(group * self.group_blocks)
            .min(self.group_blocks)
    }

    /// Byte offset of a block of a group.
    pub fn offset(&self, group: u64, block: u64) -> u64 {
        (group * self.group_blocks + block) * self.block_size
    }

    /// Group and block in it of a block number, which has gaps where groups are not a
    /// power of two long. `None` if it is outside.
    pub fn place(&self, number: u64) -> Option<(u64, u64)> {
        let group = number.checked_shr(self.group_bits)?;
        let block = number & ((1u64 << self.group_bits.min(63)) - 1);
        (group < self.groups && block < self.blocks_of_group(group)).then_some((group, block))
    }

    /// The second word of features, where there is one.
    fn features2(&self) -> u32 {
        if self.version & version::MORE != 0 {
            self.features2
        } else {
            0
        }
    }

    /// Whether the file system is understood and its superblock makes sense.
    pub fn check(&self) -> Result<(), Fault> {
        let number = self.version & version::NUMBER;
        match number {
            4 => {}
            5 => check_sum(&self.raw, 224, "superblock")?,
            1..=3 => return Err(Fault::Unsupported(format!("it is of version {number}"))),
            _ => return damaged(format!("its superblock has version {number}")),
        }
        self.check_features()?;
        if self.raw.get(126) != Some(&0) {
            return damaged("making it was never finished");
        }
        if self.checksums() && self.incompat & incompat::NEEDS_REPAIR != 0 {
            return damaged("it is marked as in need of repair");
        }
        self.check_geometry()
    }

    fn check_features(&self) -> Result<(), Fault> {
        let unknown = |what: &str, bits: u32| {
            Err(Fault::Unsupported(format!(
                "it has unknown {what} features ({bits:#x})"
            )))
        };
        if self.version & version::SHARED != 0 || self.raw.get(179) != Some(&0) {
            return unknown("sharing", version::SHARED.into());
        }
        let mut known = features2::KNOWN;
        if self.checksums() {
            known |= features2::CRC;
            let compat = be32(&self.raw, 208).unwrap_or(!0);
            if compat != 0 {
                return unknown("compatible", compat);
            }
            if self.ro_compat & !ro_compat::KNOWN != 0 {
                return unknown("read-only compatible", self.ro_compat & !ro_compat::KNOWN);
            }
            if self.incompat & !incompat::KNOWN != 0 {
                return unknown("incompatible", self.incompat & !incompat::KNOWN);
            }
            let log = be32(&self.raw, 220).unwrap_or(!0) & !LOG_INCOMPAT_KNOWN;
            if log != 0 {
                return unknown("log", log);
            }
        }
        if self.features2() & !known != 0 {
            return unknown("further", self.features2() & !known);
        }
        Ok(())
    }

    fn check_geometry(&self) -> Result<(), Fault> {
        let log2 = |at: usize| self.raw.get(at).map_or(0, |&bits| 1u64 << bits.min(63));
        let (block, sector) = (self.block_size, self.sector_size);
        let sizes = BLOCK_SIZES.contains(&block)
            && SECTOR_SIZES.contains(&sector)
            && log2(120) == block
            && log2(121) == sector
            && sector <= block
            && sector <= self.raw.len() as u64;
        if !sizes {
            return damaged(format!(
                "its superblock tells of blocks of {block} and sectors of {sector} bytes"
            ));
        }
        let group = self.group_blocks;
        let groups = self.blocks.div_ceil(group.max(1));
        let bits = u64::BITS - group.saturating_sub(1).leading_zeros();
        if !GROUP_SIZES.contains(&(group * block))
            || groups != self.groups
            || bits != self.group_bits
            || self.blocks_of_group(self.groups.saturating_sub(1)) < MIN_LAST_GROUP
        {
            return damaged(format!(
                "its superblock tells of {} groups of {group} blocks, {} blocks in all",
                self.groups, self.blocks
            ));
        }
        Ok(())
    }
}

/// Compares the CRC-32C of a sector or block, whose field counts as zero.
pub(super) fn check_sum(bytes: &[u8], field: usize, what: &str) -> Result<(), Fault> {
    let (Some(stored), Some(rest)) = (array(bytes, field), bytes.get(field + 4..)) else {
        return damaged(format!("its {what} is too short"));
    };
    let crc = crc32c(crc32c(!0, &bytes[..field]), &[0; 4]);
    if !crc32c(crc, rest) != u32::from_le_bytes(stored) {
        return damaged(format!("wrong checksum of its {what}"));
    }
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::Fault;
    use super::Superblock;

    /// Version 4: three whole groups of 16 MiB and a short one.
    pub fn plain() -> Vec<u8> {
        let mut raw = vec![0; 512];
        for (at, bytes) in [
            (0, &b"XFSB\0\0\x10\0"[..]),
            (8, &(3 * 4096u64 + 100).to_be_bytes()),
            (48, &4100u64.to_be_bytes()),
            (84, &4096u32.to_be_bytes()),
            (88, &4u32.to_be_bytes()),
            (96, &600u32.to_be_bytes()),
            (100, &[0xb4, 0xa4, 2, 0]),
            (120, &[12, 9, 0, 0, 12]),
        ] {
            raw[at..at + bytes.len()].copy_from_slice(bytes);
        }
        raw
    }

    #[test]
    fn places() {
        let sb = Superblock::decode(plain()).unwrap();
        assert!(sb.check().is_ok());
        assert_eq!((sb.blocks_of_group(2), sb.blocks_of_group(3)), (4096, 100));
        assert_eq!(sb.offset(1, 5), (4096 + 5) * 4096);
        assert_eq!(sb.place(4100), Some((1, 4)));
        assert_eq!(sb.place(3 << 12 | 99), Some((3, 99)));
        assert_eq!(sb.place(3 << 12 | 100), None);
        assert_eq!(sb.place(4 << 12), None);
        assert_eq!(sb.place(u64::MAX), None);
    }

    #[test]
    fn contradictions() {
        for (at, value) in [
            (6, 0x20),   // block size
            (15, 30),    // last group of 30 blocks
            (86, 0),     // groups of no blocks
            (91, 5),     // one group too many
            (101, 0xa6), // version 6
            (102, 4),    // sector size
            (121, 10),   // its logarithm
            (124, 13),   // bits of a block number
            (124, 200),
            (126, 1), // in progress
        ] {
            let mut raw = plain();
            raw[at] = value;
            let checked = Superblock::decode(raw).unwrap().check();
            assert!(matches!(checked, Err(Fault::Damaged(_))), "{at}: {value}");
        }
        for (at, value) in [(101, 0xa3), (100, 0xb6), (179, 1)] {
            let mut raw = plain();
            raw[at] = value;
            let checked = Superblock::decode(raw).unwrap().check();
            assert!(
                matches!(checked, Err(Fault::Unsupported(_))),
                "{at}: {value}"
            );
        }
    }
}
