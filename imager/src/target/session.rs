//! The conversation with the server: check-in, waiting, the job, its end.
//!
//! Owns: the order of things and what the console says about them. Does not own: the
//! job itself ([`crate::job`]), the requests ([`crate::remote`]).

use super::console::{Console, JobView};
use super::heartbeat;
use super::inventory::{self, InUse, ListDisks};
use super::observer::ConsoleObserver;
use crate::job::JobResult;
use crate::keyring::Keyring;
use crate::progress::{ProgressSink, Tracker};
use crate::remote::Remote;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{
    Action, After, Code, DiskInfo, DiskSelector, DiskState, Finish, Job, JobKind, JobOutcome,
    Report, Summary, size,
};

/// A disk that a job names may appear late (external enclosures, slow controllers).
const DISK_LIMIT: Duration = Duration::from_secs(30);
const DISK_POLL: Duration = Duration::from_millis(500);
/// The log is worth less than the result: it is not tried for longer.
const LOG_LIMIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: u32 = 300;

/// Runs a job.
pub type RunJob =
    fn(&Job, &Remote, &[DiskInfo], &Keyring, &dyn ProgressSink) -> Result<JobResult, Report>;

/// What a session composes.
#[derive(Clone, Copy)]
pub struct Engine {
    /// Runs a job.
    pub run: RunJob,
    /// Lists the disks.
    pub list: ListDisks,
}

/// A session with one server.
pub struct Session<'a> {
    /// Where people look.
    pub console: &'a Console,
    /// The server.
    pub remote: Remote,
    /// What does the work.
    pub engine: Engine,
    /// Keys that the kernel's command line names.
    pub keyring: Keyring,
    /// The network card in use.
    pub in_use: Option<InUse<'a>>,
}

