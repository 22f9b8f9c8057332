//! Having an NVMe drive erase itself.
//!
//! Owns: the marks that tell whether it did, waiting for its end, and the proof. Does not
//! own: the commands (`blockdev`), which of them is chosen (`plan`).
//!
//! What a drive answers proves nothing: one that says "done" may have done nothing. So the
//! disk gets marks of noise all over before, which are read back; when the drive says that
//! it is done, none of them may be there.

use super::fill::{Fill, ends, first_not_zero};
use super::outcome::{Done, Failure};
use super::{ends_to_zero, flush, read_back};
use crate::alive;
use crate::progress::ProgressSink;
use crate::report;
use crate::restore::HEAD_BYTES;
use blockdev::nvme::{Controller, FormatErase, Nvme, SanitizeAction, SanitizeLog, SanitizeState};
use blockdev::{AlignedBuf, Device};
use std::io;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use wire::{Code, DiskState, Report, Step, WipeProof, size};

/// Between two looks at how far the drive is.
const POLL: Duration = Duration::from_millis(500);
/// A sanitize that the drive took shows in its log by then.
const BEGINS_WITHIN: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
/// Looks in a row that may fail: a drive that is busy with itself may not answer each.
const FAILED_LOOKS: u32 = 120;

/// Bytes of a mark.
const MARK: u64 = 4096;
/// Most marks, and how much of a disk has one at least.
const MOST_MARKS: u64 = 1024;
const MARK_EVERY: u64 = 64 << 10;
/// A part of a mark that stands where it stood is as good as all of it.
const PART: usize = 512;

/// A drive that can erase itself.
pub trait Drive: Send + Sync {
    /// What it says that it can do.
    fn controller(&self) -> io::Result<Controller>;
    /// Ids of all its namespaces.
    fn namespaces(&self, controller: &Controller) -> io::Result<Vec<u32>>;
    /// Formats and erases this namespace; returns at its end.
    fn format(&self, erase: FormatErase) -> io::Result<()>;
    /// Percent that a format has left, if it tells.
    fn format_left(&self) -> Option<u8>;
    /// Begins to sanitize the whole drive.
    fn sanitize(&self, action: SanitizeAction) -> io::Result<()>;
    /// What became of the last sanitize.
    fn sanitize_log(&self) -> io::Result<SanitizeLog>;
}

impl Drive for Nvme {
    fn controller(&self) -> io::Result<Controller> {
        Ok(Nvme::controller(self)?)
    }
    fn namespaces(&self, controller: &Controller) -> io::Result<Vec<u32>> {
        Ok(Nvme::namespaces(self, controller)?)
    }
    fn format(&self, erase: FormatErase) -> io::Result<()> {
        Ok(Nvme::format(self, erase)?)
    }
    fn format_left(&self) -> Option<u8> {
        Nvme::namespace(self).ok()?.format_left
    }
    fn sanitize(&self, action: SanitizeAction) -> io::Result<()> {
        Ok(Nvme::sanitize(self, action)?)
    }
    fn sanitize_log(&self) -> io::Result<SanitizeLog> {
        Ok(Nvme::sanitize_log(self)?)
    }
}

