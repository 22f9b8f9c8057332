//! Control messages, as JSON over HTTP.
//!
//! Owns: the shapes and their limits. Does not own: routes' behaviour (the server)
//! or when they are sent (the imager). Paths of the data port (TLS, 26501):
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `POST /v1/checkin` | [`CheckIn`] | [`CheckInReply`] |
//! | `POST /v1/executions/{id}/progress` | [`Progress`] | [`ProgressReply`] |
//! | `POST /v1/executions/{id}/disks` | [`DiskCheck`] | empty |
//! | `POST /v1/executions/{id}/log` | UTF-8 text, at most [`MAX_LOG_BYTES`] | empty |
//! | `GET /v1/executions/{id}/base` | | n x 32-byte hashes of chunks that the server has: of the machine's newest image |
//! | `POST /v1/executions/{id}/have` | n x 32-byte hashes | bitmap, bit i (LSB first) = has hash i |
//! | `POST /v1/executions/{id}/records` | records one after the other | [`Stored`] |
//! | `PUT /v1/executions/{id}/manifest` | manifest | [`Published`] |
//! | `PUT /v1/executions/{id}/manifests` | of each disk, in order: length (8 bytes, little endian), manifest | list of [`Published`] |
//! | `GET /v1/executions/{id}/manifest` | | manifest |
//! | `POST /v1/executions/{id}/fetch` | n x 32-byte hashes | their records, in the order asked |
//! | `POST /v1/executions/{id}/doubtful` | n x 32-byte hashes of chunks that came spoiled | [`Reread`] |
//! | `/v1/executions/{id}/session…` | | multicast: see [`crate::cast`] |
//! | `PUT /v1/executions/{id}/tables` | old partition tables ([`OldTables`]) | empty |
//! | `POST /v1/executions/{id}/begin-write` | [`crate::BeginWrite`] | empty |
//! | `POST /v1/executions/{id}/finish` | [`Finish`] | [`FinishReply`] |
//!
//! With `?part=N`, the `GET` of a manifest, `fetch`, `doubtful`, `tables` and `begin-write` mean disk N
//! (from 0) of a restore of several. Every path under `/v1/executions/{id}` wants `Authorization: Bearer TOKEN` with
//! the token of [`Job`]. A failure is answered with status 4xx/5xx and a
//! [`crate::Report`] as JSON. All are idempotent: sent twice they do what they do once.

use crate::cast::Session;
use crate::report::Report;
use crate::scope::RestoreScope;
use crate::set::DiskImage;
use serde::{Deserialize, Serialize};

/// Longest control message that either side accepts.
pub const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Longest log that is uploaded; the target keeps the newest part.
pub const MAX_LOG_BYTES: usize = 8 << 20;
/// Most hashes in one `have` or `fetch`.
pub const MAX_HASHES: usize = 4096;
/// Most hashes of a `base`: the chunks of a terabyte, in 32 MiB of the target's memory.
pub const MAX_BASE_HASHES: usize = 1 << 20;

/// A disk as the target sees it. Numbers are a display aid; identity is serial or WWN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskInfo {
    /// Position in the list, from 0. For display only.
    pub number: u32,
    /// Device node, as `/dev/sda`.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes.
    pub sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
    /// Vendor and model.
    pub model: String,
    /// Serial number; empty if the disk has none.
    pub serial: String,
    /// World wide name (naa., eui., uuid. or t10. form); empty if none.
    pub wwn: String,
    /// How it is attached: `virtio`, `sata`, `nvme`, `scsi`, `usb`, `mmc`, `loop`, `file`,
    /// `other`; over a network of disks `fc`, `iscsi`, `nvme-tcp`, `nvme-rdma`, `nvme-fc`;
    /// `sas`, which may be one.
    pub bus: String,
    /// Kernel driver of the controller; empty if unknown.
    #[serde(default)]
    pub controller: String,
    /// Links under `/dev/disk` that lead to it.
    #[serde(default)]
    pub names: Vec<String>,
    /// The paths to a disk that has several, or over which a multipath device stands.
    #[serde(default)]
    pub paths: Vec<DiskPath>,
    /// Removable medium.
    pub removable: bool,
    /// Write-protected.
    pub read_only: bool,
}

/// One of the paths to a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskPath {
    /// Device node.
    pub path: String,
    /// Address on its bus, as `2:0:1:3`; empty if unknown.
    pub address: String,
    /// As [`DiskInfo::bus`].
    pub bus: String,
    /// As [`DiskInfo::controller`].
    pub controller: String,
}

