//! `pack-initramfs`: writes the initramfs, or an extra segment, as zstd-compressed cpio.
//!
//! Owns the command line and the compression: one thread and a fixed level, so
//! that the same input gives the same bytes. What is packed is `content`, how it
//! is laid out is `newc`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod content;
mod newc;

/// The kernel unpacks windows up to 128 MiB; level 19 uses 8 MiB.
const LEVEL: i32 = 19;

#[derive(Debug, Parser)]
#[command(about = "Packs an initramfs segment reproducibly")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The system: imager as /init, busybox, device nodes
    Base {
        /// The static imager
        #[arg(long)]
        init: PathBuf,
        /// A static busybox
        #[arg(long)]
        busybox: PathBuf,
        /// The file to write
        #[arg(long)]
        output: PathBuf,
    },
    /// A directory as a segment of its own (firmware, drivers)
    Tree {
        /// The directory whose content is packed
        #[arg(long)]
        from: PathBuf,
        /// Where it appears in the initramfs
        #[arg(long, default_value = "")]
        prefix: String,
        /// The file to write
        #[arg(long)]
        output: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().what) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pack-initramfs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> io::Result<()> {
    match what {
        What::Base {
            init,
            busybox,
            output,
        } => pack(&content::base(&init, &busybox)?, &output),
        What::Tree {
            from,
            prefix,
            output,
        } => pack(&content::tree(&from, &prefix)?, &output),
    }
}

/// Written beside the output and renamed, so that a broken run leaves no half file.
fn pack(members: &[content::Member], output: &Path) -> io::Result<()> {
    let partial = output.with_extension("partial");
    let file = BufWriter::new(File::create(&partial)?);
    let mut compressor = zstd::Encoder::new(file, LEVEL)?;
    compressor.include_checksum(true)?;
    let mut archive = newc::Writer::new(compressor);
    for (path, node) in members {
        archive.append(path, node)?;
    }
    let mut file = archive.finish()?.finish()?;
    file.flush()?;
    std::fs::rename(&partial, output)
}
