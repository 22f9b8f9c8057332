//! An ISO 9660 image that starts from a CD and, copied with dd, from a stick.
//!
//! Owns: volume descriptors, folders (ECMA-119, plain names, no extensions), the boot catalogue
//! (El Torito 1.0), the partition table for sticks. Does not own: what is in the files.
//!
//! | block of 2048 bytes | |
//! |---|---|
//! | 0 | first sector: GRUB's, with a partition table: the image, and its EFI partition |
//! | 16, 17, 18 | volume descriptors: primary, boot, end |
//! | 19 | boot catalogue |
//! | 20, 21 | path tables, little- and big-endian |
//! | from 22 on | folders, GRUB's core, the EFI partition (FAT16), files |
//!
//! The kernel and GRUB show the upper-case names of plain ISO 9660 in lower case, without
//! their version numbers.

use crate::bios::{self, Bios, Partition, put};
use crate::fat;
use crate::piece::Pieces;
use crate::tree::{Kind, Tree};
use crate::{Entry, Error, LABEL, Piece};

/// Block of the primary volume descriptor.
pub const VOLUME_BLOCK: u32 = 16;
/// Bytes of a block.
pub const BLOCK: u64 = BLOCK_LEN as u64;
const BLOCK_LEN: usize = 2048;
const CATALOGUE: u32 = 19;
const PATHS_LITTLE: u32 = 20;
const PATHS_BIG: u32 = 21;
const FOLDERS: u32 = 22;
/// Drives read ahead: behind the last file there has to be something.
const PADDING: u64 = 300 << 10;
const ROUND: u64 = 1 << 20;
/// Room in the EFI partition besides its files.
const EFI_EXTRA: u64 = 256 << 10;
/// FAT16 has no smaller one.
const EFI_MIN: u64 = 3 << 20;
/// An EFI partition.
const EFI_TYPE: u8 = 0xEF;
/// 1 January 2000, 0:00 UTC, as folders have it.
const DATE: [u8; 7] = [100, 1, 1, 0, 0, 0, 0];

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// Files of the CD.
    pub entries: &'a [Entry],
    /// Files of the EFI partition; empty: it does not start on UEFI.
    pub efi: &'a [Entry],
    /// GRUB for BIOS; none: it does not start on BIOS.
    pub bios: Option<&'a Bios>,
    /// Number of the EFI volume and of the disk.
    pub serial: u32,
}

/// Lays out an image: every byte of it, and its size.
///
/// # Errors
/// Names and sizes of files, or a boot loader of another form.
pub fn lay_out(image: &Image<'_>) -> Result<(Vec<Piece>, u64), Error> {
    let tree = Tree::of(image.entries)?;
    let mut pieces = Pieces::default();
    let mut next = FOLDERS;
    let mut take = |bytes: u64| -> Result<u32, Error> {
        let first = next;
        let blocks = u32::try_from(bytes.div_ceil(BLOCK)).unwrap_or(u32::MAX);
        next = next.checked_add(blocks).ok_or(Error::Full {
            needed: bytes,
            size_bytes: u64::from(u32::MAX - first) * BLOCK,
        })?;
        Ok(first)
    };

    let mut places = vec![(0, 0); tree.nodes.len()];
    for (node, held) in tree.folders() {
        let bytes = folder_bytes(&tree, held);
        places[node] = (take(bytes)?, bytes);
    }
    let core = match image.bios {
        Some(bios) => {
            bios.check()?;
            Some((bios, take(bios.core.len() as u64 + 3)?))
        }
        None => None,
    };
    let efi = efi_volume(image)?;
    let efi_at = take(efi.map_or(0, |volume| volume.size_bytes))?;
    for (node, entry) in tree.files() {
        let at = take(entry.size_bytes)?;
        pieces.add(at_byte(at), entry.size_bytes, entry.content.clone());
        places[node] = (at, entry.size_bytes);
    }
    let size_bytes = (at_byte(next) + PADDING).next_multiple_of(ROUND);

    if let Some((bios, at)) = core {
        pieces.bytes(at_byte(at), bios.cd_core(at));
    }
    if let Some(volume) = efi {
        let volume = fat::Volume {
            start: at_byte(efi_at),
            ..volume
        };
        fat::lay_out(&volume, image.efi, &mut pieces)?;
    }
    let efi = efi.map(|volume| (efi_at, volume.size_bytes));
    pieces.bytes(0, first_sector(core, efi, size_bytes, image.serial));
    let blocks = u32::try_from(size_bytes / BLOCK).unwrap_or(u32::MAX);
    let (little, big) = paths(&tree, &places)?;
    let [root, ..] = places[..] else {
        return Err(Error::Name(String::new())); // there is always a root
    };
    let primary = primary(blocks, little.len() as u64, root);
    pieces.bytes(at_byte(VOLUME_BLOCK), primary);
    pieces.bytes(at_byte(VOLUME_BLOCK + 1), boot_record());
    pieces.bytes(at_byte(VOLUME_BLOCK + 2), descriptor(255));
    pieces.bytes(at_byte(CATALOGUE), catalogue(core.map(|(_, at)| at), efi));
    pieces.bytes(at_byte(PATHS_LITTLE), little);
    pieces.bytes(at_byte(PATHS_BIG), big);
    for (node, held) in tree.folders() {
        pieces.bytes(at_byte(places[node].0), folder(&tree, node, held, &places));
    }
    Ok((pieces.finish(size_bytes), size_bytes))
}

