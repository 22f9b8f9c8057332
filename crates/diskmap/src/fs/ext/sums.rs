//! Checksums of inodes and of what they lead to.
//!
//! Owns: which bytes of a structure are summed, and from which start value. Does not own:
//! the function (`crate::checksum`), or what the structures mean.
//!
//! After the layout of Linux' documentation, `Documentation/filesystems/ext4/checksums.rst`.

use super::group;
use super::superblock::Superblock;
use crate::bytes::{array, le16, le32};
use crate::checksum::crc32c;

/// Bytes of an inode that are always there.
const OLD_INODE: usize = 128;
/// The end of a block of a directory that holds names: an entry without inode, 12 bytes
/// long, of a kind of its own, and the checksum.
const LEAF_TAIL: &[u8] = &[0, 0, 0, 0, 12, 0, 0, 0xde];
/// Bytes of an entry of a hash tree, and of the tail behind the last possible one.
const HASH_ENTRY: usize = 8;

/// The checksums of one ext file system.
pub struct ExtChecksums {
    sb: Superblock,
}

/// The checksums of the blocks of one inode.
#[derive(Clone, Copy, Debug)]
pub struct ExtInodeChecksums {
    seed: u32,
}

impl ExtChecksums {
    /// By the 1024 bytes of the superblock; `None` if those are of no ext file system.
    pub fn new(superblock: &[u8]) -> Option<ExtChecksums> {
        let raw = superblock.get(..1024)?.to_vec();
        Superblock::decode(raw).map(|sb| ExtChecksums { sb })
    }

    /// Whether the descriptor of a group is as it was written; true where there are no
    /// checksums.
    pub fn descriptor_is_right(&self, group: u64, raw: &[u8]) -> bool {
        group::checksum_is_right(&self.sb, group, raw)
    }

    /// The checksums of an inode's blocks, once that of the inode itself (all its bytes) was
    /// found right.
    ///
    /// # Errors
    /// It is wrong.
    pub fn inode(&self, number: u64, raw: &[u8]) -> Result<Option<ExtInodeChecksums>, WrongSum> {
        if !self.sb.metadata_checksums() {
            return Ok(None);
        }
        let seed = inode_seed(self.sb.seed, number, raw);
        if !inode_is_right(seed, raw) {
            return Err(WrongSum);
        }
        Ok(Some(ExtInodeChecksums { seed }))
    }
}

/// A structure is not as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongSum;

impl ExtInodeChecksums {
    /// Whether a block of the tree of extents is as it was written.
    pub fn extents_are_right(&self, block: &[u8]) -> bool {
        extents_are_right(self.seed, block)
    }

    /// Whether a block of a directory that holds names is as it was written.
    pub fn names_are_right(&self, block: &[u8]) -> bool {
        let Some((summed, tail)) = block.split_last_chunk::<12>() else {
            return false;
        };
        tail.starts_with(LEAF_TAIL) && le32(tail, 8) == Some(crc32c(self.seed, summed))
    }

    /// Whether a block of a directory that is an inner node of its hash tree is as it was
    /// written; the root begins with the entries `.` and `..`.
    pub fn hashes_are_right(&self, block: &[u8]) -> bool {
        let half = |at| le16(block, at).map_or(0, usize::from);
        let is_root = half(4) == 12;
        if is_root && (le32(block, 24) != Some(0) || block.get(29) != Some(&8)) {
            return false;
        }
        let entries = if is_root { 32 } else { 8 };
        let (limit, count) = (half(entries), half(entries + 2));
        let used = block.get(..entries + count * HASH_ENTRY);
        let tail = entries + limit * HASH_ENTRY;
        let (Some(used), Some(tail)) = (used, array::<8>(block, tail)) else {
            return false;
        };
        let (reserved, sum) = tail.split_at(4);
        let crc = crc32c(crc32c(crc32c(self.seed, used), reserved), &[0; 4]);
        count <= limit && le32(sum, 0) == Some(crc)
    }
}

