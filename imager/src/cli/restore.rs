//! `imager restore`.
//!
//! Owns: its options, what is shown before, the confirmation, and saving the old
//! tables. Does not own: the checks and the writing (`crate::restore`).

use super::keys::ReadKeys;
use super::shown::Shown;
use super::{Output, info, print_warnings, warnings_json};
use crate::keyring::Keyring;
use crate::progress::{ProgressSink, Silent};
use crate::restore::stream::ContainerSource;
use crate::restore::{self, Guard, Plan, Restored, Source, show};
use crate::{bad_ranges, disks, in_use, machine, old_tables, report, source, trust};
use blockdev::{Device, Kind};
use image::Layout;
use serde_json::json;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use wire::{
    Code, DiskState, GrowChoice, PartitionChoice, PartitionPair, Report, RestoreScope, size,
};

/// Options of `imager restore`.
#[derive(Clone, clap::Args)]
pub struct Args {
    /// Image file; `-` is standard input
    file: PathBuf,
    #[command(flatten)]
    pub to: To,
}

/// Where an image is written to, and how: the same wherever it comes from.
#[derive(Clone, clap::Args)]
pub struct To {
    /// Block device or raw image file to overwrite (a file that is not there is made); or
    /// number, serial number or WWN of a disk
    disk: PathBuf,
    /// Do not ask before a block device is overwritten
    #[arg(long)]
    yes: bool,
    /// Do not read back what was written
    #[arg(long)]
    no_verify: bool,
    /// Hash what the disk holds, and write only what differs; nothing is discarded. What an
    /// interrupted restore wrote counts too
    #[arg(long)]
    reuse: bool,
    /// Where the old partition tables of a block device are saved ("none": nowhere)
    #[arg(long, value_name = "FILE")]
    save_tables: Option<PathBuf>,
    /// Sector size of a raw image file (a device knows its own)
    #[arg(long, value_name = "BYTES")]
    sector_size: Option<u32>,
    /// Restore only this partition of the image, into the disk's of the same number or (N=M)
    /// into another one; with ,guid=...,start=...,type=... only if that is so of the disk's;
    /// may be given several times
    #[arg(long, value_name = "N[=M]")]
    partition: Vec<PartitionPair>,
    /// Leave this partition of the disk as it is; with ,guid=... and so on as above; may be
    /// given several times
    #[arg(long, value_name = "N", conflicts_with = "partition")]
    keep: Vec<PartitionChoice>,
    /// Let this partition grow into the free space behind it, or up to the size of the one
    /// it goes to
    #[arg(long, value_name = "N|last")]
    grow: Option<GrowChoice>,
    /// Leave hidden partitions out of the numbering, in all options
    #[arg(long)]
    number_visible: bool,
    #[command(flatten)]
    keys: ReadKeys,
    /// Show what would be done, and do nothing
    #[arg(long)]
    plan: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Writes an image to a disk.
pub fn run(args: &Args) -> Result<Output, Report> {
    let to = args.to.named()?;
    let keyring = to.keyring()?;
    let from_stdin = args.file.as_os_str() == "-";
    let input: Box<dyn Read + Send> = if from_stdin {
        Box::new(std::io::stdin())
    } else {
        let mut file = info::open(&args.file)?;
        if file.metadata().is_ok_and(|m| m.is_file()) {
            // All that can be seen without reading every record, before anything is written.
            let damaged = |e: image::Error| report::image(&e, DiskState::Untouched);
            let mut found = image::structure::read(&mut file).map_err(damaged)?;
            if let Some(key) = keyring.for_image(&found.layout)? {
                found.unlock(&key).map_err(damaged)?;
            }
            trust::demand(keyring.trusted, &found.signatures, DiskState::Untouched)?;
        }
        Box::new(file)
    };
    let input: Box<dyn Read + Send> = Box::new(BufReader::with_capacity(256 << 10, input));
    let mut image = ContainerSource::open(input, &keyring)?;
    write(&to, Some(&args.file), &mut image, |job, image| {
        restore::run(
            job.device,
            job.path,
            image,
            job.guard,
            job.options,
            job.progress,
        )
    })
}

/// A restore that may begin.
pub(super) struct Job<'a> {
    pub device: Device,
    pub path: &'a Path,
    pub guard: &'a mut dyn Guard,
    pub options: &'a restore::Options,
    pub progress: &'a dyn ProgressSink,
}