impl Session<'_> {
    /// Checks in until there is something to do, does it, and says what comes after.
    ///
    /// # Errors
    /// What the error screen shows. A job that failed has been reported to the server.
    pub fn run(&self, mut disks: Vec<DiskInfo>) -> Result<After, Report> {
        let mut waiting: Option<(Report, Instant)> = None;
        let remote = self
            .remote
            .observed_by(ConsoleObserver::new(self.console, None));
        loop {
            self.state(if waiting.is_some() {
                "waiting"
            } else {
                "checking in"
            });
            if waiting.is_none() {
                let seconds = super::uptime_ms() as f64 / 1000.0;
                self.console
                    .say(&format!("check-in {seconds:.2} s after the kernel's start"));
            }
            let reply = remote.checkin(&inventory::check_in(&disks, self.in_use.as_ref()))?;
            if waiting.is_none() {
                self.console.say(&format!("machine {}", reply.machine));
                let model = inventory::model(std::path::Path::new("/sys/class/dmi/id"));
                self.console
                    .update(move |v| v.machine = format!("{}, {model}", reply.machine));
            }
            if let Some(notice) = reply.notice.filter(|_| waiting.is_none()) {
                self.console.say(&format!("note {notice}"));
            }
            match reply.action {
                Action::Job(job) => {
                    self.console.update(|view| view.notice.clear());
                    return self.job(&job, disks);
                }
                Action::BootLocal => {
                    self.console.say("nothing to do, booting the local disk");
                    return Ok(After::BootLocal);
                }
                Action::Refused { reason } => return Err(reason),
                Action::Wait { seconds, reason } => {
                    self.wait(&mut waiting, seconds, reason);
                    disks = (self.engine.list)()?;
                }
            }
        }
    }

    /// Shows what is waited for, since when, and when the server is asked again.
    fn wait(&self, waiting: &mut Option<(Report, Instant)>, seconds: u32, reason: Report) {
        let pause = seconds.clamp(1, LONGEST_WAIT);
        let new = waiting
            .as_ref()
            .is_none_or(|(old, _)| old.code != reason.code);
        if new {
            self.console
                .say(&format!("waiting {}: {}", reason.code, reason.found));
        }
        let since = waiting
            .as_ref()
            .filter(|_| !new)
            .map_or_else(Instant::now, |(_, at)| *at);
        self.state("waiting");
        let end = Instant::now() + Duration::from_secs(pause.into());
        while Instant::now() < end {
            let notice = format!(
                "{} {} {} (since {}; the server is asked every {pause} s)",
                reason.code.headline(),
                reason.found,
                reason.advice,
                size::duration(since.elapsed().as_secs()),
            );
            self.console.update(move |view| view.notice = notice);
            std::thread::sleep(Duration::from_secs(1));
        }
        *waiting = Some((reason, since));
    }

    fn job(&self, job: &Job, disks: Vec<DiskInfo>) -> Result<After, Report> {
        let notes = self.console.clone();
        let tracker = Arc::new(Tracker::new(move |text| notes.say(&format!("note {text}"))));
        let observer = ConsoleObserver::new(self.console, Some(Arc::clone(&tracker)));
        let remote = self
            .remote
            .for_job(&job.execution, &job.token)
            .observed_by(observer);
        let verb = verb(&job.kind);
        self.console
            .say(&format!("job {} started", verb.replace(' ', "-")));
        let started = Instant::now();
        // Whatever goes wrong from here on is told to the server: the job is ours.
        let result = self.wait_for_disk(&job.kind, disks).and_then(|disks| {
            let view = job_view(&job.kind, &disks);
            self.console.update(move |v| v.job = Some(view));
            self.state(verb);
            self.console.track(Some(Arc::clone(&tracker)));
            let result = self.run_with_progress(job, &remote, &disks, &tracker);
            self.console.track(None);
            result
        });
        let result = result.map_err(|report| after_an_earlier_run(job, report));
        self.report(job, &remote, &finish(result, started.elapsed()))
    }

    fn run_with_progress(
        &self,
        job: &Job,
        remote: &Remote,
        disks: &[DiskInfo],
        tracker: &Arc<Tracker>,
    ) -> Result<JobResult, Report> {
        let run = || (self.engine.run)(job, remote, disks, &self.keyring, tracker.as_ref());
        let result = heartbeat::beside(remote, tracker, || catch_unwind(AssertUnwindSafe(run)));
        result
            .unwrap_or_else(|panic| Err(super::panic_report(panic.as_ref(), disk_after(&job.kind))))
    }

    /// Uploads the log and the result; returns only when the result is stored.
    fn report(&self, job: &Job, remote: &Remote, finish: &Finish) -> Result<After, Report> {
        let failed = match &finish.outcome {
            JobOutcome::Done { warnings } => {
                for warning in warnings {
                    self.console
                        .say(&format!("note {}: {}", warning.code, warning.found));
                }
                self.console.say(&summary_line(&finish.summary));
                None
            }
            JobOutcome::Failed { report } => {
                self.console.say(&format!(
                    "note the job failed: {}: {}",
                    report.code, report.found
                ));
                Some(report.clone())
            }
        };
        self.console.say("waiting for the server to confirm");
        self.state("waiting for the server to confirm the result");
        // An interrupt has ended the job; it must not end its report.
        let remote = remote.observed_by(ConsoleObserver::new(self.console, None));
        let log = self.log();
        if let Err(error) = remote.retrying_for(LOG_LIMIT).log(&log) {
            self.console
                .say(&format!("note the log was not uploaded: {}", error.found));
        }
        let reply = remote.retrying_for(Duration::MAX).finish(finish);
        match (failed, reply) {
            (None, Ok(reply)) => {
                self.console.say("done");
                self.state("done");
                Ok(reply.after)
            }
            (Some(report), Ok(_)) => Err(report),
            (None, Err(mut refusal)) => {
                refusal.disk = disk_after_success(&job.kind);
                Err(refusal)
            }
            (Some(report), Err(refusal)) => {
                self.console.say(&format!(
                    "note the server did not take the result: {}",
                    refusal.found
                ));
                Err(report)
            }
        }
    }

    /// The run's log: what happened, what the machine is made of now, what the kernel said.
    fn log(&self) -> String {
        let disks = (self.engine.list)().unwrap_or_default();
        let machine = inventory::check_in(&disks, self.in_use.as_ref());
        let machine = serde_json::to_string(&machine).unwrap_or_default();
        format!(
            "{}\n-- machine --\n{machine}\n-- kernel --\n{}",
            self.console.journal().text(),
            super::journal::kernel_log()
        )
    }

    /// The disks, once the one that the job means is among them or the time is over; the
    /// job itself then says what is missing.
    fn wait_for_disk(&self, kind: &JobKind, disks: Vec<DiskInfo>) -> Result<Vec<DiskInfo>, Report> {
        let wanted = selectors(kind);
        let began = Instant::now();
        let mut disks = disks;
        let missing = |disks: &[DiskInfo]| {
            let is_missing = |selector: &Option<&DiskSelector>| {
                crate::disks::select(disks, *selector).is_err_and(|e| e.code == Code::DiskNotFound)
            };
            wanted.iter().any(is_missing)
        };
        while missing(&disks) && began.elapsed() < DISK_LIMIT {
            let text = format!(
                "waiting for the disk of the job (since {}, up to {})",
                size::duration(began.elapsed().as_secs()),
                size::duration(DISK_LIMIT.as_secs())
            );
            self.console.update(move |view| view.notice = text);
            std::thread::sleep(DISK_POLL);
            disks = (self.engine.list)()?;
        }
        self.console.update(|view| view.notice.clear());
        Ok(disks)
    }

    fn state(&self, text: &str) {
        let text = text.to_owned();
        self.console.update(move |view| view.state = text);
    }
}

