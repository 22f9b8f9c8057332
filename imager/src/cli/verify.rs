//! `imager verify`.
//!
//! Owns: its options. Does not own: the check (`crate::verify_image`).

use super::keys::ReadKeys;
use super::shown::Shown;
use super::{Output, info, print_warnings};
use crate::{bad_ranges, trust, verify_image};
use serde_json::json;
use std::path::PathBuf;
use wire::{Report, size};

/// Options of `imager verify`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Checks every byte of an image.
pub fn run(args: &Args) -> Result<Output, Report> {
    let keyring = args.keys.keyring()?;
    let shown = Shown::start("verify", args.quiet);
    let found = if args.file.as_os_str() == "-" {
        verify_image::verify(std::io::stdin(), &keyring, shown.sink())?
    } else {
        verify_image::verify(info::open(&args.file)?, &keyring, shown.sink())?
    };
    drop(shown);
    let root = found.root;
    let lost = bad_ranges::warning_of_image(&found.layout, &found.bad);
    print_warnings(lost.as_slice());
    Ok(Output {
        text: format!(
            "The image is {}: {} in {} chunks, every byte checked.\nRoot {}\n{}",
            if lost.is_some() {
                "what was written, but not all of its disk"
            } else {
                "good"
            },
            size::bytes(root.plain_bytes),
            root.chunks,
            root.root,
            trust::lines(&found.signatures, keyring.trusted)
        ),
        json: json!({
            "result": bad_ranges::result(&found.bad),
            "bad_ranges": bad_ranges::json(&found.layout, &found.bad),
            "used_bytes": root.plain_bytes,
            "chunks": root.chunks,
            "root": root.root.to_hex(),
            "signed_by": trust::json(&found.signatures),
        }),
        aside: false,
    })
}
