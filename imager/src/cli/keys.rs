//! Options for keys, the same in all commands.
//!
//! Owns: their names and help. Does not own: what keys do (`crate::trust`).

use crate::keyring::Keyring;
use crate::trust;
use wire::Report;

/// Options of commands that read an image.
#[derive(Clone, clap::Args)]
pub struct ReadKeys {
    /// Take only an image that was signed with this key: its public half as 64 hexadecimal
    /// digits, or a file that holds them
    #[arg(long, value_name = "FILE|HEX")]
    trusted_key: Option<String>,
}

impl ReadKeys {
    /// The keys that are meant.
    pub fn keyring(&self) -> Result<Keyring, Report> {
        let trusted = self.trusted_key.as_deref().map(trust::named).transpose()?;
        Ok(Keyring { trusted })
    }
}
