//! Blocks of which some symbols came.
//!
//! Owns: symbols in memory, its limit, and decoding. Does not own: which blocks are wanted.

use crate::fec::Decoder;
use crate::packet::Data;
use crate::plan::{PARITY_SYMBOLS, SOURCE_SYMBOLS};
use std::collections::BTreeMap;

/// Symbols of one block.
struct Partial {
    /// Room for all source symbols.
    source: Vec<u8>,
    /// Which of source and parity symbols came, a bit each.
    has: [u64; (SOURCE_SYMBOLS + PARITY_SYMBOLS) as usize / 64],
    parity: Vec<(u16, Vec<u8>)>,
    symbols: u16,
    came: u16,
}

/// All blocks that are not complete.
pub(super) struct Blocks {
    partials: BTreeMap<u32, Partial>,
    symbol_len: usize,
    bytes: usize,
    decoder: Decoder,
    /// Memory of blocks that are complete, used again.
    spare: Vec<Vec<u8>>,
}

/// What became of a symbol.
pub(super) enum Put {
    /// It is kept, or was there.
    Kept,
    /// It completes its block: the source symbols.
    Complete(Vec<u8>),
    /// With it the block should be complete, and is not: its symbols contradict each other.
    Wrong,
}

impl Blocks {
    pub(super) fn new(symbol_len: usize) -> Self {
        Blocks {
            partials: BTreeMap::new(),
            symbol_len,
            bytes: 0,
            decoder: Decoder::default(),
            spare: Vec::new(),
        }
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has(&self, block: u32) -> bool {
        self.partials.contains_key(&block)
    }

    /// Symbols that a block lacks, if some came.
    pub(super) fn lacks(&self, block: u32) -> Option<u16> {
        let partial = self.partials.get(&block)?;
        Some(partial.symbols.saturating_sub(partial.came).max(1))
    }

    /// The blocks of which some symbols came, ascending.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.partials.keys().copied()
    }

    /// Takes a symbol of a block, whose fields fit the plan.
    pub(super) fn put(&mut self, data: &Data<'_>) -> Put {
        let len = self.symbol_len;
        let room = usize::from(data.source) * len;
        let spare = &mut self.spare;
        let bytes = &mut self.bytes;
        let partial = self.partials.entry(data.block).or_insert_with(|| {
            *bytes += room;
            let mut source = spare.pop().unwrap_or_default();
            source.resize(room, 0);
            Partial {
                source,
                has: Default::default(),
                parity: Vec::new(),
                symbols: data.source,
                came: 0,
            }
        });
        let bit = 1u64 << (data.symbol % 64);
        let Some(word) = partial.has.get_mut(usize::from(data.symbol / 64)) else {
            return Put::Kept;
        };
        if *word & bit != 0 {
            return Put::Kept;
        }
        *word |= bit;
        partial.came += 1;
        match data.symbol.checked_sub(data.source) {
            Some(number) => {
                partial.parity.push((number, data.payload.to_vec()));
                self.bytes += len;
            }
            None => {
                let at = usize::from(data.symbol) * len;
                if let Some(place) = partial.source.get_mut(at..at + len) {
                    place.copy_from_slice(data.payload);
                }
            }
        }
        if partial.came < partial.symbols {
            return Put::Kept;
        }
        let Some(mut partial) = self.drop_block(data.block) else {
            return Put::Kept;
        };
        if partial.parity.is_empty() {
            return Put::Complete(partial.source);
        }
        let has = partial.has;
        let has = |symbol: u16| {
            let word = has.get(usize::from(symbol / 64)).copied().unwrap_or(0);
            word >> (symbol % 64) & 1 != 0
        };
        let decoded = self
            .decoder
            .restore(&mut partial.source, len, has, &partial.parity);
        match decoded {
            Some(()) => Put::Complete(partial.source),
            None => Put::Wrong,
        }
    }

    /// Gives the memory of a block back.
    pub(super) fn give_back(&mut self, source: Vec<u8>) {
        if self.spare.len() < 4 {
            self.spare.push(source);
        }
    }

    /// Forgets the block of which the least came, but not `except`. Whether there was one.
    pub(super) fn evict(&mut self, except: u32) -> bool {
        let least = self
            .partials
            .iter()
            .filter(|&(&block, _)| block != except)
            .min_by_key(|(_, partial)| partial.came)
            .map(|(&block, _)| block);
        least.and_then(|block| self.drop_block(block)).is_some()
    }

    fn drop_block(&mut self, block: u32) -> Option<Partial> {
        let partial = self.partials.remove(&block)?;
        self.bytes -= partial.source.len() + partial.parity.len() * self.symbol_len;
        Some(partial)
    }
}
