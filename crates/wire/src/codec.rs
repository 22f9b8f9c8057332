//! How a backup compresses.
//!
//! Owns: the names of codecs and their levels. Does not own: compressing (`image`).

use serde::{Deserialize, Serialize};

/// How a backup compresses what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Zstandard, levels 1 to 19.
    #[default]
    Zstd,
    /// Deflate, levels 1 to 9.
    Deflate,
    /// Nothing is compressed; the level means nothing.
    None,
}

impl Codec {
    /// The highest level; the lowest is 1.
    pub fn max_level(self) -> i32 {
        match self {
            Codec::Deflate => 9,
            Codec::Zstd | Codec::None => 19,
        }
    }

    /// Whether it need not be said.
    pub(crate) fn is_default(&self) -> bool {
        *self == Codec::default()
    }
}
