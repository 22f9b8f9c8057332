//! The checksums of blocks in partclone images.
//!
//! Owns: their arithmetic. Does not own: where they stand.

use std::hash::Hasher;
use twox_hash::XxHash64;

/// Kinds of checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// There are none.
    None,
    /// CRC-32 without its final inversion.
    Crc32,
    /// xxHash with 64 bits, seed 0.
    Xxh64,
    /// What format 0001 has: a CRC-32 as often of a block's first byte as the block has
    /// bytes, or one that is right; found out by what stands in the image.
    Format1,
}

/// A checksum that runs over blocks.
pub(super) enum Running {
    None,
    Crc32(crc32fast::Hasher),
    Xxh64(Box<XxHash64>),
}

impl Running {
    pub fn new(mode: Mode) -> Running {
        match mode {
            Mode::None | Mode::Format1 => Running::None,
            Mode::Crc32 => Running::Crc32(crc32fast::Hasher::new()),
            Mode::Xxh64 => Running::Xxh64(Box::new(XxHash64::with_seed(0))),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Running::None => {}
            Running::Crc32(hasher) => hasher.update(bytes),
            Running::Xxh64(hasher) => hasher.write(bytes),
        }
    }

    /// Whether `stored` is the checksum of all that came.
    pub fn is(&self, stored: &[u8]) -> bool {
        match self {
            Running::None => true,
            Running::Crc32(hasher) => (!hasher.clone().finalize()).to_le_bytes() == *stored,
            Running::Xxh64(hasher) => hasher.finish().to_le_bytes() == *stored,
        }
    }

    /// Bytes of a stored one.
    pub fn size(&self) -> usize {
        match self {
            Running::None => 0,
            Running::Crc32(_) => 4,
            Running::Xxh64(_) => 8,
        }
    }
}

/// Ways in which checksums of format 0001 are made; programs of that time differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// All bytes of the block, not its first one over and over.
    pub all_bytes: bool,
    /// Each starts anew.
    pub anew: bool,
}

impl Way {
    pub const ALL: [Way; 4] = [
        Way::new(false, true),
        Way::new(false, false),
        Way::new(true, true),
        Way::new(true, false),
    ];

    const fn new(all_bytes: bool, anew: bool) -> Way {
        Way { all_bytes, anew }
    }

    /// The checksum of a block, after the one before (without its final inversion).
    pub fn next(self, before: u32, block: &[u8]) -> u32 {
        let start = if self.anew { u32::MAX } else { before };
        let mut hasher = crc32fast::Hasher::new_with_initial(!start);
        if self.all_bytes {
            hasher.update(block);
        } else {
            let first = [block.first().copied().unwrap_or(0); 512];
            for piece in block.chunks(first.len()) {
                hasher.update(&first[..piece.len()]);
            }
        }
        !hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::{Mode, Running, Way};

    #[test]
    fn the_ways_of_format_1_differ_where_they_should() {
        let block = [7, 8, 9, 10].repeat(256);
        let first = [7; 1024];
        let of = |way: usize, before, bytes: &[u8]| Way::ALL[way].next(before, bytes);
        assert_eq!(of(0, 5, &block), of(0, 6, &first));
        assert_ne!(of(1, 5, &block), of(1, 6, &block));
        assert_eq!(of(2, 5, &block), !crc32fast::hash(&block));
        assert_eq!(of(0, 5, &block), !crc32fast::hash(&first));
        assert_eq!(
            of(3, of(2, 0, &block), &first),
            !crc32fast::hash(&[&block[..], &first].concat())
        );
    }

    #[test]
    fn known_values() {
        let mut crc = Running::new(Mode::Crc32);
        crc.update(b"1234");
        crc.update(b"56789");
        assert!(crc.is(&(!0xcbf4_3926u32).to_le_bytes()));
        let mut xxh = Running::new(Mode::Xxh64);
        assert!(xxh.is(&0xef46_db37_51d8_e999u64.to_le_bytes()));
        xxh.update(b"a");
        assert!(!xxh.is(&0xef46_db37_51d8_e999u64.to_le_bytes()));
    }
}
