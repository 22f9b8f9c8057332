//! What a session sends: records one after another, cut into blocks.
//!
//! Owns: which bytes of which record stand in which block and symbol. Does not own: the
//! records' bytes.
//!
//! The records of a session, in the order of the list that sender and receivers have, make
//! one long run of bytes. It is cut into blocks of [`SOURCE_SYMBOLS`] symbols, the last one
//! shorter; the last symbol of all is filled up with zeros. Cutting at fixed places keeps
//! every block full, so that parity is worth the same everywhere, and both sides compute
//! the place of a block instead of keeping a list of them.

use std::ops::Range;

/// Source symbols of a block, all but the last one. With [`PARITY_SYMBOLS`] they make the
/// 256 that the code works on at its fastest.
pub const SOURCE_SYMBOLS: u16 = 192;
/// Parity symbols that can be made of a block.
pub const PARITY_SYMBOLS: u16 = 64;
/// Longest symbol: with header and tag it fills a packet of 1500 bytes under IPv6 and UDP.
pub const MAX_SYMBOL_LEN: u16 = 1408;
/// Shortest symbol.
pub const MIN_SYMBOL_LEN: u16 = 256;
/// Longest record: a chunk of 4 MiB with header and what encryption adds.
pub const MAX_RECORD_LEN: u32 = (4 << 20) + 4096;

/// Why a list of records cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nothing to send.
    #[error("there are no records")]
    Empty,
    /// A record of a length that none has.
    #[error("record {record} has {length} bytes; 1 to {MAX_RECORD_LEN} are possible")]
    Record {
        /// Its place in the list.
        record: usize,
        /// Its length in bytes.
        length: u32,
    },
    /// More than the numbers of the packets reach.
    #[error("more records or blocks than a session can number")]
    TooLarge,
    /// A symbol length that is not a multiple of 64 between 256 and 1408.
    #[error("symbols of {0} bytes; a multiple of 64 from 256 to 1408 is possible")]
    Symbol(u16),
}

/// Records and blocks of a session; 8 bytes of memory for each record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where each record ends.
    ends: Vec<u64>,
    symbol_len: u16,
    blocks: u32,
}

/// What stands in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockPlace {
    /// Where it begins in the run of all records, in bytes.
    pub start: u64,
    /// Its bytes, without those that fill up the last symbol.
    pub len: u32,
    /// Source symbols.
    pub source: u16,
    /// The record of which its first byte is.
    pub record: u32,
    /// The place of that byte in the record.
    pub offset: u32,
}

impl Plan {
    /// The plan of records of these lengths (header and payload), in bytes.
    ///
    /// # Errors
    /// What cannot be numbered or is no length of a record.
    pub fn new(lengths: impl IntoIterator<Item = u32>, symbol_len: u16) -> Result<Self, PlanError> {
        if !(MIN_SYMBOL_LEN..=MAX_SYMBOL_LEN).contains(&symbol_len)
            || !symbol_len.is_multiple_of(64)
        {
            return Err(PlanError::Symbol(symbol_len));
        }
        let mut end = 0;
        let mut ends = Vec::new();
        for length in lengths {
            if length == 0 || length > MAX_RECORD_LEN {
                return Err(PlanError::Record {
                    record: ends.len(),
                    length,
                });
            }
            // At most 2^32 records of 2^23 bytes.
            end += u64::from(length);
            ends.push(end);
            if ends.len() >= u32::MAX as usize {
                return Err(PlanError::TooLarge);
            }
        }
        if ends.is_empty() {
            return Err(PlanError::Empty);
        }
        let block_len = u64::from(symbol_len) * u64::from(SOURCE_SYMBOLS);
        let blocks = u32::try_from(end.div_ceil(block_len)).map_err(|_| PlanError::TooLarge)?;
        Ok(Plan {
            ends,
            symbol_len,
            blocks,
        })
    }

    /// Number of blocks; at least one.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// Number of records; at least one.
    #[must_use]
    pub fn records(&self) -> u32 {
        // Checked when the plan was made.
        self.ends.len() as u32
    }

