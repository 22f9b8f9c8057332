//! GRUB for machines with a BIOS: its first sector and its core, made to find each other.
//!
//! Owns: the places in both that say where the rest is (GRUB 2.06: `boot.S` as
//! `boot_hybrid.img`, `diskboot.S`, `cdboot.S`; the boot information table is that of
//! mkisofs). Does not own: making the images, which grub-mkimage does.
//!
//! | bytes of the first sector | |
//! |---|---|
//! | 0-431 | code |
//! | 432-439 | first sector (512 bytes) of what it loads, little-endian |
//! | 440-443 | the disk's signature |
//! | 446-509 | partition table |
//!
//! The core image (`grub-mkimage -O i386-pc-eltorito`) is 2048 bytes that a CD starts with,
//! then 512 bytes that load the rest of it from the place that stands in their last 12 bytes.

use crate::Error;

const SECTOR: usize = 512;
/// Bytes of the core image that only CDs need.
const CD_PART: usize = 2048;
/// Where the first sector says what it loads.
const LOADS: usize = 432;
/// Where the core says where its rest is.
const REST: usize = SECTOR - 12;
/// The boot information table in the part for CDs.
const INFO: usize = 8;
const INFO_END: usize = 64;
/// What the BIOS can load: it all stands below 640 KiB.
const MAX_CORE: usize = 480 << 10;

/// GRUB for BIOS, as it was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bios {
    /// `boot_hybrid.img`.
    pub mbr: Vec<u8>,
    /// `grub-mkimage -O i386-pc-eltorito`.
    pub core: Vec<u8>,
}

/// A partition of a table in the first sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Partition {
    pub active: bool,
    pub kind: u8,
    pub first: u32,
    pub sectors: u32,
}

impl Bios {
    /// Refuses what is not of the known form.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let marked = self.mbr.get(510..) == Some(&[0x55, 0xAA]);
        if self.mbr.len() != SECTOR || !marked {
            return Err(Error::Boot("the first sector is not one"));
        }
        if self.mbr[LOADS..LOADS + 8] != 1_u64.to_le_bytes() {
            return Err(Error::Boot("the first sector has another form"));
        }
        let rest = CD_PART + REST;
        if self.core.get(rest..rest + 8) != Some(&2_u64.to_le_bytes()) {
            return Err(Error::Boot("the core image has another form"));
        }
        if self.core.len() > MAX_CORE {
            return Err(Error::Boot("the core image is too large"));
        }
        Ok(())
    }

    /// The core for a disk, without the part for CDs; `first` is its first sector.
    pub(crate) fn disk_core(&self, first: u64) -> Vec<u8> {
        let mut core = self.core.get(CD_PART..).unwrap_or_default().to_vec();
        put(&mut core, REST, &(first + 1).to_le_bytes());
        core
    }

    /// The core for a CD on which it begins at this block of 2048 bytes, and which may be
    /// copied to a disk.
    pub(crate) fn cd_core(&self, block: u32) -> Vec<u8> {
        let mut core = self.core.clone();
        core.resize(core.len().next_multiple_of(4), 0);
        let rest = cd_core_on_disk(block) + 1;
        put(&mut core, CD_PART + REST, &rest.to_le_bytes());
        let sum = core
            .get(INFO_END..)
            .unwrap_or_default()
            .chunks_exact(4)
            .map(|word| word.iter().rev().fold(0, |n, &b| n << 8 | u32::from(b)))
            .fold(0_u32, u32::wrapping_add);
        let length = u32::try_from(core.len()).unwrap_or(u32::MAX);
        put(&mut core[..INFO_END], INFO, &[0; INFO_END - INFO]);
        for (at, value) in [crate::iso::VOLUME_BLOCK, block, length, sum]
            .into_iter()
            .enumerate()
        {
            put(&mut core, INFO + 4 * at, &value.to_le_bytes());
        }
        core
    }
}

/// Sector of a disk at which the part of a CD's core begins that disks need.
pub(crate) fn cd_core_on_disk(block: u32) -> u64 {
    u64::from(block) * 4 + (CD_PART / SECTOR) as u64
}

/// The first sector of a medium: code that loads sector `loads`, and a partition table.
pub(crate) fn first_sector(
    code: Option<(&Bios, u64)>,
    signature: u32,
    partitions: &[Partition],
) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    if let Some((bios, loads)) = code {
        put(&mut sector, 0, bios.mbr.get(..LOADS).unwrap_or_default());
        put(&mut sector, LOADS, &loads.to_le_bytes());
    }
    put(&mut sector, 440, &signature.to_le_bytes());
    for (at, partition) in partitions.iter().take(4).enumerate() {
        put(&mut sector, 446 + 16 * at, &partition.entry());
    }
    put(&mut sector, 510, &[0x55, 0xAA]);
    sector
}

