//! The journal of an ext3 or ext4 that needs recovery: the input is the journal, in a
//! small file system of one group that is always right.
#![no_main]

mod disk;

use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 1024;
/// Blocks of the file system, and of its journal, which lies in two pieces.
const BLOCKS: usize = 512;
const LOG: usize = 96;
const PIECES: [(usize, usize); 2] = [(100, 64), (300, LOG - 64)];
const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, journal)) = data.split_first() else { return };
    let mut image = file_system(knobs & 1 != 0);
    let mut log = vec![0u8; LOG * BLOCK];
    let len = journal.len().min(log.len());
    log[..len].copy_from_slice(&journal[..len]);
    if knobs & 2 != 0 {
        correct(&mut log);
    }
    let mut rest = log.as_slice();
    for (start, blocks) in PIECES {
        let (piece, more) = rest.split_at(blocks * BLOCK);
        image[start * BLOCK..][..piece.len()].copy_from_slice(piece);
        rest = more;
    }
    disk::run(0, &image);
});

fn put(image: &mut [u8], at: usize, value: u32) {
    image[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// One group without checksums: superblock, descriptors, bitmaps in blocks 3 and 4,
/// inodes from 5 on, the journal by extents or by blocks.
fn file_system(extents: bool) -> Vec<u8> {
    let mut image = vec![0u8; BLOCKS * BLOCK];
    let incompat = 0x2 | 0x4 | if extents { 0x40 } else { 0 };
    for (at, value) in [
        (0x00, 16),
        (0x04, BLOCKS as u32),
        (0x14, 1),
        (0x20, 8192),
        (0x24, 8192),
        (0x28, 16),
        (0x38, 0x1_ef53),
        (0x4c, 1),
        (0x54, 11),
        (0x58, 128),
        (0x5c, 4),
        (0x60, incompat),
        (0x64, 1),
        (0xe0, 8),
    ] {
        put(&mut image, 1024 + at, value);
    }
    // The first 410 blocks are in use.
    const USED: usize = 410;
    for (at, value) in [(0, 3), (4, 4), (8, 5), (12, (BLOCKS - 1 - USED) as u32)] {
        put(&mut image, 2 * BLOCK + at, value);
    }
    for bit in (0..USED).chain(BLOCKS - 1..8192) {
        image[3 * BLOCK + bit / 8] |= 1 << (bit % 8);
    }
    let inode = 5 * BLOCK + 7 * 128;
    put(&mut image, inode + 4, (LOG * BLOCK) as u32);
    if extents {
        put(&mut image, inode + 0x20, 0x8_0000);
        put(&mut image, inode + 0x28, 0x2_f30a);
        put(&mut image, inode + 0x2c, 4);
        let mut first = 0;
        for (number, (start, blocks)) in PIECES.into_iter().enumerate() {
            let entry = inode + 0x34 + number * 12;
            put(&mut image, entry, first as u32);
            put(&mut image, entry + 4, blocks as u32);
            put(&mut image, entry + 8, start as u32);
            first += blocks;
        }
    } else {
        let places = PIECES.into_iter().flat_map(|(start, blocks)| start..start + blocks);
        for (number, place) in places.enumerate() {
            let at = if number < 12 {
                inode + 0x28 + number * 4
            } else {
                20 * BLOCK + (number - 12) * 4
            };
            put(&mut image, at, place as u32);
        }
        put(&mut image, inode + 0x28 + 12 * 4, 20);
    }
    image
}

fn crc32c(seed: u32, data: &[u8]) -> u32 {
    data.iter().fold(seed, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Makes the checksums of the superblock and of all blocks with a header right, so that
/// the input gets past them.
fn correct(log: &mut [u8]) {
    let seed = crc32c(!0, &log[0x30..0x40]);
    log[0xfc..0x100].fill(0);
    let crc = crc32c(!0, &log[..1024]);
    log[0xfc..0x100].copy_from_slice(&crc.to_be_bytes());
    for block in log.chunks_exact_mut(BLOCK).skip(1) {
        if block[..4] != MAGIC {
            continue;
        }
        let place = if block[7] == 2 { 16 } else { BLOCK - 4 };
        block[place..place + 4].fill(0);
        let crc = crc32c(seed, block);
        block[place..place + 4].copy_from_slice(&crc.to_be_bytes());
    }
}
