//! What can be wrong with an image.
//!
//! Owns: the error kinds of this crate. Does not own: the words for people (the
//! programs' reports).

use crate::seal::KeyId;
use std::io;

/// Failure to read or write an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes could not be read or written at all.
    #[error("{operation}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The bytes are not what the format allows, or a check does not hold.
    #[error("{what} at byte {offset}")]
    Damaged {
        /// What is wrong.
        what: String,
        /// Byte offset in the stream or file (0 if it has none).
        offset: u64,
    },
    /// The image is encrypted with another key.
    #[error("the image is encrypted with key {wanted}, not with {given}")]
    Key {
        /// The key that it wants.
        wanted: KeyId,
        /// The key that was tried.
        given: KeyId,
    },
    /// Made by a newer version of the format.
    #[error("format version {found}, this program knows up to {supported}")]
    Version {
        /// Version in the file.
        found: u16,
        /// Newest known version.
        supported: u16,
    },
}

impl Error {
    /// A [`Error::Damaged`] at `offset`.
    pub fn damaged(what: impl Into<String>, offset: u64) -> Self {
        Error::Damaged {
            what: what.into(),
            offset,
        }
    }

    /// An [`Error::Io`]; an early end of the data is damage, since every length is known.
    /// An early end with a cause inside (a connection that broke) stays an [`Error::Io`].
    pub fn io(operation: &'static str, source: io::Error, offset: u64) -> Self {
        if source.kind() == io::ErrorKind::UnexpectedEof && source.get_ref().is_none() {
            Error::damaged(format!("the data ends too early ({operation})"), offset)
        } else {
            Error::Io { operation, source }
        }
    }
}