/// Waits for a sanitize that somebody began before: until its end the drive gives nothing.
///
/// # Errors
/// Stopped by an operator.
pub fn wait_for_earlier(drive: &dyn Drive, progress: &dyn ProgressSink) -> Result<(), Report> {
    let runs = || drive.sanitize_log().map(|log| log.state);
    let _by_itself = alive::patience();
    let mut told = false;
    // A drive without that log never sanitizes itself.
    while matches!(runs(), Ok(SanitizeState::InProgress)) {
        if !told {
            // Not preparing: that may take hours, and the server would call it stuck.
            progress.step(Step::Running, 0);
            progress.note("the drive is sanitizing itself; that is waited for");
            told = true;
        }
        if progress.interrupted() {
            let found = "stopped by an operator while an earlier sanitize was waited for; the drive \
                         goes on with it";
            return Err(Report::new(Code::Interrupted, found, DiskState::Unknown));
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Sanitizes the drive.
pub fn sanitize(
    device: &Device,
    path: &Path,
    drive: &dyn Drive,
    action: SanitizeAction,
    progress: &dyn ProgressSink,
) -> Result<Done, Failure> {
    let marks = Marks::write(device, path)?;
    progress.note("from here on the drive goes on by itself, whatever happens to the power");
    drive.sanitize(action).map_err(|e| refused(&e))?;
    wait_for_sanitize(drive, action, device.size_bytes(), progress)?;
    let leaves_noise = action == SanitizeAction::CryptoErase;
    let action = match action {
        SanitizeAction::BlockErase => "sanitize by block erase",
        SanitizeAction::Overwrite => "sanitize by overwriting",
        SanitizeAction::CryptoErase => "sanitize by cryptographic erase",
    };
    prove(device, path, &marks, action, leaves_noise, progress)
}

/// Formats and erases the namespace.
pub fn format(
    device: &Device,
    path: &Path,
    drive: &dyn Drive,
    erase: FormatErase,
    progress: &dyn ProgressSink,
) -> Result<Done, Failure> {
    let marks = Marks::write(device, path)?;
    wait_for_format(drive, erase, device.size_bytes(), progress).map_err(|e| refused(&e))?;
    let leaves_noise = erase == FormatErase::Cryptographic;
    let action = match erase {
        FormatErase::UserData => "format with user data erase",
        FormatErase::Cryptographic => "format with cryptographic erase",
    };
    prove(device, path, &marks, action, leaves_noise, progress)
}

fn refused(error: &io::Error) -> Failure {
    let report = Report::new(Code::WriteError, error.to_string(), DiskState::Incomplete);
    Failure::of_this_way(report.with_advice(
        "The drive has not erased itself; only the ends of the disk are zeros. Choose another method.",
    ))
}

fn failed(found: String) -> Failure {
    Failure::of_this_way(Report::new(Code::WriteError, found, DiskState::Incomplete))
}

fn wait_for_sanitize(
    drive: &dyn Drive,
    action: SanitizeAction,
    total: u64,
    progress: &dyn ProgressSink,
) -> Result<(), Failure> {
    progress.step(Step::Running, total);
    let _by_itself = alive::patience();
    let began = Instant::now();
    let (mut shown, mut failed_looks) = (0, 0);
    loop {
        match drive.sanitize_log() {
            Ok(log) => {
                failed_looks = 0;
                let ours = log.command & 0b111 == action.code();
                match log.state {
                    SanitizeState::InProgress => {
                        let done = (u128::from(total) * u128::from(log.progress)) >> 16;
                        let done = u64::try_from(done).unwrap_or(total);
                        progress.advance(done.saturating_sub(shown), 0);
                        shown = shown.max(done);
                    }
                    SanitizeState::Completed if ours => return Ok(()),
                    SanitizeState::Failed if ours => {
                        return Err(failed("the drive says that its sanitize failed".to_owned()));
                    }
                    other if began.elapsed() >= BEGINS_WITHIN => {
                        return Err(failed(format!(
                            "the drive took the command and does not sanitize itself (its log says \
                             {other:?}, command 0x{:x})",
                            log.command
                        )));
                    }
                    _ => {}
                }
            }
            Err(error) if failed_looks >= FAILED_LOOKS => {
                return Err(failed(format!(
                    "the drive took the command and does not tell how far it is: {error}"
                )));
            }
            Err(_) => failed_looks += 1,
        }
        if progress.interrupted() {
            let found = "stopped by an operator; the drive goes on sanitizing itself until it is done, \
                         and gives nothing before";
            let report = Report::new(Code::Interrupted, found, DiskState::Incomplete);
            return Err(Failure::last(
                report.with_advice("Wipe it again: what runs is waited for then."),
            ));
        }
        std::thread::sleep(POLL);
    }
}

fn wait_for_format(
    drive: &dyn Drive,
    erase: FormatErase,
    total: u64,
    progress: &dyn ProgressSink,
) -> io::Result<()> {
    progress.step(Step::Running, total);
    let _by_itself = alive::patience();
    let (send, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // Whoever waits is there until it comes.
            let _ = send.send(drive.format(erase));
        });
        let (mut shown, mut told) = (0, false);
        loop {
            match ended.recv_timeout(POLL) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other(
                        "a thread of the job ended without a result",
                    ));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(left) = drive.format_left() {
                let done = total / 100 * u64::from(100_u8.saturating_sub(left));
                progress.advance(done.saturating_sub(shown), 0);
                shown = shown.max(done);
            }
            if progress.interrupted() && !told {
                progress.note("a format cannot be stopped; its end is waited for");
                told = true;
            }
        }
    })
}

/// What the drive gives now. Only one that forgot its key gives what looks like noise, for
/// which the marks have to stand; of any other, what is no fill may be old data.
fn prove(
    device: &Device,
    path: &Path,
    marks: &Marks,
    action: &str,
    leaves_noise: bool,
    progress: &dyn ProgressSink,
) -> Result<Done, Failure> {
    let left = marks.left(&read_back::medium(device, path).map_err(Failure::of_this_way)?)?;
    if let Some(first) = left.first() {
        let found = format!(
            "the drive says that its {action} is done, and {} of {} marks that were written before \
             are still there, the first at byte {first}",
            left.len(),
            marks.places.len()
        );
        let report = Report::new(Code::VerifyMismatch, found, DiskState::Incomplete);
        return Err(Failure::of_this_way(report.with_advice(
            "The drive does not do what it says: overwrite the disk, or destroy it.",
        )));
    }
    let erased = read_back::look_for_fill(device, path, progress).map_err(Failure::of_this_way)?;
    let (swept, total) = (&erased.swept, device.size_bytes());
    if swept.interrupted {
        let found = format!(
            "stopped by an operator while the disk was read back: the drive says that its {action} \
             is done; {} are proved",
            size::bytes(swept.good_bytes)
        );
        let report = Report::new(Code::Interrupted, found, DiskState::Incomplete);
        return Err(Failure::last(report));
    }
    if !swept.bad.is_empty() {
        let found = format!(
            "the drive says that its {action} is done, and does not give back {}",
            swept.bad_places()
        );
        let report = Report::new(Code::ReadError, found, DiskState::Incomplete);
        return Err(Failure::of_this_way(report));
    }
    let count = marks.places.len() as u64;
    let (proof, read_back_bytes) = match (swept.differs.is_empty(), erased.zeros) {
        (true, true) => (WipeProof::Zeros, total),
        (true, false) => (WipeProof::Uniform, total),
        (false, _) if leaves_noise && count > 0 => (WipeProof::Marks { count }, count * MARK),
        (false, _) => {
            let why = match leaves_noise {
                true => "the disk is too small for marks",
                false => "it should be filled with one value",
            };
            let found = format!(
                "the drive says that its {action} is done, and holds something at {}: {why}",
                swept.different_places()
            );
            let report = Report::new(Code::VerifyMismatch, found, DiskState::Incomplete);
            return Err(Failure::of_this_way(report));
        }
    };
    empty_ends(device, path)?;
    Ok(Done {
        action: action.to_owned(),
        passes: 0,
        read_back_bytes,
        proof,
    })
}

