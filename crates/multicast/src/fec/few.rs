//! Getting a few lost symbols back at about the price of making parity.
//!
//! Owns: the linear equations of a whole block with few losses. Does not own: blocks with many
//! losses and the last block, which is shorter ([`super::Decoder`]).
//!
//! Every symbol of parity is a sum of the source symbols, each multiplied by a constant of
//! GF(2^16). Parity made of a block with zeros for what was lost differs from the parity that
//! came by just the lost symbols' part. As many such differences as there are losses are
//! linear equations for them: those of a few losses are solved in no time, and making parity
//! is eight times as fast as the general decoder.

use crate::plan::{PARITY_SYMBOLS, SOURCE_SYMBOLS};
use reed_solomon_simd::ReedSolomonEncoder;
use reed_solomon_simd::engine::tables::{ExpLog, get_exp_log};
use reed_solomon_simd::engine::{DefaultEngine, Engine, GF_MODULUS, GfElement};

/// With more losses the equations cost more than the general decoder.
const MOST: usize = 24;
/// Bytes that the code's programs work on at once: the low bytes of 32 elements, then their
/// high bytes.
const CHUNK: usize = 64;
const SOURCES: usize = SOURCE_SYMBOLS as usize;
const ROWS: usize = PARITY_SYMBOLS as usize;

/// Solves blocks with few losses; keeps its tables and memory.
pub(super) struct Few {
    field: &'static ExpLog,
    engine: DefaultEngine,
    encoder: ReedSolomonEncoder,
    /// By what source symbol `s` is multiplied in parity symbol `p`: at `s * ROWS + p`.
    factors: Vec<GfElement>,
}

impl Few {
    /// Makes the tables, for symbols of that length: a few milliseconds of work.
    pub(super) fn new(symbol_len: usize) -> Option<Self> {
        let field = get_exp_log();
        let one = *field.exp.first()?;
        let [low, high] = one.to_le_bytes();
        let mut unit = [low; CHUNK];
        unit.get_mut(CHUNK / 2..)?.fill(high);
        let mut factors = Vec::with_capacity(SOURCES * ROWS);
        let mut encoder = ReedSolomonEncoder::new(SOURCES, ROWS, CHUNK).ok()?;
        for source in 0..SOURCES {
            for at in 0..SOURCES {
                let symbol = if at == source { unit } else { [0; CHUNK] };
                encoder.add_original_shard(symbol).ok()?;
            }
            let parity = encoder.encode().ok()?;
            for symbol in parity.recovery_iter() {
                let (low, high) = (symbol.first()?, symbol.get(CHUNK / 2)?);
                factors.push(GfElement::from_le_bytes([*low, *high]));
            }
        }
        encoder.reset(SOURCES, ROWS, symbol_len).ok()?;
        Some(Few {
            field,
            engine: DefaultEngine::new(),
            encoder,
            factors,
        })
    }

    /// Whether so many losses of a block of so many symbols are for this.
    pub(super) fn serves(count: usize, lost: usize, symbol_len: usize) -> bool {
        count == SOURCES && lost <= MOST && symbol_len.is_multiple_of(CHUNK)
    }