/// Writes an image of any source (`file`, if it is one) by `run`, or only shows the plan.
pub(super) fn write<S: Source>(
    args: &To,
    file: Option<&Path>,
    image: &mut S,
    run: impl FnOnce(Job<'_>, &mut S) -> Result<Restored, Report>,
) -> Result<Output, Report> {
    let from_stdin = file.is_some_and(|file| file.as_os_str() == "-");
    let layout = image.layout().clone();
    let scope = args.scope();
    refuse_the_image(args, file)?;
    if args.plan {
        return plan(args, &layout, &scope);
    }
    let (device, made) = open(args, &layout, &scope)?;
    let misfit = misfit(&device, &layout, &scope);
    let started = Instant::now();
    let shown = Shown::start("restore", args.quiet);
    let mut guard = CliGuard {
        args,
        layout: &layout,
        from_stdin,
    };
    let options = restore::Options {
        verify: !args.no_verify,
        scope,
        reuse: args.reuse,
    };
    let job = Job {
        device,
        path: &args.disk,
        guard: &mut guard,
        options: &options,
        progress: shown.sink(),
    };
    let done = run(job, image)?;
    drop(shown);
    if let Some(made) = made {
        made.keep();
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut warnings: Vec<Report> = misfit.into_iter().collect();
    warnings.extend(done.warnings);
    let lost = bad_ranges::warning_of_image(&layout, &done.bad);
    let is_whole = lost.is_none();
    warnings.extend(lost);
    print_warnings(&warnings);
    let grown = done.grown.iter().map(|grown| format!("Note: {grown}.\n"));
    Ok(Output {
        text: format!(
            "Restore done{}: {} written to {}{}{} in {}.\n{}",
            if is_whole {
                ""
            } else {
                ", but not all of it was in the image"
            },
            size::bytes(done.written_bytes),
            args.disk.display(),
            if args.reuse {
                format!(
                    ", which held {} of the image already",
                    size::bytes(done.skipped_bytes)
                )
            } else {
                String::new()
            },
            if done.verified {
                ", read back and found right"
            } else {
                "; it was NOT read back"
            },
            size::duration(seconds.round() as u64),
            grown.collect::<String>(),
        ),
        json: json!({
            "result": bad_ranges::result(&done.bad),
            "bad_ranges": bad_ranges::json(&layout, &done.bad),
            "used_bytes": done.written_bytes + done.skipped_bytes,
            "written_bytes": done.written_bytes,
            "skipped_bytes": done.skipped_bytes,
            "verified": done.verified,
            "root": done.root.root.to_hex(),
            "seconds": seconds,
            "grown": done.grown,
            "warnings": warnings_json(&warnings),
        }),
        aside: false,
    })
}

impl To {
    /// The same with the disk that was meant by a number or name.
    pub(super) fn named(&self) -> Result<To, Report> {
        Ok(To {
            disk: disks::find(&self.disk, disks::list)?,
            ..self.clone()
        })
    }

    /// The keys that are meant.
    pub(super) fn keyring(&self) -> Result<Keyring, Report> {
        self.keys.keyring()
    }

    /// What of the disk is replaced.
    fn scope(&self) -> RestoreScope {
        RestoreScope {
            partitions: self.partition.clone(),
            keep: self.keep.clone(),
            grow: self.grow,
            number_visible: self.number_visible,
        }
    }
}

/// Shows what a restore would do. The disk is opened for reading only.
fn plan(args: &To, layout: &Layout, scope: &RestoreScope) -> Result<Output, Report> {
    let untouched = |r: Report| Report {
        disk: DiskState::Untouched,
        ..r
    };
    let mut device = blockdev::Device::open_read(&args.disk)
        .map_err(|e| report::open(&e, DiskState::Untouched))?;
    source::settle_sector_size(&mut device, args.sector_size, Some(layout.disk.sector_size))?;
    let plan = restore::plan(layout, &device, scope).map_err(untouched)?;
    restore::refuse_if_used(&args.disk, &plan)?;
    let disk = in_use::identify(&args.disk)?;
    let view = view(&plan, layout, &disk, &device, scope);
    Ok(Output {
        text: view.text(),
        json: view.json(),
        aside: false,
    })
}

fn view<'a>(
    plan: &'a Plan,
    layout: &'a Layout,
    disk: &'a wire::DiskInfo,
    device: &Device,
    scope: &RestoreScope,
) -> show::View<'a> {
    show::View {
        plan,
        layout,
        disk,
        map: show::look(device, &Silent),
        warnings: misfit(device, layout, scope).into_iter().collect(),
    }
}

