//! Jobs that a server gives to a target.
//!
//! Owns: composing a disk, the engine and the server's routes into one execution, and
//! the truth about the disk in its report. Does not own: check-in, reporting the final
//! state, or the console (`target`).

use crate::backup::{self, upload};
use crate::keyring::Keyring;
use crate::progress::ProgressSink;
use crate::remote::Remote;
use crate::restore::fetch::ServerSource;
use crate::restore::{self, Guard, Plan, Source};
use crate::several::{self, Gate, GatePlace};
use crate::{bad_ranges, disks, in_use, machine, old_tables, report, source};
use blockdev::Device;
use image::record::Compression;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use wire::{
    BeginWrite, Code, Codec, DiskCheck, DiskImage, DiskInfo, DiskState, Job, JobKind, Report, Step,
    Summary,
};

/// What a job that succeeded has to say.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// Figures.
    pub summary: Summary,
    /// Things worth knowing.
    pub warnings: Vec<Report>,
}

/// Runs one execution. `Ok` means that everything was done and proved.
pub fn run(
    job: &Job,
    remote: &Remote,
    disks: &[DiskInfo],
    keyring: &Keyring,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let started = Instant::now();
    progress.step(Step::Preparing, 0);
    // The server shows what the machine holds, whatever the job is. Failing to look is
    // reported per disk and does not stop the job.
    let check = DiskCheck {
        disks: disks
            .iter()
            .map(|disk| disks::look(disk, progress))
            .collect(),
    };
    if progress.interrupted() {
        let found = "stopped by an operator while the disks were looked at";
        return Err(Report::new(Code::Interrupted, found, disk_before(job)));
    }
    if let Err(report) = remote.disks(&check) {
        // Without the server's word nobody has compared the disks of a storage network.
        if report.code == Code::DisksChanged || disks.iter().any(DiskInfo::is_of_san) {
            return Err(Report {
                disk: disk_before(job),
                ..report
            });
        }
        progress.note(&format!(
            "the disk check was not taken: {}: {}",
            report.code, report.found
        ));
    }
    let mut result = match &job.kind {
        JobKind::DiskCheck => Ok(JobResult {
            summary: Summary::default(),
            warnings: Vec::new(),
        }),
        JobKind::Backup {
            disk,
            full,
            codec,
            level,
            partitions,
            full_partitions,
            skip_bad,
            disks: several,
            ..
        } => {
            let options = backup::Options {
                seal: keyring.for_backup()?,
                full: *full,
                compression: compression(*codec, *level),
                only: partitions.clone(),
                full_partitions: full_partitions.clone(),
                skip_bad: *skip_bad,
                ..backup::Options::default()
            };
            if several.is_empty() {
                let disk = disks::select(disks, disk.as_ref())?;
                back_up(disk, &options, remote, progress)
            } else {
                let chosen = several::select(disks, several.iter())?;
                back_up_set(&chosen, &options, remote, progress)
            }
        }
        JobKind::Restore {
            disk,
            root,
            verify,
            force,
            scope,
            reuse,
            set,
            ..
        } => {
            let wanted = Wanted {
                root,
                options: restore::Options {
                    verify: *verify,
                    scope: scope.clone(),
                    // What an earlier start wrote is found by hashing the disk.
                    reuse: *reuse || job.resume,
                },
                force: *force,
                resume: job.resume,
                keyring,
                reuse: *reuse,
            };
            if set.is_empty() {
                disks::select(disks, disk.as_ref())
                    .map_err(untouched)
                    .and_then(|disk| restore_disk(disk, &wanted, None, remote, progress))
                    .map_err(|report| since_resumed(job.resume, report))
            } else {
                let chosen = several::select(disks, set.iter().map(|part| &part.disk));
                let chosen = chosen.map_err(|r| since_resumed(job.resume, untouched(r)))?;
                restore_set(&chosen, set, &wanted, &job.resumed, remote, progress)
            }
        }
    }?;
    result.summary.seconds = started.elapsed().as_secs_f64();
    Ok(result)
}

/// What is known of the disk before this start has done anything: an earlier one may have
/// written.
fn disk_before(job: &Job) -> DiskState {
    match job.resume {
        true => DiskState::Unknown,
        false => DiskState::Untouched,
    }
}