    /// Bytes of all records.
    #[must_use]
    pub fn total_len(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Bytes of a symbol.
    #[must_use]
    pub fn symbol_len(&self) -> usize {
        usize::from(self.symbol_len)
    }

    /// Bytes of a whole block.
    #[must_use]
    pub fn block_len(&self) -> usize {
        self.symbol_len() * usize::from(SOURCE_SYMBOLS)
    }

    /// Place of a block, if there is one of that number.
    #[must_use]
    pub fn block(&self, block: u32) -> Option<BlockPlace> {
        if block >= self.blocks {
            return None;
        }
        let start = u64::from(block) * self.block_len() as u64;
        // At most the length of a block: fits.
        let len = (self.total_len() - start).min(self.block_len() as u64) as u32;
        let record = self.record_at(start);
        let offset = start - self.record_range(record).start;
        Some(BlockPlace {
            start,
            len,
            source: len.div_ceil(u32::from(self.symbol_len)) as u16,
            record,
            offset: offset as u32,
        })
    }

    /// The record of which the byte at `at` is; the last one for what lies behind.
    #[must_use]
    pub fn record_at(&self, at: u64) -> u32 {
        let found = self.ends.partition_point(|&end| end <= at);
        found.min(self.ends.len() - 1) as u32
    }

    /// Where a record stands in the run of all; empty for one that is not there.
    #[must_use]
    pub fn record_range(&self, record: u32) -> Range<u64> {
        let at = record as usize;
        let start = at
            .checked_sub(1)
            .and_then(|before| self.ends.get(before))
            .copied()
            .unwrap_or(0);
        start..self.ends.get(at).copied().unwrap_or(start)
    }

    /// The records of which bytes stand in a block.
    #[must_use]
    pub fn records_in(&self, block: u32) -> Range<u32> {
        match self.block(block) {
            None => 0..0,
            Some(place) => {
                let last = self.record_at(place.start + u64::from(place.len) - 1);
                place.record..last + 1
            }
        }
    }

    /// The blocks in which bytes of a record stand.
    #[must_use]
    pub fn blocks_of(&self, record: u32) -> Range<u32> {
        let range = self.record_range(record);
        if range.is_empty() {
            return 0..0;
        }
        let block_len = self.block_len() as u64;
        // Below the number of blocks.
        (range.start / block_len) as u32..((range.end - 1) / block_len) as u32 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn impossible_plans_are_refused() {
        assert_eq!(Plan::new([], 1408), Err(PlanError::Empty));
        for symbol in [0, 64, 255, 257, 1409, 1472] {
            assert_eq!(Plan::new([1], symbol), Err(PlanError::Symbol(symbol)));
        }
        for length in [0, MAX_RECORD_LEN + 1, u32::MAX] {
            let error = PlanError::Record { record: 1, length };
            assert_eq!(Plan::new([1, length], 256), Err(error));
        }
    }

    #[test]
    fn a_block_names_the_record_and_place_of_its_first_byte() {
        let block = 192 * 256;
        let plan = Plan::new([block - 10, 10, 30, 3 * block], 256).unwrap();
        assert_eq!(plan.blocks(), 5);
        let second = plan.block(1).unwrap();
        assert_eq!((second.record, second.offset), (2, 0));
        let third = plan.block(2).unwrap();
        assert_eq!((third.record, third.offset), (3, block - 30));
        let last = plan.block(4).unwrap();
        assert_eq!((last.len, last.source), (30, 1));
        assert_eq!(plan.records_in(0), 0..2);
        assert_eq!(plan.records_in(1), 2..4);
        assert_eq!(plan.blocks_of(3), 1..5);
        assert_eq!(plan.block(5), None);
        assert_eq!(plan.blocks_of(4), 0..0);
    }

    proptest! {
        #[test]
        fn blocks_cover_every_record_once(lengths in prop::collection::vec(1u32..200_000, 1..40)) {
            let plan = Plan::new(lengths.iter().copied(), 256).unwrap();
            let mut at = 0;
            for number in 0..plan.blocks() {
                let place = plan.block(number).unwrap();
                prop_assert_eq!(place.start, at);
                at += u64::from(place.len);
                for record in plan.records_in(number) {
                    prop_assert!(plan.blocks_of(record).contains(&number));
                }
                let range = plan.record_range(place.record);
                prop_assert_eq!(range.start + u64::from(place.offset), place.start);
                prop_assert!(range.contains(&place.start));
            }
            prop_assert_eq!(at, plan.total_len());
            prop_assert_eq!(at, lengths.iter().map(|&l| u64::from(l)).sum::<u64>());
        }
    }
}
