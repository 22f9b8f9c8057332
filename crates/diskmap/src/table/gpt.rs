//! One copy of a GUID partition table: header and entries.
//!
//! Owns: the codec of a copy (UEFI specification, section 5.3), with raw bytes
//! kept. Does not own: the choice between the two copies (`gpt_pair`).

use super::{TablePartition, first_overlap};
use crate::bytes::{array, le32, le64, put};
use crate::guid;
use crate::model::Geometry;
use crate::types;
use crate::view::{ReadFailure, View};

/// First 8 bytes of a header.
pub(super) const SIGNATURE: &[u8] = b"EFI PART";
/// Shortest header.
const HEADER_BYTES: u32 = 92;
/// Largest entry table that is read; the usual one has 16 KiB.
const MAX_ENTRIES_BYTES: u64 = 4 << 20;

/// Why a copy cannot be used.
#[derive(Debug)]
pub(super) enum Fault {
    Read(ReadFailure),
    Damaged(String),
}

impl From<ReadFailure> for Fault {
    fn from(failure: ReadFailure) -> Self {
        Fault::Read(failure)
    }
}

fn damaged<T>(detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Damaged(detail.into()))
}

/// A header whose own checksum is right.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub my_lba: u64,
    pub alternate_lba: u64,
    pub first_usable: u64,
    pub last_usable: u64,
    pub disk_guid: [u8; 16],
    pub entries_lba: u64,
    pub count: u32,
    pub entry_size: u32,
    pub entries_crc: u32,
    header_size: u32,
    /// The whole sector as read.
    pub sector: Vec<u8>,
}

/// A copy whose checksums are right and whose partitions do not overlap.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub header: Header,
    /// Entry table in whole sectors as read.
    pub entries: Vec<u8>,
    pub partitions: Vec<TablePartition>,
    /// First sector past the last partition; 0 without partitions.
    pub used_end: u64,
    /// First sector of the first partition; `u64::MAX` without partitions.
    pub used_start: u64,
}

impl Header {
    /// Reads and checks the header at `lba`.
    pub fn read(view: &View<'_>, geometry: Geometry, lba: u64) -> Result<Header, Fault> {
        let unit = u64::from(geometry.sector_size);
        let Some(offset) = lba.checked_mul(unit).filter(|_| lba < geometry.sectors()) else {
            return damaged(format!("sector {lba} is not on the disk"));
        };
        let sector = view.bytes(offset, unit as usize)?;
        Header::decode(sector, lba)
    }

    fn decode(sector: Vec<u8>, lba: u64) -> Result<Header, Fault> {
        if !sector.starts_with(SIGNATURE) {
            return damaged(format!("no GPT header in sector {lba}"));
        }
        let parsed = (|| {
            Some(Header {
                header_size: le32(&sector, 12)?,
                my_lba: le64(&sector, 24)?,
                alternate_lba: le64(&sector, 32)?,
                first_usable: le64(&sector, 40)?,
                last_usable: le64(&sector, 48)?,
                disk_guid: array(&sector, 56)?,
                entries_lba: le64(&sector, 72)?,
                count: le32(&sector, 80)?,
                entry_size: le32(&sector, 84)?,
                entries_crc: le32(&sector, 88)?,
                sector: Vec::new(),
            })
        })();
        let Some(mut header) = parsed else {
            return damaged("the header is too short");
        };
        header.sector = sector;
        match header.checksum() {
            Some(right) if Some(right) == le32(&header.sector, 16) => {}
            Some(_) => return damaged(format!("wrong checksum of the header in sector {lba}")),
            None => {
                return damaged(format!(
                    "header size {} in sector {lba}",
                    header.header_size
                ));
            }
        }
        if header.my_lba != lba {
            return damaged(format!(
                "the header in sector {lba} says it is in {}",
                header.my_lba
            ));
        }
        let size = header.entry_size;
        if size < 128 || size % 8 != 0 || header.entries_bytes() > MAX_ENTRIES_BYTES {
            return damaged(format!(
                "entry table of {} entries of {size} bytes",
                header.count
            ));
        }
        Ok(header)
    }

