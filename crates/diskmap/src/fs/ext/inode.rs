//! The inode of the journal and the blocks of its file.
//!
//! Owns: finding an inode, and its extent tree or indirect blocks. Does not own: checksums
//! (`sums`), what the file holds.

use super::super::{Fault, damaged};
use super::{Superblock, group, sums};
use crate::bytes::{le16, le32};
use crate::extents::Extent;
use crate::view::View;

const EXTENTS_FLAG: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
/// The kernel's limit of an extent tree's depth.
const MAX_DEPTH: u16 = 5;
/// Longest initialised extent; larger numbers mean one that was never written.
const MAX_EXTENT: u16 = 1 << 15;
/// More pieces than this have only journals that nobody made: 2^18 blocks of a journal of
/// 1 GiB, each apart from the others, are the most that a tool makes without being asked.
const MAX_RUNS: usize = 1 << 19;

/// An inode whose checksum is right.
pub(super) struct Inode {
    raw: Vec<u8>,
    /// Start value of the checksums of its extent tree.
    seed: u32,
}

/// The blocks of a file without holes.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// In the order of the file; none is empty.
    pub runs: Vec<Extent>,
    /// Blocks of the file.
    pub len: u64,
    /// Blocks that hold the tree itself.
    pub tree: Vec<u64>,
}

impl Inode {
    /// Reads an inode by the descriptors on the disk.
    pub fn read(view: &View<'_>, sb: &Superblock, number: u64) -> Result<Inode, Fault> {
        if number == 0 || number > sb.inodes() {
            return damaged(format!("its journal is inode {number}"));
        }
        let (group, index) = (
            (number - 1) / sb.inodes_per_group,
            (number - 1) % sb.inodes_per_group,
        );
        let per_block = sb.descriptors_per_block();
        let groups = group::read_block(view, sb, group / per_block * per_block)?;
        let Some(group) = groups.into_iter().find(|g| g.number == group) else {
            return damaged(format!("its journal is inode {number}"));
        };
        let offset = group.inode_table * sb.block_size + index * sb.inode_size;
        let raw = view.bytes(offset, sb.inode_size as usize)?;
        let seed = sums::inode_seed(sb.seed, number, &raw);
        if sb.metadata_checksums() && !sums::inode_is_right(seed, &raw) {
            return damaged("wrong checksum of its journal's inode");
        }
        Ok(Inode { raw, seed })
    }

    /// The first `len` blocks of the file, or only the first run of them.
    pub fn blocks(
        &self,
        view: &View<'_>,
        sb: &Superblock,
        len: u64,
        first_only: bool,
    ) -> Result<Blocks, Fault> {
        let mut walk = Walk {
            view,
            sb,
            seed: self.seed,
            wanted: if first_only { 1 } else { len },
            found: Blocks::default(),
        };
        let root = self.raw.get(0x28..0x28 + 60).unwrap_or_default();
        if le32(&self.raw, 0x20).unwrap_or(0) & EXTENTS_FLAG != 0 {
            walk.extents(root, None)?;
        } else {
            walk.pointers(root)?;
        }
        if walk.found.len < walk.wanted {
            return damaged("its journal has holes");
        }
        Ok(walk.found)
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        let part = |at| u64::from(le32(&self.raw, at).unwrap_or(0));
        part(0x04) | part(0x6c) << 32
    }
}

/// A tree on its way from left to right.
struct Walk<'a> {
    view: &'a View<'a>,
    sb: &'a Superblock,
    seed: u32,
    /// Blocks that are wanted; the walk ends when it has them.
    wanted: u64,
    found: Blocks,
}

