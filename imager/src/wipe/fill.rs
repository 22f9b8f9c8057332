//! What a disk is filled with, and telling whether it holds that.
//!
//! Owns: the bytes of each place. Does not own: writing and reading.

use crate::restore::HEAD_BYTES;
use std::io;
use std::ops::Range;

/// What stands at every place of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros.
    Zeros,
    /// Numbers that look like chance, from a key; and zeros in the first and last MiB, so
    /// that nothing boots from it and a later start sees that a wipe was cut off.
    Noise(u64),
}

impl Fill {
    /// Noise of a new key.
    pub fn new_noise() -> io::Result<Fill> {
        let mut key = [0; 8];
        getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Fill::Noise(u64::from_le_bytes(key)))
    }

    /// Puts into `buf` what stands from byte `at` on, a multiple of 8, of a disk of `size`
    /// bytes.
    pub fn put(self, at: u64, size: u64, buf: &mut [u8]) {
        let Fill::Noise(key) = self else {
            buf.fill(0);
            return;
        };
        let mut words = buf.chunks_exact_mut(8);
        let mut number = at / 8;
        for word in words.by_ref() {
            if let Ok(word) = <&mut [u8; 8]>::try_from(word) {
                *word = noise(key, number);
            }
            number += 1;
        }
        let rest = words.into_remainder();
        for (byte, new) in rest.iter_mut().zip(noise(key, number)) {
            *byte = new;
        }
        for end in ends(size) {
            let from = end.start.clamp(at, at + buf.len() as u64) - at;
            let until = end.end.clamp(at, at + buf.len() as u64) - at;
            if let Some(zeros) = buf.get_mut(from as usize..until as usize) {
                zeros.fill(0);
            }
        }
    }

    /// The first byte of the disk at which `found`, read from byte `at` on, is something
    /// else; `spare` is overwritten.
    pub fn first_difference(
        self,
        at: u64,
        size: u64,
        found: &[u8],
        spare: &mut Vec<u8>,
    ) -> Option<u64> {
        let place = match self {
            Fill::Zeros => first_not_zero(found),
            Fill::Noise(_) => {
                spare.resize(found.len(), 0);
                self.put(at, size, spare);
                first_unlike(found, spare)
            }
        };
        place.map(|place| at + place as u64)
    }
}

/// The first and the last MiB of a disk of that size, where tables and signatures stand.
pub fn ends(size: u64) -> [Range<u64>; 2] {
    let head = HEAD_BYTES.min(size);
    [0..head, size.saturating_sub(HEAD_BYTES)..size]
}

/// SplitMix64, of a key and a place.
fn noise(key: u64, number: u64) -> [u8; 8] {
    let mut z = key.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31).to_le_bytes()
}

/// Bytes that are looked at together: all of them, without a branch for each.
const AT_ONCE: usize = 4096;

/// The first byte that is not 0.
pub fn first_not_zero(bytes: &[u8]) -> Option<usize> {
    let block = bytes
        .chunks(AT_ONCE)
        .position(|block| block.iter().fold(0, |all, byte| all | byte) != 0)?;
    let start = block * AT_ONCE;
    let within = bytes.iter().skip(start).position(|&byte| byte != 0)?;
    Some(start + within)
}

/// The first byte that is another one.
fn first_unlike(a: &[u8], b: &[u8]) -> Option<usize> {
    let unlike = |(a, b): (&[u8], &[u8])| {
        let bits = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
        bits != 0
    };
    let block = a.chunks(AT_ONCE).zip(b.chunks(AT_ONCE)).position(unlike)?;
    let start = block * AT_ONCE;
    let pairs = a.iter().zip(b).skip(start);
    Some(start + pairs.into_iter().position(|(a, b)| a != b)?)
}

/// The first block of 4096 bytes whose bytes are not all the same.
pub fn first_not_uniform(bytes: &[u8]) -> Option<usize> {
    let mixed = |block: &[u8]| {
        let first = block.first().copied().unwrap_or(0);
        block.iter().fold(0, |all, byte| all | (byte ^ first)) != 0
    };
    bytes
        .chunks(AT_ONCE)
        .position(mixed)
        .map(|block| block * AT_ONCE)
}

#[cfg(test)]
mod tests {
    use super::{Fill, first_not_uniform, first_not_zero};
    use crate::restore::HEAD_BYTES;

    const SIZE: u64 = 4 << 20;

    fn all(fill: Fill) -> Vec<u8> {
        let mut disk = vec![1; SIZE as usize + 5];
        fill.put(0, SIZE + 5, &mut disk);
        disk
    }

    #[test]
    fn pieces_make_the_whole() {
        let fill = Fill::Noise(7);
        let whole = all(fill);
        for len in [8_usize, 4096, 65_536, 1 << 20] {
            for at in [0, 1 << 20, (2 << 20) + 4096, (SIZE as usize) - (1 << 20)] {
                let mut piece = vec![0; len];
                fill.put(at as u64, SIZE + 5, &mut piece);
                assert!(piece == whole[at..at + len], "{len} bytes at {at}");
            }
        }
    }

    #[test]
    fn noise_keeps_its_hands_off_both_ends() {
        let disk = all(Fill::Noise(7));
        let head = HEAD_BYTES as usize;
        assert_eq!(first_not_zero(&disk[..head]), None);
        assert_eq!(first_not_zero(&disk[disk.len() - head..]), None);
        let middle = &disk[head..disk.len() - head];
        let zeros = middle.iter().filter(|&&byte| byte == 0).count();
        assert!(zeros < middle.len() / 200, "{zeros} zeros");
        assert!(all(Fill::Noise(8)) != disk);
        // A disk that is nothing but its ends.
        let mut small = vec![1; 4096];
        Fill::Noise(7).put(0, 4096, &mut small);
        assert_eq!(first_not_zero(&small), None);
        assert_ne!(Fill::new_noise().unwrap(), Fill::new_noise().unwrap());
    }

    #[test]
    fn one_wrong_byte_is_found_where_it_is() {
        let mut spare = Vec::new();
        for fill in [Fill::Zeros, Fill::Noise(3)] {
            let disk = all(fill);
            let from = 1 << 20;
            let part = &disk[from..];
            let at = from as u64;
            assert_eq!(fill.first_difference(at, SIZE + 5, part, &mut spare), None);
            for wrong in [0, 4095, 4096, part.len() - 1] {
                let mut bytes = part.to_vec();
                bytes[wrong] ^= 0x10;
                let found = fill.first_difference(at, SIZE + 5, &bytes, &mut spare);
                assert_eq!(found, Some(at + wrong as u64));
            }
        }
    }

    #[test]
    fn blocks_of_one_byte_each_are_uniform() {
        let mut bytes = vec![0; 3 * 4096 + 9];
        bytes[4096..8192].fill(0xff);
        assert_eq!(first_not_uniform(&bytes), None);
        bytes[8191] = 0;
        assert_eq!(first_not_uniform(&bytes), Some(4096));
        assert_eq!(first_not_uniform(&[]), None);
    }
}
