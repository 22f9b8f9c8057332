//! Options for keys, the same in all commands.
//!
//! Owns: their names and help, and asking for a passphrase. Does not own: what keys do
//! (`crate::trust`, `crate::keyring`).

use crate::keyring::{KeySource, Keyring};
use crate::trust;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use wire::{Code, DiskState, Report};
use zeroize::Zeroizing;

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
            ask: Some(ask),
            allow_plain: false,
        }
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

/// Asks on the terminal, without showing what is typed.
///
/// # Errors
/// `image-locked`: there is no terminal.
pub fn ask(what: &str) -> Result<Zeroizing<String>, Report> {
    let failed = |e: std::io::Error| {
        let found = format!("{what} wants a passphrase, and there is no terminal to ask on: {e}");
        Report::new(Code::ImageLocked, found, DiskState::Untouched)
    };
    // Standard input may be an image.
    let tty = File::options()
        .read(true)
        .write(true)
        .open("/dev/tty")
        .map_err(failed)?;
    let before = tcgetattr(&tty).map_err(|e| failed(e.into()))?;
    let mut silent = before.clone();
    silent.local_flags.remove(LocalFlags::ECHO);
    write!(&tty, "Passphrase of {what}: ").map_err(failed)?;
    tcsetattr(&tty, SetArg::TCSAFLUSH, &silent).map_err(|e| failed(e.into()))?;
    let mut line = Zeroizing::new(String::new());
    let read = BufReader::new(&tty).read_line(&mut line);
    let restored = tcsetattr(&tty, SetArg::TCSAFLUSH, &before);
    let _ = writeln!(&tty);
    read.map_err(failed)?;
    restored.map_err(|e| failed(e.into()))?;
    Ok(Zeroizing::new(
        line.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}