impl DiskInfo {
    /// Whether others may reach the disk too, or it can be reached in several ways: one of
    /// a storage network. What the target sees of those can change without anybody having
    /// touched the machine.
    pub fn is_of_san(&self) -> bool {
        let network = ["fc", "iscsi", "nvme-tcp", "nvme-rdma", "nvme-fc"];
        network.contains(&self.bus.as_str()) || !self.paths.is_empty()
    }

    /// Whether `path` is the disk's device, one of the paths to it, or a link to one.
    pub fn is_at(&self, path: &str) -> bool {
        self.path == path
            || self.names.iter().any(|name| name == path)
            || self.paths.iter().any(|way| way.path == path)
    }
}

/// How a disk is named in a job: every given field must match exactly one disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSelector {
    /// Serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// World wide name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wwn: Option<String>,
    /// Device path, for disks that have neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Position in the list of disks, which another boot may change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u32>,
}

/// A partition that a job means: its number, and what must be true of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChoice {
    /// Number in the table, from 1.
    pub number: u32,
    /// Unique GUID of a GPT entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guid: Option<String>,
    /// First byte on the disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_bytes: Option<u64>,
    /// Partition type: `0x83` or a GUID.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub part_type: Option<String>,
}

/// A network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicInfo {
    /// Interface name.
    pub name: String,
    /// MAC address, lower case with colons.
    pub mac: String,
    /// Kernel driver.
    pub driver: String,
    /// Link is up.
    pub link: bool,
    /// IPv4 address, if one was obtained.
    pub address: Option<String>,
}

/// First message of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckIn {
    /// Protocol version of the target.
    pub protocol: u32,
    /// Version of the `imager`.
    pub version: String,
    /// SMBIOS UUID, lower case; empty if unknown.
    pub uuid: String,
    /// SMBIOS vendor and product.
    pub model: String,
    /// SMBIOS system serial number.
    pub system_serial: String,
    /// `bios` or `uefi`.
    pub firmware: String,
    /// CPU architecture, `x86_64`.
    pub architecture: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Random id of this boot: a repeated check-in of one boot is the same check-in.
    pub boot_id: String,
    /// Kernel start to check-in in milliseconds.
    pub uptime_ms: u64,
    /// All network cards.
    pub nics: Vec<NicInfo>,
    /// All disks.
    pub disks: Vec<DiskInfo>,
}

/// Answer to a check-in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckInReply {
    /// The machine's name on the server.
    pub machine: String,
    /// What to do.
    pub action: Action,
}

/// What a target does next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// Run a job.
    Job(Box<Job>),
    /// Nothing to do: boot the local disk.
    BootLocal,
    /// Ask again after some seconds; the reason is shown.
    Wait {
        /// Seconds until the next check-in.
        seconds: u32,
        /// What is waited for.
        reason: Report,
    },
    /// No job is given; the reason is shown.
    Refused {
        /// Why.
        reason: Report,
    },
}

/// One execution, as given to the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Id of the execution.
    pub execution: String,
    /// Bearer token, valid for this execution only.
    pub token: String,
    /// What to do.
    pub kind: JobKind,
    /// The execution had begun to write before: go on only if the disk still shows
    /// the zeroed tables or heads, else finish with `target-silent`.
    pub resume: bool,
    /// Of a restore of several disks: the positions of those of which `resume` is so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumed: Vec<u32>,
    /// What to do afterwards.
    pub after: After,
}

/// Kinds of job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum JobKind {
    /// Make an image of a disk.
    Backup {
        /// The disk; `None` means the only fixed disk.
        disk: Option<DiskSelector>,
        /// Name of the image.
        image: String,
        /// Copy all sectors instead of the used ones.
        full: bool,
        /// How records are compressed.
        #[serde(default, skip_serializing_if = "Codec::is_default")]
        codec: Codec,
        /// The codec's level.
        level: i32,
        /// The partitions to copy; the whole disk if there is none.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        partitions: Vec<PartitionChoice>,
        /// Numbers of partitions of which all sectors are copied.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        full_partitions: Vec<u32>,
        /// Go on past sectors that cannot be read, and record them in the image.
        #[serde(default, skip_serializing_if = "is_false")]
        skip_bad: bool,
        /// Several disks, one image each, published together or not at all; `disk` is not
        /// looked at then.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        disks: Vec<DiskSelector>,
    },
    /// Write an image to a disk.
    Restore {
        /// The disk; `None` means the only fixed disk.
        disk: Option<DiskSelector>,
        /// Id of the image.
        image: String,
        /// Name of the image, for display.
        image_name: String,
        /// Root hash of the manifest, hex: what the target gets must match it.
        root: String,
        /// Read back and compare what was written.
        verify: bool,
        /// Go on although architecture or firmware mode differ.
        force: bool,
        /// What of the disk is replaced.
        #[serde(default, skip_serializing_if = "RestoreScope::is_default")]
        scope: RestoreScope,
        /// Hash what the disk holds, and fetch and write only what differs.
        #[serde(default, skip_serializing_if = "is_false")]
        reuse: bool,
        /// Several disks, each with its image; `disk`, `image`, `root` and `scope` are not
        /// looked at then.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        set: Vec<DiskImage>,
        /// The multicast session that brings the image; unicast if not given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        multicast: Option<Session>,
    },
    /// List disks, partitions and file systems.
    DiskCheck,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// How a backup compresses what it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Zstandard, levels 1 to 19.
    #[default]
    Zstd,
    /// Deflate, levels 1 to 9.
    Deflate,
    /// Nothing is compressed; the level means nothing.
    None,
}

