//! Jobs that a server gives to a target.
//!
//! Owns: composing a disk, the engine and the server's routes into one execution, and
//! the truth about the disk in its report. Does not own: jobs of several disks (`sets`),
//! wiping (`wipe`), scripts (`scripts`), check-in, reporting the final state, or the console (`target`).

mod scripts;
mod sets;
mod wipe;

use crate::backup::{self, upload};
use crate::cast::server::SessionSource;
use crate::keyring::Keyring;
use crate::progress::ProgressSink;
use crate::remote::Remote;
use crate::restore::fetch::{Pages, ServerSource};
use crate::restore::{self, Guard, Plan, Source};
use crate::several::{self, GatePlace};
use crate::target::hardware;
use crate::{bad_ranges, boot_entries, cast, disks, in_use, machine, old_tables, source};
use blockdev::Device;
use image::Layout;
use image::record::Compression;
use scripts::Scripts;
use std::path::Path;
use std::time::Instant;
use wire::script::ScriptWhen;
use wire::{
    BeginWrite, Code, Codec, DiskCheck, DiskCheckEntry, DiskInfo, DiskState, Job, JobKind, Report,
    Session, Step, Summary,
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
        disks: disks.iter().map(|disk| look(disk, progress)).collect(),
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
    let scripts = Scripts::check(job, keyring.trusted).map_err(|report| Report {
        disk: disk_before(job),
        ..report
    })?;
    // A job that goes on had its script before it began to write.
    if !job.resume {
        scripts.run(ScriptWhen::Before, disk_before(job), remote, progress)?;
    }
    let mut result = match &job.kind {
        JobKind::DiskCheck => Ok(JobResult {
            summary: Summary::default(),
            warnings: Vec::new(),
        }),
        JobKind::Script { .. } => {
            progress.step(Step::Running, 0);
            scripts
                .run(ScriptWhen::Alone, DiskState::NotInvolved, remote, progress)
                .map(|()| JobResult {
                    summary: Summary::default(),
                    warnings: Vec::new(),
                })
        }
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
                sets::back_up(&chosen, &options, remote, progress)
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
            multicast,
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
                session: multicast.as_ref(),
            };
            if set.is_empty() {
                disks::select(disks, disk.as_ref())
                    .map_err(untouched)
                    .and_then(|disk| restore_disk(disk, &wanted, None, remote, progress))
                    .map_err(|report| since_resumed(job.resume, report))
            } else {
                let chosen = several::select(disks, set.iter().map(|part| &part.disk))
                    .and_then(|chosen| several::told_apart(chosen, disks, &job.resumed))
                    .map_err(|report| since_resumed(job.resume, untouched(report)))?;
                let room = sets::room_for_manifests();
                sets::restore(room, &chosen, set, &wanted, &job.resumed, remote, progress)
            }
        }
        JobKind::Wipe(order) => wipe::run(order, job.resume, disks, remote, progress),
    }?;
    let after = match &job.kind {
        JobKind::Restore { .. } => DiskState::Complete,
        _ => DiskState::NotInvolved,
    };
    scripts.run(ScriptWhen::After, after, remote, progress)?;
    result.summary.seconds = started.elapsed().as_secs_f64();
    Ok(result)
}

/// What is on a disk, and how well it is.
fn look(disk: &DiskInfo, progress: &dyn ProgressSink) -> DiskCheckEntry {
    let health = hardware::health(disk);
    if let Some(health) = &health {
        progress.note(&format!("disk {}: {}", disk.path, health.sentence()));
    }
    DiskCheckEntry {
        health,
        ..disks::look(disk, progress)
    }
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
    /// The session that brings the image, if one does.
    session: Option<&'a Session>,
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
    let stop = || progress.interrupted();
    if let Some(place) = &mut place {
        place.check(path, &stop)?;
    }
    let device = restore::open(path, &wanted.options.scope)?;
    let disk_bytes = device.size_bytes();
    let mut image = ServerSource::open(remote, wanted.root, wanted.keyring).map_err(untouched)?;
    if wanted.resume && !restore::is_unfinished(&device, image.layout(), &wanted.options.scope)? {
        // Of several disks one may have been finished when the power went.
        if let Some(place) = &mut place
            && let Some(held) = restore::held(&device, path, &image, progress)?
        {
            place.ready();
            progress.note(&format!("{} holds the whole image already", disk.path));
            // The run that wrote it may have ended before it came to them.
            let before = boot_entries::before(&device);
            let entries = boot_entries::after(path, &before, progress);
            let summary = Summary {
                disk_bytes,
                used_bytes: held.bytes,
                skipped_bytes: held.bytes,
                boot_entries: entries.changed,
                ..Summary::default()
            };
            let lost = bad_ranges::warning_of_image(image.layout(), &held.bad);
            return Ok(JobResult {
                summary,
                warnings: lost.into_iter().chain(entries.warning).collect(),
            });
        }
        return Err(not_half_made(disk, place.is_some()));
    }
    // What an earlier start left, and the look has just confirmed.
    let half_made = wanted.resume && place.is_some();
    let restored = restore_image(device, disk, &mut image, wanted, place, remote, progress);
    restored.map_err(|report| match report.disk {
        DiskState::Untouched if half_made => Report {
            disk: DiskState::Incomplete,
            ..report
        },
        _ => report,
    })
}