    /// CRC-32 over the header with its checksum field as zero.
    fn checksum(&self) -> Option<u32> {
        if self.header_size < HEADER_BYTES {
            return None;
        }
        let mut bytes = self.sector.get(..self.header_size as usize)?.to_vec();
        put(&mut bytes, 16, &[0; 4]);
        Some(crc32fast::hash(&bytes))
    }

    fn entries_bytes(&self) -> u64 {
        u64::from(self.count) * u64::from(self.entry_size)
    }

    /// Sectors of the entry table.
    pub fn entries_sectors(&self, geometry: Geometry) -> u64 {
        self.entries_bytes()
            .div_ceil(u64::from(geometry.sector_size).max(1))
    }

    /// The same header at another place, with its checksum made right.
    pub fn moved(&self, my_lba: u64, alternate: u64, entries_lba: u64, last_usable: u64) -> Header {
        let mut moved = Header {
            my_lba,
            alternate_lba: alternate,
            entries_lba,
            last_usable,
            ..self.clone()
        };
        put(&mut moved.sector, 24, &my_lba.to_le_bytes());
        put(&mut moved.sector, 32, &alternate.to_le_bytes());
        put(&mut moved.sector, 48, &last_usable.to_le_bytes());
        put(&mut moved.sector, 72, &entries_lba.to_le_bytes());
        // The size was checked when the header was read.
        let checksum = moved.checksum().unwrap_or_default();
        put(&mut moved.sector, 16, &checksum.to_le_bytes());
        moved
    }
}

impl Copy {
    /// Replaces the raw entries (as many bytes as there are) and makes both checksums
    /// right. What was parsed of the old ones stays: parse the bytes again for the new.
    pub fn set_entries(&mut self, entries: &[u8]) {
        self.entries = entries.to_vec();
        let table = self
            .entries
            .get(..self.header.entries_bytes() as usize)
            .unwrap_or_default();
        self.header.entries_crc = crc32fast::hash(table);
        put(
            &mut self.header.sector,
            88,
            &self.header.entries_crc.to_le_bytes(),
        );
        let header = &self.header;
        self.header = header.moved(
            header.my_lba,
            header.alternate_lba,
            header.entries_lba,
            header.last_usable,
        );
    }

    /// Reads and checks the entries of a header.
    pub fn read(view: &View<'_>, geometry: Geometry, header: Header) -> Result<Copy, Fault> {
        let unit = u64::from(geometry.sector_size);
        let sectors = header.entries_sectors(geometry);
        let end = header.entries_lba.checked_add(sectors);
        if header.entries_lba < 1 || end.is_none_or(|end| end > geometry.sectors()) {
            return damaged(format!(
                "the entry table at sector {} is not on the disk",
                header.entries_lba
            ));
        }
        let taken = [
            (0, 1, 0),
            (header.my_lba, 1, 0),
            (header.entries_lba, sectors, 0),
        ];
        if first_overlap(&taken).is_some() {
            return damaged("the entry table lies over the header");
        }
        let entries = view.bytes(header.entries_lba * unit, (sectors * unit) as usize)?;
        let table = entries
            .get(..header.entries_bytes() as usize)
            .unwrap_or_default();
        if crc32fast::hash(table) != header.entries_crc {
            return damaged(format!(
                "wrong checksum of the entries of sector {}",
                header.my_lba
            ));
        }
        let mut spans = taken.to_vec();
        let mut partitions = Vec::new();
        for (index, raw) in table.chunks_exact(header.entry_size as usize).enumerate() {
            let number = index as u32 + 1;
            let Some(entry) = entry(raw, number, unit)? else {
                continue;
            };
            spans.push((entry.start / unit, entry.size / unit, number));
            partitions.push(entry);
        }
        if let Some((a, b)) = first_overlap(&spans) {
            return damaged(match (a, b) {
                (0, n) | (n, 0) => format!("partition {n} lies over the table"),
                (a, b) => format!("partitions {a} and {b} overlap"),
            });
        }
        let used_end = partitions.iter().map(|p| p.end() / unit).max().unwrap_or(0);
        let used_start = partitions
            .iter()
            .map(|p| p.start / unit)
            .min()
            .unwrap_or(u64::MAX);
        Ok(Copy {
            header,
            entries,
            partitions,
            used_end,
            used_start,
        })
    }
}

