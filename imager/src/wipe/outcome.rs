//! How one way to wipe a disk ended.
//!
//! Owns: what a way has to say, and whether another one may follow. Does not own: the
//! order of ways.

use wire::{Report, WipeProof};

/// A way that was carried out and proved.
#[derive(Debug)]
pub struct Done {
    /// What exactly was done, in words.
    pub action: String,
    /// How many times every sector was written.
    pub passes: u32,
    /// Bytes that were read back.
    pub read_back_bytes: u64,
    /// What they were.
    pub proof: WipeProof,
}

/// A way that failed.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub report: Report,
    /// Another way may do it.
    pub others_may: bool,
}

impl Failure {
    /// No other way would do better, or nobody wants one.
    pub fn last(report: Report) -> Failure {
        Failure {
            report,
            others_may: false,
        }
    }

    /// Another way may do it.
    pub fn of_this_way(report: Report) -> Failure {
        Failure {
            report,
            others_may: true,
        }
    }
}
