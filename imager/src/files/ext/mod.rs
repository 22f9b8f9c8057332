//! ext2, ext3 and ext4.
//!
//! Owns: blocks with the journal laid over them, and what [`Tree`] asks for. Does not own:
//! the journal itself (`diskmap`), where a file's blocks are (`blocks`), directories (`dir`).
//!
//! After the layout of Linux' documentation, `Documentation/filesystems/ext4`.

mod blocks;
mod dir;
mod inode;
mod sb;

use super::{Fail, Item, Kind, MAX_TARGET, Node, Part, Piece, Sink, Tree};
use blocks::Run;
use diskmap::{ExtChecksums, ExtJournal};
use inode::Inode;
use sb::Super;

/// Number of the root's inode.
const ROOT: u64 = 2;
/// Bytes of a file that are read at a time.
const SHARE: u64 = 1 << 20;

/// One ext file system.
pub struct Ext<'a> {
    part: &'a Part<'a>,
    sb: Super,
    /// Those of its metadata, if it has any.
    sums: Option<ExtChecksums>,
    journal: Option<ExtJournal<'a>>,
}

impl<'a> Ext<'a> {
    /// Opens it; a journal that was not replayed counts as if it was.
    pub fn open(part: &'a Part<'a>) -> Result<Self, Fail> {
        let raw = part.bytes(1024, 1024)?;
        let sb = Super::decode(&raw)?;
        let sums = if sb.has_checksums() {
            let sums = ExtChecksums::new(&raw);
            Some(sums.ok_or_else(|| Fail::damaged("its superblock is damaged"))?)
        } else {
            None
        };
        let journal = if sb.needs_replay() {
            ExtJournal::open(part.disk(), part.start(), part.size()).map_err(|why| {
                Fail::Unsupported(format!(
                    "it was not cleanly unmounted, and its journal cannot be used: {why}"
                ))
            })?
        } else {
            None
        };
        Ok(Ext {
            part,
            sb,
            sums,
            journal,
        })
    }

    /// Fills `buf` with what stands at byte `from` of a block, which it must not leave.
    fn read_block(&self, block: u64, from: u64, buf: &mut [u8]) -> Result<(), Fail> {
        let size = self.sb.block_size;
        if block == 0 || block >= self.sb.blocks || from + buf.len() as u64 > size {
            return Err(Fail::damaged(format!("block {block} is outside")));
        }
        match self
            .journal
            .as_ref()
            .and_then(|journal| journal.block(block))
        {
            Some(later) => {
                let later = later.map_err(Fail::Lost)?;
                let bytes = later.get(from as usize..from as usize + buf.len());
                buf.copy_from_slice(
                    bytes.ok_or_else(|| Fail::damaged("a short block of its journal"))?,
                );
                Ok(())
            }
            // Fewer than 2^48 blocks of at most 64 KiB.
            None => self.part.read(block * size + from, buf),
        }
    }

    /// A whole block.
    fn block(&self, block: u64) -> Result<Vec<u8>, Fail> {
        let mut buf = vec![0; self.sb.block_size as usize];
        self.read_block(block, 0, &mut buf)?;
        Ok(buf)
    }

    fn inode(&self, number: u64) -> Result<Inode, Fail> {
        let bad = || Fail::damaged(format!("inode {number} is not one of the file system"));
        let index = number.checked_sub(1).ok_or_else(bad)?;
        if index >= self.sb.inodes {
            return Err(bad());
        }
        let group = index / self.sb.inodes_per_group;
        if group >= self.sb.groups {
            return Err(bad());
        }
        let (block, from) = self.sb.descriptor(group);
        let mut raw = vec![0; self.sb.descriptor_size as usize];
        self.read_block(block, from, &mut raw)?;
        let sums = self.sums.as_ref();
        if sums.is_some_and(|sums| !sums.descriptor_is_right(group, &raw)) {
            return Err(wrong_sum(&format!("the descriptor of group {group}")));
        }
        let table = self.sb.inode_table(&raw);
        let at = (index % self.sb.inodes_per_group) * self.sb.inode_size;
        let size = self.sb.block_size;
        let mut raw = vec![0; self.sb.inode_size as usize];
        let block = table.checked_add(at / size).ok_or_else(bad)?;
        self.read_block(block, at % size, &mut raw)?;
        let mut inode = Inode::decode(number, &raw, &self.sb)?;
        if let Some(sums) = sums {
            let sums = sums.inode(number, &raw);
            inode.sums = sums.map_err(|_| wrong_sum(&format!("inode {number}")))?;
        }
        Ok(inode)
    }

