//! Giving every block of a disk back.
//!
//! Owns: the discard, and that it counts for nothing unless the disk then gives zeros. Does
//! not own: the kernel calls (`blockdev`).

use super::fill::Fill;
use super::outcome::{Done, Failure};
use super::{ends_to_zero, flush, read_back};
use crate::progress::ProgressSink;
use crate::report;
use crate::restore::HEAD_BYTES;
use blockdev::Device;
use std::io;
use std::path::Path;
use wire::{Code, DiskState, Report, Step, WipeProof, size};

/// Bytes that are discarded at a time: an operator is heard in between.
const PIECE: u64 = 1 << 30;

/// Discards the whole disk.
pub fn run(device: &Device, path: &Path, progress: &dyn ProgressSink) -> Result<Done, Failure> {
    let size = device.size_bytes();
    // The head first: what refuses that has not been changed.
    match device.discard(0, HEAD_BYTES.min(size)) {
        Ok(true) => {}
        Ok(false) => {
            let found = format!("{} does not take a discard", path.display());
            let report = Report::new(Code::WipeUnsupported, found, DiskState::Untouched);
            return Err(Failure::of_this_way(report));
        }
        Err(error) => return Err(failed(&error)),
    }
    // What it does with a discard is its own choice; nothing may boot from here on.
    ends_to_zero(device).map_err(|e| failed(&e))?;
    progress.step(Step::Running, size);
    let mut done = 0;
    while done < size {
        if progress.interrupted() {
            return Err(stopped(done, size));
        }
        let piece = PIECE.min(size - done);
        match device.discard(done, piece) {
            Ok(true) => {}
            Ok(false) => {
                // The kernel may call the first one done before it learns that there is none.
                let found = format!("{} takes no discard at byte {done}", path.display());
                let report = Report::new(Code::WipeUnsupported, found, DiskState::Incomplete);
                return Err(Failure::of_this_way(report));
            }
            Err(error) => return Err(failed(&error)),
        }
        done += piece;
        progress.advance(piece, 0);
    }
    // Ends and the last bytes that are no whole block.
    ends_to_zero(device).map_err(|e| failed(&e))?;
    flush(device).map_err(Failure::of_this_way)?;
    let read =
        read_back::compare(device, path, Fill::Zeros, &[], progress).map_err(Failure::last)?;
    if read.interrupted {
        let found = format!(
            "stopped by an operator while it was read back: all {} were discarded, and {} are proved",
            size::bytes(size),
            size::bytes(read.good_bytes)
        );
        return Err(Failure::last(Report::new(
            Code::Interrupted,
            found,
            DiskState::Incomplete,
        )));
    }
    if !read.differs.is_empty() {
        let found = format!(
            "{} took the discard of all its blocks and does not give zeros from {}: discard alone \
             proves nothing there",
            path.display(),
            read.different_places()
        );
        let report = Report::new(Code::VerifyMismatch, found, DiskState::Incomplete);
        return Err(Failure::of_this_way(report.with_advice(
            "Old data may still be there: wipe it with --method overwrite, or auto.",
        )));
    }
    if !read.bad.is_empty() || read.good_bytes != size {
        let found = format!(
            "{} bytes cannot be read back, {}",
            read.bad_bytes(),
            read.bad_places()
        );
        let report = Report::new(Code::ReadError, found, DiskState::Incomplete);
        return Err(Failure::of_this_way(report));
    }
    Ok(Done {
        action: "every block given back".to_owned(),
        passes: 0,
        read_back_bytes: size,
        proof: WipeProof::Zeros,
    })
}

fn failed(error: &io::Error) -> Failure {
    Failure::of_this_way(report::write(error, DiskState::Incomplete))
}

fn stopped(done: u64, size: u64) -> Failure {
    let found = format!(
        "stopped by an operator after {} of {} were discarded; what lies behind that can still be \
         read",
        size::bytes(done),
        size::bytes(size)
    );
    let report = Report::new(Code::Interrupted, found, DiskState::Incomplete);
    Failure::last(report.with_advice("The disk is wiped in part only: wipe it again."))
}
