//! How an execution ends.
//!
//! Owns: the shapes of a result. Does not own: what comes before it ([`crate::message`]).

use crate::message::After;
use crate::report::Report;
use crate::wipe::Wiped;
use serde::{Deserialize, Serialize};

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
    /// Of a wipe: what was done, and how it was proved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wipe: Option<Box<Wiped>>,
    /// What a restore changed of the firmware's boot entries, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub boot_entries: Vec<String>,
}

/// Answer to a final state: it is stored; the target may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishReply {
    /// What to do now.
    pub after: After,
}