    /// Gives what a run of blocks holds, `left` bytes at most.
    fn give(&self, run: Run, left: &mut u64, sink: &mut Sink<'_>) -> Result<(), Fail> {
        let size = self.sb.block_size;
        let len = run.count.saturating_mul(size).min(*left);
        *left -= len;
        let Some(first) = run.block else {
            return if len > 0 {
                sink(Piece::Hole(len))
            } else {
                Ok(())
            };
        };
        let end = first
            .checked_add(run.count)
            .filter(|&end| end <= self.sb.blocks);
        if first == 0 || end.is_none() {
            return Err(Fail::damaged(format!("block {first} is outside")));
        }
        let journaled = self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.has_any(first, run.count));
        let share = if journaled { size } else { SHARE };
        let mut buf = vec![0; share.min(len) as usize];
        let mut done = 0;
        while done < len {
            let part = share.min(len - done);
            let bytes = &mut buf[..part as usize];
            if journaled {
                self.read_block(first + done / size, 0, bytes)?;
            } else {
                self.part.content(first * size + done, bytes)?;
            }
            sink(Piece::Data(bytes))?;
            done += part;
        }
        Ok(())
    }

    fn whole(&self, inode: &Inode, most: u64) -> Result<Vec<u8>, Fail> {
        if inode.size > most {
            return Err(Fail::damaged(format!(
                "{} bytes are too many for it",
                inode.size
            )));
        }
        let mut all = Vec::new();
        let mut left = inode.size;
        self.runs(inode, &mut |run| {
            self.give(run, &mut left, &mut |piece| {
                match piece {
                    Piece::Data(bytes) => all.extend_from_slice(bytes),
                    Piece::Hole(len) => all.resize(all.len() + len as usize, 0),
                }
                Ok(())
            })
        })?;
        Ok(all)
    }
}

/// The kernel refuses what it does not find as it was written, too.
fn wrong_sum(what: &str) -> Fail {
    Fail::damaged(format!("the checksum of {what} is wrong"))
}

impl Tree for Ext<'_> {
    fn root(&self) -> Result<Node, Fail> {
        let root = self.node(ROOT)?;
        if root.kind != Kind::Directory {
            return Err(Fail::damaged("its root is no directory"));
        }
        Ok(root)
    }

    fn list(&self, directory: &Node) -> Result<Vec<Item>, Fail> {
        self.entries(&self.inode(directory.at)?)
    }

    fn node(&self, at: u64) -> Result<Node, Fail> {
        self.inode(at)?.node()
    }

    fn target(&self, link: &Node) -> Result<Vec<u8>, Fail> {
        let inode = self.inode(link.at)?;
        inode.check_readable()?;
        let target = match inode.inline_target() {
            Some(target) => target.to_vec(),
            None => self.whole(&inode, MAX_TARGET)?,
        };
        // The kernel ends a target at the first zero.
        let end = target.iter().position(|&byte| byte == 0);
        let target = &target[..end.unwrap_or(target.len())];
        if target.is_empty() {
            return Err(Fail::damaged("a link without a target"));
        }
        Ok(target.to_vec())
    }

    fn content(&self, file: &Node, sink: &mut Sink<'_>) -> Result<(), Fail> {
        let inode = self.inode(file.at)?;
        let mut left = inode.size;
        self.runs(&inode, &mut |run| self.give(run, &mut left, sink))
    }
}
