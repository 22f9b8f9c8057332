//! A FAT file system with files in it: FAT16 up to 32 MiB, FAT32 from 34 MiB on.
//!
//! Owns: boot sector, tables, folders (Microsoft's FAT specification 1.03, with long names).
//! Does not own: what is in the files, the partition table around it.
//!
//! Every file and folder is one run of clusters, files behind folders, in the order in which
//! they were given. All times are 1 January 2000.

mod folder;

use crate::bios::put;
use crate::piece::Pieces;
use crate::tree::{Kind, Tree};
use crate::{Entry, Error};
use folder::Slot;

const SECTOR: u64 = 512;
const SLOT: u64 = 32;
/// FAT16: slots of the root folder.
const ROOT_SLOTS: u64 = 512;
/// FAT32: sectors before the first table.
const RESERVED: u64 = 32;
const MAX_FAT16: u64 = 32 << 20;
const MIN_FAT32: u64 = 34 << 20;
/// Sectors are counted in 32 bits.
const MAX_FAT32: u64 = SECTOR * u32::MAX as u64;
/// Below this many clusters a file system is FAT16, whatever it calls itself.
const FAT32_CLUSTERS: u64 = 65_525;
/// Below this many it is FAT12.
const FAT16_CLUSTERS: u64 = 4_085;

/// Where a file system is and what it is called.
#[derive(Clone, Copy, Debug)]
pub struct Volume {
    /// First byte on the medium.
    pub start: u64,
    /// Bytes; what is no whole sector is not used.
    pub size_bytes: u64,
    /// Its number.
    pub serial: u32,
}

/// The figures of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    is_fat32: bool,
    sectors: u64,
    sectors_per_cluster: u64,
    reserved: u64,
    root_sectors: u64,
    table_sectors: u64,
    clusters: u64,
}

/// What is on a volume.
struct Laid {
    shape: Shape,
    /// First cluster of each node; 0 if it has none.
    first: Vec<u64>,
    /// Next cluster of each, as the table says it.
    chain: Vec<u32>,
}

/// Bytes that files can still have on a volume with these on it.
///
/// # Errors
/// Names, sizes, or it is full already.
pub fn free_bytes(volume: &Volume, entries: &[Entry]) -> Result<u64, Error> {
    let laid = place(volume, &Tree::of(entries)?)?;
    let used = laid.chain.len() as u64 - 2;
    Ok((laid.shape.clusters - used) * laid.shape.cluster())
}

/// Bytes of a cluster of a volume of this size.
pub fn cluster_bytes(size_bytes: u64) -> u64 {
    SECTOR * sectors_per_cluster(size_bytes)
}

/// Lays out the volume; the bytes up to what is given back have to be written, those behind
/// are free.
pub(crate) fn lay_out(
    volume: &Volume,
    entries: &[Entry],
    pieces: &mut Pieces,
) -> Result<u64, Error> {
    let tree = Tree::of(entries)?;
    let laid = place(volume, &tree)?;
    let shape = laid.shape;
    let at = |sector: u64| volume.start + sector * SECTOR;
    let free = shape.clusters + 2 - laid.chain.len() as u64;

    let boot = shape.boot_sector(volume);
    if shape.is_fat32 {
        let information = information(free, laid.chain.len() as u64);
        for first in [0, 6] {
            pieces.bytes(at(first), boot.clone());
            pieces.bytes(at(first + 1), information.clone());
            pieces.bytes(at(first + 2), end_mark());
        }
    } else {
        pieces.bytes(at(0), boot);
    }
    let table = shape.table(&laid.chain);
    for copy in 0..2 {
        pieces.bytes(
            at(shape.reserved + copy * shape.table_sectors),
            table.clone(),
        );
    }
    let place_of = |node: usize| match laid.first[node] {
        0 => at(shape.reserved + 2 * shape.table_sectors),
        first => at(shape.data() + (first - 2) * shape.sectors_per_cluster),
    };
    for (node, held) in tree.folders() {
        pieces.bytes(place_of(node), folder_bytes(&tree, node, held, &laid));
    }
    for (node, entry) in tree.files() {
        pieces.add(place_of(node), entry.size_bytes, entry.content.clone());
    }
    let used = laid.chain.len() as u64 - 2;
    Ok(at(shape.data() + used * shape.sectors_per_cluster))
}

