//! What a person is told when something fails: one text for the console, the
//! server and the log.
//!
//! Owns: the shape of a report and how it is rendered as plain text. Does not own:
//! the decision which code a failure has (the programs' `report` modules).

use crate::codes::Code;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether the disk of the target was changed before the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// No disk is involved.
    NotInvolved,
    /// Not one byte was written.
    Untouched,
    /// Writing had begun; the disk has no valid partition table and does not boot.
    Incomplete,
    /// Writing had begun; the partitions that are replaced cannot be used, the others are
    /// as they were.
    PartitionsIncomplete,
    /// All data was written and checked, only what came after failed.
    Complete,
    /// It cannot be told: an earlier run ended without a report.
    Unknown,
}

impl DiskState {
    /// The sentence that people read.
    pub fn sentence(self) -> &'static str {
        match self {
            DiskState::NotInvolved => "",
            DiskState::Untouched => "Nothing was written to the disk.",
            DiskState::Incomplete => {
                "The disk was being written and is incomplete: it has no partition table and does not boot."
            }
            DiskState::PartitionsIncomplete => {
                "The partitions that were being written are incomplete and cannot be used; the others are as they were."
            }
            DiskState::Complete => "The disk was written completely and checked.",
            DiskState::Unknown => {
                "It is not known whether the disk was written: look before anything else is done with it."
            }
        }
    }
}

/// A failure (or, with an outcome of success, a warning) in the words that people see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Stable code from the catalogue.
    pub code: Code,
    /// What was found, with values: "the disk has 10737418240 bytes, the image needs 21474836480".
    pub found: String,
    /// What to do about it. Taken from the catalogue unless something better is known.
    pub advice: String,
    /// Whether the disk was changed.
    pub disk: DiskState,
}

impl Report {
    /// A report with the catalogue's advice.
    pub fn new(code: Code, found: impl Into<String>, disk: DiskState) -> Self {
        Report {
            code,
            found: found.into(),
            advice: code.advice().to_owned(),
            disk,
        }
    }

    /// Replaces the advice by something more to the point.
    pub fn with_advice(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.code.as_str(), self.code.headline())?;
        writeln!(f, "  found:  {}", self.found)?;
        write!(f, "  to do:  {}", self.advice)?;
        let sentence = self.disk.sentence();
        if !sentence.is_empty() {
            write!(f, "\n  disk:   {sentence}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
