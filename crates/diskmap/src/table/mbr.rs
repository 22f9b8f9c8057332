//! One sector with four partition entries: the MBR or an extended boot record.
//!
//! Owns: the 16-byte entry and the signature. Does not own: the chain of logical
//! partitions (`mbr_chain`).

use crate::bytes::{has, le32, put};

/// Offset of the four entries.
pub(super) const ENTRIES: usize = 446;
/// Offset of the disk signature.
const DISK_SIGNATURE: usize = 440;

/// A partition entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Slot from 1.
    pub slot: u32,
    /// 0x80 set.
    pub active: bool,
    /// Type byte.
    pub kind: u8,
    /// First sector, relative to whatever the entry's sector says.
    pub start: u64,
    /// Number of sectors.
    pub sectors: u64,
}

impl Entry {
    /// Whether the entry describes something. A type of 0 is an empty slot whatever
    /// else it holds, as partition editors see it.
    pub fn is_used(&self) -> bool {
        self.kind != 0 && self.sectors != 0
    }

    /// Whether it contains logical partitions.
    pub fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    /// Whether it says that there is a GPT.
    pub fn is_protective(&self) -> bool {
        self.kind == 0xee
    }
}

/// Whether the sector ends its first 512 bytes in 55 AA.
pub(super) fn is_signed(sector: &[u8]) -> bool {
    has(sector, 510, &[0x55, 0xaa])
}

/// The four entries, if the sector can be a partition table at all: signed, and
/// every boot flag 0x00 or 0x80.
pub(super) fn entries(sector: &[u8]) -> Option<[Entry; 4]> {
    if !is_signed(sector) {
        return None;
    }
    let mut found = [Entry {
        slot: 0,
        active: false,
        kind: 0,
        start: 0,
        sectors: 0,
    }; 4];
    for (i, entry) in found.iter_mut().enumerate() {
        let raw = sector.get(ENTRIES + i * 16..ENTRIES + i * 16 + 16)?;
        if raw[0] & 0x7f != 0 {
            return None;
        }
        *entry = Entry {
            slot: i as u32 + 1,
            active: raw[0] == 0x80,
            kind: raw[4],
            start: u64::from(le32(raw, 8)?),
            sectors: u64::from(le32(raw, 12)?),
        };
    }
    Some(found)
}

/// Sets the length of the entry in `slot`, which begins at sector `start` of the disk;
/// its last cylinder, head and sector follow.
pub(super) fn set_sectors(sector: &mut [u8], slot: u32, start: u64, sectors: u32) {
    let at = ENTRIES + (slot as usize - 1) * 16;
    let last = start.saturating_add(u64::from(sectors)).saturating_sub(1);
    put(sector, at + 5, &chs(last));
    put(sector, at + 12, &sectors.to_le_bytes());
}

/// Cylinder, head and sector in the geometry that every firmware since the nineties
/// translates to; what lies past its reach is the largest address.
fn chs(lba: u64) -> [u8; 3] {
    const HEADS: u64 = 255;
    const SECTORS: u64 = 63;
    let cylinder = lba / (HEADS * SECTORS);
    if cylinder > 1023 {
        return [0xfe, 0xff, 0xff];
    }
    let (head, sector) = (lba / SECTORS % HEADS, lba % SECTORS + 1);
    [
        head as u8,
        sector as u8 | (cylinder >> 2 & 0xc0) as u8,
        cylinder as u8,
    ]
}

/// The disk signature as 8 hexadecimal digits.
pub(super) fn disk_signature(sector: &[u8]) -> String {
    le32(sector, DISK_SIGNATURE).map_or_else(String::new, |id| format!("{id:08x}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::{ENTRIES, chs, disk_signature, entries, set_sectors};

    /// Writes an entry and the signature.
    pub(crate) fn put_entry(sector: &mut [u8], slot: usize, kind: u8, start: u32, sectors: u32) {
        let at = ENTRIES + (slot - 1) * 16;
        sector[at + 4] = kind;
        sector[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
        sector[at + 12..at + 16].copy_from_slice(&sectors.to_le_bytes());
        sector[510..512].copy_from_slice(&[0x55, 0xaa]);
    }

    #[test]
    fn an_entry_is_read_field_by_field() {
        let mut sector = vec![0u8; 512];
        put_entry(&mut sector, 3, 0x83, 2048, 77);
        sector[ENTRIES + 32] = 0x80;
        sector[440..444].copy_from_slice(&[0x78, 0x56, 0x34, 0x12]);
        let third = entries(&sector).unwrap()[2];
        assert_eq!((third.slot, third.active, third.kind), (3, true, 0x83));
        assert_eq!((third.start, third.sectors), (2048, 77));
        assert_eq!(disk_signature(&sector), "12345678");
    }

    #[test]
    fn a_sector_without_signature_or_with_odd_flags_is_no_table() {
        let mut sector = vec![0u8; 512];
        assert!(entries(&sector).is_none());
        put_entry(&mut sector, 1, 0x83, 1, 1);
        assert!(entries(&sector).is_some());
        sector[ENTRIES + 48] = 0x01;
        assert!(entries(&sector).is_none());
        assert!(entries(&sector[..100]).is_none());
    }

    #[test]
    fn a_new_length_brings_its_last_cylinder_head_and_sector() {
        assert_eq!(chs(0), [0, 1, 0]);
        assert_eq!(chs(62), [0, 63, 0]);
        assert_eq!(chs(63), [1, 1, 0]);
        // What sfdisk writes for partitions that end there.
        assert_eq!(chs(2048), [32, 33, 0]);
        assert_eq!(chs(16_450_559), [254, 63 | 0xc0, 255]);
        assert_eq!(chs(16_450_560), [254, 255, 255]);
        let mut sector = vec![0u8; 512];
        put_entry(&mut sector, 2, 0x83, 2048, 77);
        set_sectors(&mut sector, 2, 2048, 4096);
        assert_eq!(entries(&sector).unwrap()[1].sectors, 4096);
        assert_eq!(&sector[ENTRIES + 21..ENTRIES + 24], &chs(6143));
    }
}
