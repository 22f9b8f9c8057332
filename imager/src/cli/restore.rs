//! `imager restore`.
//!
//! Owns: its options, what is shown before, the confirmation, and saving the old
//! tables. Does not own: the checks and the writing (`crate::restore`).

use super::shown::Shown;
use super::{Output, info, print_warnings, warnings_json};
use crate::restore::stream::ContainerSource;
use crate::restore::{self, Guard, Plan, Source};
use crate::{bad_ranges, in_use, old_tables, report, source};
use blockdev::{Device, Kind};
use image::Layout;
use serde_json::json;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use wire::{Code, DiskState, Report, size};

/// Options of `imager restore`.
#[derive(clap::Args)]
pub struct Args {
    /// Image file; `-` is standard input
    file: PathBuf,
    /// Block device or raw image file to overwrite (a file that is not there is made)
    disk: PathBuf,
    /// Do not ask before a block device is overwritten
    #[arg(long)]
    yes: bool,
    /// Do not read back what was written
    #[arg(long)]
    no_verify: bool,
    /// Where the old partition tables of a block device are saved ("none": nowhere)
    #[arg(long, value_name = "FILE")]
    save_tables: Option<PathBuf>,
    /// Sector size of a raw image file (a device knows its own)
    #[arg(long, value_name = "BYTES")]
    sector_size: Option<u32>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Writes an image to a disk.
pub fn run(args: &Args) -> Result<Output, Report> {
    let from_stdin = args.file.as_os_str() == "-";
    let input: Box<dyn Read + Send> = if from_stdin {
        Box::new(std::io::stdin())
    } else {
        let mut file = info::open(&args.file)?;
        if file.metadata().is_ok_and(|m| m.is_file()) {
            // All that can be seen without reading every record, before anything is written.
            image::structure::read(&mut file)
                .map_err(|e| report::image(&e, DiskState::Untouched))?;
        }
        Box::new(file)
    };
    let mut image = ContainerSource::open(BufReader::with_capacity(256 << 10, input))?;
    let target = Target::open(args, image.layout())?;
    let started = Instant::now();
    let shown = Shown::start("restore", args.quiet);
    let layout = image.layout().clone();
    let mut guard = CliGuard {
        args,
        target: &target,
        layout: &layout,
        from_stdin,
    };
    let options = restore::Options {
        verify: !args.no_verify,
    };
    let done = restore::run(
        &target.device,
        &args.disk,
        &mut image,
        &mut guard,
        options,
        shown.sink(),
    )?;
    drop(shown);
    target.keep();
    let seconds = started.elapsed().as_secs_f64();
    let lost = bad_ranges::warning_of_image(&layout, &done.bad);
    print_warnings(lost.as_slice());
    Ok(Output {
        text: format!(
            "Restore done{}: {} written to {}{} in {}.\n",
            if lost.is_some() {
                ", but not all of it was in the image"
            } else {
                ""
            },
            size::bytes(done.root.plain_bytes),
            args.disk.display(),
            if done.verified {
                ", read back and found right"
            } else {
                "; it was NOT read back"
            },
            size::duration(seconds.round() as u64),
        ),
        json: json!({
            "result": bad_ranges::result(&done.bad),
            "bad_ranges": bad_ranges::json(&layout, &done.bad),
            "warnings": warnings_json(lost.as_slice()),
            "used_bytes": done.root.plain_bytes,
            "verified": done.verified,
            "root": done.root.root.to_hex(),
            "seconds": seconds,
        }),
        aside: false,
    })
}

/// The disk that is overwritten; a file that was made for it goes again on failure.
struct Target {
    device: Device,
    made: Option<Made>,
}

struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        // Half a disk in a file that was not there before helps nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Target {
    fn open(args: &Args, layout: &Layout) -> Result<Self, Report> {
        let path = &args.disk;
        let failed = |e: &blockdev::Error| report::open(e, DiskState::Untouched);
        if source::is_same_file(path, &args.file) {
            let found = format!("{} is the image itself", path.display());
            return Err(Report::new(Code::DiskInUse, found, DiskState::Untouched)
                .with_advice("Name the disk that is to be overwritten."));
        }
        // A device that is not there must not become a file in memory.
        let in_dev = path.starts_with("/dev") && !path.starts_with("/dev/shm");
        if !path.exists() && !in_dev {
            let mut device =
                Device::create_file(path, layout.disk.size_bytes).map_err(|e| failed(&e))?;
            let made = Some(Made(path.clone()));
            source::settle_sector_size(
                &mut device,
                args.sector_size,
                Some(layout.disk.sector_size),
            )?;
            return Ok(Target { device, made });
        }
        in_use::refuse_if_held(path)?;
        let mut device = Device::open_write(path).map_err(|e| failed(&e))?;
        source::settle_sector_size(&mut device, args.sector_size, Some(layout.disk.sector_size))?;
        Ok(Target { device, made: None })
    }

