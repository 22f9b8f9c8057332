//! The secret of encrypted images in a file that only a passphrase or an identity opens.
//!
//! Owns: the part of the age format, version 1, that a file of 32 bytes needs: passphrase
//! (scrypt) and X25519 stanzas, ASCII armor, `age1...` and `AGE-SECRET-KEY-1...` texts. So
//! every age program reads these files and makes them. Does not own: what the secret is
//! used for (`image::seal`), or where files and passphrases come from.
//!
//! Every function is total on any input; secrets are wiped from memory when dropped.

mod format;
mod keys;
mod wrap;

pub use keys::{Identity, Recipient};
pub use wrap::{unwrap, wrap};
use zeroize::Zeroizing;

/// The secret: 32 random bytes.
pub type Secret = Zeroizing<[u8; 32]>;

/// What opens a file, or what a new one is opened by.
pub enum Lock<'a> {
    /// A passphrase.
    Passphrase(&'a str),
    /// Whoever has one of the identities to these recipients.
    Recipients(&'a [Recipient]),
}

/// What a file is opened with.
pub enum Opener<'a> {
    /// The passphrase.
    Passphrase(&'a str),
    /// Identities, one of which may be that of a recipient.
    Identities(&'a [Identity]),
}

/// What a file asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A passphrase.
    Passphrase,
    /// An identity.
    Identity,
}

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text is no file of this kind.
    #[error("this is no key file: {0}")]
    NotAKeyFile(&'static str),
    /// A passphrase or identity that does not open it.
    #[error("{0} does not open the key")]
    Wrong(&'static str),
    /// A recipient or identity that is none.
    #[error("{0}")]
    BadKey(&'static str),
    /// The system gives no random numbers.
    #[error("no random numbers: {0}")]
    Random(String),
}

/// What the key file asks for.
///
/// # Errors
/// [`Error::NotAKeyFile`].
pub fn wants(text: &str) -> Result<Wants, Error> {
    let file = format::parse(text)?;
    Ok(match file.stanzas.first().map(|s| s.kind.as_str()) {
        Some("scrypt") => Wants::Passphrase,
        _ => Wants::Identity,
    })
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes).map_err(|e| Error::Random(e.to_string()))?;
    Ok(bytes)
}

/// A new secret.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_secret() -> Result<Secret, Error> {
    random()
}
