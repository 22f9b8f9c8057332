//! `imager key`.
//!
//! Owns: its options, and how key files are made and read. Does not own: what keys do
//! (`image::signature`).

use super::Output;
use clap::Subcommand;
use image::SigningKey;
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
struct New {
    /// File to make; only its owner can read it
    file: PathBuf,
    /// A key that signs images (Ed25519)
    #[arg(long, required = true)]
    signing: bool,
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
    let internal = |what: String| Report::new(Code::Internal, what, DiskState::NotInvolved);
    let mut seed = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *seed).map_err(|e| internal(format!("random numbers: {e}")))?;
    let key = SigningKey::from_seed(&seed).map_err(|e| internal(e.to_string()))?;
    write(&new.file, key.to_pem().as_bytes())?;
    Ok(shown(&key))
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
