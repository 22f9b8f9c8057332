//! F2FS on a bare disk. The input is its superblock, blocks of a checkpoint, and segment
//! entries; these are put where the superblock says, and their checksums are always right.
#![no_main]

use diskmap::{DiskRead, Geometry, Method, ScanOptions, scan};
use libfuzzer_sys::fuzz_target;
use std::io;

const BLOCK: usize = 4096;
const SUPER: usize = 3072;
/// Blocks of the checkpoint in the input.
const PACK: usize = 8;
const SIZE: u64 = 128 << 20;

/// Pieces at their places, the later ones on top, and zeros elsewhere.
struct Sparse(Vec<(u64, Vec<u8>)>);

impl DiskRead for Sparse {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > SIZE) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        for (start, bytes) in &self.0 {
            let from = (*start).max(offset);
            let to = start.saturating_add(bytes.len() as u64).min(offset + buf.len() as u64);
            if from < to {
                buf[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
            }
        }
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let mut data = data.to_vec();
    data.resize(data.len().clamp(SUPER + PACK * BLOCK, SUPER + (PACK + 16) * BLOCK), 0);
    let (superblock, rest) = data.split_at_mut(SUPER);
    let (pack, entries) = rest.split_at_mut(PACK * BLOCK);
    superblock[..4].copy_from_slice(&0xf2f5_2010u32.to_le_bytes());
    seal(superblock, 3068);
    let place = |at| u64::from(word(superblock, at)) * BLOCK as u64;
    let (start, sit) = (place(76), place(80));
    let copy = u64::from(word(superblock, 56)) / 2 * 512 * BLOCK as u64;
    let (head, inner) = pack.split_at_mut(BLOCK);
    let at = (word(head, 164) as usize).clamp(192, 4092);
    head[164..168].copy_from_slice(&(at as u32).to_le_bytes());
    seal(head, at);
    let last = u64::from(word(head, 136)).saturating_sub(1) * BLOCK as u64;
    let mut pieces = vec![(1024, superblock.to_vec()), (1024 + BLOCK as u64, superblock.to_vec())];
    for pack in [start, start.saturating_add(512 * BLOCK as u64)] {
        pieces.push((pack, head.to_vec()));
        pieces.push((pack.saturating_add(BLOCK as u64), inner.to_vec()));
        pieces.push((pack.saturating_add(last), head.to_vec()));
    }
    pieces.push((sit, entries.to_vec()));
    pieces.push((sit.saturating_add(copy), entries.to_vec()));
    let geometry = Geometry { size_bytes: SIZE, sector_size: 512 };
    let Ok(map) = scan(&Sparse(pieces), geometry, &ScanOptions::default()) else { return };
    for region in &map.regions {
        assert!(region.used.end() <= region.size, "used bytes outside their region");
        assert!(region.method == Method::Used || region.used.total() == region.size);
    }
});

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Puts the checksum at `at`: over what is before, and what is behind.
fn seal(bytes: &mut [u8], at: usize) {
    let mut hasher = crc32fast::Hasher::new_with_initial(!0xf2f5_2010);
    hasher.update(&bytes[..at]);
    hasher.update(&bytes[at + 4..]);
    let sum = !hasher.finalize();
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}