fn back_up(
    disk: &DiskInfo,
    options: &backup::Options,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let path = Path::new(&disk.path);
    in_use::refuse_if_written(path)?;
    let device = source::open(path, None)?;
    let plan = backup::Plan::make(&device, disk, machine::describe(), options, progress)?;
    let mut warnings = plan.warnings();
    for warning in &warnings {
        progress.note(&format!("warning: {}: {}", warning.code, warning.found));
    }
    let sent = upload::send(&device, &plan, options, remote, progress)?;
    warnings.extend(bad_ranges::warning_of_backup(&plan.layout, &sent.bad));
    progress.note(&format!(
        "image {} published: {} of {} chunks were new",
        sent.published.image,
        sent.chunks - sent.known.min(sent.chunks),
        sent.chunks
    ));
    let summary = Summary {
        disk_bytes: device.size_bytes(),
        used_bytes: plan.used_bytes(),
        wire_bytes: sent.wire_bytes,
        ..Summary::default()
    };
    Ok(JobResult { summary, warnings })
}

struct Wanted<'a> {
    root: &'a str,
    options: restore::Options,
    force: bool,
    resume: bool,
    keyring: &'a Keyring,
    /// As ordered.
    reuse: bool,
}

/// Disks that are backed up at a time: each one has its buffers.
const BACKUPS_AT_ONCE: usize = 2;

