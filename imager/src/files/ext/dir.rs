//! Directories.
//!
//! Owns: the entries. Does not own: the blocks that they are in, or hash trees: all
//! entries stand in the leaves, and inner nodes look like empty blocks.

use super::inode::Inode;
use super::{Ext, Piece, wrong_sum};
use crate::files::bytes::{le16, le32};
use crate::files::{Fail, Item, MAX_ENTRIES};
use diskmap::ExtInodeChecksums;

/// Longest directory that is read, in bytes: what the kernel makes without large_dir.
const MAX_DIRECTORY: u64 = 2 << 30;

impl Ext<'_> {
    /// The names in a directory, without `.` and `..`.
    pub(super) fn entries(&self, inode: &Inode) -> Result<Vec<Item>, Fail> {
        if inode.size > MAX_DIRECTORY {
            return Err(Fail::Unsupported("the directory is too large".to_owned()));
        }
        let size = self.sb.block_size as usize;
        let mut items = Vec::new();
        let mut block: Vec<u8> = Vec::with_capacity(size);
        let mut left = inode.size;
        let has_hashes = inode.has_hashes() && self.sb.has_hashes();
        let mut is_first = true;
        self.runs(inode, &mut |run| {
            self.give(run, &mut left, &mut |piece| {
                let Piece::Data(mut bytes) = piece else {
                    return Err(Fail::damaged("the directory has a hole"));
                };
                while !bytes.is_empty() {
                    let (here, rest) = bytes.split_at(bytes.len().min(size - block.len()));
                    block.extend_from_slice(here);
                    bytes = rest;
                    if block.len() == size {
                        let is_inner = has_hashes && (is_first || is_one_entry(&block));
                        is_first = false;
                        let is_right = |sums: ExtInodeChecksums| match is_inner {
                            true => sums.hashes_are_right(&block),
                            false => sums.names_are_right(&block),
                        };
                        if inode.sums.is_some_and(|sums| !is_right(sums)) {
                            return Err(wrong_sum("a block of the directory"));
                        }
                        decode(&block, self.sb.short_names(), &mut items)?;
                        block.clear();
                    }
                }
                Ok(())
            })
        })?;
        if left > 0 || !block.is_empty() {
            return Err(Fail::damaged("the directory does not end with a block"));
        }
        Ok(items)
    }
}

/// Whether the first entry of a block takes all of it, as in inner nodes of hash trees.
fn is_one_entry(block: &[u8]) -> bool {
    length(block, block.len()) == block.len()
}

/// The length of an entry, as it is stored in blocks of that size.
fn length(entry: &[u8], block: usize) -> usize {
    match usize::from(le16(entry, 4)) {
        // Blocks of 64 KiB have no room for their own length.
        0 | 0xffff if block == 1 << 16 => 1 << 16,
        length => length,
    }
}

/// Decodes a block of a directory.
fn decode(block: &[u8], short_names: bool, items: &mut Vec<Item>) -> Result<(), Fail> {
    let mut at = 0;
    while at < block.len() {
        let entry = &block[at..];
        let inode = le32(entry, 0);
        let length = length(entry, block.len());
        let named = if short_names {
            usize::from(entry.get(6).copied().unwrap_or(0))
        } else {
            usize::from(le16(entry, 6))
        };
        if length < 8 || !length.is_multiple_of(4) || length > entry.len() || 8 + named > length {
            return Err(Fail::damaged(
                "an entry of the directory has an impossible length",
            ));
        }
        let name = &entry[8..8 + named];
        if inode != 0 && name != b"." && name != b".." {
            if items.len() >= MAX_ENTRIES {
                return Err(Fail::Unsupported(format!(
                    "it has more than {MAX_ENTRIES} entries"
                )));
            }
            items.push(Item {
                name: name.to_vec(),
                at: u64::from(inode),
            });
        }
        at += length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, length: u16, name: &[u8]) -> Vec<u8> {
        let mut raw = inode.to_le_bytes().to_vec();
        raw.extend(length.to_le_bytes());
        raw.extend([name.len() as u8, 1]);
        raw.extend(name);
        raw.resize(usize::from(length), 0);
        raw
    }

    #[test]
    fn entries_are_taken_and_empty_ones_passed_over() {
        let block = [
            entry(2, 12, b"."),
            entry(2, 12, b".."),
            entry(12, 16, b"a/b"),
            entry(0, 12, b"gone"),
            entry(13, 972, b"last"),
        ];
        let mut items = Vec::new();
        decode(&block.concat(), true, &mut items).unwrap();
        let names: Vec<_> = items.iter().map(|item| (&item.name[..], item.at)).collect();
        assert_eq!(names, [(&b"a/b"[..], 12), (b"last", 13)]);
    }

    #[test]
    fn lengths_that_are_impossible() {
        for (length, name) in [
            (0, &b""[..]),
            (4, b""),
            (8, b"x"),
            (13, b"abc"),
            (1028, b"x"),
        ] {
            let mut block = entry(12, length, name);
            block.resize(1024, 0);
            let fail = decode(&block, true, &mut Vec::new()).unwrap_err();
            assert!(matches!(fail, Fail::Damaged(_)), "{length}");
        }
    }
}
