//! `imager shrink`.
//!
//! Owns: its options and what it says. Does not own: how it is done (`crate::shrink`).

use super::keys::ReadKeys;
use super::partial::PartialFile;
use super::shown::Shown;
use super::{Output, info, print_warnings, warnings_json};
use crate::{report, shrink};
use serde_json::json;
use std::io::{BufReader, BufWriter};
use std::path::PathBuf;
use std::time::Instant;
use wire::{Code, DiskState, Report, size};

/// Options of `imager shrink`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file of the larger disk; it is only read
    file: PathBuf,
    /// Image file to make
    out: PathBuf,
    /// Size in bytes of the disk that the new image is for; without it, the smallest
    #[arg(long, value_name = "BYTES")]
    to: Option<u64>,
    /// Folder with room for everything that is used in the image; that of an encrypted image
    /// stands there in the clear meanwhile
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp")]
    scratch: PathBuf,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Makes an image for a smaller disk.
pub fn run(args: &Args) -> Result<Output, Report> {
    if args.out.exists() {
        let found = format!("{} is there already", args.out.display());
        return Err(
            Report::new(Code::ImageExists, found, DiskState::NotInvolved)
                .with_advice("Choose another name."),
        );
    }
    let keyring = args.keys.keyring()?;
    let file = info::open(&args.file)?;
    let started = Instant::now();
    let shown = Shown::start("shrink", args.quiet);
    let part = PartialFile::create(&args.out, &[&args.file])?;
    let out = BufWriter::with_capacity(256 << 10, part.writer());
    let input = Box::new(BufReader::with_capacity(256 << 10, file));
    let (out, done) = shrink::run(input, &keyring, args.to, &args.scratch, out, shown.sink())?;
    out.into_inner().map_err(|e| report::output(e.error()))?;
    part.publish(false)?;
    drop(shown);
    print_warnings(&done.warnings);
    let seconds = started.elapsed().as_secs_f64();
    Ok(Output {
        text: format!(
            "Shrink done: partition {} went from {} to {}; the new image is for disks of at least {} ({} bytes); {}.\n",
            done.number,
            size::bytes(done.partition.0),
            size::bytes(done.partition.1),
            size::bytes(done.disk.1),
            done.disk.1,
            size::duration(seconds.round() as u64),
        ),
        json: json!({
            "result": "done",
            "partition": done.number,
            "partition_bytes_before": done.partition.0,
            "partition_bytes": done.partition.1,
            "disk_bytes_before": done.disk.0,
            "disk_bytes": done.disk.1,
            "image_bytes": done.image.bytes,
            "root": done.image.root.root.to_hex(),
            "seconds": seconds,
            "warnings": warnings_json(&done.warnings),
        }),
        aside: false,
    })
}