impl Walk<'_> {
    fn done(&self) -> bool {
        self.found.len >= self.wanted
    }

    fn add(&mut self, start: u64, len: u64) -> Result<(), Fault> {
        let end = start.checked_add(len);
        if start == 0 || len == 0 || end.is_none_or(|end| end > self.sb.blocks) {
            return damaged("its journal lies outside");
        }
        let blocks = &mut self.found;
        let room = blocks.runs.len() < MAX_RUNS;
        match blocks.runs.last_mut() {
            Some(last) if last.end() == start => last.len += len,
            _ if room => blocks.runs.push(Extent { start, len }),
            _ => return damaged("its journal is in too many pieces"),
        }
        blocks.len = blocks.len.saturating_add(len);
        Ok(())
    }

    /// A block of the tree.
    fn node(&mut self, block: u64) -> Result<Vec<u8>, Fault> {
        if block == 0 || block >= self.sb.blocks {
            return damaged("its journal lies outside");
        }
        self.found.tree.push(block);
        let size = self.sb.block_size;
        Ok(self.view.bytes(block * size, size as usize)?)
    }

    /// A node of an extent tree. Each adds at least one block, and depth falls, so that
    /// the walk ends.
    fn extents(&mut self, node: &[u8], above: Option<u16>) -> Result<(), Fault> {
        let half = |at| le16(node, at).unwrap_or(0);
        let (count, most, depth) = (half(2), half(4), half(6));
        let falls = above.is_none_or(|above| depth + 1 == above);
        let fits = (12 + usize::from(most) * 12) <= node.len() && count <= most && count > 0;
        if half(0) != EXTENT_MAGIC || depth > MAX_DEPTH || !falls || !fits {
            return damaged("the extent tree of its journal is damaged");
        }
        let summed = above.is_some() && self.sb.metadata_checksums();
        if summed && !sums::extents_are_right(self.seed, node) {
            return damaged("wrong checksum in the extent tree of its journal");
        }
        for entry in node[12..].chunks_exact(12).take(usize::from(count)) {
            let first = le32(entry, 0).map(u64::from);
            if first != Some(self.found.len) {
                return damaged("its journal has holes");
            }
            let low = |at| u64::from(le32(entry, at).unwrap_or(0));
            let high = |at| u64::from(le16(entry, at).unwrap_or(0)) << 32;
            if depth == 0 {
                let len = le16(entry, 4).unwrap_or(0);
                if len > MAX_EXTENT {
                    return damaged("its journal was never written");
                }
                self.add(low(8) | high(6), u64::from(len))?;
            } else {
                let below = self.node(low(4) | high(8))?;
                self.extents(&below, Some(depth))?;
            }
            if self.done() {
                break;
            }
        }
        Ok(())
    }

    /// Direct and indirect blocks: each pointer adds at least one block.
    fn pointers(&mut self, root: &[u8]) -> Result<(), Fault> {
        for (index, pointer) in root.chunks_exact(4).enumerate() {
            if self.done() {
                break;
            }
            let block = le32(pointer, 0).map_or(0, u64::from);
            self.pointer(block, index.saturating_sub(11))?;
        }
        Ok(())
    }

    /// A block, or `level` of pointers above some.
    fn pointer(&mut self, block: u64, level: usize) -> Result<(), Fault> {
        if level == 0 {
            return self.add(block, 1);
        }
        let node = self.node(block)?;
        for pointer in node.chunks_exact(4) {
            if self.done() {
                break;
            }
            let block = le32(pointer, 0).map_or(0, u64::from);
            self.pointer(block, level - 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::superblock::tests::superblock;
    use super::{Blocks, Fault, Inode};
    use crate::extents::Extent;
    use crate::view::View;

    const BLOCK: usize = 1024;

    /// Blocks of a file whose inode has these bytes from 0x28 on, on a disk on which
    /// `tree` are the blocks from 100 on.
    fn blocks(extents: bool, root: &[u8], tree: &[Vec<u8>], len: u64) -> Result<Blocks, Fault> {
        let mut disk = vec![0u8; 400 * BLOCK];
        for (number, node) in tree.iter().enumerate() {
            disk[(100 + number) * BLOCK..][..node.len()].copy_from_slice(node);
        }
        let mut raw = vec![0u8; 128];
        raw[0x22] = if extents { 8 } else { 0 };
        raw[0x28..0x28 + root.len()].copy_from_slice(root);
        let view = View::new(&disk, 0, 400 * BLOCK as u64);
        let inode = Inode { raw, seed: 0 };
        inode.blocks(&view, &superblock(4, 4, 1), len, false)
    }

    fn halves(halves: &[u16]) -> Vec<u8> {
        halves.iter().flat_map(|half| half.to_le_bytes()).collect()
    }

    /// A leaf of (first, length, block), or with a depth an index of (first, _, block).
    fn node(depth: u16, entries: &[(u16, u16, u16)]) -> Vec<u8> {
        let mut all = vec![0xf30a, entries.len() as u16, 4, depth, 0, 0];
        for &(first, len, block) in entries {
            all.extend(match depth {
                0 => [first, 0, len, 0, block, 0],
                _ => [first, 0, block, 0, 0, 0],
            });
        }
        halves(&all)
    }

    fn damaged(outcome: Result<Blocks, Fault>) -> bool {
        matches!(outcome, Err(Fault::Damaged(_)))
    }

    #[test]
    fn extents_of_two_levels() {
        let root = node(1, &[(0, 0, 100), (15, 0, 101)]);
        let leaves = [
            node(0, &[(0, 10, 200), (10, 5, 210)]),
            node(0, &[(15, 9, 50)]),
        ];
        let found = blocks(true, &root, &leaves, 20).ok().unwrap();
        let run = |start, len| Extent { start, len };
        assert_eq!(found.runs, [run(200, 15), run(50, 9)]);
        assert_eq!(found.tree, [100, 101]);
    }

    #[test]
    fn trees_that_lie() {
        let leaf = |entries: &[_]| node(0, entries);
        for root in [
            // A hole, nothing, an extent that was never written, outside, too short.
            leaf(&[(1, 10, 200)]),
            leaf(&[]),
            leaf(&[(0, 0x8001, 200)]),
            leaf(&[(0, 10, 0)]),
            leaf(&[(0, 10, 20_000)]),
            leaf(&[(0, 10, 200)]),
            leaf(&[(0, 10, 200), (11, 10, 220)]),
            // A level that is not below, and one that is itself.
            node(2, &[(0, 0, 100)]),
            node(1, &[(0, 0, 101)]),
            node(9, &[(0, 0, 100)]),
        ] {
            let tree = [leaf(&[(0, 20, 200)]), node(1, &[(0, 0, 101)])];
            assert!(damaged(blocks(true, &root, &tree, 20)));
        }
    }

    #[test]
    fn pointers_of_every_level() {
        let list = |from: u32, count: u32| -> Vec<u8> {
            (from..from + count).flat_map(u32::to_le_bytes).collect()
        };
        // 12 direct blocks, 256 behind block 100, the rest behind 101, 102.
        let mut root = list(120, 12);
        root.extend(list(100, 2));
        let tree = [list(132, 256), list(102, 1), list(500, 3)];
        let found = blocks(false, &root, &tree, 12 + 256 + 3).ok().unwrap();
        let run = |start, len| Extent { start, len };
        assert_eq!(found.runs, [run(120, 268), run(500, 3)]);
        assert_eq!(found.tree, [100, 101, 102]);
        // One more is a hole, and a pointer may lead outside.
        assert!(damaged(blocks(false, &root, &tree, 12 + 256 + 4)));
        assert!(damaged(blocks(false, &list(20_000, 12), &[], 3)));
        // Three levels on the same block end, too.
        root.extend(list(103, 1));
        let own = [list(132, 256), list(102, 1), list(500, 256), list(103, 256)];
        assert!(blocks(false, &root, &own, 1 << 20).is_err());
    }
}
