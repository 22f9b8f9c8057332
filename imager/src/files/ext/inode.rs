//! Inodes.
//!
//! Owns: their fields. Does not own: finding them, or the blocks that they lead to.

use super::sb::Super;
use crate::files::bytes::{le16, le32};
use crate::files::{Besides, Fail, Kind, Node, Time};
use diskmap::ExtInodeChecksums;

/// Bytes of block numbers, of an extent tree's root, or of a short target.
const BLOCK: usize = 60;

const ENCRYPTED: u32 = 0x800;
const INDEX: u32 = 0x1000;
const EXTENTS: u32 = 0x8_0000;
const INLINE: u32 = 0x1000_0000;

/// What extended attributes in an inode begin with.
const ATTRIBUTES: u32 = 0xea02_0000;

/// A decoded inode.
pub(super) struct Inode {
    pub number: u64,
    pub mode: u16,
    pub size: u64,
    pub block: [u8; BLOCK],
    /// The checksums of its blocks, if they have any.
    pub sums: Option<ExtInodeChecksums>,
    flags: u32,
    owner: (u32, u32),
    links: u16,
    modified: Time,
    accessed: Time,
    has_attributes: bool,
}

/// Whether there are extended attributes, in a block of their own or behind the fields.
fn has_attributes(raw: &[u8], extra: usize) -> bool {
    let behind = 128 + extra;
    let inside = raw.len() > 128 && le32(raw, behind) == ATTRIBUTES && le32(raw, behind + 4) != 0;
    inside || le32(raw, 0x68) != 0 || le16(raw, 0x76) != 0
}

impl Inode {
    /// Decodes all bytes of an inode, 128 at least.
    pub fn decode(number: u64, raw: &[u8], sb: &Super) -> Result<Inode, Fail> {
        let mode = le16(raw, 0);
        let mut block = [0; BLOCK];
        let stored = raw.get(0x28..0x28 + BLOCK);
        block.copy_from_slice(stored.ok_or_else(|| Fail::damaged("a short inode"))?);
        // Directories of old file systems have something else in the upper half.
        let wide = mode >> 12 != 4 || sb.large_directories();
        let high = if wide {
            u64::from(le32(raw, 0x6c)) << 32
        } else {
            0
        };
        let id = |low, high| u32::from(le16(raw, low)) | u32::from(le16(raw, high)) << 16;
        let extra = if raw.len() > 128 { le16(raw, 0x80) } else { 0 };
        let time = |at, more: usize| {
            let fits = more + 4 <= 128 + usize::from(extra);
            let more = if fits { le32(raw, more) } else { 0 };
            Time {
                // Signed; two more bits count from where it would begin anew.
                seconds: i64::from(le32(raw, at).cast_signed()) + (i64::from(more & 3) << 32),
                nanos: (more >> 2).min(999_999_999),
            }
        };
        if mode == 0 || le16(raw, 0x1a) == 0 {
            return Err(Fail::damaged(format!("inode {number} is not in use")));
        }
        Ok(Inode {
            number,
            mode,
            size: u64::from(le32(raw, 4)) | high,
            block,
            sums: None,
            flags: le32(raw, 0x20),
            owner: (id(2, 0x78), id(0x18, 0x7a)),
            links: le16(raw, 0x1a),
            modified: time(0x10, 0x88),
            accessed: time(8, 0x8c),
            has_attributes: has_attributes(raw, usize::from(extra)),
        })
    }

    /// What is told of it.
    pub fn node(&self) -> Result<Node, Fail> {
        let kind = match self.mode >> 12 {
            0x8 => Kind::File,
            0x4 => Kind::Directory,
            0xa => Kind::Symlink,
            0x1 => Kind::Special("pipe"),
            0x2 => Kind::Special("character-device"),
            0x6 => Kind::Special("block-device"),
            0xc => Kind::Special("socket"),
            other => {
                let number = self.number;
                return Err(Fail::damaged(format!(
                    "inode {number} is of kind {other:#x}"
                )));
            }
        };
        Ok(Node {
            id: self.number,
            kind,
            size: self.size,
            mode: Some(self.mode & 0o7777),
            owner: Some(self.owner),
            modified: Some(self.modified),
            accessed: Some(self.accessed),
            links: u32::from(self.links),
            besides: Besides {
                streams: 0,
                attributes: self.has_attributes,
            },
            at: self.number,
        })
    }

    /// Whether its content is stored as it is.
    pub fn check_readable(&self) -> Result<(), Fail> {
        let why = if self.flags & ENCRYPTED != 0 {
            "it is encrypted by the file system"
        } else if self.flags & INLINE != 0 {
            "its content is in its inode (inline_data), which is not read"
        } else {
            return Ok(());
        };
        Err(Fail::Unsupported(why.to_owned()))
    }

    /// Whether a directory's names are found by a hash tree.
    pub fn has_hashes(&self) -> bool {
        self.flags & INDEX != 0
    }

    /// Whether its blocks are in a tree of extents.
    pub fn has_extents(&self) -> bool {
        self.flags & EXTENTS != 0
    }

    /// The target of a link that is short enough to stand in the inode.
    pub fn inline_target(&self) -> Option<&[u8]> {
        if self.has_extents() || self.size >= BLOCK as u64 {
            return None;
        }
        self.block.get(..self.size as usize)
    }
}
