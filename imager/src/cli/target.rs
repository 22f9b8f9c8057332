//! `imager target`: a job of the server, run here instead of in the Deploy-OS.
//!
//! Owns: check-in with the disks that were named, the job, its report. Does not own: the
//! job itself ([`crate::job`]), the requests ([`crate::remote`]).

use super::Output;
use super::keys::ReadKeys;
use super::shown::Shown;
use crate::job::{self, JobResult};
use crate::progress::{ProgressSink, Tracker};
use crate::remote::{self, Observer, Remote, Retrying, ServerAddress};
use crate::target::session::skipped;
use crate::target::{heartbeat, inventory, panic_report};
use crate::{disks, in_use};
use pinned::Pin;
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::{
    Action, CheckIn, Code, DiskInfo, DiskState, Finish, Job, JobOutcome, NicInfo, Report, Summary,
    size,
};

/// A single hiccup that the next try mends is not worth a line.
const WORTH_TELLING: Duration = Duration::from_secs(2);

/// Options of `imager target`.
#[derive(clap::Args)]
pub struct Args {
    /// Address of the server, as https://host:26501
    #[arg(long)]
    server: String,
    /// Hash of the server's key, as deployd prints it
    #[arg(long)]
    pin: Option<String>,
    /// Block device or raw image file that the job may use; may be given several times.
    /// The server is told of no other one
    #[arg(long = "disk", value_name = "DISK", required = true)]
    disks: Vec<PathBuf>,
    /// Be the machine with this network address [default: all of this machine's cards]
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<String>,
    /// Be the machine with this UUID [default: this machine's]
    #[arg(long, value_name = "UUID")]
    uuid: Option<String>,
    #[command(flatten)]
    keys: ReadKeys,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// Checks in, and runs what the server has for this machine. Nothing is rebooted.
pub fn run(args: &Args) -> Result<Output, Report> {
    let keyring = args.keys.keyring()?;
    let usage = |found: String| Report::new(Code::Usage, found, DiskState::NotInvolved);
    let address = ServerAddress::parse(&args.server)
        .map_err(|e| usage(format!("--server {}: {e}", args.server)))?;
    let pin = args
        .pin
        .as_deref()
        .map(Pin::from_hex)
        .transpose()
        .map_err(|e| usage(format!("--pin: {e}")))?;
    let mut list = Vec::new();
    for (number, path) in args.disks.iter().enumerate() {
        let path = disks::find(path, disks::list)?;
        let info = in_use::identify(&path)?;
        list.push(DiskInfo {
            number: number as u32,
            ..info
        });
    }
    let shown = Shown::start("job", args.quiet);
    let tracker = shown.tracker();
    let remote = Remote::new(&address, pin.as_ref(), &remote::Options::default())?;
    let remote = remote.observed_by(Arc::new(Told {
        tracker: Arc::clone(&tracker),
        told: AtomicBool::new(false),
    }));
    let message = check_in(args, &list)?;
    let Some((machine, job)) = asked_until_answered(&remote, &message, &tracker)? else {
        drop(shown);
        return Ok(said(
            "The server has nothing to do for this machine.\n".to_owned(),
            json!({"result": "nothing"}),
        ));
    };
    tracker.note(&format!("machine {machine}, execution {}", job.execution));
    let remote = remote.for_job(&job.execution, &job.token);
    let started = Instant::now();
    let result = heartbeat::beside(&remote, &tracker, || {
        let run = || job::run(&job, &remote, &list, &keyring, tracker.as_ref());
        catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|panic| Err(panic_report(panic.as_ref(), DiskState::Unknown)))
    });
    // An interrupt has ended the job; it must not end its report.
    let remote = remote.observed_by(Arc::new(remote::Unobserved));
    report(&remote, result, started.elapsed(), shown)
}

