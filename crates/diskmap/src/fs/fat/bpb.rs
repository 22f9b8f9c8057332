//! The boot sector: parameters, label and serial number.
//!
//! Owns: telling a FAT boot sector from others, and where its parts lie. Does not
//! own: the allocation tables.

use crate::bytes::{has, le16, le32, text};
use crate::view::{ReadFailure, View};

/// Most tables.
const MAX_TABLES: u64 = 4;
/// Most clusters that the entries of a FAT32 can name: what comes behind marks bad ones
/// and ends.
const MAX_CLUSTERS: u64 = 0x0fff_fff5;

/// Width of a table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fs) enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

impl Kind {
    /// Name as in [`crate::Region::file_system`].
    pub fn name(self) -> &'static str {
        match self {
            Kind::Fat12 => "fat12",
            Kind::Fat16 => "fat16",
            Kind::Fat32 => "fat32",
        }
    }

    /// Bits of an entry.
    pub(super) fn bits(self) -> u64 {
        match self {
            Kind::Fat12 => 12,
            Kind::Fat16 => 16,
            Kind::Fat32 => 32,
        }
    }

    /// Entry that marks a cluster as bad.
    pub(super) fn bad(self) -> u32 {
        match self {
            Kind::Fat12 => 0xff7,
            Kind::Fat16 => 0xfff7,
            Kind::Fat32 => 0x0fff_fff7,
        }
    }
}

/// The BIOS parameter block, with all lengths in bytes.
pub(in crate::fs) struct Bpb {
    pub kind: Kind,
    pub(super) boot: Vec<u8>,
    pub(super) cluster: u64,
    pub(super) reserved: u64,
    pub(super) tables: u64,
    pub(super) table: u64,
    pub(super) total: u64,
    pub(super) clusters: u64,
    /// First byte of cluster 2.
    pub(super) data: u64,
}

impl Bpb {
    /// Reads the boot sector; `None` if it is not one of a FAT file system.
    pub fn read(view: &View<'_>) -> Result<Option<Bpb>, ReadFailure> {
        let boot = view.bytes_up_to(0, 512)?;
        Ok(Bpb::decode(boot))
    }

    pub(super) fn decode(boot: Vec<u8>) -> Option<Bpb> {
        let jump = matches!((boot.first()?, boot.get(2)?), (0xeb, 0x90) | (0xe9, _));
        let sector = u64::from(le16(&boot, 11)?);
        let per_cluster = u64::from(*boot.get(13)?);
        let reserved = u64::from(le16(&boot, 14)?);
        let tables = u64::from(*boot.get(16)?);
        let root_entries = u64::from(le16(&boot, 17)?);
        let media = *boot.get(21)?;
        if !jump
            || !has(&boot, 510, &[0x55, 0xaa])
            || !matches!(sector, 512 | 1024 | 2048 | 4096)
            || !per_cluster.is_power_of_two()
            || reserved == 0
            || !(1..=MAX_TABLES).contains(&tables)
            || (media < 0xf8 && media != 0xf0)
        {
            return None;
        }
        let total = match le16(&boot, 19)? {
            0 => u64::from(le32(&boot, 32)?),
            small => u64::from(small),
        };
        let (table, wide) = match le16(&boot, 22)? {
            0 => (u64::from(le32(&boot, 36)?), true),
            small => (u64::from(small), false),
        };
        // All of these are at most 32 bits wide: their sums and products fit.
        let root = (root_entries * 32).div_ceil(sector);
        let data = reserved + tables * table + root;
        let clusters = total.checked_sub(data)? / per_cluster;
        if table == 0
            || !(1..=MAX_CLUSTERS).contains(&clusters)
            || wide && root != 0
            || !wide && root == 0
        {
            return None;
        }
        let kind = match clusters {
            _ if wide => Kind::Fat32,
            0..4085 => Kind::Fat12,
            _ => Kind::Fat16,
        };
        Some(Bpb {
            kind,
            boot,
            cluster: per_cluster * sector,
            reserved: reserved * sector,
            tables,
            table: table * sector,
            total: total * sector,
            clusters,
            data: data * sector,
        })
    }