/// Start value of the checksums of an inode and of its blocks.
pub(super) fn inode_seed(seed: u32, number: u64, raw: &[u8]) -> u32 {
    let generation = array::<4>(raw, 0x64).unwrap_or_default();
    crc32c(crc32c(seed, &(number as u32).to_le_bytes()), &generation)
}

/// Whether an inode is as it was written.
pub(super) fn inode_is_right(seed: u32, raw: &[u8]) -> bool {
    let part = |from: usize, to: usize| raw.get(from..to).unwrap_or_default();
    let zero = [0u8; 2];
    let mut crc = crc32c(crc32c(seed, part(0, 0x7c)), &zero);
    crc = crc32c(crc, part(0x7e, OLD_INODE));
    // The upper half is there if the inode says that its fields reach so far.
    let wide = raw.len() > OLD_INODE && le16(raw, 0x80).is_some_and(|extra| extra >= 4);
    if wide {
        crc = crc32c(crc32c(crc, part(OLD_INODE, 0x82)), &zero);
        crc = crc32c(crc, part(0x84, raw.len()));
    } else {
        crc = crc32c(crc, part(OLD_INODE, raw.len()));
    }
    let half = |at| u32::from(le16(raw, at).unwrap_or(0));
    if wide {
        crc == half(0x7c) | half(0x82) << 16
    } else {
        crc & 0xffff == half(0x7c)
    }
}

/// Whether a block of a tree of extents is as it was written. The sum stands behind the
/// last possible entry.
pub(super) fn extents_are_right(seed: u32, block: &[u8]) -> bool {
    let most = le16(block, 4).map_or(0, usize::from);
    let end = 12 + 12 * most;
    let summed = block.get(..end);
    summed.is_some_and(|summed| le32(block, end) == Some(crc32c(seed, summed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMS: ExtInodeChecksums = ExtInodeChecksums { seed: 0x1234_5678 };

    /// Any changed bit of what is summed is noticed.
    fn every_bit_counts(good: &[u8], counts: usize, is_right: impl Fn(&[u8]) -> bool) {
        assert!(is_right(good));
        for bit in 0..counts * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_right(&bad), "bit {bit}");
        }
        for len in 0..good.len().min(64) {
            assert!(!is_right(&good[..len]), "{len} bytes");
        }
    }

    #[test]
    fn names() {
        let mut block = vec![7; 116];
        let crc = crc32c(SUMS.seed, &block);
        block.extend(LEAF_TAIL);
        block.extend(crc.to_le_bytes());
        every_bit_counts(&block, 128, |raw| SUMS.names_are_right(raw));
    }

    #[test]
    fn hashes() {
        for root in [true, false] {
            let (entries, limit, count) = (if root { 32 } else { 8 }, 6, 3);
            let mut block = vec![0; 1024];
            block[4] = if root { 12 } else { 0 };
            block[5] = if root { 0 } else { 4 };
            block[29] = 8;
            block[entries] = limit;
            block[entries + 2] = count;
            block[entries + 9] = 77;
            let used = entries + 8 * usize::from(count);
            let tail = entries + 8 * usize::from(limit);
            let crc = crc32c(SUMS.seed, &block[..used]);
            let crc = crc32c(crc, &[0; 8]);
            block[tail + 4..tail + 8].copy_from_slice(&crc.to_le_bytes());
            every_bit_counts(&block, used, |raw| SUMS.hashes_are_right(raw));
            block[entries + 1] = 255;
            assert!(!SUMS.hashes_are_right(&block));
        }
    }

    #[test]
    fn trees_of_extents() {
        let mut block = vec![5; 12 + 12 * 4];
        block[4..6].copy_from_slice(&[4, 0]);
        let crc = crc32c(SUMS.seed, &block);
        block.extend(crc.to_le_bytes());
        every_bit_counts(&block, block.len(), |raw| SUMS.extents_are_right(raw));
    }
}
