//! qcow2, version 3, after the specification in QEMU's documentation (docs/interop/qcow2).
//!
//! Owns: header, cluster tables and reference counts. Does not own: the data.
//!
//! Everything is where it is from the start, so the file is written once and in any order:
//! header, refcount table and blocks, L1 table, L2 tables, data. All numbers are
//! big-endian. Only the L2 tables exist that lead to data.

use super::alloc::Allocation;
use super::{Plan, cannot_hold, output};
use image::open::{OpenImage, ReadAt};
use std::fs::File;
use std::os::unix::fs::FileExt;
use wire::Report;

/// The usual cluster: 64 KiB.
const CLUSTER_BITS: u32 = 16;
/// Clusters of disks that would have too many of the usual ones: 2 MiB, the largest there
/// are.
const LARGE_CLUSTER_BITS: u32 = 21;
/// Most clusters of a disk: a bit for each is kept in memory, 32 MiB for all.
const MAX_CLUSTERS: u64 = 1 << 28;
/// In an entry of L1 or L2: the cluster is referred to once.
const COPIED: u64 = 1 << 63;
const HEADER_LEN: u32 = 104;
/// Reference counts have 16 bits.
const REFCOUNT_ORDER: u32 = 4;

/// Numbers of clusters and tables.
struct Geometry {
    bits: u32,
    disk: u64,
    l1_entries: u64,
    l2_tables: u64,
    data: u64,
    refcount_blocks: u64,
    refcount_table: u64,
}

impl Geometry {
    fn cluster(&self) -> u64 {
        1 << self.bits
    }

    /// Entries of an L2 table, of a refcount table, and a quarter of a refcount block's.
    fn entries(&self) -> u64 {
        self.cluster() / 8
    }

    fn l1_clusters(&self) -> u64 {
        (self.l1_entries * 8).div_ceil(self.cluster()).max(1)
    }

    fn refcount_blocks_at(&self) -> u64 {
        1 + self.refcount_table
    }

    fn l1_at(&self) -> u64 {
        self.refcount_blocks_at() + self.refcount_blocks
    }

    fn l2_at(&self) -> u64 {
        self.l1_at() + self.l1_clusters()
    }

    fn data_at(&self) -> u64 {
        self.l2_at() + self.l2_tables
    }

    fn clusters(&self) -> u64 {
        self.data_at() + self.data
    }

    /// Finds out how many refcount blocks cover everything, themselves included.
    fn settle(&mut self) {
        loop {
            let blocks = self.clusters().div_ceil(self.entries() * 4);
            let table = blocks.div_ceil(self.entries());
            if (blocks, table) == (self.refcount_blocks, self.refcount_table) {
                return;
            }
            // Only ever more: the loop ends.
            (self.refcount_blocks, self.refcount_table) = (blocks, table);
        }
    }
}

/// Writes everything but the data.
pub(super) fn write<S: ReadAt>(image: &OpenImage<S>, file: &File) -> Result<Plan, Report> {
    // The format counts whole sectors of 512 bytes.
    let disk = image.disk_size().div_ceil(512) * 512;
    let bits = if disk >> CLUSTER_BITS < MAX_CLUSTERS {
        CLUSTER_BITS
    } else {
        LARGE_CLUSTER_BITS
    };
    if disk >> bits >= MAX_CLUSTERS {
        return Err(cannot_hold(format!(
            "a disk of {disk} bytes; qcow2 is written for disks of up to 512 TiB"
        )));
    }
    let mut blocks = Allocation::of(image, 1 << bits)?;
    let per_table = (1u64 << bits) / 8;
    let l1_entries = disk.div_ceil((1 << bits) * per_table);
    let tables = (0..l1_entries).filter(|&n| blocks.any(words(n, per_table)));
    let mut geometry = Geometry {
        bits,
        disk,
        l1_entries,
        l2_tables: tables.count() as u64,
        data: blocks.count(),
        refcount_blocks: 1,
        refcount_table: 1,
    };
    geometry.settle();
    let cluster = geometry.cluster();
    blocks.begin_at(geometry.data_at() * cluster);
    let put = |at: u64, bytes: &[u8]| file.write_all_at(bytes, at).map_err(|e| output(&e));

    put(0, &header(&geometry))?;
    put(
        cluster,
        &be((0..geometry.refcount_blocks).map(|n| (geometry.refcount_blocks_at() + n) * cluster)),
    )?;
    let counts_per_block = geometry.entries() * 4;
    for number in 0..geometry.refcount_blocks {
        let here = geometry.clusters() - number * counts_per_block;
        let ones = [0u8, 1].repeat(here.min(counts_per_block) as usize);
        put((geometry.refcount_blocks_at() + number) * cluster, &ones)?;
    }
    let mut l1 = Vec::with_capacity((l1_entries * 8) as usize);
    let mut table_at = geometry.l2_at() * cluster;
    for number in 0..l1_entries {
        let clusters = number * per_table..(number + 1) * per_table;
        if !blocks.any(words(number, per_table)) {
            l1.extend_from_slice(&[0; 8]);
            continue;
        }
        l1.extend_from_slice(&(table_at | COPIED).to_be_bytes());
        let table = clusters.map(|n| blocks.block_at(n).map_or(0, |at| at | COPIED));
        put(table_at, &be(table))?;
        table_at += cluster;
    }
    put(geometry.l1_at() * cluster, &l1)?;
    Ok(Plan {
        blocks: Some(blocks),
        length: geometry.clusters() * cluster,
    })
}

/// The words of 64 clusters that belong to an L2 table.
fn words(table: u64, clusters_per_table: u64) -> std::ops::Range<u64> {
    table * clusters_per_table / 64..(table + 1) * clusters_per_table / 64
}

fn be(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    numbers.flat_map(u64::to_be_bytes).collect()
}

fn header(geometry: &Geometry) -> Vec<u8> {
    let cluster = geometry.cluster();
    let mut out = b"QFI\xfb".to_vec();
    let u32s = |out: &mut Vec<u8>, numbers: &[u32]| {
        out.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
    };
    let u64s = |out: &mut Vec<u8>, numbers: &[u64]| {
        out.extend(numbers.iter().flat_map(|n| n.to_be_bytes()));
    };
    u32s(&mut out, &[3]); // version
    u64s(&mut out, &[0]); // no backing file
    u32s(&mut out, &[0, geometry.bits]);
    u64s(&mut out, &[geometry.disk]);
    // Not encrypted; the L1 table of a disk of 512 TiB has 1024 entries of 2 MiB clusters,
    // one of 16 TiB 32,768 of the usual ones.
    u32s(&mut out, &[0, geometry.l1_entries as u32]);
    u64s(&mut out, &[geometry.l1_at() * cluster, cluster]);
    u32s(&mut out, &[geometry.refcount_table as u32, 0]); // no snapshots
    u64s(&mut out, &[0, 0, 0, 0]); // snapshots; incompatible, compatible, autoclear features
    u32s(&mut out, &[REFCOUNT_ORDER, HEADER_LEN]);
    out.extend_from_slice(&[0; 8]); // end of the header's extensions
    out
}
