//! Jobs of several disks.
//!
//! Owns: what the disks of one job have in common: when they begin, what ends all of them,
//! and one result. Does not own: the work on one disk ([`super`]), running side by side and
//! the gate ([`crate::several`]).

use super::{JobResult, Wanted, restore_disk, since_resumed};
use crate::backup::{self, upload};
use crate::progress::ProgressSink;
use crate::remote::Remote;
use crate::restore;
use crate::several::{self, Gate, Together};
use crate::target::inventory;
use crate::{bad_ranges, in_use, machine, report, source};
use blockdev::Device;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Code, DiskImage, DiskInfo, DiskState, Report, Step, Summary};

/// Disks that are backed up at a time: each one has its buffers.
const BACKUPS_AT_ONCE: usize = 2;

/// What a backup of one disk leaves for the images of all to be published.
struct Sent {
    manifest: Vec<u8>,
    root: String,
    summary: Summary,
    warnings: Vec<Report>,
}

/// One image of each disk; they are published together.
pub fn back_up(
    chosen: &[&DiskInfo],
    options: &backup::Options,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    // A disk that cannot be backed up is told before hours go into the others. What is seen
    // now is only a check: when a disk's turn comes it may hold other things.
    let mut totals = Vec::with_capacity(chosen.len());
    for disk in chosen {
        let (_, plan) = look(disk, options, progress).map_err(|report| of(disk, report))?;
        totals.push(plan.used_bytes());
    }
    let base = remote.names_of_base()?;
    // Nothing is published if one of them fails, so the others need not go on.
    let failed = Arc::new(AtomicBool::new(false));
    let until_one_fails = remote.until(Arc::clone(&failed));
    let together = Together {
        at_once: BACKUPS_AT_ONCE,
        totals,
        panicked: DiskState::NotInvolved,
        // This thread works on all of them then, one after the other.
        not_started: &|| {},
    };
    let results = several::side_by_side(chosen, &together, progress, |at, progress| {
        let Some(disk) = chosen.get(at) else {
            return Err(report::thread_lost(DiskState::NotInvolved));
        };
        let progress = Unless {
            inner: progress,
            failed: &failed,
        };
        back_up_one(disk, options, &until_one_fails, &base, &progress).map_err(|report| {
            let other_failed = failed.swap(true, Ordering::Relaxed);
            match report.code {
                Code::Interrupted if other_failed && !progress.inner.interrupted() => Report {
                    found: "stopped, because another disk of the job failed".to_owned(),
                    ..report
                },
                _ => report,
            }
        })
    });
    let mut done = JobResult {
        summary: Summary::default(),
        warnings: Vec::new(),
    };
    let (mut manifests, mut roots) = (Vec::new(), Vec::new());
    for sent in several::all(chosen, results)? {
        add(&mut done.summary, &sent.summary);
        done.warnings.extend(sent.warnings);
        manifests.push(sent.manifest);
        roots.push(sent.root);
    }
    progress.step(Step::Finishing, 0);
    let published = remote.put_manifests(&manifests)?;
    if published.len() != chosen.len() {
        let found = format!(
            "{} disks were backed up, and the server has {} images of them",
            chosen.len(),
            published.len()
        );
        return Err(Report::new(Code::Internal, found, DiskState::NotInvolved));
    }
    for (disk, image) in chosen.iter().zip(&published) {
        progress.note(&format!("image {} of {} published", image.image, disk.path));
    }
    if published
        .iter()
        .zip(&roots)
        .any(|(is, root)| is.root != *root)
    {
        progress.note(upload::PUBLISHED_BEFORE);
    }
    Ok(done)
}

/// Opens a disk for a backup and plans it.
fn look(
    disk: &DiskInfo,
    options: &backup::Options,
    progress: &dyn ProgressSink,
) -> Result<(Device, backup::Plan), Report> {
    let path = Path::new(&disk.path);
    in_use::refuse_if_written(path)?;
    let device = source::open(path, None)?;
    let plan = backup::Plan::make(&device, disk, machine::describe(), options, progress)?;
    Ok((device, plan))
}