    /// Size of the file system in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.total
    }

    /// Offset of the fields that FAT32 moved.
    fn tail(&self) -> usize {
        if self.kind == Kind::Fat32 { 64 } else { 36 }
    }

    /// Serial number as `1234-ABCD`; empty without an extended boot record.
    pub fn serial(&self) -> String {
        let at = self.tail();
        match (self.boot.get(at + 2), le32(&self.boot, at + 3)) {
            (Some(0x28 | 0x29), Some(id)) => format!("{:04X}-{:04X}", id >> 16, id & 0xffff),
            _ => String::new(),
        }
    }

    /// Label: that of the root directory's first sectors, else of the boot sector.
    pub fn label(&self, view: &View<'_>) -> Result<String, ReadFailure> {
        let root = match self.kind {
            Kind::Fat32 => {
                let cluster = le32(&self.boot, 44).unwrap_or(0);
                let index = u64::from(cluster)
                    .checked_sub(2)
                    .filter(|&i| i < self.clusters);
                index.map(|i| (self.data + i * self.cluster, self.cluster))
            }
            _ => {
                let start = self.reserved + self.tables * self.table;
                Some((start, self.data - start))
            }
        };
        if let Some((start, len)) = root {
            let entries = view.bytes_up_to(start, len.min(16 << 10) as usize)?;
            let volume = entries
                .chunks_exact(32)
                .take_while(|entry| entry[0] != 0)
                .find(|entry| entry[0] != 0xe5 && entry[11] & 0x3f == 0x08);
            if let Some(entry) = volume {
                return Ok(text(&entry[..11]));
            }
        }
        let label = self
            .boot
            .get(self.tail() + 7..self.tail() + 18)
            .unwrap_or_default();
        let label = if self.serial().is_empty() {
            String::new()
        } else {
            text(label)
        };
        Ok(if label == "NO NAME" {
            String::new()
        } else {
            label
        })
    }

    /// State flags that Linux and Windows keep in the boot sector.
    pub(super) fn boot_flags(&self) -> u8 {
        self.boot.get(self.tail() + 1).copied().unwrap_or(0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{Bpb, Kind};

    /// A boot sector of 512-byte sectors, 1 sector a cluster, 2 tables.
    pub(crate) fn boot(clusters: u32, kind: Kind) -> Vec<u8> {
        let mut boot = vec![0u8; 512];
        let table = ((clusters + 2) * kind.bits() as u32).div_ceil(8 * 512);
        let total = 1 + 2 * table + 1 + clusters;
        boot[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
        boot[11..17].copy_from_slice(&[0, 2, 1, 1, 0, 2]);
        boot[17] = 16;
        boot[21] = 0xf8;
        boot[22..24].copy_from_slice(&(table as u16).to_le_bytes());
        boot[32..36].copy_from_slice(&total.to_le_bytes());
        boot[510..].copy_from_slice(&[0x55, 0xaa]);
        if kind == Kind::Fat32 {
            boot[17] = 0;
            boot[22..24].fill(0);
            boot[32..36].copy_from_slice(&(total - 1).to_le_bytes());
            boot[36..40].copy_from_slice(&table.to_le_bytes());
        }
        boot
    }

    #[test]
    fn the_width_follows_from_the_number_of_clusters() {
        for (clusters, kind) in [
            (1, Kind::Fat12),
            (4084, Kind::Fat12),
            (4085, Kind::Fat16),
            (65524, Kind::Fat16),
            (70000, Kind::Fat32),
        ] {
            let bpb = Bpb::decode(boot(clusters, kind)).unwrap();
            assert_eq!((bpb.kind, bpb.clusters), (kind, u64::from(clusters)));
        }
    }

    #[test]
    fn other_boot_sectors_are_none() {
        let good = boot(100, Kind::Fat12);
        for (at, value) in [
            (0, 0),
            (2, 0x91),
            (12, 3),
            (13, 3),
            (14, 0),
            (16, 0),
            (16, 5),
            (21, 1),
            (17, 0),
            (510, 0),
            (22, 0xff),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Bpb::decode(bad).is_none(), "{at} {value:#x}");
        }
        assert!(Bpb::decode(good[..300].to_vec()).is_none());
        // More clusters than an entry can name.
        let most = |clusters: u32| {
            let mut boot = boot(70_000, Kind::Fat32);
            let table = (clusters + 2).div_ceil(128);
            boot[36..40].copy_from_slice(&table.to_le_bytes());
            boot[32..36].copy_from_slice(&(1 + 2 * table + clusters).to_le_bytes());
            Bpb::decode(boot).is_some()
        };
        assert!(most(0x0fff_fff5) && !most(0x0fff_fff6));
    }
}
