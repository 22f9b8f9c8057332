//! Which blocks of a disk have a place in a file, and where.
//!
//! Owns: a bit for each block, and its position among those that are there. Does not own:
//! what the blocks are called in a format.

use crate::report;
use image::open::{OpenImage, ReadAt};
use wire::{DiskState, Report};

/// Words of 64 blocks between two remembered positions.
const STRIDE: usize = 8;

/// Blocks that hold used bytes; they stand in the file in the order of the disk.
pub(super) struct Allocation {
    block: u64,
    first: u64,
    bits: Vec<u64>,
    /// Blocks before each run of `STRIDE` words.
    before: Vec<u64>,
}

impl Allocation {
    /// The blocks of `block` bytes that the image's used ranges touch. The caller limits
    /// their number: a bit is kept for each.
    pub(super) fn of<S: ReadAt>(image: &OpenImage<S>, block: u64) -> Result<Self, Report> {
        let blocks = image.disk_size().div_ceil(block);
        let mut bits = vec![0u64; blocks.div_ceil(64) as usize];
        for range in image.used(0) {
            let range = range.map_err(|e| report::image(&e, DiskState::NotInvolved))?;
            for number in range.start / block..=(range.end() - 1) / block {
                bits[(number / 64) as usize] |= 1 << (number % 64);
            }
        }
        let mut sum = 0;
        let before = bits
            .chunks(STRIDE)
            .map(|words| {
                let here = sum;
                sum += words.iter().map(|w| u64::from(w.count_ones())).sum::<u64>();
                here
            })
            .collect();
        Ok(Allocation {
            block,
            first: 0,
            bits,
            before,
        })
    }

    /// Sets the offset in the file at which the first block stands.
    pub(super) fn begin_at(&mut self, first: u64) {
        self.first = first;
    }

    /// Number of blocks that have a place.
    pub(super) fn count(&self) -> u64 {
        let words = self.bits.iter();
        words.map(|word| u64::from(word.count_ones())).sum()
    }

    /// Whether any block of these words of 64 blocks has a place.
    pub(super) fn any(&self, words: std::ops::Range<u64>) -> bool {
        let end = self.bits.len().min(words.end as usize);
        let words = self.bits.get(words.start as usize..end);
        words.is_some_and(|words| words.iter().any(|&word| word != 0))
    }

    fn has(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok();
        let word = word.and_then(|word| self.bits.get(word));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Offset of a block in the file.
    pub(super) fn block_at(&self, number: u64) -> Option<u64> {
        if !self.has(number) {
            return None;
        }
        let word = (number / 64) as usize;
        let run = word / STRIDE;
        let full = self.bits[run * STRIDE..word].iter();
        let below = self.bits[word] & ((1 << (number % 64)) - 1);
        let position = self.before[run]
            + full.map(|w| u64::from(w.count_ones())).sum::<u64>()
            + u64::from(below.count_ones());
        Some(self.first + position * self.block)
    }

    /// Where the byte `at` of the disk stands, and how many of its block are left.
    pub(super) fn place(&self, at: u64) -> Option<(u64, u64)> {
        let within = at % self.block;
        let block = self.block_at(at / self.block)?;
        Some((block + within, self.block - within))
    }
}
