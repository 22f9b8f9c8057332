//! The command line.
//!
//! Owns: commands, options, exit codes, and how results and failures are printed. Does
//! not own: the work.

mod backup;
mod cat;
mod diff;
mod discover;
mod disks;
mod export;
mod extract;
mod import;
mod info;
mod inside;
mod key;
mod keys;
mod ls;
mod map;
mod media;
mod nbd;
mod opened;
mod partial;
mod prompt;
mod receive;
mod restore;
mod send;
mod shown;
mod shrink;
mod sign;
mod signals;
mod target;
mod verify;
mod volume;
mod wipe;

use crate::report::{EXIT_DIFFERENT, EXIT_DONE, EXIT_FAILED, exit_code};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use wire::{Code, DiskState, Report};

/// Backs up and restores disks: used sectors where the file system is understood, all
/// sectors otherwise.
#[derive(Parser)]
#[command(name = "imager", version, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed while working, 2 wrong usage, \
    3 refused by a check (nothing was written), 4 the images of diff differ.";

#[derive(Subcommand)]
enum Command {
    /// List the disks of this machine
    Disks(disks::Args),
    /// Show what is on a disk, what would be copied, and why
    Map(map::Args),
    /// Make an image of a disk
    Backup(backup::Args),
    /// Write an image to a disk
    Restore(restore::Args),
    /// Make everything on a disk unreadable, and prove it
    Wipe(wipe::Args),
    /// Send an image to many machines at once, by multicast and without a server
    Send(send::Args),
    /// Write the image that a machine sends by multicast to a disk
    Receive(receive::Args),
    /// Make an image for a smaller disk from one of a larger disk (ext2, ext3, ext4)
    Shrink(shrink::Args),
    /// Make a virtual machine's disk of an image: raw, qcow2 or VHDX
    Export(export::Args),
    /// Make an image of another program's: raw, qcow2, partclone, Clonezilla
    Import(import::Args),
    /// Let virtual machines or this kernel read an image as a disk, by NBD
    Nbd(nbd::Args),
    /// List files inside an image (ext2, ext3, ext4, NTFS, FAT)
    Ls(ls::Args),
    /// Write a file inside an image to standard output
    Cat(cat::Args),
    /// Copy files and folders out of an image
    Extract(extract::Args),
    /// Tell what differs between two images of a disk
    Diff(diff::Args),
    /// Check every byte of an image
    Verify(verify::Args),
    /// Show what an image holds
    Info(info::Args),
    /// Run here the job that a server has for this machine, on the disks that are named
    Target(target::Args),
    /// Tell which server a target would find in this network, and from where
    Discover(discover::Args),
    /// Sign an image file
    Sign(sign::Args),
    /// Make and show keys
    Key(key::Args),
    /// Make CDs and sticks that the Deploy-OS starts from
    Media(media::Args),
}

impl Command {
    fn run(&self) -> Result<Output, Report> {
        match self {
            Command::Disks(args) => disks::run(args),
            Command::Map(args) => map::run(args),
            Command::Backup(args) => backup::run(args),
            Command::Restore(args) => restore::run(args),
            Command::Wipe(args) => wipe::run(args),
            Command::Send(args) => send::run(args),
            Command::Receive(args) => receive::run(args),
            Command::Shrink(args) => shrink::run(args),
            Command::Export(args) => export::run(args),
            Command::Import(args) => import::run(args),
            Command::Nbd(args) => nbd::run(args),
            Command::Ls(args) => ls::run(args),
            Command::Cat(args) => cat::run(args),
            Command::Extract(args) => extract::run(args),
            Command::Diff(args) => diff::run(args),
            Command::Verify(args) => verify::run(args),
            Command::Info(args) => info::run(args),
            Command::Target(args) => target::run(args),
            Command::Discover(args) => discover::run(args),
            Command::Sign(args) => sign::run(args),
            Command::Key(args) => key::run(args),
            Command::Media(args) => media::run(args),
        }
    }

