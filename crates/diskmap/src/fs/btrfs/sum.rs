//! The checksums that Btrfs knows.
//!
//! Owns: which there are and where they stand. Does not own: what is done about a
//! wrong one.

use crate::bytes::le16;
use crate::checksum::crc32c;
use blake2::Blake2b;
use blake2::digest::consts::U32;
use sha2::{Digest, Sha256};
use twox_hash::XxHash64;

/// Bytes kept for the checksum at the start of every superblock and tree node.
const FIELD: usize = 32;

/// A kind of checksum; the superblock names one for the whole file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    Crc32c,
    XxHash64,
    Sha256,
    Blake2b,
}

impl Sum {
    /// The kind that a superblock names; `None` if it is not known.
    pub fn named_in(superblock: &[u8]) -> Option<Sum> {
        match le16(superblock, 0xc4)? {
            0 => Some(Sum::Crc32c),
            1 => Some(Sum::XxHash64),
            2 => Some(Sum::Sha256),
            3 => Some(Sum::Blake2b),
            _ => None,
        }
    }

    /// Whether a superblock or tree node has the checksum that it says.
    pub fn matches(self, block: &[u8]) -> bool {
        let Some((said, rest)) = block.split_at_checked(FIELD) else {
            return false;
        };
        match self {
            Sum::Crc32c => said.starts_with(&(!crc32c(!0, rest)).to_le_bytes()),
            Sum::XxHash64 => said.starts_with(&XxHash64::oneshot(0, rest).to_le_bytes()),
            Sum::Sha256 => said == Sha256::digest(rest).as_slice(),
            Sum::Blake2b => said == Blake2b::<U32>::digest(rest).as_slice(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Sum;

    /// The well-known values of "abc".
    #[test]
    fn known_values() {
        let known = [
            (Sum::Crc32c, "b73f4b36"),
            (Sum::XxHash64, "990977adf52cbc44"),
            (
                Sum::Sha256,
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                Sum::Blake2b,
                "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319",
            ),
        ];
        for (sum, value) in known {
            let value = hex::decode(value).unwrap();
            let mut block = [0u8; 35];
            block[..value.len()].copy_from_slice(&value);
            block[32..].copy_from_slice(b"abc");
            assert!(sum.matches(&block), "{sum:?}");
            block[value.len() - 1] ^= 1;
            assert!(!sum.matches(&block), "{sum:?}");
        }
        assert!(!Sum::Crc32c.matches(&[0; 31]));
    }
}
