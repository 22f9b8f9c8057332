//! `imager sign`.
//!
//! Owns: its options, and that the file stays whole whatever happens. Does not own: where
//! the signature goes (`image::sign`).

use super::partial::PartialFile;
use super::shown::Shown;
use super::{Output, info, key, prompt};
use crate::keyring::{KeySource, Keyring};
use crate::{report, verify_image};
use image::sign;
use serde_json::json;
use std::io::Seek;
use std::path::PathBuf;
use wire::{DiskState, Report};

/// Options of `imager sign`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file; it is replaced by its signed copy
    file: PathBuf,
    /// File with the signing key, as imager key new --signing makes it
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Key file of an encrypted image; the others are those of imager verify
    #[arg(long, value_name = "FILE")]
    image_key: Option<PathBuf>,
    /// File whose first line is the passphrase of an encrypted image
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File with the age identity that opens an encrypted image
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Signs an image, every byte of which is checked before: a signature is somebody's word.
pub fn run(args: &Args) -> Result<Output, Report> {
    let damaged = |e: image::Error| report::image(&e, DiskState::NotInvolved);
    let key = key::read_signing(&args.key)?;
    let source = KeySource {
        file: args.image_key.clone(),
        passphrase_file: args.passphrase_file.clone(),
        identity: args.identity.clone(),
        ask: Some(prompt::ask),
        allow_plain: false,
    };
    let keyring = Keyring::new(None, source);
    let mut file = info::open(&args.file)?;
    let shown = Shown::start("verify", args.quiet);
    let found = verify_image::verify(&file, &keyring, shown.sink())?;
    drop(shown);
    let mut text = format!("Signed by {}\nRoot {}\n", key.public(), found.root.root);
    if found.signatures.iter().any(|s| s.key == key.public()) {
        text.insert_str(0, "The key has signed this image before.\n");
    } else {
        file.rewind().map_err(|e| report::output(&e))?;
        let part = PartialFile::create(&args.file, &[&args.file])?;
        sign::copy_signed(&mut file, &mut part.writer(), &key).map_err(|e| match e {
            image::Error::Io { source, .. } => report::output(&source),
            other => damaged(other),
        })?;
        part.publish(true)?;
    }
    Ok(Output {
        text,
        json: json!({
            "result": "done",
            "signed_by": key.public().to_string(),
            "root": found.root.root.to_hex(),
        }),
        aside: false,
    })
}
