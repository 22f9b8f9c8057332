//! The header of a partclone image, of both formats.
//!
//! Owns: its fields, and what of them makes an image unreadable here. Does not own: bitmap
//! and blocks. Partclone's IMAGE_FORMATS.md describes the fields.

use super::checksum::Mode;
use crate::Error;
use crate::bytes::{le16, le32, le64, text};

/// What every image begins with.
pub(crate) const MAGIC: &[u8] = b"partclone-image";
/// Bytes that are enough to know the format.
pub(super) const PREFIX: usize = 36;
const LENGTH_1: usize = 4160;
const LENGTH_2: usize = 110;
/// Longest block that is taken: no file system has larger ones.
const MAX_BLOCK: u32 = 64 << 20;
/// Largest partition that is taken: offsets of files and disks have 63 bits.
const MAX_SIZE: u64 = i64::MAX as u64;

const ANEW: &str =
    "Restore it with partclone on the kind of machine that made it, and make a backup of that.";

/// Marks of the bytes for blocks that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bitmap {
    /// One byte for each block, then a mark.
    Bytes,
    /// One bit for each block, then a CRC-32.
    Bits,
}

/// What stands in a header.
#[derive(Clone, Debug)]
pub struct Header {
    /// Version of the format: 1 or 2.
    pub version: u16,
    /// Name of the file system as partclone writes it: `EXTFS`, `NTFS` and so on.
    pub file_system: String,
    /// Size of the partition in bytes.
    pub size: u64,
    /// Size of a block in bytes.
    pub block_size: u32,
    /// Blocks of the file system.
    pub blocks: u64,
    pub(super) bitmap: Bitmap,
    pub(super) mode: Mode,
    /// Blocks that one checksum covers; not 0 if there are checksums.
    pub(super) strip: u32,
    /// Each checksum starts anew.
    pub(super) reseed: bool,
}

impl Header {
    /// Length of the whole header, by its first [`PREFIX`] bytes.
    pub(super) fn length(prefix: &[u8]) -> Result<usize, Error> {
        if !prefix.starts_with(MAGIC) {
            return Error::damaged("it has no partclone header");
        }
        match prefix.get(30..34) {
            Some(b"0001") => Ok(LENGTH_1),
            Some(b"0002") => Ok(LENGTH_2),
            version => {
                let version = String::from_utf8_lossy(version.unwrap_or_default()).into_owned();
                Error::unsupported(format!("partclone format {version:?}"), ANEW)
            }
        }
    }

    /// Reads a whole header.
    pub(super) fn parse(bytes: &[u8]) -> Result<Header, Error> {
        let header = match Self::length(bytes)? {
            LENGTH_1 => Self::parse_1(bytes),
            _ => Self::parse_2(bytes)?,
        };
        let block = header.block_size;
        if block == 0 || block % 512 != 0 || block > MAX_BLOCK {
            return Error::damaged(format!("blocks of {block} bytes"));
        }
        let covered = header.blocks.checked_mul(u64::from(block));
        let Some(covered) = covered.filter(|&n| n > 0 && n <= MAX_SIZE) else {
            return Error::damaged(format!("{} blocks of {block} bytes", header.blocks));
        };
        if header.size > MAX_SIZE {
            return Error::damaged(format!("a partition of {} bytes", header.size));
        }
        Ok(Header {
            size: header.size.max(covered),
            ..header
        })
    }

    fn parse_1(bytes: &[u8]) -> Header {
        Header {
            version: 1,
            file_system: text(&bytes[15..30]),
            block_size: le32(bytes, 36),
            size: le64(bytes, 40),
            blocks: le64(bytes, 48),
            bitmap: Bitmap::Bytes,
            mode: Mode::Format1,
            strip: 1,
            reseed: false,
        }
    }

    fn parse_2(bytes: &[u8]) -> Result<Header, Error> {
        match le16(bytes, 34) {
            0xc0de => {}
            0xdec0 => return Error::unsupported("it comes from a big-endian machine", ANEW),
            _ => return Error::damaged("its mark of the order of bytes is unknown"),
        }
        let found = !crc32fast::hash(bytes.get(..106).unwrap_or_default());
        if found != le32(bytes, 106) {
            return Error::damaged("the checksum of its header is wrong");
        }
        let version = le16(bytes, 92);
        if version != 2 || le32(bytes, 88) != 18 {
            return Error::unsupported(format!("partclone format 0002, variant {version}"), ANEW);
        }
        let (kind, strip) = (le16(bytes, 96), le32(bytes, 100));
        let mode = match (kind, le16(bytes, 98)) {
            (0, 0) => Mode::None,
            (0x20, 4) => Mode::Crc32,
            (0x30, 8) => Mode::Xxh64,
            (kind, size) => {
                let what = format!("checksums of kind {kind:#x} with {size} bytes");
                return Error::unsupported(what, ANEW);
            }
        };
        if mode != Mode::None && strip == 0 {
            return Error::damaged("checksums that cover no block");
        }
        let bitmap = match bytes.get(105) {
            Some(1) => Bitmap::Bits,
            Some(8) => Bitmap::Bytes,
            other => {
                let what = format!("a list of blocks of kind {:?}", other.unwrap_or(&0));
                return Error::unsupported(what, ANEW);
            }
        };
        Ok(Header {
            version: 2,
            file_system: text(bytes.get(36..52).unwrap_or_default()),
            size: le64(bytes, 52),
            blocks: le64(bytes, 60),
            block_size: le32(bytes, 84),
            bitmap,
            mode,
            strip,
            reseed: bytes.get(104) == Some(&1),
        })
    }
}