/// One image of each disk; they are published together.
fn back_up_set(
    chosen: &[&DiskInfo],
    options: &backup::Options,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let mut looked_at = Vec::with_capacity(chosen.len());
    for disk in chosen {
        let path = Path::new(&disk.path);
        in_use::refuse_if_written(path)?;
        let device = source::open(path, None)?;
        let plan = backup::Plan::make(&device, disk, machine::describe(), options, progress)?;
        looked_at.push((device, plan));
    }
    // Nothing is published if one of them fails, so the others need not go on.
    let failed = AtomicBool::new(false);
    let results = several::side_by_side(chosen, BACKUPS_AT_ONCE, progress, |at, progress| {
        let Some((device, plan)) = looked_at.get(at) else {
            return Err(report::thread_lost(DiskState::NotInvolved));
        };
        let progress = Unless {
            inner: progress,
            failed: &failed,
        };
        let sent = upload::send_chunks(device, plan, options, remote, &progress);
        sent.map_err(|report| {
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
    let sent = several::all(chosen, results)?;
    let mut done = JobResult {
        summary: Summary::default(),
        warnings: Vec::new(),
    };
    let mut manifests = Vec::with_capacity(sent.len());
    for ((device, plan), sent) in looked_at.iter().zip(sent) {
        done.warnings.extend(plan.warnings());
        let lost = bad_ranges::warning_of_backup(&plan.layout, &sent.bad);
        done.warnings.extend(lost);
        let manifest = sent.manifest.len() as u64;
        add(
            &mut done.summary,
            &Summary {
                disk_bytes: device.size_bytes(),
                used_bytes: plan.used_bytes(),
                wire_bytes: sent.wire_bytes + manifest,
                ..Summary::default()
            },
        );
        manifests.push(sent.manifest);
    }
    progress.step(Step::Finishing, 0);
    let published = remote.put_manifests(&manifests)?;
    for (disk, image) in chosen.iter().zip(&published) {
        progress.note(&format!("image {} of {} published", image.image, disk.path));
    }
    if published.len() != chosen.len() {
        let found = format!(
            "{} disks were backed up, and the server has {} images of them",
            chosen.len(),
            published.len()
        );
        return Err(Report::new(Code::Internal, found, DiskState::NotInvolved));
    }
    Ok(done)
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
}

/// Each image to its disk, side by side; the first is written when all can be. A disk that
/// fails does not keep the others from becoming whole.
fn restore_set(
    chosen: &[&DiskInfo],
    set: &[DiskImage],
    wanted: &Wanted<'_>,
    resumed: &[u32],
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let gate = Gate::new(chosen.len());
    let results = several::side_by_side(chosen, chosen.len(), progress, |at, progress| {
        let mut place = gate.place();
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
        };
        let remote = remote.for_part(number);
        restore_disk(disk, &wanted, Some(&mut place), &remote, progress)
            .map_err(|report| since_resumed(resume, report))
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

/// This start has not written; an earlier one of the same restore had begun to.
fn since_resumed(resumed: bool, report: Report) -> Report {
    match report.disk {
        DiskState::Untouched if resumed => Report {
            disk: DiskState::Unknown,
            ..report
        },
        _ => report,
    }
}

fn untouched(report: Report) -> Report {
    Report {
        disk: DiskState::Untouched,
        ..report
    }
}

fn restore_disk(
    disk: &DiskInfo,
    wanted: &Wanted<'_>,
    mut place: Option<&mut GatePlace<'_>>,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let path = Path::new(&disk.path);
    let device = restore::open(path, &wanted.options.scope)?;
    let disk_bytes = device.size_bytes();
    let mut image = ServerSource::open(remote, wanted.root, wanted.keyring).map_err(untouched)?;
    if wanted.resume && !restore::is_unfinished(&device, image.layout(), &wanted.options.scope)? {
        // Of several disks one may have been finished when the power went.
        if let Some(place) = &mut place
            && let Some(bytes) = restore::held(&device, path, &image, progress)?
        {
            place.ready();
            progress.note(&format!("{} holds the whole image already", disk.path));
            let summary = Summary {
                disk_bytes,
                used_bytes: bytes,
                skipped_bytes: bytes,
                ..Summary::default()
            };
            return Ok(JobResult {
                summary,
                warnings: Vec::new(),
            });
        }
        // Either tables were written and only the report was lost, or nothing was written
        // yet. Restoring again could destroy what was written since.
        let found = format!(
            "an earlier run of this restore had announced to write {}, and the disk does not \
             show a half-made restore: that run was complete, or it had not begun",
            disk.path
        );
        return Err(
            Report::new(Code::TargetSilent, found, DiskState::Unknown).with_advice(
                "Let the machine boot its own disk and look. If it is not what you want, clear the \
             error and restore again.",
            ),
        );
    }
    let mut warnings = Vec::new();
    // An image of another kind of machine would be restored, but not boot.
    // What a resumed restore left there says nothing, nor do partitions that stay.
    let whole = !wanted.resume && wanted.options.scope.is_default();
    let now = whole.then(|| restore::show::look(&device)).flatten();
    match machine::misfit(image.layout(), now.as_ref()) {
        Some(report) if !wanted.force => return Err(report),
        misfit => warnings.extend(misfit),
    }
    let mut guard = ServerGuard {
        disk,
        remote,
        progress,
        place,
    };
    let options = &wanted.options;
    let done = restore::run(device, path, &mut image, &mut guard, options, progress)?;
    if let Some(grown) = &done.grown {
        progress.note(grown);
    }
    warnings.extend(done.warnings);
    warnings.extend(bad_ranges::warning_of_image(image.layout(), &done.bad));
    let summary = Summary {
        disk_bytes,
        used_bytes: done.written_bytes + done.skipped_bytes,
        skipped_bytes: done.skipped_bytes,
        wire_bytes: done.wire_bytes,
        ..Summary::default()
    };
    Ok(JobResult { summary, warnings })
}

/// The compression that a server asks for; a level that is none of the codec's becomes the
/// nearest.
fn compression(codec: Codec, level: i32) -> Compression {
    let level = level.clamp(1, codec.max_level());
    match codec {
        Codec::None => Compression::None,
        Codec::Zstd => Compression::Zstd(level),
        Codec::Deflate => Compression::Deflate(level.unsigned_abs()),
    }
}

struct ServerGuard<'a, 'g> {
    disk: &'a DiskInfo,
    remote: &'a Remote,
    progress: &'a dyn ProgressSink,
    /// Where the other disks of the job are waited for.
    place: Option<&'a mut GatePlace<'g>>,
}

impl Guard for ServerGuard<'_, '_> {
    fn before_write(&mut self, device: &Device, _plan: &Plan) -> Result<(), Report> {
        if let Some(place) = &mut self.place {
            place.pass(device.path(), &|| self.progress.interrupted())?;
        }
        let old = old_tables::read(device, self.disk.clone());
        self.remote.put_tables(&old).map_err(untouched)?;
        self.remote
            .begin_write(&BeginWrite {
                part: self.remote.part(),
                ..BeginWrite::from(self.disk.clone())
            })
            .map_err(untouched)
    }
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "job_trials.rs"]
mod trials;
