//! Volume formats that are recognised by signature and copied in full.
//!
//! Owns: the list of magic numbers and places. Does not own: formats with a used
//! map, which check much more than a magic number.

use crate::bytes::{be32, has};
use crate::extents::Extent;
use crate::view::{ReadFailure, View};

/// A recognised format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    /// Short name, as in [`crate::Region::file_system`].
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
}

impl Signature {
    /// Why the region is copied in full.
    pub fn reason(&self) -> String {
        match self.name {
            "luks" | "bitlocker" => {
                format!(
                    "{}: every sector is copied, because its content is encrypted.",
                    self.title
                )
            }
            _ => format!(
                "{}: every sector is copied, because no used-sector map is made of it.",
                self.title
            ),
        }
    }
}

/// `(name, title, offset, magic)`, wrapping formats first.
const FIXED: &[(&str, &str, u64, &[u8])] = &[
    ("luks", "LUKS", 0, b"LUKS\xba\xbe"),
    ("bitlocker", "BitLocker", 3, b"-FVE-FS-"),
    // BitLocker To Go looks like FAT32 except for this GUID.
    (
        "bitlocker",
        "BitLocker To Go",
        424,
        b"\x3b\xd6\x67\x49\x29\x2e\xd8\x4a\x83\x99\xf6\xa3\x39\xe3\xd0\x01",
    ),
    (
        "bcache",
        "bcache",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    ("refs", "ReFS", 3, b"ReFS\0\0\0\0"),
    ("apfs", "APFS", 32, b"NXSB"),
    ("hfsplus", "HFS+", 1024, b"H+\0\x04"),
    ("hfsplus", "HFS+", 1024, b"HX\0\x05"),
    ("bsdlabel", "BSD disk label", 512, b"\x57\x45\x56\x82"),
    ("ufs", "UFS", 8192 + 1372, b"\x54\x19\x01\x00"),
    ("ufs", "UFS", 65536 + 1372, b"\x19\x01\x54\x19"),
    ("jfs", "JFS", 0x8000, b"JFS1"),
    ("reiserfs", "ReiserFS", 0x1_0034, b"ReIsEr"),
    ("nilfs2", "NILFS2", 1030, b"\x34\x34"),
    ("erofs", "EROFS", 1024, b"\xe2\xe1\xf5\xe0"),
    ("vmfs", "VMFS", 0x10_0000, b"\x0d\xd0\x01\xc0"),
];

const DRBD: (&str, &str) = ("drbd", "DRBD");
const ZFS: (&str, &str) = ("zfs", "ZFS");
/// Bytes of the ring of uberblocks in a ZFS label, which is its second half.
const ZFS_RING: u64 = 128 << 10;

/// RAID sets of whole disks that firmware makes: how many sectors before the end, and what
/// stands there.
const FIRMWARE_RAID: &[(&str, &str, u64, &[u8])] = &[
    (
        "imsm",
        "Intel firmware RAID",
        2,
        b"Intel Raid ISM Cfg Sig. ",
    ),
    ("ddf", "DDF firmware RAID", 1, b"\xde\x11\xde\x11"),
];

/// The first firmware RAID format whose metadata stands at the end of a disk.
pub(super) fn firmware_raid(view: &View<'_>) -> Result<Option<Signature>, ReadFailure> {
    for &(name, title, sectors, magic) in FIRMWARE_RAID {
        for sector in [512, 4096] {
            let Some(place) = view.size().checked_sub(sectors * sector) else {
                continue;
            };
            if has(&view.bytes_up_to(place, magic.len())?, 0, magic) {
                return Ok(Some(Signature { name, title }));
            }
        }
    }
    Ok(None)
}

/// Every recognised format of a region, each name once, wrapping ones first.
pub(super) fn find(view: &View<'_>) -> Result<Vec<Signature>, ReadFailure> {
    let mut found: Vec<Signature> = Vec::new();
    let mut add = |name, title| {
        if !found.iter().any(|s| s.name == name) {
            found.push(Signature { name, title });
        }
    };
    for &(name, title, offset, magic) in FIXED {
        if has(&view.bytes_up_to(offset, magic.len())?, 0, magic) {
            add(name, title);
        }
    }
    if let Some(raid) = firmware_raid(view)? {
        add(raid.name, raid.title);
    }
    if drbd(view)? {
        add(DRBD.0, DRBD.1);
    }
    if zfs(view)? {
        add(ZFS.0, ZFS.1);
    }
    Ok(found)
}

/// DRBD keeps its activity log and bitmap behind what looks like a plain file system, and
/// a header with the magic number of one of its versions in the last whole 4 KiB.
fn drbd(view: &View<'_>) -> Result<bool, ReadFailure> {
    const BLOCK: u64 = 4096;
    const MAGICS: std::ops::RangeInclusive<u32> = 0x8374_026b..=0x8374_026d;
    let Some(place) = (view.size() / BLOCK * BLOCK).checked_sub(BLOCK) else {
        return Ok(false);
    };
    let magic = be32(&view.bytes_up_to(place + 60, 4)?, 0);
    Ok(magic.is_some_and(|magic| MAGICS.contains(&magic)))
}

/// Whether a ZFS label stands at the start of a disk, outside of its partitions.
pub(super) fn whole_disk_zfs(view: &View<'_>, partitions: &[Extent]) -> Result<bool, ReadFailure> {
    // The first label leaves the first sectors alone, where a table may be left over.
    let inside = partitions.iter().any(|p| p.start < ZFS_RING + ZFS_RING);
    Ok(!inside && zfs_label(view, 0)?)
}

/// A ZFS label has its ring of uberblocks in its second half, at steps of 1 KiB or more.
fn zfs(view: &View<'_>) -> Result<bool, ReadFailure> {
    Ok(zfs_label(view, 0)? || zfs_label(view, 2 * ZFS_RING)?)
}

fn zfs_label(view: &View<'_>, label: u64) -> Result<bool, ReadFailure> {
    const MAGIC: u64 = 0x00ba_b10c;
    let ring = view.bytes_up_to(label + ZFS_RING, ZFS_RING as usize)?;
    Ok(ring.chunks(1024).any(|slot| {
        let magic = crate::bytes::le64(slot, 0);
        magic == Some(MAGIC) || magic == Some(MAGIC.swap_bytes())
    }))
}

#[cfg(test)]
mod tests {
    use super::{FIRMWARE_RAID, FIXED, find};
    use crate::view::View;

    fn names(data: &[u8]) -> Vec<&'static str> {
        let data = data.to_vec();
        find(&View::new(&data, 0, data.len() as u64))
            .unwrap()
            .iter()
            .map(|s| s.name)
            .collect()
    }

    #[test]
    fn every_fixed_magic_is_found_at_its_place_and_nowhere_else() {
        for &(name, _, offset, magic) in FIXED {
            let mut data = vec![0u8; 2 << 20];
            let at = offset as usize;
            data[at..at + magic.len()].copy_from_slice(magic);
            assert_eq!(names(&data), [name], "{name} at {offset}");
            data[at..at + magic.len()].fill(0);
            data[at + 1..at + 1 + magic.len()].copy_from_slice(magic);
            assert_eq!(names(&data), [""; 0], "{name} one byte further");
        }
    }

    #[test]
    fn firmware_raid_at_the_end() {
        for &(name, _, sectors, magic) in FIRMWARE_RAID {
            for sector in [512, 4096] {
                let mut data = vec![0u8; 2 << 20];
                let at = data.len() - (sectors * sector) as usize;
                data[at..at + magic.len()].copy_from_slice(magic);
                assert_eq!(names(&data), [name]);
                data.push(0);
                assert_eq!(names(&data), [""; 0]);
            }
        }
    }

    #[test]
    fn drbd_in_the_last_block() {
        for magic in [0x8374_026bu32, 0x8374_026c, 0x8374_026d, 0x8374_026e] {
            let mut data = vec![0u8; (1 << 20) + 512];
            let at = (1 << 20) - 4096 + 60;
            data[at..at + 4].copy_from_slice(&magic.to_be_bytes());
            let expected = if magic == 0x8374_026e { "" } else { "drbd" };
            assert_eq!(names(&data).first().unwrap_or(&""), &expected);
        }
    }

    #[test]
    fn zfs_in_both_byte_orders() {
        for bytes in [0x00ba_b10cu64.to_le_bytes(), 0x00ba_b10cu64.to_be_bytes()] {
            let mut data = vec![0u8; 1 << 20];
            data[(256 + 128 + 5) << 10..][..8].copy_from_slice(&bytes);
            assert_eq!(names(&data), ["zfs"]);
        }
    }

    #[test]
    fn tiny_regions_have_nothing() {
        for size in [0, 1, 511, 4096] {
            assert_eq!(names(&vec![0u8; size]), [""; 0]);
        }
    }
}