/// Gives every folder and file its clusters.
fn place(volume: &Volume, tree: &Tree<'_>) -> Result<Laid, Error> {
    let shape = Shape::of(volume.size_bytes)?;
    let mut first = vec![0; tree.nodes.len()];
    let mut chain: Vec<u32> = Vec::new();
    let mut runs = Vec::new();
    for (node, held) in tree.folders() {
        let bytes = SLOT * slots(tree, node, held);
        if node != 0 || shape.is_fat32 {
            runs.push((node, bytes));
        } else if bytes > ROOT_SLOTS * SLOT {
            return Err(full(bytes, ROOT_SLOTS * SLOT));
        }
    }
    runs.extend(tree.files().map(|(node, entry)| (node, entry.size_bytes)));
    let clusters = |bytes: u64| bytes.div_ceil(shape.cluster());
    let needed: u64 = runs.iter().map(|&(_, bytes)| clusters(bytes)).sum();
    if needed > shape.clusters {
        return Err(full(
            needed * shape.cluster(),
            shape.clusters * shape.cluster(),
        ));
    }
    let end = if shape.is_fat32 { 0x0FFF_FFFF } else { 0xFFFF };
    // Entries 0 and 1 carry the media byte and the marks of a clean volume.
    chain.extend([end & !7, end]);
    for (node, bytes) in runs {
        let run = clusters(bytes);
        if run > 0 {
            first[node] = chain.len() as u64;
            // No more clusters than a table has numbers for.
            let next = u32::try_from(chain.len()).unwrap_or(end) + 1;
            chain.extend((next..).take(usize::try_from(run - 1).unwrap_or(0)));
            chain.push(end);
        }
    }
    Ok(Laid {
        shape,
        first,
        chain,
    })
}

fn full(needed: u64, size_bytes: u64) -> Error {
    Error::Full { needed, size_bytes }
}

/// Slots that a folder takes: its own two or the volume's name, and those of what it holds.
fn slots(tree: &Tree<'_>, node: usize, held: &[usize]) -> u64 {
    let own = if node == 0 { 1 } else { 2 };
    let names = held.iter().map(|&at| folder::slots(&tree.nodes[at].name));
    own + names.sum::<u64>()
}

fn folder_bytes(tree: &Tree<'_>, node: usize, held: &[usize], laid: &Laid) -> Vec<u8> {
    let mut bytes = Vec::new();
    let slot = |at: usize| match tree.nodes[at].kind {
        Kind::Folder(_) => Slot::folder(laid.first[at]),
        Kind::File(entry) => Slot::file(laid.first[at], entry.size_bytes),
    };
    if node == 0 {
        bytes.extend(folder::label(crate::LABEL));
    } else {
        let parent = tree.nodes[node].parent;
        bytes.extend(Slot::folder(laid.first[node]).named(*b".          "));
        // The root is 0 here even where it has a cluster.
        let above = if parent == 0 { 0 } else { laid.first[parent] };
        bytes.extend(Slot::folder(above).named(*b"..         "));
    }
    let mut taken = Vec::new();
    for &at in held {
        bytes.extend(folder::entries(&tree.nodes[at].name, slot(at), &mut taken));
    }
    bytes
}

fn sectors_per_cluster(size_bytes: u64) -> u64 {
    const GIB: u64 = 1 << 30;
    match size_bytes {
        size if size <= 260 << 20 => 1,
        size if size <= 8 * GIB => 8,
        size if size <= 16 * GIB => 16,
        size if size <= 32 * GIB => 32,
        _ => 64,
    }
}

