//! `imager export`.
//!
//! Owns: its options, the choice of the format by the name, and what it says. Does not
//! own: the formats (`crate::export`).

use super::keys::ReadKeys;
use super::partial::PartialFile;
use super::shown::Shown;
use super::{Output, opened, print_warnings, warnings_json};
use crate::export::{self, Format};
use crate::{bad_ranges, source, trust};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Instant;
use wire::{Code, DiskState, Report, size};

/// Options of `imager export`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file; it is only read
    image: PathBuf,
    /// File to make
    out: PathBuf,
    /// Format; without it, what the file's name ends with: .raw or .img, .qcow2, .vhdx
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Makes a virtual machine's disk of an image.
pub fn run(args: &Args) -> Result<Output, Report> {
    let format = args.format.or_else(|| Format::of_name(&args.out));
    let format = format.ok_or_else(|| {
        let found = format!("the name {} tells no format", args.out.display());
        Report::new(Code::Usage, found, DiskState::NotInvolved)
            .with_advice("Say it: --format raw, qcow2 or vhdx.")
    })?;
    refuse_taken_name(args)?;
    let image = opened::open(&args.image, &args.keys)?;
    let warnings = opened::warnings(&image);
    print_warnings(&warnings);

    let started = Instant::now();
    let shown = Shown::start("export", args.quiet);
    let part = PartialFile::create(&args.out, &[&args.image])?;
    let length = export::write(&image, format, part.writer(), shown.sink())?;
    part.publish(args.overwrite)?;
    drop(shown);
    let seconds = started.elapsed().as_secs_f64();
    // Blocks of 512 bytes whatever the file system's are.
    let taken = std::fs::metadata(&args.out).map_or(length, |there| there.blocks() * 512);
    let layout = image.layout();
    let sectors = layout.disk.sector_size;
    let hint = if sectors != 512 && format != Format::Vhdx {
        format!(
            "The file does not say that sectors have {sectors} bytes: tell the virtual machine.\n"
        )
    } else {
        String::new()
    };
    Ok(Output {
        text: format!(
            "Export done: disk of {} as {}, {} on the disk, in {}.\n{hint}",
            size::bytes(layout.disk.size_bytes),
            format.as_str(),
            size::bytes(taken),
            size::duration(seconds.round() as u64),
        ),
        json: json!({
            "result": bad_ranges::result(image.bad()),
            "format": format.as_str(),
            "disk_bytes": layout.disk.size_bytes,
            "sector_size": sectors,
            "used_bytes": image.root().plain_bytes,
            "file_bytes": length,
            "allocated_bytes": taken,
            "partial": layout.is_partial(),
            "bad_ranges": bad_ranges::json(layout, image.bad()),
            "root": image.root().root.to_hex(),
            "signed_by": trust::json(image.signatures()),
            "seconds": seconds,
            "warnings": warnings_json(&warnings),
        }),
        aside: false,
    })
}

fn refuse_taken_name(args: &Args) -> Result<(), Report> {
    let Ok(there) = std::fs::symlink_metadata(&args.out) else {
        return Ok(());
    };
    let out = args.out.display();
    let (found, advice) = if source::is_same_file(&args.out, &args.image) {
        (format!("{out} is the image itself"), "Choose another name.")
    } else if !there.is_file() {
        let advice = "Name a file to make. An image is written to a disk with imager restore.";
        (format!("{out} is no regular file"), advice)
    } else if !args.overwrite {
        let advice = "Choose another name, or add --overwrite.";
        (format!("{out} is there already"), advice)
    } else {
        return Ok(());
    };
    Err(Report::new(Code::ImageExists, found, DiskState::NotInvolved).with_advice(advice))
}
