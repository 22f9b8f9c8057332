//! A folder's slots: short names, long names, places.
//!
//! Owns: 32-byte entries. Does not own: where they stand.

use crate::bios::put;

/// 1 January 2000, as the folder's slots have it.
const DATE: u16 = 20 << 9 | 1 << 5 | 1;
const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;
const VOLUME: u8 = 0x08;
const LONG: u8 = 0x0F;
/// UTF-16 units of a long name in a slot, and where they stand.
const UNITS: usize = 13;
const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// A slot without its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    attributes: u8,
    first: u64,
    size_bytes: u64,
}

impl Slot {
    /// A folder from this cluster on.
    pub fn folder(first: u64) -> Slot {
        Slot {
            attributes: FOLDER,
            first,
            size_bytes: 0,
        }
    }

    /// A file from this cluster on.
    pub fn file(first: u64, size_bytes: u64) -> Slot {
        Slot {
            attributes: ARCHIVE,
            first,
            size_bytes,
        }
    }

    /// The slot with its short name.
    pub fn named(self, name: [u8; 11]) -> [u8; 32] {
        let mut slot = [0; 32];
        let first = self.first.to_le_bytes();
        slot[..11].copy_from_slice(&name);
        slot[11] = self.attributes;
        for at in [16, 18, 24] {
            put(&mut slot, at, &DATE.to_le_bytes());
        }
        put(&mut slot, 20, &first[2..4]);
        put(&mut slot, 26, &first[..2]);
        // Files end at 4 GiB (`crate::MAX_FILE`).
        put(&mut slot, 28, &self.size_bytes.to_le_bytes()[..4]);
        slot
    }
}

/// The slot with the volume's name.
pub(super) fn label(name: &str) -> [u8; 32] {
    let slot = Slot {
        attributes: VOLUME,
        first: 0,
        size_bytes: 0,
    };
    slot.named(padded(name))
}

/// A name of at most 11 characters, with spaces behind it.
pub(super) fn padded(name: &str) -> [u8; 11] {
    let mut padded = [b' '; 11];
    put(&mut padded, 0, name.as_bytes());
    padded
}

/// How many slots a name takes.
pub(super) fn slots(name: &str) -> u64 {
    if is_short(name) {
        1
    } else {
        1 + name.len().div_ceil(UNITS) as u64
    }
}

/// The slots of a file or folder; `taken` are the short names of its folder so far.
pub(super) fn entries(name: &str, slot: Slot, taken: &mut Vec<[u8; 11]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let alias = short(name).unwrap_or_else(|| alias(name, taken));
    taken.push(alias);
    if !is_short(name) {
        bytes.extend(long(name, &alias));
    }
    bytes.extend(slot.named(alias));
    bytes
}

/// The name in 8 and 3 upper-case characters, if it fits.
fn short(name: &str) -> Option<[u8; 11]> {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let fits = (1..=8).contains(&base.len()) && extension.len() <= 3;
    fits.then(|| joined(base, extension))
}

fn joined(base: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    put(&mut short[..8], 0, base.to_ascii_uppercase().as_bytes());
    put(&mut short, 8, extension.to_ascii_uppercase().as_bytes());
    short
}

/// Whether the short name is the name itself.
fn is_short(name: &str) -> bool {
    short(name).is_some() && !name.bytes().any(|b| b.is_ascii_lowercase())
}

/// A short name for one that is too long: `DEPLOY~1`. Names that fit stand for themselves,
/// and no name has a tilde.
fn alias(name: &str, taken: &[[u8; 11]]) -> [u8; 11] {
    let (base, extension) = name.split_once('.').unwrap_or((name, ""));
    let extension = extension.get(..3).unwrap_or(extension);
    let mut found = joined(base, extension);
    for number in 1..=9999 {
        let tail = format!("~{number}");
        let room = (8 - tail.len()).min(base.len());
        let start = base.get(..room).unwrap_or(base);
        found = joined(&(start.to_owned() + &tail), extension);
        if !taken.contains(&found) {
            break;
        }
    }
    found
}

/// The slots with the long name, which stand before the one with the short name.
fn long(name: &str, short: &[u8; 11]) -> Vec<u8> {
    let sum = short
        .iter()
        .fold(0_u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let units: Vec<u16> = name.encode_utf16().collect();
    let parts = units.len().div_ceil(UNITS);
    let mut bytes = Vec::new();
    for part in (0..parts).rev() {
        let mut slot = [0; 32];
        let order = u8::try_from(part + 1).unwrap_or(u8::MAX);
        let last = if part + 1 == parts { 0x40 } else { 0 };
        slot[0] = order | last;
        slot[11] = LONG;
        slot[13] = sum;
        for (unit, place) in PLACES.into_iter().enumerate() {
            let at = part * UNITS + unit;
            // A name that does not fill its slots ends with 0, and 0xFFFF behind that.
            let padding = if at == units.len() { 0 } else { u16::MAX };
            let value = units.get(at).copied().unwrap_or(padding);
            put(&mut slot, place, &value.to_le_bytes());
        }
        bytes.extend(slot);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Slot, alias, entries, label, short, slots};

    #[test]
    fn short_names_and_aliases() {
        assert_eq!(short("vmlinuz").as_ref(), Some(b"VMLINUZ    "));
        assert_eq!(short("grub.cfg").as_ref(), Some(b"GRUB    CFG"));
        assert_eq!(short("deploy-os"), None);
        assert_eq!(short("medium.json"), None);
        let mut taken = Vec::new();
        for expected in [b"IMAGE~1 000", b"IMAGE~2 000", b"IMAGE~3 000"] {
            let found = alias("image.0001", &taken);
            assert_eq!(&found, expected);
            taken.push(found);
        }
        assert_eq!(&alias("deploy-os", &[]), b"DEPLOY~1   ");
        assert_eq!(&alias("a.json", &[]), b"A~1     JSO");
    }

    #[test]
    fn a_long_name_stands_before_its_short_one() {
        let mut taken = Vec::new();
        let bytes = entries("medium-0001.json", Slot::file(0x12_3456, 77), &mut taken);
        assert_eq!(bytes.len() as u64, 32 * slots("medium-0001.json"));
        assert_eq!(bytes.len(), 96);
        assert_eq!((bytes[0], bytes[32], bytes[11]), (0x42, 1, 0x0F));
        assert_eq!(bytes[33], b'm');
        assert_eq!(bytes[1..7], [b's', 0, b'o', 0, b'n', 0]);
        assert_eq!(bytes[7..11], [0, 0, 0xFF, 0xFF]);
        assert_eq!(&bytes[64..75], b"MEDIUM~1JSO");
        assert_eq!(bytes[75], 0x20);
        assert_eq!(bytes[84..86], [0x12, 0]);
        assert_eq!(bytes[90..92], [0x56, 0x34]);
        assert_eq!(bytes[92..96], 77_u32.to_le_bytes());
        // The sum that binds both, worked out elsewhere.
        assert_eq!((bytes[13], bytes[45]), (0x20, 0x20));
    }

    #[test]
    fn a_name_in_capitals_needs_no_long_one() {
        let bytes = entries("BOOTX64.EFI", Slot::file(9, 1), &mut Vec::new());
        assert_eq!(bytes.len(), 32);
        assert_eq!(&bytes[..11], b"BOOTX64 EFI");
        assert_eq!(slots("BOOTX64.EFI"), 1);
        assert_eq!(slots("vmlinuz"), 2);
        assert_eq!(&label("DEPLOY-OS")[..12], b"DEPLOY-OS  \x08");
    }
}
