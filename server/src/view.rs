//! What operators see and ask for: the JSON of `/api`.
//!
//! Owns: the shapes that `deployctl` and the web page share with the server, and the
//! sentences about states. Does not own: routes. Times are seconds since 1970 (UTC).

mod images;

pub use images::{ImageView, image, images};

use crate::app::App;
use crate::cast::shown::SessionView;
use crate::db::executions::Execution;
use crate::db::machines::{self, Machine};
use crate::db::{Conn, executions};
use crate::exec::state::State;
use crate::exec::{checkin, kind_name, stall, watch};
use crate::failure::Outcome;
use crate::netboot::LocalBoot;
use crate::netboot::board::Trouble;
use serde::{Deserialize, Serialize};
use wire::script::NewScript;
use wire::size::duration;
use wire::{
    After, Codec, DiskCheck, DiskInfo, DiskSelector, Hardware, JobKind, JobOutcome, Progress,
    Report, RestoreScope, Summary, WipeOrder,
};

/// What the server is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VersionView {
    /// Software version.
    pub version: String,
    /// Protocol version.
    pub protocol: u32,
    /// Hash of the key by which targets know the server.
    #[serde(default)]
    pub pin: String,
    /// Public key that signs its images.
    #[serde(default)]
    pub signing_key: Option<String>,
}

/// A machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MachineView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// MAC addresses.
    pub macs: Vec<String>,
    /// UUID, if it has a real one.
    pub uuid: Option<String>,
    /// SMBIOS serial number.
    pub serial: String,
    /// Vendor and product.
    pub model: String,
    /// `bios` or `uefi`; empty before the first check-in.
    pub firmware: String,
    /// CPU architecture.
    pub architecture: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Version of its Deploy-OS.
    pub version: String,
    /// Address of the last check-in.
    pub address: String,
    /// Kernel start to last check-in, in milliseconds.
    pub uptime_ms: u64,
    /// Disks of the last check-in.
    pub disks: Vec<DiskInfo>,
    /// Last disk check; left out of lists.
    pub disk_check: Option<DiskCheck>,
    /// Its time.
    pub disk_check_at: Option<i64>,
    /// How its own disk is booted.
    #[serde(default)]
    pub local_boot: LocalBoot,
    /// First contact.
    pub first_seen: i64,
    /// Last contact.
    pub last_seen: i64,
    /// The execution that runs, waits or has to be cleared.
    pub execution: Option<ExecutionView>,
    /// Its Deploy-OS has another version than this server.
    #[serde(default)]
    pub outdated: bool,
    /// It fetched its boot script and never checked in.
    #[serde(default)]
    pub stalled: Option<Report>,
    /// What it is made of; left out of lists.
    #[serde(default)]
    pub hardware: Option<Hardware>,
}

/// An execution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecutionView {
    /// Id.
    pub id: String,
    /// Name of the machine.
    pub machine: String,
    /// `backup`, `restore`, `wipe`, `script` or `disk-check`.
    pub kind: String,
    /// Name of the image, or of the script of a script job.
    pub image: Option<String>,
    /// Id of the image: the one that is restored, or was published.
    pub image_id: Option<String>,
    /// Disk that was chosen.
    pub disk: Option<DiskSelector>,
    /// What of the disk a restore replaces; everything if not given.
    #[serde(default, skip_serializing_if = "RestoreScope::is_default")]
    pub scope: RestoreScope,
    /// Disks that were chosen, if they are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskSelector>,
    /// Disk that a restore or a wipe has begun to overwrite; the first one of several.
    pub writes_to: Option<DiskInfo>,
    /// All disks that a restore of several has begun to overwrite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes_to_all: Vec<DiskInfo>,
    /// State.
    pub state: State,
    /// What it waits for, since when, and what would end that.
    pub note: String,
    /// The machine cannot have another execution.
    pub open: bool,
    /// When it was made.
    pub created: i64,
    /// When the state changed last.
    pub changed: i64,
    /// When the target got the job.
    pub started: Option<i64>,
    /// When it ended.
    pub ended: Option<i64>,
    /// The target is not heard since.
    pub silent_since: Option<i64>,
    /// Last progress.
    pub progress: Option<Progress>,
    /// Why it failed.
    pub report: Option<Report>,
    /// Things worth knowing about one that is done.
    pub warnings: Vec<Report>,
    /// Figures of the end.
    pub summary: Option<Summary>,
    /// What the target does afterwards.
    pub after: After,
    /// Its place in line, from 1, while it waits for a transfer slot.
    #[serde(default)]
    pub place: Option<usize>,
    /// Most bytes a second of its transfer.
    #[serde(default)]
    pub rate_limit: Option<u64>,
}