impl Codec {
    /// The highest level; the lowest is 1.
    pub fn max_level(self) -> i32 {
        match self {
            Codec::Deflate => 9,
            Codec::Zstd | Codec::None => 19,
        }
    }

    fn is_default(&self) -> bool {
        *self == Codec::default()
    }
}

/// What a target does after its job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// Reboot.
    #[default]
    Reboot,
    /// Power off.
    PowerOff,
    /// Boot the local disk (by way of the firmware: a reboot, after which the boot
    /// script says so).
    BootLocal,
}

/// Step of a job, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Looking at disks, layout and image; nothing is written yet.
    Preparing,
    /// Transferring and reading or writing.
    Running,
    /// Reading back what was written.
    Verifying,
    /// Heads, tables, publishing.
    Finishing,
}

/// Live progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Step.
    pub step: Step,
    /// Plain bytes done in this step.
    pub done_bytes: u64,
    /// Plain bytes in this step.
    pub total_bytes: u64,
    /// Bytes per second over the last seconds.
    pub rate: u64,
    /// Seconds left in this step, if known.
    pub seconds_left: Option<u64>,
    /// Bytes sent or received over the network so far.
    pub wire_bytes: u64,
}

/// Answer to progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgressReply {
    /// An operator interrupted the execution: stop.
    pub interrupt: bool,
}

/// Result of a disk check (also sent at the start of every job).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DiskCheck {
    /// One entry a disk: its [`DiskInfo`] and what `imager map --json` prints.
    pub disks: Vec<DiskCheckEntry>,
}

/// One disk of a disk check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskCheckEntry {
    /// Identity.
    pub info: DiskInfo,
    /// What `imager map --json` prints, or none if the disk cannot be read.
    pub map: Option<serde_json::Value>,
    /// Why there is no map.
    pub problem: Option<Report>,
}

/// Answer to an upload of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Records that are now stored durably.
    pub stored: u64,
    /// Records that were there already.
    pub duplicate: u64,
}

/// What the server itself found when it read records again that a target doubts. A target's
/// word alone makes nothing damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reread {
    /// Records that are as they were stored. Into encrypted ones the server cannot look.
    pub whole: u64,
    /// Records that are damaged; they are marked now.
    pub damaged: u64,
}

/// Answer to a manifest: the image is visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Id of the image.
    pub image: String,
    /// Root hash, hex.
    pub root: String,
}

/// The partition tables that a restore is about to overwrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldTables {
    /// The disk.
    pub disk: DiskInfo,
    /// Byte offset on the disk and the bytes, base64.
    pub blobs: Vec<TableBlob>,
}

/// A piece of a partition table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableBlob {
    /// Byte offset on the disk.
    pub offset: u64,
    /// The bytes, base64.
    pub data: String,
}

/// Final state of an execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    /// How it ended.
    pub outcome: JobOutcome,
    /// Figures for the result list.
    pub summary: Summary,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum JobOutcome {
    /// Everything was done and proved.
    Done {
        /// Things worth knowing.
        warnings: Vec<Report>,
    },
    /// It failed.
    Failed {
        /// Why.
        report: Report,
    },
}

/// Figures of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Size of the disk.
    pub disk_bytes: u64,
    /// Used bytes (plain).
    pub used_bytes: u64,
    /// Those of them that a restore found on the disk and left as they are.
    #[serde(default)]
    pub skipped_bytes: u64,
    /// Bytes that went over the network.
    pub wire_bytes: u64,
    /// Seconds from job start to end.
    pub seconds: f64,
    /// Where the time went: `disk`, `cpu`, `network`, `server`.
    pub bottleneck: String,
}

/// Answer to a final state: it is stored; the target may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishReply {
    /// What to do now.
    pub after: After,
}