    fn wants_json(&self) -> bool {
        match self {
            Command::Disks(args) => args.json,
            Command::Map(args) => args.json,
            Command::Backup(args) => args.json,
            Command::Restore(args) => args.to.json,
            Command::Wipe(args) => args.json,
            Command::Send(args) => args.json,
            Command::Receive(args) => args.to.json,
            Command::Shrink(args) => args.json,
            Command::Export(args) => args.json,
            Command::Import(args) => args.json,
            Command::Nbd(args) => args.json,
            Command::Ls(args) => args.json,
            Command::Cat(_) => false,
            Command::Extract(args) => args.json,
            Command::Diff(args) => args.json,
            Command::Verify(args) => args.json,
            Command::Info(args) => args.json,
            Command::Target(args) => args.json,
            Command::Discover(args) => args.json,
            Command::Sign(args) => args.json,
            Command::Key(args) => args.wants_json(),
            Command::Media(args) => args.wants_json(),
        }
    }

    /// Whether standard output carries an image, or a file of one.
    fn writes_data(&self) -> bool {
        match self {
            Command::Backup(args) => args.to_stdout(),
            Command::Cat(_) => true,
            _ => false,
        }
    }
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let json = command.wants_json();
    let result = catch_unwind(AssertUnwindSafe(|| command.run())).unwrap_or_else(|_| {
        // What panicked and where stands on standard error already.
        let found = "a part of the program panicked";
        Err(Report::new(Code::Internal, found, DiskState::Unknown))
    });
    match result {
        Ok(output) => match print(&output, json) {
            Ok(()) => ExitCode::from(output.exit_code()),
            // A reader that has enough (`| head`) is no failure.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
                ExitCode::from(output.exit_code())
            }
            Err(error) => {
                eprintln!("output-failed: standard output: {error}");
                ExitCode::from(EXIT_FAILED)
            }
        },
        Err(report) => {
            print_failure(&report, json, command.writes_data());
            ExitCode::from(exit_code(&report))
        }
    }
}

/// What a command has to say, in both forms.
struct Output {
    text: String,
    json: serde_json::Value,
    /// Standard output carries data: the text goes to standard error.
    aside: bool,
}

impl Output {
    /// The result in JSON and the exit code say the same.
    fn exit_code(&self) -> u8 {
        if self.json["result"] == diff::DIFFERENT {
            EXIT_DIFFERENT
        } else {
            EXIT_DONE
        }
    }
}

fn print(output: &Output, json: bool) -> std::io::Result<()> {
    if output.text.is_empty() {
        return Ok(()); // the command printed its result itself
    }
    let text = if json {
        format!("{:#}\n", output.json)
    } else {
        output.text.clone()
    };
    if output.aside {
        std::io::stderr().write_all(text.as_bytes())
    } else {
        std::io::stdout().write_all(text.as_bytes())
    }
}

fn print_failure(report: &Report, json: bool, aside: bool) {
    if json {
        let value = serde_json::json!({
            "result": "failed",
            "code": report.code,
            "headline": report.code.headline(),
            "found": report.found,
            "advice": report.advice,
            "disk": report.disk,
        });
        // Where the output is closed there is nobody to tell.
        let _ = if aside {
            writeln!(std::io::stderr(), "{value:#}")
        } else {
            writeln!(std::io::stdout(), "{value:#}")
        };
    }
    let _ = writeln!(std::io::stderr(), "imager: {report}");
}

/// Prints warnings to standard error as they become known.
fn print_warnings(warnings: &[Report]) {
    for warning in warnings {
        let _ = writeln!(
            std::io::stderr(),
            "warning: {}: {}",
            warning.code,
            warning.found
        );
    }
}

/// Warnings for JSON.
fn warnings_json(warnings: &[Report]) -> serde_json::Value {
    warnings
        .iter()
        .map(|w| serde_json::json!({"code": w.code, "found": w.found}))
        .collect()
}