fn at_byte(block: u32) -> u64 {
    u64::from(block) * BLOCK
}

/// The EFI partition, without its place.
fn efi_volume(image: &Image<'_>) -> Result<Option<fat::Volume>, Error> {
    if image.efi.is_empty() {
        return Ok(None);
    }
    let cluster = fat::cluster_bytes(EFI_MIN);
    let files = image.efi.iter();
    let bytes: u64 = files.map(|e| e.size_bytes.next_multiple_of(cluster)).sum();
    let size_bytes = (bytes + EFI_EXTRA).next_multiple_of(ROUND).max(EFI_MIN);
    Ok(Some(fat::Volume {
        start: 0,
        size_bytes,
        serial: image.serial,
    }))
}

/// A stick has a partition table: its first entry makes old BIOSes take the stick for a disk
/// that starts; its type is "empty", so that UEFI, which wants partitions not to overlap,
/// passes it over. The second one is where UEFI finds its boot loader.
fn first_sector(
    core: Option<(&Bios, u32)>,
    efi: Option<(u32, u64)>,
    size_bytes: u64,
    serial: u32,
) -> Vec<u8> {
    let sectors = |bytes: u64| u32::try_from(bytes / 512).unwrap_or(u32::MAX);
    let mut partitions = vec![Partition {
        active: true,
        kind: 0,
        first: 0,
        sectors: sectors(size_bytes),
    }];
    partitions.extend(efi.map(|(at, bytes)| Partition {
        active: false,
        kind: EFI_TYPE,
        first: sectors(at_byte(at)),
        sectors: sectors(bytes),
    }));
    let code = core.map(|(bios, at)| (bios, bios::cd_core_on_disk(at)));
    bios::first_sector(code, serial, &partitions)
}