/// Either tables were written and only the report was lost, or nothing was written yet.
/// Restoring again could destroy what was written since.
fn not_half_made(disk: &DiskInfo, one_of_several: bool) -> Report {
    let found = format!(
        "an earlier run of this restore had announced to write {}, and the disk does not \
         show a half-made restore: that run was complete, or it had not begun",
        disk.path
    );
    let advice = match one_of_several {
        false => {
            "Let the machine boot its own disk and look. If it is not what you want, clear the \
             error and restore again."
        }
        // The machine may not be able to.
        true => {
            "Other disks of the job may be half-made, so the machine may not boot. Save what is \
             worth it on this disk, if it was used since; then clear the error and restore all \
             of them again."
        }
    };
    Report::new(Code::TargetSilent, found, DiskState::Unknown).with_advice(advice)
}

/// The checks that go before the first write, and the restore.
fn restore_image(
    device: Device,
    disk: &DiskInfo,
    image: &mut ServerSource,
    wanted: &Wanted<'_>,
    place: Option<&mut GatePlace<'_>>,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<JobResult, Report> {
    let (path, disk_bytes) = (Path::new(&disk.path), device.size_bytes());
    let mut warnings = Vec::new();
    // An image of another kind of machine would be restored, but not boot.
    // What a resumed restore left there says nothing, nor do partitions that stay.
    let whole = !wanted.resume && wanted.options.scope.is_default();
    let now = whole
        .then(|| restore::show::look(&device, progress))
        .flatten();
    match machine::misfit(image.layout(), now.as_ref()) {
        Some(report) if !wanted.force => return Err(report),
        misfit => warnings.extend(misfit),
    }
    let layout = image.layout().clone();
    let mut guard = ServerGuard {
        disk,
        layout: &layout,
        wanted,
        pages: image.shared_pages(),
        remote,
        progress,
        place,
    };
    let options = &wanted.options;
    let done = match wanted.session {
        None => restore::run(device, path, image, &mut guard, options, progress)?,
        Some(session) => {
            let mut sent = SessionSource::new(image, remote, session)?;
            let done = restore::run(device, path, &mut sent, &mut guard, options, progress)?;
            progress.note(&sent.account());
            warnings.extend(sent.warning());
            done
        }
    };
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
        boot_entries: done.boot_entries,
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
    layout: &'a Layout,
    wanted: &'a Wanted<'a>,
    pages: Pages,
    remote: &'a Remote,
    progress: &'a dyn ProgressSink,
    /// Where the other disks of the job are waited for.
    place: Option<&'a mut GatePlace<'g>>,
}

impl Guard for ServerGuard<'_, '_> {
    fn before_write(&mut self, device: &Device, plan: &Plan) -> Result<(), Report> {
        let old = old_tables::read(device, self.disk.clone());
        self.remote.put_tables(&old).map_err(untouched)?;
        // What can fail without a word of the server on the disk comes before the gate, behind
        // which disks are written.
        if let Some(place) = &mut self.place {
            self.progress
                .step(Step::Preparing, plan.used_bytes(self.layout));
            let narrow = place.is_narrow();
            if narrow {
                self.pages.set_aside();
            }
            place.pass(device.path(), &|| self.progress.interrupted())?;
            if narrow {
                let back =
                    self.pages
                        .bring_back(self.remote, self.wanted.root, self.wanted.keyring);
                back.map_err(untouched)?;
            }
        }
        if self.wanted.session.is_some() {
            // The disk stays as it is until there is something to write.
            cast::server::wait_for_start(self.remote, self.progress).map_err(untouched)?;
        }
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
