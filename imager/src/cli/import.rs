//! `imager import`.
//!
//! Owns: its options and what it says. Does not own: the import (`crate::import`).

use super::backup::compression;
use super::keys::SealKeys;
use super::partial::PartialFile;
use super::shown::Shown;
use super::{Output, print_warnings, warnings_json};
use crate::import::{self, Format, Imported};
use crate::{backup, report, source};
use serde_json::json;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Instant;
use wire::{Code, DiskState, Report, size};

/// Options of `imager import`.
#[derive(clap::Args)]
pub struct Args {
    /// Image of another program: a raw disk, a qcow2 file, a partclone image or a folder of
    /// Clonezilla; it is only read
    source: PathBuf,
    /// Image file to make
    file: PathBuf,
    /// Format of the source; without it, what its bytes say
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Read the files, too, on which a qcow2 image stands. Their names come from the image:
    /// use it only with images that you trust
    #[arg(long)]
    backing: bool,
    /// Disk of a Clonezilla folder that has several, by its name there
    #[arg(long, value_name = "NAME")]
    disk: Option<String>,
    /// Folder with room for everything that is used in a source that has to be put together
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp")]
    scratch: PathBuf,
    /// Copy every sector instead of the used ones
    #[arg(long)]
    full: bool,
    /// Refuse damaged or unclean file systems instead of copying them whole
    #[arg(long)]
    strict: bool,
    /// Go on although something may write to the source: its maps are not trusted, every
    /// sector is copied, and the image says that it may be torn
    #[arg(long)]
    force: bool,
    /// Replace the image file if it is there
    #[arg(long)]
    overwrite: bool,
    /// Compression: zstd, deflate or none
    #[arg(long, default_value = "zstd", value_parser = ["zstd", "deflate", "none"])]
    codec: String,
    /// Level of the compression (zstd 1 to 19, deflate 1 to 9)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=19))]
    level: i32,
    /// Sector size of the disk, if it is neither 512 nor that of a GPT
    #[arg(long, value_name = "BYTES")]
    sector_size: Option<u32>,
    #[command(flatten)]
    keys: SealKeys,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Makes an image of another program's.
pub fn run(args: &Args) -> Result<Output, Report> {
    refuse_taken_name(args)?;
    let options = import::Options {
        format: args.format,
        disk: args.disk.clone(),
        backing: args.backing,
        outputs: vec![args.file.clone(), PartialFile::beside(&args.file)],
        scratch: args.scratch.clone(),
        sector_size: args.sector_size,
        backup: backup::Options {
            full: args.full,
            strict: args.strict,
            in_use: args.force,
            seal: args.keys.for_backup()?,
            compression: compression(&args.codec, args.level)?,
            ..backup::Options::default()
        },
    };
    let started = Instant::now();
    let shown = Shown::start("import", args.quiet);
    let source: Imported = import::open(&args.source, &options, shown.sink())?;
    let (plan, warnings) = import::plan(&source, &args.source, &options, shown.sink())?;
    print_warnings(&warnings);
    let part = PartialFile::create(&args.file, &[&args.source])?;
    let out = BufWriter::with_capacity(256 << 10, part.writer());
    let (out, written) = import::write(&source, &plan, &options, out, shown.sink())?;
    out.into_inner().map_err(|e| report::output(e.error()))?;
    part.publish(args.overwrite)?;
    drop(shown);
    let seconds = started.elapsed().as_secs_f64();
    let disk_bytes = source.disk().size_bytes();
    Ok(Output {
        text: format!(
            "Import done: {} used of a disk of {} ({}), image of {} in {}.\nRoot {}\n",
            size::bytes(plan.used_bytes()),
            size::bytes(disk_bytes),
            source.format().as_str(),
            size::bytes(written.bytes),
            size::duration(seconds.round() as u64),
            written.root.root
        ),
        json: json!({
            "result": "done",
            "format": source.format().as_str(),
            "disk_bytes": disk_bytes,
            "sector_size": source.disk().sector_size(),
            "used_bytes": plan.used_bytes(),
            "image_bytes": written.bytes,
            "chunks": written.root.chunks,
            "root": written.root.root.to_hex(),
            "seconds": seconds,
            "warnings": warnings_json(&warnings),
        }),
        aside: false,
    })
}

fn refuse_taken_name(args: &Args) -> Result<(), Report> {
    let Ok(there) = std::fs::symlink_metadata(&args.file) else {
        return Ok(());
    };
    let out = args.file.display();
    let (found, advice) = if source::is_same_file(&args.file, &args.source) {
        (
            format!("{out} is the source itself"),
            "Choose another name.",
        )
    } else if !there.is_file() {
        (format!("{out} is no regular file"), "Choose another name.")
    } else if !args.overwrite {
        let advice = "Choose another name, or add --overwrite.";
        (format!("{out} is there already"), advice)
    } else {
        return Ok(());
    };
    Err(Report::new(Code::ImageExists, found, DiskState::NotInvolved).with_advice(advice))
}