/// Transfers, of which only so many run at a time.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Transfers {
    /// Executions that have a slot.
    pub running: usize,
    /// Slots.
    pub most: usize,
    /// Executions in line.
    pub waiting: usize,
}

/// Everything that the overview shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// The server.
    pub server: VersionView,
    /// The server's time.
    pub now: i64,
    /// Free bytes of the store.
    pub free_bytes: u64,
    /// Machines by name.
    pub machines: Vec<MachineView>,
    /// Newest executions.
    pub executions: Vec<ExecutionView>,
    /// Images by name.
    pub images: Vec<ImageView>,
    /// Transfers.
    #[serde(default)]
    pub transfers: Transfers,
    /// Multicast sessions, the newest first.
    #[serde(default)]
    pub sessions: Vec<SessionView>,
    /// What stands in the way of network boots, the newest first.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
}

/// A new execution.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewExecution {
    /// What to do.
    pub job: JobRequest,
    /// What the target does afterwards.
    #[serde(default)]
    pub after: After,
    /// Most bytes a second of its transfer; no limit if not given.
    #[serde(default)]
    pub rate: Option<u64>,
    /// Scripts that run before or after it, or are it.
    #[serde(default)]
    pub scripts: Vec<NewScript>,
}

/// What an operator asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobRequest {
    /// Make an image.
    Backup {
        /// The disk; the only fixed one if not given.
        #[serde(default)]
        disk: Option<DiskSelector>,
        /// Name of the image; may have `{machine}`, `{mac}`, `{uuid}` and `{date}` in it.
        image: String,
        /// Copy every sector.
        #[serde(default)]
        full: bool,
        /// How the target compresses; zstd if not given.
        #[serde(default)]
        codec: Codec,
        /// The codec's level.
        #[serde(default = "default_level")]
        level: i32,
        /// Numbers of the partitions to copy; the whole disk if there is none.
        #[serde(default)]
        partitions: Vec<u32>,
        /// Numbers of partitions of which every sector is copied.
        #[serde(default)]
        full_partitions: Vec<u32>,
        /// Go on past sectors that cannot be read.
        #[serde(default)]
        skip_bad: bool,
        /// Several disks: one image each, published together. Given without `disk`.
        #[serde(default)]
        disks: Vec<DiskSelector>,
        /// All fixed disks of the machine's last check-in.
        #[serde(default)]
        all_disks: bool,
    },
    /// Write an image to a disk.
    Restore {
        /// The disk; the only fixed one if not given.
        #[serde(default)]
        disk: Option<DiskSelector>,
        /// Name (its newest) or id.
        image: String,
        /// Read back what was written.
        #[serde(default = "yes")]
        verify: bool,
        /// Go on although architecture or firmware mode differ.
        #[serde(default)]
        force: bool,
        /// What of the disk is replaced; everything if not given.
        #[serde(default)]
        scope: RestoreScope,
        /// Hash what the disk holds, and write only what differs.
        #[serde(default)]
        reuse: bool,
        /// The disks that the images of a set go to, in its order; a single one is as `disk`.
        #[serde(default)]
        disks: Vec<DiskSelector>,
        /// All images of the set, each to the disk that it was made of.
        #[serde(default)]
        all_disks: bool,
    },
    /// Make everything on a disk unreadable.
    Wipe(WipeOrder),
    /// Run a script, which is among the order's.
    Script {
        /// Its name, for display.
        name: String,
    },
    /// List disks, partitions and file systems.
    DiskCheck,
}

/// Where one image of a set goes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Placement {
    /// Id of the image.
    pub image: String,
    /// Size of the disk that it was made of, in bytes.
    pub size_bytes: u64,
    /// Model of that disk; empty if it is not known, or encrypted.
    pub model: String,
    /// Serial number of that disk; empty as the model.
    pub serial: String,
    /// The disk that it goes to, as an order would name it.
    pub disk: DiskSelector,
    /// That disk, if the machine had it at its last check-in.
    pub known: Option<DiskInfo>,
}

fn default_level() -> i32 {
    1
}

fn yes() -> bool {
    true
}