fn back_up_one(
    disk: &DiskInfo,
    options: &backup::Options,
    remote: &Remote,
    base: &[[u8; 32]],
    progress: &dyn ProgressSink,
) -> Result<Sent, Report> {
    let (device, plan) = look(disk, options, progress)?;
    let mut warnings = named(disk, plan.warnings());
    for warning in &warnings {
        progress.note(&format!("warning: {}: {}", warning.code, warning.found));
    }
    let sent = upload::send_chunks(&device, &plan, options, remote, base, progress)?;
    let lost = bad_ranges::warning_of_backup(&plan.layout, &sent.bad);
    warnings.extend(named(disk, lost));
    let summary = Summary {
        disk_bytes: device.size_bytes(),
        used_bytes: plan.used_bytes(),
        wire_bytes: sent.wire_bytes + sent.manifest.len() as u64,
        ..Summary::default()
    };
    Ok(Sent {
        manifest: sent.manifest,
        root: sent.root,
        summary,
        warnings,
    })
}

/// A report that says which disk of the job it is about.
fn of(disk: &DiskInfo, report: Report) -> Report {
    let found = format!("{}: {}", several::name(disk), report.found);
    Report { found, ..report }
}

fn named(disk: &DiskInfo, warnings: impl IntoIterator<Item = Report>) -> Vec<Report> {
    let warnings = warnings.into_iter();
    warnings.map(|report| of(disk, report)).collect()
}

/// A sink that also ends the work when another disk has failed.
struct Unless<'a> {
    inner: &'a dyn ProgressSink,
    failed: &'a AtomicBool,
}

impl ProgressSink for Unless<'_> {
    fn step(&self, step: Step, total_bytes: u64) {
        self.inner.step(step, total_bytes);
    }

    fn advance(&self, plain_bytes: u64, wire_bytes: u64) {
        self.inner.advance(plain_bytes, wire_bytes);
    }

    fn note(&self, text: &str) {
        self.inner.note(text);
    }

    fn interrupted(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.inner.interrupted()
    }
}

fn add(sum: &mut Summary, one: &Summary) {
    sum.disk_bytes += one.disk_bytes;
    sum.used_bytes += one.used_bytes;
    sum.skipped_bytes += one.skipped_bytes;
    sum.wire_bytes += one.wire_bytes;
    sum.boot_entries.extend_from_slice(&one.boot_entries);
}

/// Bytes of the pages of a full disk's manifest: 53 for each cell of 1 MiB.
fn manifest_bytes(disk_bytes: u64) -> u64 {
    (disk_bytes >> 20).saturating_mul(53)
}

/// Memory that the manifests of a restore may take: what is left is for buffers.
pub fn room_for_manifests() -> u64 {
    inventory::memory_available() / 3
}

/// Each image to its disk, side by side; the first is written when all can be. A disk that
/// fails does not keep the others from becoming whole. `room`: bytes of memory for what is
/// known of the images.
pub fn restore(
    room: u64,
    chosen: &[&DiskInfo],
    set: &[DiskImage],
    wanted: &Wanted<'_>,
    resumed: &[u32],
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let needs: Vec<u64> = chosen
        .iter()
        .map(|disk| manifest_bytes(disk.size_bytes))
        .collect();
    let gate = Gate::new(&needs, room);
    let together = Together {
        // Each waits at the gate for all others, so each needs a thread.
        at_once: chosen.len(),
        totals: Vec::new(),
        panicked: DiskState::Unknown,
        not_started: &|| gate.give_up(),
    };
    let results = several::side_by_side(chosen, &together, progress, |at, progress| {
        let mut place = gate.place(needs.get(at).copied().unwrap_or_default());
        let (Some(disk), Some(part)) = (chosen.get(at), set.get(at)) else {
            return Err(report::thread_lost(DiskState::Untouched));
        };
        let number = at as u32;
        let resume = resumed.contains(&number);
        let wanted = Wanted {
            root: &part.root,
            options: restore::Options {
                reuse: wanted.reuse || resume,
                ..wanted.options.clone()
            },
            resume,
            force: wanted.force,
            keyring: wanted.keyring,
            reuse: wanted.reuse,
            session: None,
        };
        let remote = remote.for_part(number);
        restore_disk(disk, &wanted, Some(&mut place), &remote, progress)
            .map_err(|report| since_resumed(resume, report))
            .map(|done| JobResult {
                warnings: named(disk, done.warnings),
                ..done
            })
    });
    let mut done = JobResult {
        summary: Summary::default(),
        warnings: Vec::new(),
    };
    for one in several::all(chosen, results)? {
        add(&mut done.summary, &one.summary);
        done.warnings.extend(one.warnings);
    }
    Ok(done)
}

#[cfg(test)]
#[path = "sets_stage.rs"]
mod stage;
#[cfg(test)]
#[path = "sets_tests.rs"]
mod tests;