/// El Torito 1.0, chapter 2: the BIOS entry comes first, others in sections.
fn catalogue(core: Option<u32>, efi: Option<(u32, u64)>) -> Vec<u8> {
    const X86: u8 = 0;
    const EFI: u8 = 0xEF;
    let entry = |sectors: u16, block: u32| {
        let mut entry = [0; 32];
        entry[0] = 0x88; // boots, without emulating a disk
        put(&mut entry, 6, &sectors.to_le_bytes());
        put(&mut entry, 8, &block.to_le_bytes());
        entry
    };
    // UEFI reads the whole partition, whatever stands here.
    let efi = efi.map(|(block, bytes)| {
        let sectors = u16::try_from(bytes / 512).unwrap_or(u16::MAX);
        entry(sectors, block)
    });
    let core = core.map(|block| entry(4, block));
    let platform = if core.is_some() { X86 } else { EFI };
    let mut validation = [0; 32];
    validation[0] = 1;
    validation[1] = platform;
    put(&mut validation, 4, LABEL.as_bytes());
    validation[30..].copy_from_slice(&[0x55, 0xAA]);
    let words = validation.chunks_exact(2);
    let sum = words.fold(0_u16, |sum, word| {
        sum.wrapping_add(u16::from_le_bytes([word[0], word[1]]))
    });
    put(&mut validation, 28, &sum.wrapping_neg().to_le_bytes());
    let mut entries = vec![validation];
    match (core, efi) {
        (Some(core), Some(efi)) => {
            let mut section = [0; 32];
            section[..4].copy_from_slice(&[0x91, EFI, 1, 0]);
            entries.extend([core, section, efi]);
        }
        (one, other) => entries.extend(one.or(other)),
    }
    entries.concat()
}

/// What every volume descriptor begins with.
fn descriptor(kind: u8) -> Vec<u8> {
    let mut block = vec![0; BLOCK_LEN];
    block[0] = kind;
    put(&mut block, 1, b"CD001\x01");
    block
}

fn boot_record() -> Vec<u8> {
    let mut block = descriptor(0);
    put(&mut block, 7, b"EL TORITO SPECIFICATION");
    put(&mut block, 71, &CATALOGUE.to_le_bytes());
    block
}

/// ECMA-119, 8.4.
fn primary(blocks: u32, paths_bytes: u64, root: (u32, u64)) -> Vec<u8> {
    let mut block = descriptor(1);
    let paths_bytes = u32::try_from(paths_bytes).unwrap_or(u32::MAX);
    let mut text = |at: usize, len: usize, text: &str| {
        put(&mut block[at..at + len], 0, &vec![b' '; len]);
        put(&mut block[at..at + len], 0, text.as_bytes());
    };
    text(8, 32, "");
    text(40, 32, LABEL);
    for at in [190, 318] {
        text(at, 128, ""); // volume set, publisher
    }
    text(446, 128, "DEPLOY-OS"); // who prepared it
    text(574, 128, "");
    for at in [702, 739, 776] {
        text(at, 37, ""); // copyright, abstract, bibliography
    }
    put(&mut block, 80, &both32(blocks));
    put(&mut block, 120, &both16(1)); // volumes of the set
    put(&mut block, 124, &both16(1)); // which one
    put(&mut block, 128, &both16(2048));
    put(&mut block, 132, &both32(paths_bytes));
    put(&mut block, 140, &PATHS_LITTLE.to_le_bytes());
    put(&mut block, 148, &PATHS_BIG.to_be_bytes());
    put(&mut block, 156, &record(&[0], root, true));
    let never = [b'0'; 16];
    for at in [813, 830, 847, 864] {
        put(&mut block, at, &never); // made, changed, expires, effective: not told
    }
    put(&mut block, 813, b"2000010100000000");
    block[881] = 1;
    block
}

fn both32(value: u32) -> [u8; 8] {
    let mut both = [0; 8];
    put(&mut both, 0, &value.to_le_bytes());
    put(&mut both, 4, &value.to_be_bytes());
    both
}

fn both16(value: u16) -> [u8; 4] {
    let mut both = [0; 4];
    put(&mut both, 0, &value.to_le_bytes());
    put(&mut both, 2, &value.to_be_bytes());
    both
}

/// A folder's record (ECMA-119, 9.1).
fn record(name: &[u8], (block, bytes): (u32, u64), is_folder: bool) -> Vec<u8> {
    let length = record_length(name.len());
    let mut record = vec![0; length];
    record[0] = u8::try_from(length).unwrap_or(u8::MAX);
    put(&mut record, 2, &both32(block));
    // Files end at 4 GiB (`crate::MAX_FILE`).
    put(
        &mut record,
        10,
        &both32(u32::try_from(bytes).unwrap_or(u32::MAX)),
    );
    put(&mut record, 18, &DATE);
    record[25] = if is_folder { 2 } else { 0 };
    put(&mut record, 28, &both16(1));
    record[32] = u8::try_from(name.len()).unwrap_or(u8::MAX);
    put(&mut record, 33, name);
    record
}

