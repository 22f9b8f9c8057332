//! A set of numbers below a limit, a bit each.
//!
//! Owns: the set. Does not own: what the numbers mean.

/// A set of numbers from 0 to a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bits {
    words: Vec<u64>,
    len: u32,
    count: u32,
}

impl Bits {
    /// The empty set of numbers below `len`.
    #[must_use]
    pub fn none(len: u32) -> Self {
        Bits {
            words: vec![0; (len as usize).div_ceil(64)],
            len,
            count: 0,
        }
    }

    /// The set of all numbers below `len`.
    #[must_use]
    pub fn all(len: u32) -> Self {
        let mut bits = Bits::none(len);
        bits.words.fill(u64::MAX);
        if let Some(last) = bits.words.last_mut().filter(|_| !len.is_multiple_of(64)) {
            *last = (1 << (len % 64)) - 1;
        }
        bits.count = len;
        bits
    }

    /// The set that [`Bits::to_bytes`] gave; `None` if it is not one of numbers below `len`.
    #[must_use]
    pub fn from_bytes(bytes: &[u8], len: u32) -> Option<Self> {
        let mut bits = Bits::none(len);
        if bytes.len() != (len as usize).div_ceil(8) {
            return None;
        }
        for (word, bytes) in bits.words.iter_mut().zip(bytes.chunks(8)) {
            *word = bytes
                .iter()
                .rev()
                .fold(0, |word, &byte| word << 8 | u64::from(byte));
        }
        bits.count = bits.words.iter().map(|word| word.count_ones()).sum();
        let past = bits.next(len).is_some();
        (!past).then_some(bits)
    }

    /// A byte for each eight numbers, the least significant bit first.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let bytes = self.words.iter().flat_map(|word| word.to_le_bytes());
        bytes.take((self.len as usize).div_ceil(8)).collect()
    }

    /// The limit.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the limit, not the count")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether a number is in the set.
    #[must_use]
    pub fn has(&self, number: u32) -> bool {
        self.words
            .get(number as usize / 64)
            .is_some_and(|word| word >> (number % 64) & 1 != 0)
    }

    /// Puts a number into the set; one past the limit is left out. Whether it is new.
    pub fn insert(&mut self, number: u32) -> bool {
        let new = number < self.len && !self.has(number);
        if let Some(word) = self.words.get_mut(number as usize / 64).filter(|_| new) {
            *word |= 1 << (number % 64);
            self.count += 1;
        }
        new
    }

    /// Takes a number out of the set. Whether it was there.
    pub fn remove(&mut self, number: u32) -> bool {
        let had = self.has(number);
        if let Some(word) = self.words.get_mut(number as usize / 64).filter(|_| had) {
            *word &= !(1 << (number % 64));
            self.count -= 1;
        }
        had
    }

    /// How many numbers are in the set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The least number of the set that is at least `from`.
    #[must_use]
    pub fn next(&self, from: u32) -> Option<u32> {
        let mut at = from as usize / 64;
        let mut word = self.words.get(at)? & (u64::MAX << (from % 64));
        while word == 0 {
            at += 1;
            word = *self.words.get(at)?;
        }
        Some(at as u32 * 64 + word.trailing_zeros())
    }

    /// The numbers of the set, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        let mut from = Some(0);
        std::iter::from_fn(move || {
            let found = self.next(from?)?;
            from = found.checked_add(1);
            Some(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(len in 1u32..300, steps in prop::collection::vec((any::<bool>(), 0u32..320), 0..200)) {
            let (mut bits, mut set) = (Bits::none(len), BTreeSet::new());
            for (put, number) in steps {
                if put {
                    prop_assert_eq!(bits.insert(number), number < len && set.insert(number));
                } else {
                    prop_assert_eq!(bits.remove(number), set.remove(&number));
                }
                prop_assert_eq!(bits.count() as usize, set.len());
            }
            prop_assert!(bits.iter().eq(set.iter().copied()));
            let bytes = bits.to_bytes();
            prop_assert_eq!(Bits::from_bytes(&bytes, len), Some(bits));
            prop_assert!(Bits::all(len).iter().eq(0..len));
            prop_assert_eq!(Bits::all(len).count(), len);
        }

        #[test]
        fn bytes_that_are_no_set_are_none(bytes in prop::collection::vec(any::<u8>(), 0..20), len in 0u32..170) {
            match Bits::from_bytes(&bytes, len) {
                Some(bits) => prop_assert_eq!(bits.to_bytes(), bytes),
                None => {
                    let past = |at: usize| at >= len as usize && bytes[at / 8] >> (at % 8) & 1 == 1;
                    let fits = bytes.len() == (len as usize).div_ceil(8);
                    prop_assert!(!fits || (0..bytes.len() * 8).any(past));
                }
            }
        }
    }
}