impl Partition {
    fn entry(self) -> [u8; 16] {
        // Cylinder, head and sector of what lies past them: everybody counts sectors.
        const FAR: [u8; 3] = [0xFE, 0xFF, 0xFF];
        let mut entry = [0; 16];
        entry[0] = if self.active { 0x80 } else { 0 };
        let start = if self.first == 0 { [0, 1, 0] } else { FAR };
        entry[1..4].copy_from_slice(&start);
        entry[4] = self.kind;
        entry[5..8].copy_from_slice(&FAR);
        entry[8..12].copy_from_slice(&self.first.to_le_bytes());
        entry[12..].copy_from_slice(&self.sectors.to_le_bytes());
        entry
    }
}

/// Writes `bytes` at `at`, as far as there is room.
pub(crate) fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = target.get_mut(at..) {
        let len = room.len().min(bytes.len());
        room[..len].copy_from_slice(&bytes[..len]);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Bios, Partition, first_sector};
    use crate::Error;

    /// Of the right form, but nothing that runs.
    pub(crate) fn bios() -> Bios {
        let mut mbr = vec![0x90; 512];
        mbr[432..440].copy_from_slice(&1_u64.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        let mut core: Vec<u8> = (0..10_001_u32).map(|n| (n % 251) as u8).collect();
        core[2548..2556].copy_from_slice(&2_u64.to_le_bytes());
        Bios { mbr, core }
    }

    #[test]
    fn a_core_finds_its_rest() {
        let bios = bios();
        assert_eq!(bios.check(), Ok(()));
        let disk = bios.disk_core(1);
        assert_eq!(disk[500..508], 2_u64.to_le_bytes());
        assert_eq!(disk.len(), bios.core.len() - 2048);
        let cd = bios.cd_core(30);
        assert_eq!(cd.len(), 10_004);
        assert_eq!(cd[2548..2556], (30_u64 * 4 + 5).to_le_bytes());
        assert_eq!(cd[8..12], 16_u32.to_le_bytes());
        assert_eq!(cd[12..16], 30_u32.to_le_bytes());
        assert_eq!(cd[16..20], 10_004_u32.to_le_bytes());
        let sum = cd[64..].chunks_exact(4).fold(0_u32, |sum, word| {
            sum.wrapping_add(u32::from_le_bytes(word.try_into().unwrap()))
        });
        assert_eq!(cd[20..24], sum.to_le_bytes());
        assert_eq!(cd[24..64], [0; 40]);
        assert_eq!(cd[64..2000], bios.core[64..2000]);
    }

    #[test]
    fn the_first_sector_loads_what_it_is_told() {
        let partition = Partition {
            active: true,
            kind: 0x0C,
            first: 2048,
            sectors: 70_000,
        };
        let sector = first_sector(Some((&bios(), 124)), 0xAABB_CCDD, &[partition]);
        assert_eq!(sector.len(), 512);
        assert_eq!(sector[..432], [0x90; 432]);
        assert_eq!(sector[432..440], 124_u64.to_le_bytes());
        assert_eq!(sector[440..446], [0xDD, 0xCC, 0xBB, 0xAA, 0, 0]);
        assert_eq!(sector[446], 0x80);
        assert_eq!(sector[450], 0x0C);
        assert_eq!(sector[454..458], 2048_u32.to_le_bytes());
        assert_eq!(sector[458..462], 70_000_u32.to_le_bytes());
        assert_eq!(sector[462..510], [0; 48]);
        assert_eq!(sector[510..], [0x55, 0xAA]);
        let none = first_sector(None, 0, &[]);
        assert_eq!(none[..510], [0; 510]);
    }

    #[test]
    fn another_form_is_refused() {
        let refused = |change: &dyn Fn(&mut Bios)| {
            let mut bios = bios();
            change(&mut bios);
            assert!(matches!(bios.check(), Err(Error::Boot(_))));
        };
        refused(&|bios| bios.mbr.push(0));
        refused(&|bios| bios.mbr[511] = 0);
        refused(&|bios| bios.mbr[432] = 2);
        refused(&|bios| bios.mbr.clear());
        refused(&|bios| bios.core[2548] = 3);
        refused(&|bios| bios.core.truncate(2550));
        refused(&|bios| bios.core.resize(500 << 10, 0));
    }
}
