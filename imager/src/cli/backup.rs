//! `imager backup`.
//!
//! Owns: its options, and the refusal of disks in use. Does not own: the copying
//! (`crate::backup`), the file under its name (`partial`).

use super::keys::SealKeys;
use super::partial::{PartialFile, failed};
use super::shown::Shown;
use super::{Output, print_warnings, warnings_json};
use crate::backup::{Options, Plan, container};
use crate::partitions::Given;
use crate::progress::Silent;
use crate::{bad_ranges, disks, in_use, machine, report, sectors, source};
use blockdev::Kind;
use image::record::Compression;
use serde_json::json;
use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use wire::{Code, DiskState, Report, size};

/// Options of `imager backup`.
#[derive(clap::Args)]
pub struct Args {
    /// Block device or raw image file; or number, serial number or WWN of a disk
    disk: PathBuf,
    /// Image file to make; `-` is standard output
    file: PathBuf,
    /// Copy only this partition, by its number; may be given several times. More may be
    /// asked of it: NUMBER,guid=GUID,start=BYTES,type=TYPE
    #[arg(long = "partition", value_name = "NUMBER")]
    partitions: Vec<Given>,
    /// Copy every sector instead of the used ones, of the whole disk or (--full=NUMBER) of
    /// one partition
    #[arg(
        long,
        value_name = "NUMBER",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0"
    )]
    full: Vec<u32>,
    /// Go on past sectors that cannot be read: they become zeros and are recorded in the
    /// image
    #[arg(long)]
    skip_bad: bool,
    /// Refuse damaged or unclean file systems instead of copying them whole
    #[arg(long)]
    strict: bool,
    /// Go on although the disk is in use: partitions that something writes to are copied
    /// sector by sector, and may be torn
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
    /// Sector size of a raw image file (a device knows its own)
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

impl Args {
    /// Whether the image goes to standard output.
    pub fn to_stdout(&self) -> bool {
        self.file.as_os_str() == "-"
    }
}

/// Makes an image.
pub fn run(args: &Args) -> Result<Output, Report> {
    let disk = &disks::find(&args.disk, disks::list)?;
    let options = Options {
        full: args.full.contains(&0),
        full_partitions: args.full.iter().copied().filter(|&n| n > 0).collect(),
        only: args
            .partitions
            .iter()
            .map(|given| given.0.clone())
            .collect(),
        skip_bad: args.skip_bad,
        in_use: args.force,
        strict: args.strict,
        seal: args.keys.for_backup()?,
        compression: compression(&args.codec, args.level)?,
        ..Options::default()
    };
    let device = source::open(disk, args.sector_size)?;
    if !args.force {
        in_use::refuse_if_written(disk)?;
    }
    let to_stdout = args.to_stdout();
    let in_place = !to_stdout && may_write_in_place(args, disk)?;
    let info = in_use::identify(disk)?;
    let plan = Plan::make(&device, &info, machine::describe(), &options, &Silent)?;
    if args.sector_size.is_none() && device.kind() == Kind::File {
        sectors::refuse_doubtful(&device, &plan.map)?;
    }
    let mut warnings = plan.warnings();
    print_warnings(&warnings);

    let started = Instant::now();
    let shown = Shown::start("backup", args.quiet);
    let written = if to_stdout {
        container::write(&device, &plan, &options, std::io::stdout(), shown.sink())?.1
    } else if in_place {
        let out = File::options().write(true).open(&args.file);
        let out = out.map_err(|e| failed(&args.file, &e))?;
        container::write(&device, &plan, &options, out, shown.sink())?.1
    } else {
        let part = PartialFile::create(&args.file, &[disk])?;
        let out = BufWriter::with_capacity(256 << 10, part.writer());
        let (out, written) = container::write(&device, &plan, &options, out, shown.sink())?;
        out.into_inner().map_err(|e| report::output(e.error()))?;
        part.publish(args.overwrite)?;
        written
    };
    drop(shown);
    let lost = bad_ranges::warning_of_backup(&plan.layout, &written.bad);
    print_warnings(lost.as_slice());
    let complete = lost.is_none();
    warnings.extend(lost);
    let seconds = started.elapsed().as_secs_f64();
    Ok(Output {
        text: format!(
            "Backup done{}: {} used of {}, image of {} in {}.\nRoot {}\n",
            if complete {
                ""
            } else {
                ", but not all of it could be read"
            },
            size::bytes(plan.used_bytes()),
            size::bytes(device.size_bytes()),
            size::bytes(written.bytes),
            size::duration(seconds.round() as u64),
            written.root.root
        ),
        json: json!({
            "result": bad_ranges::result(&written.bad),
            "disk_bytes": device.size_bytes(),
            "used_bytes": plan.used_bytes(),
            "image_bytes": written.bytes,
            "chunks": written.root.chunks,
            "root": written.root.root.to_hex(),
            "seconds": seconds,
            "bad_ranges": bad_ranges::json(&plan.layout, &written.bad),
            "warnings": warnings_json(&warnings),
        }),
        aside: to_stdout,
    })
}

/// Whether the image is written into what stands under its name, which is right for pipes
/// and the like: they are not replaced. Everything else is made beside it first.
fn may_write_in_place(args: &Args, disk: &Path) -> Result<bool, Report> {
    let file = &args.file;
    let Ok(there) = std::fs::metadata(file) else {
        return Ok(false);
    };
    let kind = there.file_type();
    if kind.is_fifo() || kind.is_char_device() {
        return Ok(true);
    }
    let refuse = |code, found: String| Report::new(code, found, DiskState::NotInvolved);
    if !kind.is_file() {
        let found = format!("{} is a folder or a disk", file.display());
        return Err(refuse(Code::ImageExists, found).with_advice("Choose another name."));
    }
    if args.overwrite && source::is_same_file(file, disk) {
        let found = format!("{} is the disk itself", file.display());
        return Err(refuse(Code::ImageExists, found).with_advice("Choose another name."));
    }
    if !args.overwrite {
        let found = format!("{} is there already", file.display());
        let advice = "Choose another name, or add --overwrite.";
        return Err(refuse(Code::ImageExists, found).with_advice(advice));
    }
    Ok(false)
}

pub(super) fn compression(codec: &str, level: i32) -> Result<Compression, Report> {
    match codec {
        "none" => Ok(Compression::None),
        "zstd" => Ok(Compression::Zstd(level)),
        _ => match u32::try_from(level) {
            Ok(level @ 1..=9) => Ok(Compression::Deflate(level)),
            _ => {
                let found = format!("level {level}; deflate has levels 1 to 9");
                Err(Report::new(Code::Usage, found, DiskState::NotInvolved))
            }
        },
    }
}