impl Shape {
    fn of(size_bytes: u64) -> Result<Shape, Error> {
        let wrong = |what| Err(Error::Size { size_bytes, what });
        let is_fat32 = size_bytes >= MIN_FAT32;
        if !is_fat32 && size_bytes > MAX_FAT16 {
            return wrong("too large for FAT16 and too small for FAT32");
        }
        if size_bytes > MAX_FAT32 {
            return wrong("too large for FAT32");
        }
        let sectors = size_bytes / SECTOR;
        let sectors_per_cluster = sectors_per_cluster(size_bytes);
        let reserved = if is_fat32 { RESERVED } else { 1 };
        let root_sectors = if is_fat32 {
            0
        } else {
            ROOT_SLOTS * SLOT / SECTOR
        };
        let Some(rest) = sectors.checked_sub(reserved + root_sectors) else {
            return wrong("too small for FAT");
        };
        let width = if is_fat32 { 4 } else { 2 };
        // Room for the clusters that there would be without tables: a little too much.
        let table_sectors = ((rest / sectors_per_cluster + 2) * width).div_ceil(SECTOR);
        let clusters = rest.saturating_sub(2 * table_sectors) / sectors_per_cluster;
        let shape = Shape {
            is_fat32,
            sectors,
            sectors_per_cluster,
            reserved,
            root_sectors,
            table_sectors,
            clusters,
        };
        match is_fat32 {
            true if clusters < FAT32_CLUSTERS => wrong("too small for FAT32"),
            false if clusters < FAT16_CLUSTERS => wrong("too small for FAT16"),
            false if clusters >= FAT32_CLUSTERS => wrong("too large for FAT16"),
            _ => Ok(shape),
        }
    }

    /// Bytes of a cluster.
    fn cluster(&self) -> u64 {
        self.sectors_per_cluster * SECTOR
    }

    /// Sector of the first cluster.
    fn data(&self) -> u64 {
        self.reserved + 2 * self.table_sectors + self.root_sectors
    }

    fn boot_sector(&self, volume: &Volume) -> Vec<u8> {
        let mut sector = end_mark();
        let hidden = volume.start / SECTOR;
        let mut set = |at: usize, value: u64, len: usize| {
            put(&mut sector[..], at, &value.to_le_bytes()[..len]);
        };
        set(11, SECTOR, 2);
        set(13, self.sectors_per_cluster, 1);
        set(14, self.reserved, 2);
        set(16, 2, 1); // tables
        set(21, 0xF8, 1); // a disk
        set(24, 63, 2); // sectors a track, where somebody asks
        set(26, 255, 2); // heads
        set(28, hidden, 4);
        let (small, large) = match self.sectors {
            small if small <= 0xFFFF && !self.is_fat32 => (small, 0),
            large => (0, large),
        };
        set(19, small, 2);
        set(32, large, 4);
        let tail = if self.is_fat32 {
            set(36, self.table_sectors, 4);
            set(44, 2, 4); // the root's first cluster
            set(48, 1, 2); // the sector with the free clusters
            set(50, 6, 2); // the copy of this one
            64
        } else {
            set(17, ROOT_SLOTS, 2);
            set(22, self.table_sectors, 2);
            36
        };
        set(tail, 0x80, 1); // the first disk
        set(tail + 2, 0x29, 1); // what follows is there
        set(tail + 3, u64::from(volume.serial), 4);
        let (jump, name): ([u8; 3], &[u8; 8]) = match self.is_fat32 {
            true => ([0xEB, 0x58, 0x90], b"FAT32   "),
            false => ([0xEB, 0x3C, 0x90], b"FAT16   "),
        };
        put(&mut sector, 0, &jump);
        put(&mut sector, 3, b"DEPLOYOS");
        put(&mut sector, tail + 7, &folder::padded(crate::LABEL));
        put(&mut sector, tail + 18, name);
        sector
    }

    /// A table, to its end.
    fn table(&self, chain: &[u32]) -> Vec<u8> {
        let width = if self.is_fat32 { 4 } else { 2 };
        let numbers = chain.iter().map(|next| next.to_le_bytes());
        let mut bytes: Vec<u8> = numbers
            .flat_map(|number| number.into_iter().take(width))
            .collect();
        let length = self.table_sectors * SECTOR;
        bytes.resize(usize::try_from(length).unwrap_or(bytes.len()), 0);
        bytes
    }
}

/// FAT32: how many clusters are free, and where the first of them is.
fn information(free: u64, next: u64) -> Vec<u8> {
    let mut sector = end_mark();
    put(&mut sector, 0, b"RRaA");
    put(&mut sector, 484, b"rrAa");
    put(&mut sector, 488, &free.to_le_bytes()[..4]);
    put(&mut sector, 492, &next.to_le_bytes()[..4]);
    sector
}

/// A sector with nothing but the mark at its end.
fn end_mark() -> Vec<u8> {
    let mut sector = vec![0; 512];
    put(&mut sector, 510, &[0x55, 0xAA]);
    sector
}

#[cfg(test)]
#[path = "fat_tests.rs"]
mod tests;