fn check_in(args: &Args, disks: &[DiskInfo]) -> Result<CheckIn, Report> {
    let mut message = inventory::check_in(disks, None);
    if let Some(mac) = &args.mac {
        message.nics = vec![NicInfo {
            mac: mac.to_lowercase(),
            link: true,
            ..NicInfo::default()
        }];
    }
    if let Some(uuid) = &args.uuid {
        message.uuid = uuid.to_lowercase();
        message.system_serial = String::new();
    }
    // Each run is a start of its own: what the one before left unfinished is resumed.
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|e| {
        let found = format!("random numbers: {e}");
        Report::new(Code::Internal, found, DiskState::NotInvolved)
    })?;
    message.boot_id = hex::encode(id);
    Ok(message)
}

/// Waits in line for as long as the server says so. None if there is nothing to do.
fn asked_until_answered(
    remote: &Remote,
    message: &CheckIn,
    tracker: &Tracker,
) -> Result<Option<(String, Box<Job>)>, Report> {
    let mut last = String::new();
    loop {
        let reply = remote.checkin(message)?;
        match reply.action {
            Action::Job(job) => return Ok(Some((reply.machine, job))),
            Action::BootLocal => return Ok(None),
            Action::Refused { reason } => return Err(reason),
            Action::Wait { seconds, reason } => {
                if reason.found != last {
                    tracker.note(&format!("waiting: {}: {}", reason.code, reason.found));
                    last = reason.found;
                }
                let end = Instant::now() + Duration::from_secs(seconds.clamp(1, 300).into());
                while Instant::now() < end {
                    if tracker.interrupted() {
                        let found = "stopped while it was waiting in line";
                        return Err(Report::new(Code::Interrupted, found, DiskState::Untouched));
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        }
    }
}

/// Tells the server how it ended; returns only when that is stored there.
fn report(
    remote: &Remote,
    result: Result<JobResult, Report>,
    elapsed: Duration,
    shown: Shown,
) -> Result<Output, Report> {
    let (outcome, summary) = match &result {
        Ok(done) => {
            let warnings = done.warnings.clone();
            (JobOutcome::Done { warnings }, done.summary.clone())
        }
        Err(report) => {
            let summary = Summary {
                seconds: elapsed.as_secs_f64(),
                ..Summary::default()
            };
            let report = report.clone();
            (JobOutcome::Failed { report }, summary)
        }
    };
    let stored = remote
        .retrying_for(Duration::MAX)
        .finish(&Finish { outcome, summary });
    drop(shown);
    let done = result?;
    stored?;
    super::print_warnings(&done.warnings);
    let summary = &done.summary;
    let text = match &summary.wipe {
        Some(wiped) => format!("Job done: {}.\n", wiped.sentence()),
        None => format!(
            "Job done: {} used of {}, {} over the network{}, in {}.\n",
            size::bytes(summary.used_bytes),
            size::bytes(summary.disk_bytes),
            size::bytes(summary.wire_bytes),
            skipped(summary),
            size::duration(summary.seconds.round() as u64)
        ),
    };
    Ok(said(
        text,
        json!({
            "result": "done",
            "disk_bytes": summary.disk_bytes,
            "used_bytes": summary.used_bytes,
            "skipped_bytes": summary.skipped_bytes,
            "wire_bytes": summary.wire_bytes,
            "seconds": summary.seconds,
            "wipe": summary.wipe,
            "warnings": super::warnings_json(&done.warnings),
        }),
    ))
}

fn said(text: String, json: serde_json::Value) -> Output {
    Output {
        text,
        json,
        aside: false,
    }
}

/// Tells a person of the connection's troubles.
struct Told {
    tracker: Arc<Tracker>,
    told: AtomicBool,
}

impl Observer for Told {
    fn retrying(&self, retrying: &Retrying<'_>) {
        if retrying.since >= WORTH_TELLING && !self.told.swap(true, Ordering::Relaxed) {
            self.tracker
                .note(&format!("{}: {}", retrying.sentence(), retrying.last.found));
        }
    }

    fn recovered(&self, _what: &'static str) {
        if self.told.swap(false, Ordering::Relaxed) {
            self.tracker.note("the server answers again");
        }
    }

    fn cancelled(&self) -> bool {
        self.tracker.interrupted()
    }
}
