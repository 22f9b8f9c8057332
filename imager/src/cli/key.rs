//! `imager key`.
//!
//! Owns: its options, and how key files are made and read. Does not own: what keys do
//! (`image::signature`).

use super::{Output, prompt};
use crate::keyring;
use clap::Subcommand;
use image::{ImageKey, SigningKey};
use keyfile::{Identity, Lock, Recipient};
use serde_json::json;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report};
use zeroize::Zeroizing;

/// Longest key file.
const MAX_FILE: u64 = 64 << 10;

/// Options of `imager key`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a key
    New(New),
    /// Show the public half of a key
    Show(Show),
}

/// Options of `imager key new`.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("kind").required(true)
    .args(["signing", "passphrase", "recipient", "identity"]))]
struct New {
    /// File to make; only its owner can read it
    file: PathBuf,
    /// A key that signs images (Ed25519)
    #[arg(long)]
    signing: bool,
    /// A key that encrypts images, opened by a passphrase
    #[arg(long)]
    passphrase: bool,
    /// File whose first line is the passphrase [default: the variable DEPLOY_PASSPHRASE,
    /// else it is asked for]
    #[arg(long, value_name = "FILE", requires = "passphrase")]
    passphrase_file: Option<PathBuf>,
    /// A key that encrypts images, opened by the identity of this recipient (age1...); may
    /// be given several times
    #[arg(long, value_name = "AGE1")]
    recipient: Vec<String>,
    /// An age identity, which opens keys that were made for its recipient
    #[arg(long)]
    identity: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Options of `imager key show`.
#[derive(clap::Args)]
struct Show {
    /// Key file
    file: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Whether JSON is asked for.
    pub fn wants_json(&self) -> bool {
        match &self.command {
            Command::New(new) => new.json,
            Command::Show(show) => show.json,
        }
    }
}

/// Makes or shows a key.
pub fn run(args: &Args) -> Result<Output, Report> {
    match &args.command {
        Command::New(new) => make(new),
        Command::Show(show) => Ok(shown(&read_signing(&show.file)?)),
    }
}

fn make(new: &New) -> Result<Output, Report> {
    if !new.signing {
        return make_other(new);
    }
    let internal = |what: String| Report::new(Code::Internal, what, DiskState::NotInvolved);
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|e| internal(format!("random numbers: {e}")))?;
    let key = SigningKey::from_seed(&seed).map_err(|e| internal(e.to_string()))?;
    write(&new.file, key.to_pem().as_bytes())?;
    Ok(shown(&key))
}

/// A key of encrypted images, or an identity.
fn make_other(new: &New) -> Result<Output, Report> {
    let wrong = |e: keyfile::Error| Report::new(Code::Usage, e.to_string(), DiskState::NotInvolved);
    if new.identity {
        let identity = Identity::generate().map_err(wrong)?;
        let text = Zeroizing::new(format!("{}\n", *identity.to_text()));
        write(&new.file, text.as_bytes())?;
        let recipient = identity.recipient().to_text();
        return Ok(Output {
            text: format!("{recipient}\n"),
            json: json!({ "kind": "identity", "recipient": recipient }),
            aside: false,
        });
    }
    let secret = keyfile::new_secret().map_err(wrong)?;
    let wrapped = if new.passphrase {
        let passphrase = new_passphrase(new)?;
        keyfile::wrap(&secret, &Lock::Passphrase(&passphrase))
    } else {
        let list: Result<Vec<_>, _> = new.recipient.iter().map(|t| Recipient::parse(t)).collect();
        keyfile::wrap(&secret, &Lock::Recipients(&list.map_err(wrong)?))
    };
    write(&new.file, wrapped.map_err(wrong)?.as_bytes())?;
    let id = ImageKey::new(&secret).id().to_string();
    Ok(Output {
        text: format!("{id}\n"),
        json: json!({ "kind": "encryption", "key_id": id }),
        aside: false,
    })
}

fn new_passphrase(new: &New) -> Result<Zeroizing<String>, Report> {
    let found = match &new.passphrase_file {
        Some(path) => {
            let text = keyring::read(path)?;
            Zeroizing::new(text.lines().next().unwrap_or_default().to_owned())
        }
        None => match std::env::var(keyring::PASSPHRASE_VARIABLE) {
            Ok(text) => Zeroizing::new(text),
            Err(_) => {
                let (first, again) = (
                    prompt::ask("the new key")?,
                    prompt::ask("the new key, again")?,
                );
                if first != again {
                    let found = "the two passphrases differ";
                    return Err(Report::new(Code::Usage, found, DiskState::NotInvolved));
                }
                first
            }
        },
    };
    if found.is_empty() {
        let found = "the passphrase is empty";
        return Err(Report::new(Code::Usage, found, DiskState::NotInvolved));
    }
    Ok(found)
}

fn shown(key: &SigningKey) -> Output {
    Output {
        text: format!("{}\n", key.public()),
        json: json!({ "kind": "signing", "public_key": key.public().to_string() }),
        aside: false,
    }
}

/// Writes a key into a new file that only its owner can read.
fn write(path: &Path, content: &[u8]) -> Result<(), Report> {
    let failed = |e: std::io::Error| {
        let code = match e.kind() {
            std::io::ErrorKind::AlreadyExists => Code::ImageExists,
            _ => Code::OutputFailed,
        };
        let found = format!("{}: {e}", path.display());
        Report::new(code, found, DiskState::NotInvolved)
            .with_advice("Choose another name; a key is never overwritten.")
    };
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let mut file = file.map_err(failed)?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

/// Reads a signing key.
///
/// # Errors
/// `usage`: the file cannot be read, or holds something else.
pub fn read_signing(path: &Path) -> Result<SigningKey, Report> {
    let wrong = |e: std::io::Error| {
        let found = format!("{}: {e}", path.display());
        Report::new(Code::Usage, found, DiskState::NotInvolved)
            .with_advice("Name the file that imager key new --signing made.")
    };
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(wrong)?;
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(wrong)?;
    SigningKey::from_pem(&text).map_err(wrong)
}