/// A machine as operators see it.
///
/// # Errors
/// The database fails.
pub async fn machine(app: &App, conn: &mut Conn, m: Machine, now: i64) -> Outcome<MachineView> {
    let macs = machines::macs(conn, &m.id).await?;
    let open = executions::open_of(conn, &m.id).await?;
    Ok(MachineView {
        execution: open.map(|e| execution(app, &e, &m.name, now)),
        stalled: stall::stalled(m.boots.as_ref(), app.started, now, app.limits.start_within),
        hardware: m.hardware,
        outdated: checkin::is_outdated(&m.version),
        id: m.id,
        name: m.name,
        macs,
        uuid: m.uuid,
        serial: m.serial,
        model: m.model,
        firmware: m.firmware,
        architecture: m.architecture,
        memory_bytes: m.memory_bytes,
        version: m.version,
        address: m.address,
        uptime_ms: m.uptime_ms,
        disks: m.disks,
        disk_check: m.disk_check,
        disk_check_at: m.disk_check_at,
        local_boot: m.local_boot,
        first_seen: m.first_seen,
        last_seen: m.last_seen,
    })
}

/// An execution as operators see it.
pub fn execution(app: &App, e: &Execution, machine: &str, now: i64) -> ExecutionView {
    let (image, disk) = match &e.job {
        JobKind::Backup { image, disk, .. } => (Some(image.clone()), disk.clone()),
        JobKind::Restore {
            image_name, disk, ..
        } => (Some(image_name.clone()), disk.clone()),
        JobKind::Wipe(order) => (None, order.disk.clone()),
        JobKind::Script { name } => (Some(name.clone()), None),
        JobKind::DiskCheck => (None, None),
    };
    let (report, warnings) = match &e.outcome {
        Some(JobOutcome::Failed { report }) => (Some(report.clone()), Vec::new()),
        Some(JobOutcome::Done { warnings }) => (None, warnings.clone()),
        None => (None, Vec::new()),
    };
    let silent_since = watch::is_silent(app, e, now).then(|| watch::last_heard(app, e));
    ExecutionView {
        id: e.id.clone(),
        machine: machine.to_owned(),
        kind: kind_name(&e.job).to_owned(),
        image,
        image_id: e.image.clone(),
        disk,
        scope: match &e.job {
            JobKind::Restore { scope, .. } => scope.clone(),
            _ => RestoreScope::default(),
        },
        writes_to: e.begin_write.as_ref().map(|begun| begun.disk.clone()),
        writes_to_all: match (&e.begin_write, &e.job) {
            (Some(first), JobKind::Restore { set, .. }) if !set.is_empty() => {
                first.all().map(|begun| begun.disk.clone()).collect()
            }
            _ => Vec::new(),
        },
        disks: match &e.job {
            JobKind::Backup { disks, .. } => disks.clone(),
            JobKind::Restore { set, .. } => set.iter().map(|part| part.disk.clone()).collect(),
            JobKind::Wipe(_) | JobKind::Script { .. } | JobKind::DiskCheck => Vec::new(),
        },
        state: e.state,
        note: note(app, e, machine, silent_since, now),
        open: e.open,
        created: e.created,
        changed: e.changed,
        started: e.started,
        ended: e.ended,
        silent_since,
        progress: app.live.get(&e.id).progress,
        report,
        warnings,
        summary: e.summary.clone(),
        after: e.after,
        place: app
            .live
            .place(&e.id, now)
            .filter(|_| e.state == State::Booting),
        rate_limit: e.rate,
    }
}

fn note(app: &App, e: &Execution, machine: &str, silent_since: Option<i64>, now: i64) -> String {
    let since = duration(u64::try_from(now - e.changed).unwrap_or(0));
    if let Some(at) = silent_since {
        let quiet = duration(u64::try_from(now - at).unwrap_or(0));
        return format!(
            "silent for {quiet}; goes on when the machine boots from the network again"
        );
    }
    match e.state {
        State::Waiting => {
            format!("waits since {since} for the machine to boot from the network: power it on")
        }
        State::Booting => match app.live.place(&e.id, now) {
            Some(place) => format!(
                "number {place} in line: all {} transfers are taken",
                app.limits.max_transfers
            ),
            None => format!("fetched its boot script {since} ago, waits for its check-in"),
        },
        State::Preparing => app.casts.note(e).unwrap_or_default(),
        State::Interrupting => format!("waits since {since} for the machine to stop"),
        State::Failed | State::Interrupted if e.open => {
            format!("clear it with: deployctl clear {machine}")
        }
        _ => String::new(),
    }
}
