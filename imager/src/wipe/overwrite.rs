//! Writing every sector of a disk.
//!
//! Owns: the passes, each read back whole before the next. Does not own: what is written
//! (`fill`), the threads (`sweep`).

use super::fill::Fill;
use super::outcome::{Done, Failure};
use super::sweep::{NAMED, Swept, sweep};
use super::{ends_to_zero, flush, read_back};
use crate::progress::ProgressSink;
use crate::report;
use blockdev::Device;
use std::ops::Range;
use std::path::Path;
use wire::{Code, DiskState, Report, Step, WipeProof, size};

/// Writes the whole disk so many times, with zeros in the end.
pub fn run(
    device: &Device,
    path: &Path,
    passes: u32,
    progress: &dyn ProgressSink,
) -> Result<Done, Failure> {
    // A sector that does not take it is met again below, where it is told with its place.
    let _ = ends_to_zero(device);
    let size = device.size_bytes();
    let mut bad: Option<Swept> = None;
    for pass in 1..=passes {
        let fill = match pass == passes {
            true => Fill::Zeros,
            false => Fill::new_noise().map_err(|e| {
                let found = format!("random numbers: {e}");
                Failure::last(Report::new(Code::Internal, found, DiskState::Incomplete))
            })?,
        };
        if passes > 1 {
            progress.note(&format!("pass {pass} of {passes}"));
        }
        let written = write(device, fill, progress)?;
        if written.bad.is_empty() {
            flush(device).map_err(Failure::last)?;
        } else {
            // It has told of its errors; what it still holds back is read back.
            let _ = device.flush();
        }
        let read = read_back::compare(device, path, fill, &written.bad, progress)
            .map_err(Failure::last)?;
        judge(&read, &written, size, pass, passes)?;
        if !written.bad.is_empty() {
            bad = Some(written);
        }
    }
    match bad {
        None => Ok(Done {
            action: match passes {
                1 => "zeros".to_owned(),
                2 => "noise, then zeros".to_owned(),
                more => format!("{} times noise, then zeros", more - 1),
            },
            passes,
            read_back_bytes: size,
            proof: WipeProof::Zeros,
        }),
        Some(written) => Err(Failure::last(not_taken(&written, size))),
    }
}

fn write(device: &Device, fill: Fill, progress: &dyn ProgressSink) -> Result<Swept, Failure> {
    let size = device.size_bytes();
    progress.step(Step::Running, size);
    let written = sweep(size, NAMED, progress, &|at, buf| {
        fill.put(at, size, buf);
        Ok(device.write_past_cache(at, buf)?)
    })
    .map_err(Failure::last)?;
    if written.interrupted {
        let found = format!(
            "stopped by an operator after {} of {} were overwritten; what lies behind that can \
             still be read",
            size::bytes(written.good_bytes),
            size::bytes(size)
        );
        let report = Report::new(Code::Interrupted, found, DiskState::Incomplete);
        return Err(Failure::last(report.with_advice(ADVICE_STOPPED)));
    }
    if written.given_up {
        return Err(Failure::last(not_taken(&written, size)));
    }
    Ok(written)
}

const ADVICE_STOPPED: &str = "The disk is wiped in part only: wipe it again.";

/// Parts of the disk that cannot be written: the rest was, and was read back if that is said.
fn not_taken(written: &Swept, size: u64) -> Report {
    let why = match &written.first_error {
        Some(error) => format!(": {error}"),
        None => String::new(),
    };
    let rest = match written.given_up {
        true => format!(
            "then it was given up, with {} of {} overwritten",
            size::bytes(written.good_bytes),
            size::bytes(size)
        ),
        false => "everything else was overwritten and read back".to_owned(),
    };
    let found = format!(
        "{} bytes could not be overwritten, {}{why}; {rest}",
        written.bad_bytes(),
        written.bad_places()
    );
    Report::new(Code::WriteError, found, DiskState::Incomplete).with_advice(
        "What lies in these places may still be there: destroy the disk, or let it erase itself.",
    )
}

fn judge(read: &Swept, written: &Swept, size: u64, pass: u32, passes: u32) -> Result<(), Failure> {
    let which = match passes {
        1 => String::new(),
        _ => format!(" in pass {pass} of {passes}"),
    };
    if read.interrupted {
        let found = format!(
            "stopped by an operator{which} while it was read back: all {} were written, and {} are \
             proved",
            size::bytes(size),
            size::bytes(read.good_bytes)
        );
        let report = Report::new(Code::Interrupted, found, DiskState::Incomplete);
        return Err(Failure::last(report.with_advice(ADVICE_STOPPED)));
    }
    if !read.differs.is_empty() {
        let found = format!(
            "the disk said that it was overwritten{which}, and gives back something else from {}",
            read.different_places()
        );
        let report = Report::new(Code::VerifyMismatch, found, DiskState::Incomplete);
        return Err(Failure::last(report.with_advice(
            "The disk was not wiped: old data may still be there. Destroy it, or let it erase itself.",
        )));
    }
    // What does not take it need not give it.
    let known = |bad: &Range<u64>| {
        let mut parts = written.bad.iter();
        parts.any(|part| part.start <= bad.start && bad.end <= part.end)
    };
    if !read.bad.iter().all(known) {
        let found = format!(
            "{} bytes cannot be read back{which}, {}: nobody knows what stands there",
            read.bad_bytes(),
            read.bad_places()
        );
        return Err(Failure::last(
            Report::new(Code::ReadError, found, DiskState::Incomplete)
                .with_advice("Destroy the disk, or let it erase itself."),
        ));
    }
    if read.good_bytes != size && written.bad.is_empty() {
        let report = report::thread_lost(DiskState::Incomplete);
        return Err(Failure::last(report));
    }
    Ok(())
}