/// Records have even lengths.
fn record_length(name: usize) -> usize {
    (33 + name).next_multiple_of(2)
}

/// The name that a file or folder has on the CD.
fn spelled(tree: &Tree<'_>, node: usize) -> Vec<u8> {
    let node = &tree.nodes[node];
    let upper = node.name.to_ascii_uppercase();
    let name = match node.kind {
        Kind::Folder(_) => upper,
        Kind::File(_) if upper.contains('.') => upper + ";1",
        Kind::File(_) => upper + ".;1",
    };
    name.into_bytes()
}

/// Bytes of a folder, in whole blocks.
fn folder_bytes(tree: &Tree<'_>, held: &[usize]) -> u64 {
    let names = held.iter().map(|&at| spelled(tree, at).len());
    let (mut blocks, mut used) = (0, 0);
    for length in [1, 1].into_iter().chain(names).map(record_length) {
        // No record stands in two blocks.
        if used + length > BLOCK_LEN {
            blocks += 1;
            used = 0;
        }
        used += length;
    }
    (blocks + 1) * BLOCK
}

fn folder(tree: &Tree<'_>, node: usize, held: &[usize], places: &[(u32, u64)]) -> Vec<u8> {
    let own = places[node];
    let above = places[tree.nodes[node].parent];
    let mut records = vec![record(&[0], own, true), record(&[1], above, true)];
    records.extend(held.iter().map(|&at| {
        let is_folder = matches!(tree.nodes[at].kind, Kind::Folder(_));
        record(&spelled(tree, at), places[at], is_folder)
    }));
    let mut bytes: Vec<u8> = Vec::new();
    for record in records {
        let room = BLOCK_LEN - bytes.len() % BLOCK_LEN;
        if record.len() > room {
            bytes.resize(bytes.len() + room, 0);
        }
        bytes.extend(record);
    }
    bytes
}

/// Both path tables (ECMA-119, 9.4): folders with the numbers of those that they are in.
fn paths(tree: &Tree<'_>, places: &[(u32, u64)]) -> Result<(Vec<u8>, Vec<u8>), Error> {
    let mut order: Vec<usize> = tree.folders().map(|(node, _)| node).collect();
    let depth = |mut node: usize| {
        let mut depth = 0;
        while node != 0 {
            node = tree.nodes[node].parent;
            depth += 1;
        }
        depth
    };
    // By level; within it as their parents stand, then by name.
    order.sort_unstable_by_key(|&node| (depth(node), tree.nodes[node].parent, node));
    let number = |node: usize| order.iter().position(|&at| at == node).unwrap_or(0);
    let (mut little, mut big) = (Vec::new(), Vec::new());
    for &node in &order {
        let name = if node == 0 {
            vec![0]
        } else {
            spelled(tree, node)
        };
        let parent = u16::try_from(number(tree.nodes[node].parent) + 1).unwrap_or(u16::MAX);
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        for (table, block, parent) in [
            (
                &mut little,
                places[node].0.to_le_bytes(),
                parent.to_le_bytes(),
            ),
            (&mut big, places[node].0.to_be_bytes(), parent.to_be_bytes()),
        ] {
            table.extend([length, 0]);
            table.extend(block);
            table.extend(parent);
            table.extend(&name);
            table.resize(table.len().next_multiple_of(2), 0);
        }
    }
    if little.len() as u64 > BLOCK {
        return Err(Error::Full {
            needed: little.len() as u64,
            size_bytes: BLOCK,
        });
    }
    Ok((little, big))
}

#[cfg(test)]
#[path = "iso_tests.rs"]
mod tests;
