//! The boot region of exFAT: where everything lies, and the state flags.
//!
//! Owns: the fields of the boot sector, their ranges, the checksum of the main and the
//! backup region (exFAT file system specification, section 3). Does not own: the
//! allocation table and what the clusters hold.

use super::super::{Fault, damaged};
use crate::bytes::{has, le16, le32, le64};
use crate::extents::Extent;
use crate::view::View;

/// First cluster that has a place.
pub(super) const FIRST: u32 = 2;
/// Sectors of a boot region; the last one holds the checksum.
const REGION_SECTORS: u64 = 12;
/// Bytes of the boot sector that change with every mount and are not checksummed:
/// the flags and the percentage in use.
const VOLATILE: [usize; 3] = [106, 107, 112];
/// The table of the second FAT is the one that counts.
const SECOND_ACTIVE: u16 = 1;
const DIRTY: u16 = 2;
const MEDIA_FAILURE: u16 = 4;
/// Has no meaning of its own.
const CLEAR_TO_ZERO: u16 = 8;
/// Largest cluster, as a power of two.
const MAX_CLUSTER_SHIFT: u8 = 25;

/// Whether a sector says that it is a boot sector of exFAT.
pub(super) fn claims(sector: &[u8]) -> bool {
    has(sector, 3, b"EXFAT   ")
}

/// A boot sector whose fields fit together; all lengths and places in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Boot {
    pub sector: u64,
    pub cluster: u64,
    pub table: u64,
    /// First byte of cluster 2.
    pub heap: u64,
    pub clusters: u32,
    /// First cluster of the root directory.
    pub root: u32,
    pub size: u64,
    serial: u32,
    flags: u16,
}

impl Boot {
    /// Decodes a boot sector that [`claims`] to be one.
    pub fn decode(raw: &[u8]) -> Result<Boot, Fault> {
        let word = |at| le32(raw, at).unwrap_or(0);
        let byte = |at: usize| raw.get(at).copied().unwrap_or(0);
        let zeros = raw.get(11..64).is_some_and(|b| b.iter().all(|&b| b == 0));
        if !has(raw, 0, &[0xeb, 0x76, 0x90]) || !has(raw, 510, &[0x55, 0xaa]) || !zeros {
            return damaged("its boot sector is not one of exFAT throughout");
        }
        let revision = le16(raw, 104).unwrap_or(0);
        if revision != 0x0100 {
            return Err(Fault::Unsupported(format!(
                "its revision {}.{:02} is not known",
                revision >> 8,
                revision & 0xff
            )));
        }
        let (sector_shift, cluster_shift) = (byte(108), byte(109));
        if !(9..=12).contains(&sector_shift) || cluster_shift > MAX_CLUSTER_SHIFT - sector_shift {
            return damaged(format!(
                "sectors of 2^{sector_shift} bytes, clusters of 2^{cluster_shift} sectors"
            ));
        }
        match byte(110) {
            1 => {}
            2 => return Err(Fault::Unsupported("it is a TexFAT volume".into())),
            tables => return damaged(format!("it says it has {tables} allocation tables")),
        }
        let sector = 1u64 << sector_shift;
        let Some(size) = le64(raw, 72).and_then(|sectors| sectors.checked_mul(sector)) else {
            return damaged("its length is impossible");
        };
        let boot = Boot {
            sector,
            cluster: sector << cluster_shift,
            table: u64::from(word(80)) * sector,
            heap: u64::from(word(88)) * sector,
            clusters: word(92),
            root: word(96),
            size,
            serial: word(100),
            flags: le16(raw, 106).unwrap_or(0),
        };
        let table_end = boot.table + u64::from(word(84)) * sector;
        let entries_end = boot.table + (u64::from(boot.clusters) + u64::from(FIRST)) * 4;
        if boot.table < 2 * REGION_SECTORS * sector || entries_end > table_end {
            return damaged("its allocation table does not fit its place");
        }
        if table_end > boot.heap || boot.clusters == 0 || boot.heap_end() > size {
            return damaged("its clusters do not fit its length");
        }
        if boot.place(boot.root).is_none() {
            return damaged(format!("its root directory is at cluster {}", boot.root));
        }
        Ok(boot)
    }

    /// First byte behind the last cluster.
    pub fn heap_end(&self) -> u64 {
        self.heap + u64::from(self.clusters) * self.cluster
    }

    /// Place of a cluster; `None` if there is no such cluster.
    pub fn place(&self, cluster: u32) -> Option<Extent> {
        let index = cluster.checked_sub(FIRST).filter(|&i| i < self.clusters)?;
        Some(Extent {
            start: self.heap + u64::from(index) * self.cluster,
            len: self.cluster,
        })
    }

    /// Serial number as `1234-ABCD`.
    pub fn serial_text(&self) -> String {
        format!("{:04X}-{:04X}", self.serial >> 16, self.serial & 0xffff)
    }

