//! Parity: more symbols of a block than it has, any of which stands for any that is lost.
//!
//! Owns: making parity and getting lost symbols back. Does not own: how many are sent, the
//! short way where few are lost ([`few`]).
//!
//! Reed-Solomon: a block of k source symbols comes back from any k of its k + 64 symbols.
//! All 64 are made at once the first time that one is wanted.

mod few;

use crate::plan::{PARITY_SYMBOLS, SOURCE_SYMBOLS};
use few::Few;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

/// Makes parity; keeps its tables and memory.
#[derive(Default)]
pub(crate) struct Encoder(Option<ReedSolomonEncoder>);

/// Gets symbols back; keeps its tables and memory.
#[derive(Default)]
pub(crate) struct Decoder {
    few: Option<Few>,
    many: Option<ReedSolomonDecoder>,
}

impl Encoder {
    /// All parity symbols of a block one after another into `parity`; `source` is the
    /// source symbols, each of `symbol_len` bytes. `None` for what is no block.
    pub(crate) fn parity(
        &mut self,
        source: &[u8],
        symbol_len: usize,
        parity: &mut Vec<u8>,
    ) -> Option<()> {
        parity.clear();
        let count = source.len() / symbol_len;
        let rows = usize::from(PARITY_SYMBOLS);
        match &mut self.0 {
            Some(encoder) => encoder.reset(count, rows, symbol_len).ok()?,
            slot => *slot = Some(ReedSolomonEncoder::new(count, rows, symbol_len).ok()?),
        }
        let encoder = self.0.as_mut()?;
        for symbol in source.chunks_exact(symbol_len) {
            encoder.add_original_shard(symbol).ok()?;
        }
        let result = encoder.encode().ok()?;
        result
            .recovery_iter()
            .for_each(|symbol| parity.extend_from_slice(symbol));
        Some(())
    }
}

impl Decoder {
    /// Fills in the source symbols of `source` that `has` does not have, from parity
    /// symbols (number and bytes). `None` if they are too few.
    pub(crate) fn restore(
        &mut self,
        source: &mut [u8],
        symbol_len: usize,
        has: impl Fn(u16) -> bool,
        parity: &[(u16, Vec<u8>)],
    ) -> Option<()> {
        let count = source.len() / symbol_len;
        if count == 0 || count > usize::from(SOURCE_SYMBOLS) {
            return None;
        }
        let lost: Vec<usize> = (0..count).filter(|&at| !has(at as u16)).collect();
        if Few::serves(count, lost.len(), symbol_len) {
            if self.few.is_none() {
                self.few = Few::new(symbol_len);
            }
            let few = self.few.as_mut();
            if few.is_some_and(|few| few.restore(source, symbol_len, &lost, parity).is_some()) {
                return Some(());
            }
        }
        self.restore_many(source, symbol_len, has, parity)
    }

    fn restore_many(
        &mut self,
        source: &mut [u8],
        symbol_len: usize,
        has: impl Fn(u16) -> bool,
        parity: &[(u16, Vec<u8>)],
    ) -> Option<()> {
        let count = source.len() / symbol_len;
        let rows = usize::from(PARITY_SYMBOLS);
        match &mut self.many {
            Some(decoder) => decoder.reset(count, rows, symbol_len).ok()?,
            slot => *slot = Some(ReedSolomonDecoder::new(count, rows, symbol_len).ok()?),
        }
        let decoder = self.many.as_mut()?;
        for (at, symbol) in source.chunks_exact(symbol_len).enumerate() {
            if has(at as u16) {
                decoder.add_original_shard(at, symbol).ok()?;
            }
        }
        for (number, symbol) in parity {
            decoder
                .add_recovery_shard(usize::from(*number), symbol)
                .ok()?;
        }
        let result = decoder.decode().ok()?;
        for (at, symbol) in source.chunks_exact_mut(symbol_len).enumerate() {
            if !has(at as u16) {
                symbol.copy_from_slice(result.restored_original(at)?);
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(numbers: &[usize]) -> Vec<usize> {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_symbols_in_the_number_of_the_source_suffice(
            count in prop_oneof![1usize..=192, Just(192)], lost in prop_oneof![1usize..=64, 1usize..=3, 23usize..=26],
            len in prop_oneof![Just(64usize), Just(256), Just(1408)], seed in any::<u64>(),
        ) {
            let lost = lost.min(count);
            let mut source = vec![0; count * len];
            blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut source);
            let mut parity = Vec::new();
            Encoder::default().parity(&source, len, &mut parity).unwrap();
            prop_assert_eq!(parity.len(), 64 * len);
            // Lost ones and parity that came are taken from places that the seed gives.
            let first = seed as usize % count;
            let gone: Vec<usize> = (0..lost).map(|n| (first + n) % count).collect();
            let kept: Vec<(u16, Vec<u8>)> = (0..lost)
                .map(|n| (seed as usize / 7 + n) % 64)
                .map(|n| (n as u16, parity[n * len..(n + 1) * len].to_vec()))
                .collect();
            let mut damaged = source.clone();
            gone.iter().for_each(|&n| damaged[n * len..(n + 1) * len].fill(0xEE));
            let has = |n: u16| !gone.contains(&usize::from(n));
            let mut decoder = Decoder::default();
            prop_assert!(decoder.restore(&mut damaged.clone(), len, has, &kept[1..]).is_none());
            let mut again = damaged.clone();
            if count == 192 && lost <= 24 {
                let mut few = damaged.clone();
                Few::new(len).unwrap().restore(&mut few, len, &sorted(&gone), &kept).unwrap();
                prop_assert!(few == source);
            }
            decoder.restore(&mut damaged, len, has, &kept).unwrap();
            prop_assert!(damaged == source);
            decoder.restore_many(&mut again, len, has, &kept).unwrap();
            prop_assert!(again == source);
            // The same symbol of parity twice is one.
            if lost > 1 {
                let mut twice = kept.clone();
                twice[1] = kept[0].clone();
                prop_assert!(decoder.restore(&mut again, len, has, &twice).is_none());
            }
        }
    }
}
