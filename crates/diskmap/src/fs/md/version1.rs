//! The superblock of versions 1.0, 1.1 and 1.2, which differ only in its place.
//!
//! Owns: its fields (`struct mdp_superblock_1` of the kernel's `md_p.h`) and what they
//! say about reading the member alone. All numbers are little-endian, places and sizes
//! are in sectors of 512 bytes.

use super::{Fault, Mirror, Superblock, check_level, damaged, not_clean};
use crate::bytes::{array, le16, le32, le64, text};
use crate::extents::Extent;
use crate::guid;

/// Bytes in front of the roles.
const FIXED: usize = 256;
/// Bytes of one role.
const ROLE: usize = 2;
const SECTOR: u64 = 512;

/// Features that leave a mirror's member readable alone.
const WRITE_INTENT_BITMAP: u32 = 1;
const BAD_BLOCKS: u32 = 8;
/// Features that do not, by their bits.
const OTHERS: &[(u32, &str)] = &[
    (2 | 128, "it is being rebuilt"),
    (4 | 32 | 64, "the array is being reshaped"),
    (16, "it is a replacement that is being filled"),
    (256, "the array is shared by several machines"),
    (512, "the array has a journal"),
    (1024 | 2048, "the array has a partial parity log"),
];
/// Flags of a device that change nothing of its content: preferred for writes, and
/// failed without retries.
const HARMLESS_FLAGS: u8 = 1 | 2;

/// Name of the array.
pub(super) fn label(raw: &[u8]) -> String {
    text(raw.get(32..64).unwrap_or_default())
}

/// UUID of the array.
pub(super) fn uuid(raw: &[u8]) -> String {
    array(raw, 16)
        .map(|raw| guid::plain(&raw))
        .unwrap_or_default()
}

/// Whether the superblock says that it stands at that byte offset.
pub(super) fn stands_at(raw: &[u8], place: Option<u64>) -> bool {
    let own = le64(raw, 144).and_then(|sector| sector.checked_mul(SECTOR));
    own.is_some() && own == place
}

/// The member's content, if it can be read alone.
pub(super) fn mirror(superblock: &Superblock) -> Result<Mirror, Fault> {
    let raw = superblock.raw.as_slice();
    let word = |at| le32(raw, at).ok_or_else(cut_off);
    let long = |at| le64(raw, at).ok_or_else(cut_off);

    let max_devices = word(220)? as usize;
    let size = max_devices.saturating_mul(ROLE).saturating_add(FIXED);
    let Some(summed) = raw.get(..size) else {
        return damaged("the RAID superblock has too many devices");
    };
    if checksum(summed) != word(216)? {
        return damaged("wrong checksum of the RAID superblock");
    }
    if !stands_at(raw, Some(superblock.place)) {
        return damaged("the RAID superblock belongs to another place");
    }
    let features = word(8)?;
    check_kind(raw, word(4)?, features, word(72)?)?;
    check_role(raw, max_devices, word(160)?, word(92)?)?;
    if long(208)? != u64::MAX {
        return Err(not_clean());
    }
    let (sectors, room) = (long(80)?, long(136)?);
    if sectors > room {
        return damaged("the array is larger than its data area");
    }
    let start = long(128)?.checked_mul(SECTOR);
    let (Some(start), Some(len)) = (start, sectors.checked_mul(SECTOR)) else {
        return damaged("the array's data reaches beyond the member");
    };
    let mut bad_blocks = None;
    if features & BAD_BLOCKS != 0 {
        let away = i64::from(word(188)?.cast_signed()) * SECTOR.cast_signed();
        bad_blocks = superblock.place.checked_add_signed(away);
        if bad_blocks.is_none() {
            return damaged("the list of bad blocks is outside the member");
        }
    }
    Ok(Mirror {
        data: Extent { start, len },
        bad_blocks,
    })
}

/// The fault of a superblock at whose end the member is over.
fn cut_off() -> Fault {
    Fault::Damaged("the RAID superblock is cut off".into())
}

/// Version, features and level.
fn check_kind(raw: &[u8], major: u32, features: u32, level: u32) -> Result<(), Fault> {
    if major != 1 {
        return damaged(format!("the RAID superblock has version {major}"));
    }
    // The level first: it is what people know of an array.
    check_level(level.cast_signed())?;
    for (bits, what) in OTHERS {
        if features & bits != 0 {
            return Err(Fault::Unsupported((*what).into()));
        }
    }
    let unknown = features & !(WRITE_INTENT_BITMAP | BAD_BLOCKS);
    if unknown != 0 {
        return Err(Fault::Unsupported(format!(
            "it uses unknown features (0x{unknown:x})"
        )));
    }
    match raw.get(184) {
        Some(flags) if flags & !HARMLESS_FLAGS != 0 => Err(Fault::Unsupported(format!(
            "its device has unknown flags (0x{flags:x})"
        ))),
        _ => Ok(()),
    }
}

/// Only a device with a place in the array has its content.
fn check_role(raw: &[u8], max_devices: usize, number: u32, devices: u32) -> Result<(), Fault> {
    let number = number as usize;
    let role = (number < max_devices)
        .then(|| le16(raw, FIXED + number * ROLE))
        .flatten();
    let what = match role {
        None | Some(0xffff) => "it is a spare",
        Some(0xfffe) => "it is marked as failed",
        Some(0xfffd) => "it is a journal",
        Some(role) if u32::from(role) < devices => return Ok(()),
        Some(role) => return damaged(format!("its role {role} is outside the array")),
    };
    Err(Fault::Unsupported(what.into()))
}

/// Sum of all 32-bit words except the checksum itself, with the carry added back; a
/// 16-bit word may be left at the end.
fn checksum(raw: &[u8]) -> u32 {
    let mut sum = 0u64;
    for (i, word) in raw.chunks(4).enumerate() {
        sum += match (i, word) {
            (54, _) => 0,
            (_, &[a, b, c, d]) => u64::from(u32::from_le_bytes([a, b, c, d])),
            (_, &[a, b]) => u64::from(u16::from_le_bytes([a, b])),
            _ => 0,
        };
    }
    (sum as u32).wrapping_add((sum >> 32) as u32)
}