    /// As [`super::Decoder::restore`]. `None` if the parity is too little, or the same twice;
    /// `source` is then as it was, but for zeros where symbols are lost.
    pub(super) fn restore(
        &mut self,
        source: &mut [u8],
        symbol_len: usize,
        lost: &[usize],
        parity: &[(u16, Vec<u8>)],
    ) -> Option<()> {
        let parity = parity.get(..lost.len())?;
        self.encoder.reset(SOURCES, ROWS, symbol_len).ok()?;
        for (at, symbol) in source.chunks_exact_mut(symbol_len).enumerate() {
            if lost.contains(&at) {
                symbol.fill(0);
            }
            self.encoder.add_original_shard(&*symbol).ok()?;
        }
        let made = self.encoder.encode().ok()?;
        let mut differences = Vec::with_capacity(lost.len());
        for (number, came) in parity {
            let made = made.recovery(usize::from(*number))?;
            let both = came.as_chunks().0.iter().zip(made.as_chunks().0);
            let difference = both.map(|(a, b): (&[u8; CHUNK], &[u8; CHUNK])| sum(a, b));
            differences.push(difference.collect::<Vec<_>>());
        }
        drop(made);
        let rows = parity.iter().map(|(number, _)| usize::from(*number));
        let factors = rows.map(|row| {
            let of = |&source: &usize| self.factors.get(source * ROWS + row).copied();
            lost.iter().map(of).collect::<Option<Vec<_>>>()
        });
        let inverse = self.inverse(factors.collect::<Option<Vec<_>>>()?)?;
        for (&at, factors) in lost.iter().zip(&inverse) {
            let symbol = source.get_mut(at * symbol_len..)?.get_mut(..symbol_len)?;
            for (difference, &factor) in differences.iter().zip(factors) {
                if factor == 0 {
                    continue;
                }
                let mut part = difference.clone();
                let log = *self.field.log.get(usize::from(factor))?;
                self.engine.mul(&mut part, log);
                for (chunk, part) in symbol.as_chunks_mut().0.iter_mut().zip(&part) {
                    *chunk = sum(chunk, part);
                }
            }
        }
        Some(())
    }

    /// The inverse of a square matrix, by rows; `None` if it has none.
    fn inverse(&self, mut left: Vec<Vec<GfElement>>) -> Option<Vec<Vec<GfElement>>> {
        let size = left.len();
        let one = *self.field.exp.first()?;
        let unit = |row: usize| (0..size).map(move |at| if at == row { one } else { 0 });
        let mut right: Vec<Vec<GfElement>> = (0..size).map(|row| unit(row).collect()).collect();
        for at in 0..size {
            let pivot =
                (at..size).find(|&row| left.get(row).is_some_and(|row| row.get(at) != Some(&0)))?;
            left.swap(at, pivot);
            right.swap(at, pivot);
            let factor = self.reciprocal(*left.get(at)?.get(at)?)?;
            self.scale(left.get_mut(at)?, factor);
            self.scale(right.get_mut(at)?, factor);
            let (of_left, of_right) = (left.get(at)?.clone(), right.get(at)?.clone());
            let others = left.iter_mut().zip(&mut right).enumerate();
            for (_, (left, right)) in others.filter(|(row, _)| *row != at) {
                let factor = *left.get(at)?;
                self.add(left, &of_left, factor);
                self.add(right, &of_right, factor);
            }
        }
        Some(right)
    }

    fn scale(&self, row: &mut [GfElement], factor: GfElement) {
        row.iter_mut().for_each(|x| *x = self.product(*x, factor));
    }

    /// Adds the other row, multiplied.
    fn add(&self, row: &mut [GfElement], other: &[GfElement], factor: GfElement) {
        let both = row.iter_mut().zip(other);
        both.for_each(|(x, other)| *x ^= self.product(*other, factor));
    }

    fn product(&self, a: GfElement, b: GfElement) -> GfElement {
        if a == 0 || b == 0 {
            return 0;
        }
        let log = |x: GfElement| {
            self.field
                .log
                .get(usize::from(x))
                .map_or(0, |log| usize::from(*log))
        };
        let power = (log(a) + log(b)) % usize::from(GF_MODULUS);
        self.field.exp.get(power).copied().unwrap_or(0)
    }

    fn reciprocal(&self, x: GfElement) -> Option<GfElement> {
        let log = self.field.log.get(usize::from(x)).filter(|_| x != 0)?;
        let power = usize::from(GF_MODULUS - log) % usize::from(GF_MODULUS);
        self.field.exp.get(power).copied()
    }
}

fn sum(a: &[u8; CHUNK], b: &[u8; CHUNK]) -> [u8; CHUNK] {
    let mut sum = *a;
    sum.iter_mut().zip(b).for_each(|(a, b)| *a ^= b);
    sum
}
