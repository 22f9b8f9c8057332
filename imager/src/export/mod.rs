//! The disk of an image as a file that virtual machines take: raw, qcow2 or VHDX.
//!
//! Owns: the choice of the format, and copying used bytes to their places on all cores.
//! Does not own: the formats (one file each), the output's name, or reading the image.

mod alloc;
mod qcow2;
mod vhdx;

use crate::backup::container::worker_count;
use crate::progress::ProgressSink;
use crate::report;
use alloc::Allocation;
use crossbeam_channel::{Receiver, bounded};
use image::open::{OpenImage, Range, ReadAt};
use image::record::is_zero;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use wire::{Code, DiskState, Report, Step};

/// Bytes of the disk that a thread takes at a time.
const SHARE: u64 = 4 << 20;
/// Ranges that it takes at a time: bounds the memory of a fragmented disk.
const SHARE_RANGES: usize = 4096;
/// Zeros in pieces of this size and place become holes.
const HOLE: usize = 4096;

/// A kind of file that holds a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The disk byte by byte; what is not used is a hole
    Raw,
    /// QEMU's format, version 3
    Qcow2,
    /// Hyper-V's format, dynamic
    Vhdx,
}

impl Format {
    /// The format that a file's name stands for.
    pub fn of_name(name: &std::path::Path) -> Option<Format> {
        let extension = name.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "raw" | "img" => Some(Format::Raw),
            "qcow2" => Some(Format::Qcow2),
            "vhdx" => Some(Format::Vhdx),
            _ => None,
        }
    }

    /// As users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Raw => "raw",
            Format::Qcow2 => "qcow2",
            Format::Vhdx => "vhdx",
        }
    }
}

/// Where everything stands in the file.
struct Plan {
    /// The disk's blocks; none: the disk stands as it is.
    blocks: Option<Allocation>,
    /// Length of the file in bytes.
    length: u64,
}

impl Plan {
    /// Where the byte `at` of the disk stands in the file, and how many bytes from there on
    /// stand behind one another.
    fn place(&self, at: u64) -> Option<(u64, u64)> {
        match &self.blocks {
            None => Some((at, u64::MAX - at)),
            Some(blocks) => blocks.place(at),
        }
    }
}

/// Writes the disk of `image` into `file`, which is empty. Nothing is written that is zero:
/// it is a hole of the file. On an error the file is torn, and its owner has to remove it.
/// Returns the length of the file.
pub fn write<S: ReadAt>(
    image: &OpenImage<S>,
    format: Format,
    file: &File,
    progress: &dyn ProgressSink,
) -> Result<u64, Report> {
    let damaged = |e: image::Error| report::image(&e, DiskState::NotInvolved);
    progress.step(Step::Preparing, 0);
    image.prove().map_err(damaged)?;
    let disk = &image.layout().disk;
    let plan = match format {
        Format::Raw => Plan {
            blocks: None,
            length: disk.size_bytes,
        },
        Format::Qcow2 => qcow2::write(image, file)?,
        Format::Vhdx => vhdx::write(image, file)?,
    };
    file.set_len(plan.length).map_err(|e| output(&e))?;
    let mut total = 0u64;
    for range in image.used(0) {
        total = total.saturating_add(range.map_err(damaged)?.len);
        stop_if_asked(progress)?;
    }
    progress.step(Step::Running, total);
    copy(image, &plan, file, progress)?;
    progress.step(Step::Finishing, 0);
    Ok(plan.length)
}

/// Copies the used ranges, a thread for each core.
fn copy<S: ReadAt>(
    image: &OpenImage<S>,
    plan: &Plan,
    file: &File,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    let workers = worker_count();
    let (send, receive) = bounded::<Vec<Range>>(workers);
    let first_error: Mutex<Option<Report>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let (receive, first_error) = (receive.clone(), &first_error);
            scope.spawn(move || {
                if let Err(report) = copy_shares(image, plan, file, &receive, progress) {
                    let mut slot = lock(first_error);
                    slot.get_or_insert(report);
                }
            });
        }
        drop(receive);
        let mut share: Vec<Range> = Vec::new();
        let mut bytes = 0;
        for range in image.used(0) {
            let mut range = range.map_err(|e| report::image(&e, DiskState::NotInvolved))?;
            while range.len > 0 {
                let len = range.len.min(SHARE - bytes);
                share.push(Range { len, ..range });
                range.start += len;
                range.len -= len;
                bytes += len;
                if bytes == SHARE || share.len() == SHARE_RANGES {
                    stop_if_asked(progress)?;
                    // All threads are gone: one of them says why.
                    if lock(&first_error).is_some()
                        || send.send(std::mem::take(&mut share)).is_err()
                    {
                        return Ok(());
                    }
                    bytes = 0;
                }
            }
        }
        let _ = send.send(share);
        drop(send);
        Ok(())
    })?;
    match first_error.into_inner() {
        Ok(None) => Ok(()),
        Ok(Some(report)) => Err(report),
        Err(_) => Err(report::thread_lost(DiskState::NotInvolved)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn copy_shares<S: ReadAt>(
    image: &OpenImage<S>,
    plan: &Plan,
    file: &File,
    shares: &Receiver<Vec<Range>>,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    let mut buf = Vec::new();
    for share in shares {
        for range in share {
            buf.resize(range.len as usize, 0);
            image
                .read_exact_at(&mut buf, range.start)
                .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
            let written = write_at_places(plan, file, range.start, &buf)?;
            progress.advance(range.len, written);
        }
    }
    Ok(())
}

/// Writes bytes of the disk to their places, except for zeros; tells how many were written.
fn write_at_places(plan: &Plan, file: &File, mut at: u64, mut bytes: &[u8]) -> Result<u64, Report> {
    let mut written = 0;
    while !bytes.is_empty() {
        // Every used byte has a place: the plan was made from the same ranges.
        let (place, room) = plan
            .place(at)
            .ok_or_else(|| report::thread_lost(DiskState::NotInvolved))?;
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let (here, rest) = bytes.split_at(bytes.len().min(room));
        written += write_data(file, place, here).map_err(|e| output(&e))?;
        at += here.len() as u64;
        bytes = rest;
    }
    Ok(written)
}

/// Writes what is not zero, in as few calls as there are holes.
fn write_data(file: &File, place: u64, bytes: &[u8]) -> io::Result<u64> {
    let (mut from, mut end, mut written) = (0, 0, 0);
    while end < bytes.len() {
        // Pieces begin where those of the file do.
        let in_piece = (place + end as u64) as usize % HOLE;
        let next = bytes.len().min(end + HOLE - in_piece);
        if is_zero(&bytes[end..next]) {
            if from < end {
                file.write_all_at(&bytes[from..end], place + from as u64)?;
                written += (end - from) as u64;
            }
            from = next;
        }
        end = next;
    }
    if from < end {
        file.write_all_at(&bytes[from..end], place + from as u64)?;
        written += (end - from) as u64;
    }
    Ok(written)
}

fn stop_if_asked(progress: &dyn ProgressSink) -> Result<(), Report> {
    if progress.interrupted() {
        let found = "stopped by an operator; nothing half-made is left";
        return Err(Report::new(
            Code::Interrupted,
            found,
            DiskState::NotInvolved,
        ));
    }
    Ok(())
}

/// The file does not take what is written.
fn output(error: &io::Error) -> Report {
    report::output(error)
}

/// A disk that the format cannot hold.
fn cannot_hold(found: String) -> Report {
    Report::new(Code::Usage, found, DiskState::NotInvolved)
        .with_advice("Export to another format; raw holds every disk.")
}
