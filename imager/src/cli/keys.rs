//! Options for keys, the same in all commands.
//!
//! Owns: their names and help. Does not own: what keys do (`crate::trust`,
//! `crate::keyring`), asking for a passphrase (`prompt`).

use super::prompt;
use crate::keyring::{KeySource, Keyring, Opened};
use crate::trust;
use std::path::PathBuf;
use wire::Report;

/// Where the key of encrypted images comes from.
#[derive(Clone, clap::Args)]
pub struct SealKeys {
    /// Key file of encrypted images, as imager key new makes it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// File whose first line is the passphrase [default: the variable DEPLOY_PASSPHRASE,
    /// else it is asked for]
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File with the age identity that opens the key
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

impl SealKeys {
    /// What was named.
    pub fn source(&self) -> KeySource {
        KeySource {
            file: self.key.clone(),
            passphrase_file: self.passphrase_file.clone(),
            identity: self.identity.clone(),
            ask: Some(prompt::ask),
            allow_plain: false,
        }
    }

    /// The key that a new image is encrypted with, if one was named.
    ///
    /// # Errors
    /// `image-locked`: it does not open. Nothing is ever made in the clear instead.
    pub fn for_backup(&self) -> Result<Option<Opened>, Report> {
        Keyring::new(None, self.source()).for_backup()
    }
}

/// Options of commands that read an image.
#[derive(Clone, clap::Args)]
pub struct ReadKeys {
    /// Take only an image that was signed with this key: its public half as 64 hexadecimal
    /// digits, or a file that holds them
    #[arg(long, value_name = "FILE|HEX")]
    trusted_key: Option<String>,
    #[command(flatten)]
    seal: SealKeys,
    /// Take an image that is not encrypted, too, although a key is given
    #[arg(long, requires = "key")]
    allow_plain: bool,
}

impl ReadKeys {
    /// The keys that are meant.
    pub fn keyring(&self) -> Result<Keyring, Report> {
        let trusted = self.trusted_key.as_deref().map(trust::named).transpose()?;
        let source = KeySource {
            allow_plain: self.allow_plain,
            ..self.seal.source()
        };
        Ok(Keyring::new(trusted, source))
    }

    /// Whether something was given to open an encrypted image with.
    pub fn opens(&self) -> bool {
        let seal = &self.seal;
        seal.key.is_some()
            || seal.passphrase_file.is_some()
            || seal.identity.is_some()
            || std::env::var_os(crate::keyring::PASSPHRASE_VARIABLE).is_some()
    }
}
