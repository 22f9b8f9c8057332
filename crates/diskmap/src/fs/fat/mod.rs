//! FAT12, FAT16 and FAT32: used clusters from the allocation table.
//!
//! Owns: whether the tables can be believed, and the map that follows. Does not own:
//! directories; what a chain belongs to does not matter for what is in use.
//!
//! A map is made only from a file system that was cleanly unmounted. There is no
//! journal, and tables and directories are written in no order that would hold after a
//! crash: a directory entry may name clusters that the tables still call free, and
//! their content is what a repair could bring back. Which clusters these are could only
//! be told from the directories, which may be as unfinished. So every sector is copied.

mod bpb;

use super::collect::Collector;
use super::{Fault, Map, Mapped, Volume, damaged};
use crate::bytes::{le16, le32};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};
use bpb::{Bpb, Kind};

/// Table bytes that are worked on at once; a multiple of 12, so that no FAT12
/// entry is split.
const STEP: u64 = 12 << 14;

/// Looks for a boot sector.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let Some(bpb) = Bpb::read(view)? else {
        return Ok(None);
    };
    Ok(Some(Volume {
        name: bpb.kind.name(),
        label: bpb.label(view)?,
        uuid: bpb.serial(),
        size: bpb.size_bytes(),
        wraps: false,
        map: Box::new(bpb),
    }))
}

impl Map for Bpb {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        used(view, self).map(Mapped::from)
    }
}

/// Bytes to copy: everything before cluster 2, the clusters in use, and what is
/// behind the last cluster.
fn used(view: &View<'_>, bpb: &Bpb) -> Result<Extents, Fault> {
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

#[cfg(test)]
mod tests {
    use super::bpb::tests::boot;
    use super::{Bpb, Kind, used};
    use crate::view::View;

    /// Clusters in use of a file system whose entries from cluster 2 on are given.
    fn clusters(kind: Kind, entries: &[u32]) -> Vec<u64> {
        let mut entries = entries.to_vec();
        // With fewer clusters it would be FAT12.
        if kind == Kind::Fat16 {
            entries.resize(5000, 0);
        }
        let mut disk = boot(entries.len() as u32, kind);
        let bpb = Bpb::decode(disk.clone()).unwrap();
        disk.resize(bpb.total as usize, 0);
        let all = [0x0fff_fff8, 0x0fff_ffff].iter().chain(&entries);
        for copy in 0..bpb.tables {
            let table = (bpb.reserved + copy * bpb.table) as usize;
            for (i, &entry) in all.clone().enumerate() {
                match kind {
                    Kind::Fat12 => {
                        let (at, shift) = (table + i * 3 / 2, 4 * (i % 2));
                        let both = u16::from_le_bytes([disk[at], disk[at + 1]]);
                        let both = both | ((entry & 0xfff) << shift) as u16;
                        disk[at..at + 2].copy_from_slice(&both.to_le_bytes());
                    }
                    Kind::Fat16 => {
                        disk[table + 2 * i..][..2].copy_from_slice(&(entry as u16).to_le_bytes());
                    }
                    Kind::Fat32 => {
                        disk[table + 4 * i..][..4].copy_from_slice(&entry.to_le_bytes());
                    }
                }
            }
        }
        let view = View::new(&disk, 0, disk.len() as u64);
        let Ok(used) = used(&view, &bpb) else {
            panic!("{kind:?}")
        };
        (0..bpb.clusters)
            .filter(|i| used.contains(bpb.data + i * bpb.cluster))
            .map(|i| i + 2)
            .collect()
    }

    #[test]
    fn every_width_and_parity() {
        for kind in [Kind::Fat12, Kind::Fat16, Kind::Fat32] {
            let bad = kind.bad();
            let end = bad | 0xf;
            assert_eq!(
                clusters(kind, &[0, end, bad, 6, end, 0, 0, end, bad - 1]),
                [3, 5, 6, 9, 10]
            );
            assert_eq!(clusters(kind, &[end]), [2]);
            assert_eq!(clusters(kind, &[0, 0]), []);
        }
        // The top four bits of a wide entry mean nothing.
        assert_eq!(clusters(Kind::Fat32, &[0xf000_0000, 0xf000_0001]), [3]);
    }

    #[test]
    fn tables_longer_than_one_step() {
        let mut entries = vec![0; 70_000];
        for cluster in [2, 49_150, 49_151, 49_152, 49_153, 70_001] {
            entries[cluster - 2] = 0x0fff_ffff;
        }
        let wanted = [2, 49_150, 49_151, 49_152, 49_153, 70_001];
        assert_eq!(clusters(Kind::Fat32, &entries), wanted);
    }
}
