//! The label of a physical volume, and the header behind it.
//!
//! Owns: `label_header`, `pv_header` and `pv_header_extension` of LVM2 (`label.h` and
//! `layout.h` of its sources). All numbers are little-endian, places and sizes in bytes.

use crate::bytes::{has, le32, le64};
use crate::extents::Extent;
use crate::fs::{Fault, damaged};
use crate::view::{ReadFailure, View};

/// A label takes one sector, whatever the disk's sector size is.
const SECTOR: usize = 512;
/// It stands in one of the first sectors.
const SECTORS: u64 = 4;
/// Where every checksum of LVM2 starts.
const SEED: u32 = 0xf597_a6cf;
/// Most areas that are read; tools make at most two of each kind.
const MAX_AREAS: usize = 8;
/// Flag of the extension: the volume belongs to a group.
const IN_USE: u32 = 1;

/// A sector that looks like a label.
pub(super) struct Label {
    sector: u64,
    raw: Vec<u8>,
}

/// What the header of a physical volume says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 32 characters.
    pub uuid: [u8; 32],
    /// Size of the device when the header was written.
    pub device_size: u64,
    /// The space for extents; the last one may have a length of 0, for all that is left.
    pub data: Vec<Extent>,
    /// Areas of metadata.
    pub metadata: Vec<Extent>,
}

/// The CRC-32 of LVM2: the common polynomial, another start, no inversion at the end.
pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(!SEED);
    parts.iter().for_each(|part| hasher.update(part));
    !hasher.finalize()
}

/// Every label of a view.
pub(super) fn labels(view: &View<'_>) -> Result<Vec<Label>, ReadFailure> {
    let mut found = Vec::new();
    for sector in 0..SECTORS {
        let raw = view.bytes_up_to(sector * SECTOR as u64, SECTOR)?;
        if has(&raw, 0, b"LABELONE") && has(&raw, 24, b"LVM2 001") {
            found.push(Label { sector, raw });
        }
    }
    Ok(found)
}

impl Label {
    /// UUID as LVM2 prints it, whether the label is right or not.
    pub fn uuid_text(&self) -> String {
        const GROUPS: [usize; 7] = [6, 4, 4, 4, 4, 4, 6];
        let at = le32(&self.raw, 20).map_or(usize::MAX, |at| at as usize);
        let Some(uuid) = uuid(&self.raw, at) else {
            return String::new();
        };
        let mut rest = uuid.iter().map(|&b| char::from(b));
        let groups: Vec<String> = GROUPS
            .iter()
            .map(|&len| rest.by_ref().take(len).collect())
            .collect();
        groups.join("-")
    }

    /// Checks the label and reads the header.
    pub fn header(&self) -> Result<Header, Fault> {
        let raw = self.raw.as_slice();
        let summed = raw.get(20..SECTOR).map(|part| checksum(&[part]));
        if summed.is_none() || summed != le32(raw, 16) {
            return damaged("wrong checksum of the label");
        }
        if le64(raw, 8) != Some(self.sector) {
            return damaged("the label belongs to another sector");
        }
        let Some(header) = self.fields() else {
            return damaged("the header of the physical volume does not fit into its sector");
        };
        header
    }

    /// As [`Label::header`]; `None` if a field is past the sector.
    fn fields(&self) -> Option<Result<Header, Fault>> {
        let raw = self.raw.as_slice();
        let start = le32(raw, 20)? as usize;
        let uuid = uuid(raw, start)?;
        let mut at = start + 40;
        let data = areas(raw, &mut at)?;
        let metadata = areas(raw, &mut at)?;
        match le32(raw, at)? {
            0 => {}
            // The first knows of boot loaders, the second of flags.
            version @ (1 | 2) => {
                let flags = le32(raw, at + 4)?;
                if version == 2 && flags & !IN_USE != 0 {
                    return Some(Err(Fault::Unsupported(format!(
                        "its header has unknown flags (0x{flags:x})"
                    ))));
                }
            }
            version => {
                return Some(Err(Fault::Unsupported(format!(
                    "its header has the unknown version {version}"
                ))));
            }
        }
        Some(Ok(Header {
            uuid,
            device_size: le64(raw, start + 32)?,
            data,
            metadata,
        }))
    }
}

fn uuid(raw: &[u8], at: usize) -> Option<[u8; 32]> {
    let uuid: [u8; 32] = crate::bytes::array(raw, at)?;
    uuid.iter().all(u8::is_ascii_graphic).then_some(uuid)
}

/// A list of areas that ends with an empty one; `at` moves behind it.
fn areas(raw: &[u8], at: &mut usize) -> Option<Vec<Extent>> {
    let mut found = Vec::new();
    while found.len() <= MAX_AREAS {
        let (start, len) = (le64(raw, *at)?, le64(raw, *at + 8)?);
        *at += 16;
        if start == 0 {
            return Some(found);
        }
        found.push(Extent { start, len });
    }
    None
}
