//! The superblock of version 0.90.
//!
//! Owns: its fields (`struct mdp_superblock_s` of the kernel's `md_p.h`: 1024 words of 32
//! bits, here in little-endian order) and what they say about reading the member alone.

use super::{Fault, MAGIC, Mirror, Superblock, check_level, damaged, not_clean};
use crate::bytes::{be32, le32};
use crate::extents::Extent;
use crate::guid;

/// Words of the superblock.
const WORDS: usize = 1024;
/// The checksum.
const CHECKSUM: usize = 38;
/// Descriptors of the devices, and the words of each.
const DEVICES: usize = 128;
const MAX_DEVICES: usize = 27;
const DEVICE: usize = 32;
/// The descriptor of the device that carries this copy.
const THIS: usize = 992;

/// State of the array: stopped cleanly.
const CLEAN: u32 = 1;
/// State of the array: there is a write-intent bitmap.
const BITMAP: u32 = 1 << 8;
/// State of a device.
const FAULTY: u32 = 1;
const ACTIVE: u32 = 1 << 1;
const IN_SYNC: u32 = 1 << 2;
/// Preferred for writes, and failed without retries: nothing of the content changes.
const HARMLESS: u32 = 1 << 9 | 1 << 10;

/// UUID of the array, as tools print it.
pub(super) fn uuid(raw: &[u8]) -> String {
    let mut bytes = [0u8; 16];
    for (slot, word) in bytes.chunks_exact_mut(4).zip([5, 13, 14, 15]) {
        let value = le32(raw, word * 4).unwrap_or(0);
        slot.copy_from_slice(&value.to_be_bytes());
    }
    guid::plain(&bytes)
}

/// Whether the superblock can be the one of a device with `room` bytes in front of it: the
/// whole disk has more room than any of its partitions. Some levels do not say.
pub(super) fn fits(raw: &[u8], room: u64) -> bool {
    le32(raw, 8 * 4).is_some_and(|kib| kib > 0 && u64::from(kib) * 1024 <= room)
}

/// The member's content, if it can be read alone.
pub(super) fn mirror(superblock: &Superblock) -> Result<Mirror, Fault> {
    let raw = superblock.raw.as_slice();
    if be32(raw, 0) == Some(MAGIC) {
        return Err(Fault::Unsupported(
            "it was made on a machine of the other byte order".into(),
        ));
    }
    let words: Vec<u32> = (0..WORDS).map_while(|word| le32(raw, word * 4)).collect();
    let Ok(words): Result<[u32; WORDS], _> = words.try_into() else {
        return damaged("the RAID superblock is cut off");
    };
    if checksum(&words) != words[CHECKSUM] {
        return damaged("wrong checksum of the RAID superblock");
    }
    check_level(words[7].cast_signed())?;
    match (words[1], words[2]) {
        (0, 90) => {}
        (0, 91) => return Err(Fault::Unsupported("the array is being reshaped".into())),
        (major, minor) => {
            return Err(Fault::Unsupported(format!(
                "its superblock has the unknown version {major}.{minor}"
            )));
        }
    }
    check_device(&words)?;
    let state = words[33];
    if state & !(CLEAN | BITMAP) != 0 {
        return Err(Fault::Unsupported(format!(
            "the array's state is unknown (0x{state:x})"
        )));
    }
    if state & CLEAN == 0 {
        return Err(not_clean());
    }
    Ok(Mirror {
        data: Extent {
            start: 0,
            len: u64::from(words[8]) * 1024,
        },
        bad_blocks: None,
    })
}

/// Only a device that is in sync has the array's content.
fn check_device(words: &[u32; WORDS]) -> Result<(), Fault> {
    let number = words[THIS] as usize;
    if number >= MAX_DEVICES {
        return damaged(format!("its number {number} is too large"));
    }
    let at = DEVICES + number * DEVICE;
    let (role, state) = (words[at + 3], words[at + 4]);
    if state & FAULTY != 0 {
        return Err(Fault::Unsupported("it is marked as failed".into()));
    }
    if state & IN_SYNC == 0 {
        return Err(Fault::Unsupported("it is a spare or being rebuilt".into()));
    }
    let unknown = state & !(ACTIVE | IN_SYNC | HARMLESS);
    if unknown != 0 {
        return Err(Fault::Unsupported(format!(
            "its device has unknown flags (0x{unknown:x})"
        )));
    }
    if role >= words[10] {
        return damaged(format!("its role {role} is outside the array"));
    }
    Ok(())
}

/// Sum of all words except the checksum itself, with the carry added back.
fn checksum(words: &[u32; WORDS]) -> u32 {
    let sum: u64 = words.iter().map(|&word| u64::from(word)).sum();
    let sum = sum - u64::from(words[CHECKSUM]);
    (sum as u32).wrapping_add((sum >> 32) as u32)
}