/// One entry; `None` if the slot is empty.
fn entry(raw: &[u8], number: u32, unit: u64) -> Result<Option<TablePartition>, Fault> {
    let fields = (|| {
        Some((
            array::<16>(raw, 0)?,
            array::<16>(raw, 16)?,
            le64(raw, 32)?,
            le64(raw, 40)?,
            le64(raw, 48)?,
        ))
    })();
    let Some((kind, guid, first, last, attributes)) = fields else {
        return Ok(None);
    };
    if kind == [0; 16] {
        return Ok(None);
    }
    let span = last
        .checked_sub(first)
        .and_then(|n| n.checked_add(1))
        .and_then(|sectors| Some((first.checked_mul(unit)?, sectors.checked_mul(unit)?)))
        .filter(|(start, size)| start.checked_add(*size).is_some());
    let Some((start, size)) = span else {
        return damaged(format!(
            "partition {number} goes from sector {first} to {last}"
        ));
    };
    let part_type = guid::gpt(&kind);
    Ok(Some(TablePartition {
        number,
        start,
        size,
        type_name: types::gpt(&part_type).to_string(),
        part_type,
        name: name(raw.get(56..128).unwrap_or_default()),
        guid: guid::gpt(&guid),
        bootable: attributes & 1 << 2 != 0,
        hidden: attributes & 1 << 62 != 0,
        extended: false,
    }))
}

/// UTF-16 name up to the first NUL, without control characters.
fn name(raw: &[u8]) -> String {
    let units = raw
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|&unit| unit != 0);
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Fault, Header, entry, name};

    #[test]
    fn a_name_is_cut_at_nul_and_cleaned() {
        let raw: Vec<u8> = "r\u{f6}ot\u{7}\0x"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        assert_eq!(name(&raw), "r\u{f6}ot");
        assert_eq!(name(&[0x00, 0xd8]), "\u{fffd}");
    }

    #[test]
    fn an_entry_that_ends_before_it_starts_or_overflows_is_damage() {
        let mut raw = [0u8; 128];
        assert!(matches!(entry(&raw, 1, 512), Ok(None)));
        raw[0] = 1;
        raw[32] = 9;
        raw[40] = 8;
        assert!(matches!(entry(&raw, 1, 512), Err(Fault::Damaged(_))));
        raw[40] = 9;
        assert_eq!(entry(&raw, 1, 512).unwrap().unwrap().size, 512);
        raw[32..48].fill(0xff);
        assert!(matches!(entry(&raw, 1, 512), Err(Fault::Damaged(_))));
        raw[32..40].fill(0);
        assert!(matches!(entry(&raw, 1, 512), Err(Fault::Damaged(_))));
    }

    #[test]
    fn a_header_with_wild_sizes_is_refused_before_anything_is_allocated() {
        for (header_size, count, size, good) in [
            (92u32, 128u32, 128u32, true),
            (512, 4, 4096, true),
            (91, 128, 128, false),
            (513, 128, 128, false),
            (92, u32::MAX, 128, false),
            (92, 128, u32::MAX - 7, false),
            (92, 128, 0, false),
            (92, 128, 127, false),
        ] {
            let mut sector = vec![0u8; 512];
            sector[..8].copy_from_slice(b"EFI PART");
            sector[12..16].copy_from_slice(&header_size.to_le_bytes());
            sector[24] = 1;
            sector[80..84].copy_from_slice(&count.to_le_bytes());
            sector[84..88].copy_from_slice(&size.to_le_bytes());
            if let Some(bytes) = sector.get(..header_size as usize) {
                let crc = crc32fast::hash(bytes);
                sector[16..20].copy_from_slice(&crc.to_le_bytes());
            }
            assert_eq!(
                Header::decode(sector, 1).is_ok(),
                good,
                "{header_size} {count} {size}"
            );
        }
    }
}