/// What the drive has filled itself with must not be taken for a table.
fn empty_ends(device: &Device, path: &Path) -> Result<(), Failure> {
    let write = |e: io::Error| Failure::of_this_way(report::write(&e, DiskState::Incomplete));
    ends_to_zero(device).map_err(write)?;
    flush(device).map_err(Failure::of_this_way)?;
    let medium = read_back::medium(device, path).map_err(Failure::of_this_way)?;
    match are_ends_empty(&medium).map_err(write)? {
        true => Ok(()),
        false => {
            let found = "the ends of the disk were zeroed, and are no zeros";
            let report = Report::new(Code::VerifyMismatch, found, DiskState::Incomplete);
            Err(Failure::of_this_way(report))
        }
    }
}

/// Whether the first and the last MiB hold nothing.
///
/// # Errors
/// They cannot be read.
pub fn are_ends_empty(device: &Device) -> io::Result<bool> {
    let mut buffer = AlignedBuf::new(HEAD_BYTES as usize);
    for end in ends(device.size_bytes()) {
        let Some(part) = buffer.get_mut(..(end.end - end.start) as usize) else {
            return Ok(false);
        };
        device.read_exact_at(end.start, part)?;
        if first_not_zero(part).is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Noise at places all over the disk.
struct Marks {
    fill: Fill,
    size: u64,
    places: Vec<u64>,
}

impl Marks {
    /// Zeros at both ends, marks in between, all of it found there again.
    fn write(device: &Device, path: &Path) -> Result<Marks, Failure> {
        let write = |e: io::Error| Failure::of_this_way(report::write(&e, DiskState::Incomplete));
        ends_to_zero(device).map_err(write)?;
        let marks = Marks {
            fill: Fill::new_noise().map_err(write)?,
            size: device.size_bytes(),
            places: places(device.size_bytes()),
        };
        let mut mark = AlignedBuf::new(MARK as usize);
        for &place in &marks.places {
            marks.fill.put(place, marks.size, &mut mark);
            device.write_past_cache(place, &mark).map_err(write)?;
        }
        flush(device).map_err(Failure::of_this_way)?;
        let medium = read_back::medium(device, path).map_err(Failure::of_this_way)?;
        let there = marks.left(&medium)?.len();
        if there == marks.places.len() {
            return Ok(marks);
        }
        let found = format!(
            "{} marks were written to {}, and {there} of them are there",
            marks.places.len(),
            path.display()
        );
        let report = Report::new(Code::VerifyMismatch, found, DiskState::Incomplete);
        Err(Failure::of_this_way(report))
    }

    /// Where a mark, or a part of one, stands.
    fn left(&self, medium: &Device) -> Result<Vec<u64>, Failure> {
        let (mut found, mut mark) = (AlignedBuf::new(MARK as usize), vec![0; MARK as usize]);
        let mut left = Vec::new();
        for &place in &self.places {
            medium.read_exact_at(place, &mut found).map_err(|e| {
                let found = format!("a mark cannot be read back: {e}");
                let report = Report::new(Code::ReadError, found, DiskState::Incomplete);
                Failure::of_this_way(report)
            })?;
            self.fill.put(place, self.size, &mut mark);
            let mut parts = found.chunks(PART).zip(mark.chunks(PART));
            if parts.any(|(found, mark)| found == mark) {
                left.push(place);
            }
        }
        Ok(left)
    }
}

/// Where marks go on a disk of that size: between its ends, at whole blocks.
fn places(size: u64) -> Vec<u64> {
    let room = size.saturating_sub(2 * HEAD_BYTES);
    let count = (room / MARK_EVERY).min(MOST_MARKS);
    let step = room.checked_div(count).unwrap_or(0) / MARK * MARK;
    (0..count).map(|n| HEAD_BYTES + n * step).collect()
}

#[cfg(test)]
#[path = "nvme_tests.rs"]
mod tests;
