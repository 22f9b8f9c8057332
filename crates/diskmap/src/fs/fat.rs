//! FAT12, FAT16 and FAT32: used clusters from the allocation table.
//!
//! Owns: the boot sector's parameters and the tables. Does not own: directories;
//! what a chain belongs to does not matter for what is in use.

use super::collect::Collector;
use super::{Fault, damaged};
use crate::bytes::{has, le16, le32, text};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};

/// Table bytes that are worked on at once; a multiple of 12, so that no FAT12
/// entry is split.
const STEP: u64 = 12 << 14;
/// Most tables.
const MAX_TABLES: u64 = 4;

/// Width of a table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
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

    fn bits(self) -> u64 {
        match self {
            Kind::Fat12 => 12,
            Kind::Fat16 => 16,
            Kind::Fat32 => 32,
        }
    }

    /// Entry that marks a cluster as bad.
    fn bad(self) -> u32 {
        match self {
            Kind::Fat12 => 0xff7,
            Kind::Fat16 => 0xfff7,
            Kind::Fat32 => 0x0fff_fff7,
        }
    }
}

/// The BIOS parameter block, with all lengths in bytes.
pub(super) struct Bpb {
    pub kind: Kind,
    boot: Vec<u8>,
    cluster: u64,
    reserved: u64,
    tables: u64,
    table: u64,
    total: u64,
    clusters: u64,
    /// First byte of cluster 2.
    data: u64,
}

impl Bpb {
    /// Reads the boot sector; `None` if it is not one of a FAT file system.
    pub fn read(view: &View<'_>) -> Result<Option<Bpb>, ReadFailure> {
        let boot = view.bytes_up_to(0, 512)?;
        Ok(Bpb::decode(boot))
    }

    fn decode(boot: Vec<u8>) -> Option<Bpb> {
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
        if table == 0 || clusters == 0 || wide && root != 0 || !wide && root == 0 {
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
    fn boot_flags(&self) -> u8 {
        self.boot.get(self.tail() + 1).copied().unwrap_or(0)
    }
}

/// Bytes to copy: everything before cluster 2, the clusters in use, and what is
/// behind the last cluster.
pub(super) fn used(view: &View<'_>, bpb: &Bpb) -> Result<Extents, Fault> {
    let entries = bpb.clusters + 2;
    let table_used = (entries * bpb.kind.bits()).div_ceil(8);
    if table_used > bpb.table {
        return damaged(format!(
            "{} clusters do not fit a table of {} bytes",
            bpb.clusters, bpb.table
        ));
    }
    if bpb.kind == Kind::Fat32 {
        let mirror = le16(&bpb.boot, 40).unwrap_or(0);
        let version = le16(&bpb.boot, 42).unwrap_or(0);
        if version != 0 {
            return Err(Fault::Unsupported(format!(
                "its version {version:#06x} is not known"
            )));
        }
        if mirror & 0x80 != 0 {
            return Err(Fault::Unsupported(
                "its tables are not mirrors of each other".into(),
            ));
        }
    }
    if bpb.boot_flags() & 0x01 != 0 {
        return Err(Fault::Dirty(
            "the boot sector says that it was not cleanly unmounted".into(),
        ));
    }
    let mut used = Collector::new();
    used.push(Extent {
        start: 0,
        len: bpb.data,
    });
    let mut map = Mapper {
        bpb,
        used,
        run: None,
    };
    let mut from = 0;
    while from < table_used {
        let len = STEP.min(table_used - from) as usize;
        let first = view.bytes(bpb.reserved + from, len)?;
        for copy in 1..bpb.tables {
            let other = view.bytes(bpb.reserved + copy * bpb.table + from, len)?;
            // The top four bits of a FAT32 entry mean nothing and may differ.
            if other != first && (bpb.kind != Kind::Fat32 || !same_32(&first, &other)) {
                return damaged("the copies of its allocation table differ");
            }
        }
        if from == 0 {
            clean(bpb.kind, &first)?;
        }
        map.add(from * 8 / bpb.kind.bits(), &first);
        from += STEP;
    }
    let mut used = map.finish();
    used.push(Extent::between(
        bpb.data + bpb.clusters * bpb.cluster,
        bpb.total,
    ));
    Ok(used)
}

fn same_32(a: &[u8], b: &[u8]) -> bool {
    a.chunks(4).zip(b.chunks(4)).all(|(a, b)| {
        a == b
            || le32(a, 0)
                .zip(le32(b, 0))
                .is_some_and(|(a, b)| (a ^ b) << 4 == 0)
    })
}

/// Entry 1 holds the flags of a clean unmount, except on FAT12.
fn clean(kind: Kind, table: &[u8]) -> Result<(), Fault> {
    let (entry, unmounted, no_errors) = match kind {
        Kind::Fat12 => return Ok(()),
        Kind::Fat16 => (le16(table, 2).map(u32::from), 1 << 15, 1 << 14),
        Kind::Fat32 => (le32(table, 4), 1 << 27, 1 << 26),
    };
    let entry = entry.unwrap_or(0);
    if entry & unmounted == 0 {
        return Err(Fault::Dirty(
            "its table says that it was not cleanly unmounted".into(),
        ));
    }
    if entry & no_errors == 0 {
        return Err(Fault::Dirty(
            "its table says that there were disk errors".into(),
        ));
    }
    Ok(())
}

/// Collects runs of used clusters.
struct Mapper<'a> {
    bpb: &'a Bpb,
    used: Collector,
    /// First and last cluster of the run that is being collected.
    run: Option<(u64, u64)>,
}

impl Mapper<'_> {
    /// Takes in table bytes whose first entry is that of cluster `first`.
    fn add(&mut self, first: u64, table: &[u8]) {
        match self.bpb.kind {
            Kind::Fat12 => {
                for (i, pair) in table.chunks(3).enumerate() {
                    let byte = |n: usize| u32::from(pair.get(n).copied().unwrap_or(0));
                    let cluster = first + 2 * i as u64;
                    self.entry(cluster, byte(0) | (byte(1) & 0x0f) << 8);
                    self.entry(cluster + 1, byte(1) >> 4 | byte(2) << 4);
                }
            }
            Kind::Fat16 => {
                for (i, raw) in table.chunks_exact(2).enumerate() {
                    let value = u16::from_le_bytes([raw[0], raw[1]]);
                    self.entry(first + i as u64, u32::from(value));
                }
            }
            Kind::Fat32 => {
                for (i, raw) in table.chunks_exact(4).enumerate() {
                    let value = u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]);
                    self.entry(first + i as u64, value & 0x0fff_ffff);
                }
            }
        }
    }

    fn entry(&mut self, cluster: u64, value: u32) {
        let counts = cluster >= 2 && cluster < self.bpb.clusters + 2;
        if !counts || value == 0 || value == self.bpb.kind.bad() {
            return;
        }
        match &mut self.run {
            Some((_, last)) if *last + 1 == cluster => *last = cluster,
            run => {
                let done = run.replace((cluster, cluster));
                self.push(done);
            }
        }
    }

    fn push(&mut self, run: Option<(u64, u64)>) {
        if let Some((from, to)) = run {
            let at = |cluster: u64| self.bpb.data + (cluster - 2) * self.bpb.cluster;
            self.used.push(Extent::between(at(from), at(to + 1)));
        }
    }

    fn finish(mut self) -> Extents {
        let run = self.run.take();
        self.push(run);
        self.used.finish()
    }
}
