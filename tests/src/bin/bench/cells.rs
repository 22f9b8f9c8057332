//! What a backup sends after a change, by the size of cells.
//!
//! Owns: the table. Does not own: the two disks, which are given: one before and one after
//! the change (`BENCH_BEFORE`, `BENCH_AFTER`, raw files or devices; docs/explanation tells
//! how to make them of a real system and its package upgrade).
//!
//! Counted, not timed: the result is the same on any machine.

use image::record::{Compression, Encoder};
use image::{Hash, MAX_CELL_SIZE, MIN_CELL_SIZE};
use imager::backup::{CellReader, Options, Plan};
use std::collections::HashSet;
use std::io;
use std::path::Path;

/// Bytes of a chunk that is asked for: its name.
const ASKED: u64 = 32;
/// Bytes of a whole cell in the manifest: its used map, its name and its length.
const LISTED: u64 = 17 + 32 + 4;

#[derive(Default)]
struct Sums {
    cells: u64,
    used: u64,
    records: u64,
}

/// Prints the table.
pub fn measure() -> io::Result<()> {
    let path = |name: &str| {
        std::env::var_os(name).ok_or_else(|| io::Error::other(format!("{name} is not set")))
    };
    let (before, after) = (path("BENCH_BEFORE")?, path("BENCH_AFTER")?);
    println!("\nSent after a change, by the size of cells (zstd level 1); MiB of 2^20 bytes");
    println!(
        "  {:>8} {:>9} {:>10} {:>13} {:>12} {:>14} {:>12} {:>10}",
        "cell KiB",
        "cells",
        "used MiB",
        "first backup",
        "new cells",
        "records sent",
        "names, list",
        "sent MiB"
    );
    let mut size = MIN_CELL_SIZE;
    while size <= MAX_CELL_SIZE {
        let mut known = HashSet::new();
        let first = one(Path::new(&before), size, &mut known)?;
        let mut all = HashSet::new();
        let whole = one(Path::new(&after), size, &mut all)?;
        // Those that the server lacks, once each.
        let changed = one(Path::new(&after), size, &mut known)?;
        let around = whole.cells * (ASKED + LISTED);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "  {:>8} {:>9} {:>10.1} {:>13.1} {:>12} {:>14.1} {:>12.2} {:>10.1}",
            size >> 10,
            whole.cells,
            mib(whole.used),
            mib(first.records),
            changed.cells,
            mib(changed.records),
            mib(around),
            mib(changed.records + around)
        );
        size *= 2;
    }
    Ok(())
}

/// The chunks of a disk that are not in `known`, which then has them.
fn one(path: &Path, cell_size: u32, known: &mut HashSet<Hash>) -> io::Result<Sums> {
    let text = |e: wire::Report| io::Error::other(e.to_string());
    let device = imager::source::open(path, None).map_err(text)?;
    let options = Options {
        cell_size,
        ..Options::default()
    };
    let info = wire::DiskInfo::default();
    let plan = Plan::make(
        &device,
        &info,
        imager::machine::describe(),
        &options,
        &imager::progress::Silent,
    )
    .map_err(text)?;
    let mut reader = CellReader::new(&device, &plan.layout, false, &imager::progress::Silent);
    let level = Compression::Zstd(1);
    let mut encoder = Encoder::new(level).map_err(|e| io::Error::other(e.to_string()))?;
    let (mut plain, mut record) = (Vec::new(), Vec::new());
    let mut sums = Sums::default();
    for cell in plan.cells() {
        reader.read(&cell, &mut plain).map_err(text)?;
        let name = Hash::of(&plain);
        if !known.insert(name) {
            continue;
        }
        record.clear();
        encoder
            .encode_named(&plain, name, &mut record)
            .map_err(|e| io::Error::other(e.to_string()))?;
        sums.cells += 1;
        sums.used += plain.len() as u64;
        sums.records += record.len() as u64;
    }
    Ok(sums)
}
