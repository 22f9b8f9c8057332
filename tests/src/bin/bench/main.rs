//! The benchmark: speed and memory of the imager beside partclone and zstd, and the time
//! from kernel start to check-in beside a minimal initramfs.
//!
//! Owns: which cases there are, and the report. Does not own: measuring (`run`), the
//! disks (`disk`, `net`, `scale`), booting (`boot`).
//!
//! Settings by environment: `BENCH_RUNS` (default 5), `BENCH_MIB` (size of the disk in
//! MiB, default 4096), `BENCH_FS` (of `ext4,ntfs,xfs`), `BENCH_ONLY` (`disk`, `net`,
//! `codec`, `scale`, `boot`; `cast`, `cells` and `crowd` (a part of `net`) only if they are
//! named).

mod boot;
mod cast;
mod cells;
mod codec;
mod crowd;
mod disk;
mod loopback;
mod net;
mod over;
mod read;
mod run;
mod scale;
mod slow;

use e2e::built::Built;
use std::process::ExitCode;

fn main() -> ExitCode {
    match all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let verb = arguments.split_first();
    match verb.map(|(verb, rest)| (verb.as_str(), rest)) {
        Some(("read", rest)) => return read::main(rest),
        Some(("over", rest)) => return over::main(rest),
        Some(("session", rest)) => return cast::session(rest),
        _ => {}
    }
    let built = Built::find()?;
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only == name;
    if wanted("disk") {
        disk::measure(&built)?;
    }
    if wanted("net") {
        net::measure(&built)?;
    }
    if only == "cast" {
        return cast::measure(&built);
    }
    if only == "cells" {
        return cells::measure();
    }
    if only == "crowd" {
        return net::crowd(&built);
    }
    if wanted("codec") {
        codec::measure(&built)?;
    }
    if wanted("scale") {
        scale::measure(&built)?;
    }
    if wanted("boot") {
        boot::measure(&built)?;
    }
    Ok(())
}

/// A number from the environment.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}