    /// Compares both boot regions with their checksums and with each other.
    pub fn check_regions(&self, view: &View<'_>) -> Result<(), Fault> {
        let len = (REGION_SECTORS * self.sector) as usize;
        let main = view.bytes(0, len)?;
        if !self.checksum_is_right(&main) {
            return damaged("wrong checksum of its boot region");
        }
        let backup = view.bytes(len as u64, len)?;
        if !self.checksum_is_right(&backup) {
            return damaged("wrong checksum of its backup boot region");
        }
        let same = Boot::decode(&backup).is_ok_and(|other| {
            other
                == Boot {
                    serial: other.serial,
                    flags: other.flags,
                    ..self.clone()
                }
        });
        if !claims(&backup) || !same {
            return damaged("its two boot regions differ");
        }
        Ok(())
    }

    fn checksum_is_right(&self, region: &[u8]) -> bool {
        let (covered, sums) = region.split_at(region.len() - self.sector as usize);
        let mut sum = 0u32;
        for (at, &byte) in covered.iter().enumerate() {
            if !VOLATILE.contains(&at) {
                sum = add(sum, byte);
            }
        }
        sums.chunks_exact(4).all(|raw| le32(raw, 0) == Some(sum))
    }

    /// Whether the flags allow the allocation bitmap to be believed.
    pub fn check_flags(&self) -> Result<(), Fault> {
        let known = SECOND_ACTIVE | DIRTY | MEDIA_FAILURE | CLEAR_TO_ZERO;
        if self.flags & !known != 0 {
            return Err(Fault::Unsupported(format!(
                "its flags {:#06x} are not all known",
                self.flags
            )));
        }
        if self.flags & SECOND_ACTIVE != 0 {
            return damaged("it says that a second allocation table is in use, and has one");
        }
        if self.flags & DIRTY != 0 {
            return Err(Fault::Dirty("it was not cleanly unmounted".into()));
        }
        if self.flags & MEDIA_FAILURE != 0 {
            return Err(Fault::Dirty("it says that there were disk errors".into()));
        }
        Ok(())
    }
}

/// One step of the checksums of exFAT: rotate to the right, add a byte.
pub(super) fn add(sum: u32, byte: u8) -> u32 {
    sum.rotate_right(1).wrapping_add(u32::from(byte))
}

#[cfg(test)]
mod tests {
    use super::{Boot, Fault};

    /// 512-byte sectors, clusters of 4 KiB.
    pub(in super::super) fn sector() -> Vec<u8> {
        let mut raw = vec![0u8; 512];
        raw[..11].copy_from_slice(b"\xeb\x76\x90EXFAT   ");
        for (at, value) in [(72, 8192u32), (80, 128), (84, 8), (88, 256), (92, 992)] {
            raw[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        raw[96] = 5;
        raw[100..104].copy_from_slice(&0x1234_abcdu32.to_le_bytes());
        raw[105] = 1;
        (raw[108], raw[109], raw[110]) = (9, 3, 1);
        raw[510..].copy_from_slice(&[0x55, 0xaa]);
        raw
    }

    fn with(at: usize, bytes: &[u8]) -> Result<Boot, Fault> {
        let mut raw = sector();
        raw[at..at + bytes.len()].copy_from_slice(bytes);
        Boot::decode(&raw)
    }

    #[test]
    fn places_follow_from_the_fields() {
        let boot = Boot::decode(&sector()).ok().unwrap();
        assert_eq!(
            (boot.cluster, boot.heap, boot.size),
            (4096, 131_072, 4 << 20)
        );
        assert_eq!(boot.heap_end(), boot.size);
        assert_eq!(boot.place(2).unwrap().start, boot.heap);
        assert_eq!(boot.place(993).unwrap().end(), boot.size);
        assert!(boot.place(994).is_none() && boot.place(1).is_none());
        assert_eq!(boot.serial_text(), "1234-ABCD");
    }

    #[test]
    fn fields_that_do_not_fit_are_told() {
        let wrong: &[(usize, &[u8])] = &[
            (2, &[0]),
            (30, &[1]),
            (72, &[0xff, 0x1f]),
            (72, &[0xff; 8]),
            (80, &[23]),
            (84, &[7]),
            (88, &[135, 0]),
            (92, &[0xe1]),
            (92, &[0, 0]),
            (96, &[1]),
            (96, &[0xff, 0xff]),
            (108, &[8]),
            (108, &[13]),
            (109, &[17]),
            (110, &[0]),
            (110, &[3]),
            (511, &[0]),
        ];
        for &(at, bytes) in wrong {
            assert!(
                matches!(with(at, bytes), Err(Fault::Damaged(_))),
                "{at} {bytes:?}"
            );
        }
        for (at, byte) in [(104, 1), (105, 2), (110, 2)] {
            assert!(
                matches!(with(at, &[byte]), Err(Fault::Unsupported(_))),
                "{at}"
            );
        }
        assert!(Boot::decode(&sector()[..200]).is_err());
    }

    #[test]
    fn flags_that_forbid_a_map() {
        let check = |flags| with(106, &[flags, 0]).and_then(|boot| boot.check_flags());
        assert!(check(0).is_ok() && check(8).is_ok());
        assert!(matches!(check(2), Err(Fault::Dirty(_))));
        assert!(matches!(check(4), Err(Fault::Dirty(_))));
        assert!(matches!(check(1), Err(Fault::Damaged(_))));
        assert!(matches!(check(16), Err(Fault::Unsupported(_))));
    }
}
