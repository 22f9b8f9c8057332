//! What can be wrong with a foreign image.
//!
//! Owns: the error and its way through [`io::Error`], as which a disk reader has to give
//! it. Does not own: codes and advice (its user's).

use std::io;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is torn, or contradicts itself or its checksums.
    #[error("{what}")]
    Damaged {
        /// What was found, and where: a sentence without a full stop.
        what: String,
    },
    /// It is good as far as can be seen, but has something that is not read.
    #[error("{what}")]
    Unsupported {
        /// What it has: a sentence without a full stop.
        what: String,
        /// What a user can do about it: whole sentences.
        advice: &'static str,
    },
    /// The file does not give its bytes.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// Damage as the end of a function.
    pub(crate) fn damaged<T>(what: impl Into<String>) -> Result<T, Error> {
        Err(Error::Damaged { what: what.into() })
    }

    /// Something that is not read, as the end of a function.
    pub(crate) fn unsupported<T>(
        what: impl Into<String>,
        advice: &'static str,
    ) -> Result<T, Error> {
        Err(Error::Unsupported {
            what: what.into(),
            advice,
        })
    }

    /// The error inside an [`io::Error`] that one became.
    pub fn of(error: &io::Error) -> Option<&Error> {
        error.get_ref()?.downcast_ref()
    }

    /// A read that failed: the end of the file is damage, all else is the medium's.
    pub(crate) fn torn_or_io(error: io::Error, what: impl FnOnce() -> String) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            Error::Damaged { what: what() }
        } else {
            Error::Io(error)
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        match error {
            Error::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}