/// This run may not have touched the disk, but the one that it goes on from may have.
fn after_an_earlier_run(job: &Job, report: Report) -> Report {
    match report.disk {
        DiskState::Untouched | DiskState::NotInvolved if job.resume => Report {
            disk: DiskState::Unknown,
            ..report
        },
        _ => report,
    }
}

fn finish(result: Result<JobResult, Report>, elapsed: Duration) -> Finish {
    match result {
        Ok(JobResult { summary, warnings }) => Finish {
            outcome: JobOutcome::Done { warnings },
            summary,
        },
        Err(report) => Finish {
            outcome: JobOutcome::Failed { report },
            summary: Summary {
                seconds: elapsed.as_secs_f64(),
                ..Summary::default()
            },
        },
    }
}

fn verb(kind: &JobKind) -> &'static str {
    match kind {
        JobKind::Backup { .. } => "backup",
        JobKind::Restore { .. } => "restore",
        JobKind::Wipe(_) => "wipe",
        JobKind::Script { .. } => "script",
        JobKind::DiskCheck => "disk check",
    }
}

/// The disks of a job; none if it needs none in particular.
fn selectors(kind: &JobKind) -> Vec<Option<&DiskSelector>> {
    match kind {
        JobKind::Backup { disks, .. } if !disks.is_empty() => disks.iter().map(Some).collect(),
        JobKind::Restore { set, .. } if !set.is_empty() => {
            set.iter().map(|part| Some(&part.disk)).collect()
        }
        JobKind::Backup { disk, .. } | JobKind::Restore { disk, .. } => vec![disk.as_ref()],
        JobKind::Wipe(order) => vec![order.disk.as_ref()],
        JobKind::Script { .. } | JobKind::DiskCheck => Vec::new(),
    }
}

/// What must be assumed of the disk when a job ends in a way that tells nothing.
fn disk_after(kind: &JobKind) -> DiskState {
    match kind {
        JobKind::Restore { .. } | JobKind::Wipe(_) => DiskState::Unknown,
        JobKind::Backup { .. } | JobKind::DiskCheck => DiskState::Untouched,
        JobKind::Script { .. } => DiskState::Unknown,
    }
}

fn disk_after_success(kind: &JobKind) -> DiskState {
    match kind {
        JobKind::Restore { .. } | JobKind::Wipe(_) => DiskState::Complete,
        JobKind::Backup { .. } | JobKind::Script { .. } | JobKind::DiskCheck => {
            DiskState::Untouched
        }
    }
}

fn job_view(kind: &JobKind, disks: &[DiskInfo]) -> JobView {
    let image = match kind {
        JobKind::Backup { image, .. } => image.clone(),
        JobKind::Restore { image_name, .. } => image_name.clone(),
        JobKind::Script { name } => name.clone(),
        JobKind::Wipe(_) | JobKind::DiskCheck => String::new(),
    };
    let disk = match selectors(kind)[..] {
        [] => format!("{} disks", disks.len()),
        [wanted] => crate::disks::select(disks, wanted).map_or("...".to_owned(), describe),
        ref several => format!("{} disks", several.len()),
    };
    JobView {
        verb: verb(kind).to_owned(),
        image,
        disk,
    }
}

/// A disk in words.
pub(super) fn describe(disk: &DiskInfo) -> String {
    let serial = if disk.serial.is_empty() {
        ""
    } else {
        ", serial "
    };
    format!(
        "{}, {}, {}{serial}{}",
        disk.path,
        size::bytes(disk.size_bytes),
        disk.model,
        disk.serial
    )
}

fn summary_line(summary: &Summary) -> String {
    if let Some(wiped) = &summary.wipe {
        return format!("note {}", wiped.sentence());
    }
    format!(
        "note {} of {} in {}, {} over the network",
        size::bytes(summary.used_bytes),
        size::bytes(summary.disk_bytes),
        size::duration(summary.seconds as u64),
        size::bytes(summary.wire_bytes),
    ) + &skipped(summary)
}

/// What a restore found on the disk, if anything.
pub fn skipped(summary: &Summary) -> String {
    match summary.skipped_bytes {
        0 => String::new(),
        bytes => format!(", {} were on the disk already", size::bytes(bytes)),
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
