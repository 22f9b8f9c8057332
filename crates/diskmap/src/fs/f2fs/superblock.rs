//! The superblock of F2FS: where the areas lie, and what the file system may contain.
//!
//! Owns: its fields (`struct f2fs_super_block` of the kernel's `f2fs_fs.h`), its
//! checksum, the comparison of its two copies. Does not own: checkpoints, which tell the
//! state.

use super::super::{Fault, damaged};
use super::{BLOCK, MAGIC, SEGMENT_BLOCKS, crc};
use crate::bytes::{array, has, le32, le64};
use crate::guid;
use crate::view::{ReadFailure, View};

/// Byte offset in its block.
const OFFSET: u64 = 1024;
const LEN: usize = 3072;
/// Offset of the checksum, where there is one.
const CHECKSUM: usize = 3068;
const NAME: std::ops::Range<usize> = 124..1148;
/// Devices of the file system; the first name is empty if there is only one.
const DEVICES: usize = 2201;
/// Errors of its metadata that the kernel met.
const ERRORS: std::ops::Range<usize> = 2794..2810;
/// Room in a checkpoint for anything but its payload.
const CHECKPOINT_BLOCKS: u64 = 8;

const ZONED: u32 = 0x0002;
const SUPER_CHECKSUM: u32 = 0x0800;
const READ_ONLY: u32 = 0x4000;
/// Features that change nothing about which blocks are in use: encryption, larger
/// inodes, project quota, inode checksums, flexible inline attributes, quota inodes,
/// creation times, lost+found, verity, checksummed superblock, case folding, compression.
const KNOWN: u32 = 0x3ff9;

/// A superblock whose areas follow each other; places and lengths in blocks.
pub(super) struct Superblock {
    pub blocks: u64,
    pub checkpoints: u64,
    pub sit: u64,
    pub sit_segments: u64,
    pub nat_segments: u64,
    /// Summaries: a block for each segment of the main area.
    pub summaries: u64,
    pub main: u64,
    pub main_segments: u32,
    /// Blocks of a checkpoint behind its first that hold version bitmaps.
    pub payload: u64,
}

/// Bytes of the superblock if there is one.
pub(super) fn find(view: &View<'_>) -> Result<Option<Vec<u8>>, ReadFailure> {
    let raw = view.bytes_up_to(OFFSET, LEN)?;
    let found = raw.len() == LEN && has(&raw, 0, &MAGIC.to_le_bytes());
    Ok(found.then_some(raw))
}

/// Size in bytes as it says, however much that is.
pub(super) fn size(raw: &[u8]) -> u64 {
    le64(raw, 36).unwrap_or(0).saturating_mul(BLOCK)
}

pub(super) fn uuid(raw: &[u8]) -> String {
    array(raw, 108)
        .map(|raw| guid::plain(&raw))
        .unwrap_or_default()
}

pub(super) fn label(raw: &[u8]) -> String {
    let units: Vec<u16> = raw
        .get(NAME)
        .unwrap_or_default()
        .chunks_exact(2)
        .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
        .take_while(|&unit| unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
        .chars()
        .filter(|c| !c.is_control())
        .collect()
}

impl Superblock {
    /// Decodes the first copy and compares it with the second.
    pub fn read(view: &View<'_>, raw: &[u8]) -> Result<Superblock, Fault> {
        let sb = Superblock::decode(raw)?;
        let second = view.bytes(BLOCK + OFFSET, LEN)?;
        if !has(&second, 0, &MAGIC.to_le_bytes()) || !checksum_is_right(&second) {
            return damaged("its second superblock is not valid");
        }
        // What names versions, reasons of a stop and errors may be written to one first.
        let same = |range: std::ops::Range<usize>| raw.get(range.clone()) == second.get(range);
        if !same(4..124) || !same(1664..1668) || !same(2180..2184) || !same(DEVICES..2745) {
            return damaged("its two superblocks differ");
        }
        Ok(sb)
    }

    fn decode(raw: &[u8]) -> Result<Superblock, Fault> {
        let word = |at| le32(raw, at).unwrap_or(0);
        let wide = |at| u64::from(word(at));
        if !checksum_is_right(raw) {
            return damaged("wrong checksum of its superblock");
        }
        if word(16) != BLOCK.ilog2() || word(20) != SEGMENT_BLOCKS.ilog2() {
            return Err(Fault::Unsupported(format!(
                "it has blocks of 2^{} bytes and segments of 2^{} blocks",
                word(16),
                word(20)
            )));
        }
        check_features(raw)?;
        let sb = Superblock {
            blocks: le64(raw, 36).unwrap_or(0),
            checkpoints: wide(76),
            sit: wide(80),
            sit_segments: wide(56),
            nat_segments: wide(60),
            summaries: wide(88),
            main: wide(92),
            main_segments: word(68),
            payload: wide(1664),
        };
        let (segments, nat) = (wide(48), wide(84));
        let follows = |start, len, next| start + len * SEGMENT_BLOCKS == next;
        let in_order = wide(72) == sb.checkpoints
            && wide(52) == 2
            && sb.sit_segments.is_multiple_of(2)
            && sb.nat_segments.is_multiple_of(2)
            && follows(sb.checkpoints, wide(52), sb.sit)
            && follows(sb.sit, sb.sit_segments, nat)
            && follows(nat, sb.nat_segments, sb.summaries)
            && follows(sb.summaries, wide(64), sb.main)
            && sb.summaries + u64::from(sb.main_segments) <= sb.main;
        if !in_order || sb.checkpoints < 2 {
            return damaged("its areas do not follow each other");
        }
        let end = sb.checkpoints + segments * SEGMENT_BLOCKS;
        if sb.main_segments == 0 || sb.main_end() > end || end > sb.blocks {
            return damaged("its areas do not fit its length");
        }
        if wide(44).checked_mul(wide(24)) != Some(u64::from(sb.main_segments)) {
            return damaged("its sections do not make up its segments");
        }
        if sb.payload + CHECKPOINT_BLOCKS > SEGMENT_BLOCKS {
            return damaged(format!("its checkpoints have {} extra blocks", sb.payload));
        }
        Ok(sb)
    }

    /// First block behind the main area.
    pub fn main_end(&self) -> u64 {
        self.main + u64::from(self.main_segments) * SEGMENT_BLOCKS
    }
}

fn checksum_is_right(raw: &[u8]) -> bool {
    if le32(raw, 2180).unwrap_or(0) & SUPER_CHECKSUM == 0 {
        return true;
    }
    let covered = raw.get(..CHECKSUM).unwrap_or_default();
    le32(raw, 32) == Some(CHECKSUM as u32) && le32(raw, CHECKSUM) == Some(crc(MAGIC, covered))
}

/// Whether everything that it may contain is understood.
fn check_features(raw: &[u8]) -> Result<(), Fault> {
    let features = le32(raw, 2180).unwrap_or(0);
    if raw.get(DEVICES).is_none_or(|&first| first != 0) {
        return Err(Fault::Unsupported("it spans several devices".into()));
    }
    if features & ZONED != 0 {
        return Err(Fault::Unsupported("it is made for a zoned device".into()));
    }
    if features & READ_ONLY != 0 {
        return Err(Fault::Unsupported("it is of the read-only kind".into()));
    }
    if features & !KNOWN != 0 {
        return Err(Fault::Unsupported(format!(
            "its features {features:#x} are not all known"
        )));
    }
    let errors = raw.get(ERRORS).unwrap_or_default();
    if errors.iter().any(|&byte| byte != 0) {
        return damaged("it has recorded errors of its metadata");
    }
    Ok(())
}
