//! A medium's bytes to a file or a device, and back for comparison.
//!
//! Owns: copying pieces, the proof that they are there. Does not own: what they are.

use super::Laid;
use crate::progress::ProgressSink;
use crate::report;
use blockdev::{AlignedBuf, Device};
use medium::{Content, Piece};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use wire::{Code, DiskState, Report, Step};

/// Bytes that are copied at a time.
const BUFFER: usize = 1 << 20;
/// Reads past the page cache start and end at multiples of this.
const ALIGN: u64 = 4096;

/// Writes the medium to `device` and reads it back from `path`, which is the same; its first
/// sector last.
///
/// # Errors
/// `write-error`, `no-space`; `verify-mismatch`: what is there afterwards is something else.
/// A source that changed meanwhile: `output-failed`.
pub fn write(
    laid: &Laid,
    device: &Device,
    path: &Path,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    let sources = laid.sources.iter().map(|path| {
        File::open(path).map_err(|e| source_failed(format!("{}: {e}", path.display())))
    });
    let sources = sources.collect::<Result<Vec<File>, Report>>()?;
    let Some((first, rest)) = laid.pieces.split_first() else {
        return Ok(());
    };
    // Until all the rest is there and proved, it has no partition table and starts nothing.
    let failed = |e: io::Error| report::write(&e, DiskState::Incomplete);
    let old = usize::try_from(first.len).unwrap_or(0).min(BUFFER);
    device
        .write_all_at(first.at, &vec![0; old])
        .and_then(|()| device.flush())
        .map_err(failed)?;
    let total = rest.iter().map(|piece| piece.len).sum();
    for (pieces, total) in [(rest, total), (std::slice::from_ref(first), first.len)] {
        progress.step(Step::Running, total);
        let written = copy(pieces, device, &sources, progress)?;
        device.flush().map_err(failed)?;
        progress.step(Step::Verifying, total);
        if read_back(pieces, path, progress)? != written {
            let found = format!(
                "{} gives back something else than was written",
                path.display()
            );
            return Err(
                Report::new(Code::VerifyMismatch, found, DiskState::Incomplete)
                    .with_advice("Take another stick, or another disk for the file."),
            );
        }
    }
    Ok(())
}

/// Copies pieces to their places; gives the hash of all bytes.
fn copy(
    pieces: &[Piece],
    device: &Device,
    sources: &[File],
    progress: &dyn ProgressSink,
) -> Result<blake3::Hash, Report> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    for piece in pieces {
        let mut done = 0;
        while done < piece.len {
            stop_if_asked(progress)?;
            let len = (piece.len - done).min(BUFFER as u64);
            let part = &mut buffer[..len as usize];
            fill(piece, done, part, sources)?;
            device
                .write_all_at(piece.at + done, part)
                .map_err(|e| report::write(&e, DiskState::Incomplete))?;
            hasher.update(part);
            progress.advance(len, len);
            done += len;
        }
    }
    Ok(hasher.finalize())
}

/// The bytes of a piece from `from` on.
fn fill(piece: &Piece, from: u64, part: &mut [u8], sources: &[File]) -> Result<(), Report> {
    match &piece.content {
        Content::Zeros => part.fill(0),
        Content::Bytes(bytes) => {
            let start = usize::try_from(from).unwrap_or(usize::MAX);
            let end = start.saturating_add(part.len());
            let bytes = bytes.get(start..end);
            part.copy_from_slice(bytes.ok_or_else(|| source_failed("a piece is short".into()))?);
        }
        Content::File { index, offset } => {
            let file = sources.get(*index);
            let file = file.ok_or_else(|| source_failed("a source is missing".into()))?;
            file.read_exact_at(part, offset + from)
                .map_err(|e| source_failed(format!("reading what goes on the medium: {e}")))?;
        }
    }
    Ok(())
}

/// Hash of what the pieces' places hold on the medium.
fn read_back(
    pieces: &[Piece],
    path: &Path,
    progress: &dyn ProgressSink,
) -> Result<blake3::Hash, Report> {
    let open = |e: &blockdev::Error| report::open(e, DiskState::Incomplete);
    let medium = Device::open_direct_read(path).map_err(|e| open(&e))?;
    let failed = |e: io::Error| {
        Report::new(Code::ReadError, e.to_string(), DiskState::Incomplete)
            .with_advice("Take another stick, or another disk for the file.")
    };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = AlignedBuf::new(BUFFER);
    for piece in pieces {
        let end = piece.at + piece.len;
        let mut at = piece.at;
        while at < end {
            stop_if_asked(progress)?;
            let from = at / ALIGN * ALIGN;
            let until = end
                .next_multiple_of(ALIGN)
                .min(from + BUFFER as u64)
                .min(medium.size_bytes());
            let Some(read) = buffer.get_mut(..until.saturating_sub(from) as usize) else {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            };
            medium.read_exact_at(from, read).map_err(failed)?;
            let stop = until.min(end);
            match read.get((at - from) as usize..stop.saturating_sub(from) as usize) {
                Some(part) if !part.is_empty() => hasher.update(part),
                _ => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            };
            progress.advance(stop - at, 0);
            at = stop;
        }
    }
    Ok(hasher.finalize())
}

fn source_failed(found: String) -> Report {
    Report::new(Code::OutputFailed, found, DiskState::Incomplete)
        .with_advice("Check the kit and the image, and make the medium again.")
}

fn stop_if_asked(progress: &dyn ProgressSink) -> Result<(), Report> {
    if progress.interrupted() {
        let found = "stopped while the medium was written";
        return Err(Report::new(Code::Interrupted, found, DiskState::Incomplete));
    }
    Ok(())
}