/// What is told of an image of another kind of machine: a warning here, where the disk may
/// be one of that other machine. A raw file may be for any machine.
fn misfit(device: &Device, layout: &Layout, scope: &RestoreScope) -> Option<Report> {
    let now = || show::look(device, &Silent).filter(|_| scope.is_default());
    (device.kind() == Kind::Block)
        .then(|| machine::misfit(layout, now().as_ref()))
        .flatten()
}

/// A file that was made for the restore; it goes again on failure.
struct Made(PathBuf);

impl Made {
    /// The restore is complete: what was made stays.
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Half a disk in a file that was not there before helps nobody.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn refuse_the_image(args: &To, file: Option<&Path>) -> Result<(), Report> {
    if !file.is_some_and(|file| source::is_same_file(&args.disk, file)) {
        return Ok(());
    }
    let found = format!("{} is the image itself", args.disk.display());
    Err(Report::new(Code::DiskInUse, found, DiskState::Untouched)
        .with_advice("Name the disk that is to be overwritten."))
}

/// Opens the disk that is overwritten.
fn open(
    args: &To,
    layout: &Layout,
    scope: &RestoreScope,
) -> Result<(Device, Option<Made>), Report> {
    let path = &args.disk;
    // A device that is not there must not become a file in memory; nor has a new file
    // partitions to restore into.
    let in_dev = path.starts_with("/dev") && !path.starts_with("/dev/shm");
    let is_new = !path.exists() && !in_dev && scope.partitions.is_empty();
    let (mut device, made) = if is_new {
        let device = Device::create_file(path, layout.disk.size_bytes)
            .map_err(|e| report::open(&e, DiskState::Untouched))?;
        (device, Some(Made(path.clone())))
    } else {
        (restore::open(path, scope)?, None)
    };
    source::settle_sector_size(&mut device, args.sector_size, Some(layout.disk.sector_size))?;
    Ok((device, made))
}

struct CliGuard<'a> {
    args: &'a To,
    layout: &'a Layout,
    from_stdin: bool,
}

impl Guard for CliGuard<'_> {
    fn before_write(&mut self, device: &Device, plan: &Plan) -> Result<(), Report> {
        if device.kind() == Kind::File {
            return Ok(());
        }
        if !self.args.yes {
            self.confirm(device, plan)?;
        }
        match &self.args.save_tables {
            Some(path) if path.as_os_str() == "none" => Ok(()),
            Some(path) => self.save_tables(device, path),
            None => {
                let stamp = crate::clock::now_rfc3339().replace(':', "");
                let name = self
                    .args
                    .disk
                    .file_name()
                    .unwrap_or_default()
                    .to_string_lossy();
                self.save_tables(
                    device,
                    Path::new(&format!("old-tables-{name}-{stamp}.json")),
                )
            }
        }
    }
}

impl CliGuard<'_> {
    fn confirm(&self, device: &Device, plan: &Plan) -> Result<(), Report> {
        let refuse =
            |found: &str| Err(Report::new(Code::NotConfirmed, found, DiskState::Untouched));
        if self.from_stdin || !std::io::stdin().is_terminal() {
            return refuse("there is no terminal to ask on");
        }
        let disk = in_use::identify(&self.args.disk)?;
        eprint!(
            "\n{}",
            view(plan, self.layout, &disk, device, &self.args.scope()).text()
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

    fn save_tables(&self, device: &Device, path: &Path) -> Result<(), Report> {
        let old = old_tables::read(device, in_use::identify(&self.args.disk)?);
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