    /// The restore is complete: what was made stays.
    fn keep(self) {
        if let Some(made) = self.made {
            std::mem::forget(made);
        }
    }
}

struct CliGuard<'a> {
    args: &'a Args,
    target: &'a Target,
    layout: &'a Layout,
    from_stdin: bool,
}

impl Guard for CliGuard<'_> {
    fn before_write(&mut self, plan: &Plan) -> Result<(), Report> {
        if self.target.device.kind() == Kind::File {
            return Ok(());
        }
        if !self.args.yes {
            self.confirm(plan)?;
        }
        match &self.args.save_tables {
            Some(path) if path.as_os_str() == "none" => Ok(()),
            Some(path) => self.save_tables(path),
            None => {
                let stamp = crate::clock::now_rfc3339().replace(':', "");
                let name = self
                    .args
                    .disk
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy();
                self.save_tables(Path::new(&format!("old-tables-{name}-{stamp}.json")))
            }
        }
    }
}

impl CliGuard<'_> {
    fn confirm(&self, plan: &Plan) -> Result<(), Report> {
        let refuse =
            |found: &str| Err(Report::new(Code::NotConfirmed, found, DiskState::Untouched));
        if self.from_stdin || !std::io::stdin().is_terminal() {
            return refuse("there is no terminal to ask on");
        }
        let info = in_use::identify(&self.args.disk)?;
        eprintln!("\nEVERYTHING on this disk will be replaced:");
        eprintln!(
            "  {}  {}  {}  serial {}",
            info.path,
            size::bytes(info.size_bytes),
            info.model,
            if info.serial.is_empty() {
                "-"
            } else {
                &info.serial
            }
        );
        if let Ok(map) = diskmap::scan(
            &source::Reader(&self.target.device),
            source::geometry(&self.target.device),
            &diskmap::ScanOptions::default(),
        ) {
            eprint!("now:  {}", crate::map::text(&self.args.disk, &map));
        }
        eprintln!(
            "then: the image of {} made {}, {} used, {} table, {} partitions",
            crate::map::printable(&self.layout.machine.name, 40),
            crate::map::printable(&self.layout.created, 40),
            size::bytes(self.layout.used_bytes()),
            self.layout.table.kind,
            plan.areas.len()
        );
        eprint!("Type yes to go on: ");
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        if read.is_ok() && answer.trim().eq_ignore_ascii_case("yes") {
            Ok(())
        } else {
            refuse("the answer was not yes")
        }
    }

    fn save_tables(&self, path: &Path) -> Result<(), Report> {
        let old = old_tables::read(&self.target.device, in_use::identify(&self.args.disk)?);
        let failed = |e: std::io::Error| {
            Report::new(
                Code::OutputFailed,
                format!("saving the old partition tables to {}: {e}", path.display()),
                DiskState::Untouched,
            )
            .with_advice("Name another file with --save-tables FILE, or --save-tables none.")
        };
        let json = serde_json::to_vec_pretty(&old).map_err(|e| failed(e.into()))?;
        std::fs::File::create_new(path)
            .and_then(|mut file| file.write_all(&json))
            .map_err(failed)?;
        std::fs::File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(failed)?;
        eprintln!("The old partition tables were saved to {}.", path.display());
        Ok(())
    }
}
