//! Why a file cannot be read.
//!
//! Owns: the kinds, and their check codes. Does not own: which file it is.

use wire::{Code, DiskState, Report};

/// A failure below one file or file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fail {
    /// There is nothing of that name.
    NotFound,
    /// It is there and is something else than what is wanted.
    Kind(String),
    /// The file system contradicts itself.
    Damaged(String),
    /// A state that is not read.
    Unsupported(String),
    /// The image does not hold bytes of it.
    Lost(String),
    /// The image cannot be read: its own report.
    Image(Box<Report>),
    /// Where it is written to says no: its own report.
    Output(Box<Report>),
    /// An operator stopped it.
    Interrupted,
}

impl Fail {
    /// The file system contradicts itself.
    pub fn damaged(what: impl Into<String>) -> Fail {
        Fail::Damaged(what.into())
    }

    /// Whether nothing else can be done after it. Damage in the image is damage of what
    /// stands there: all else can still be had.
    pub fn is_final(&self) -> bool {
        match self {
            Fail::Image(report) => report.code != Code::ImageDamaged,
            Fail::Output(_) | Fail::Interrupted => true,
            _ => false,
        }
    }

    /// The report on `what`, which is a file, a folder or a partition.
    pub fn report(self, what: &str) -> Report {
        let (code, found, advice) = match self {
            Fail::Image(report) | Fail::Output(report) => return *report,
            Fail::NotFound => (Code::FileNotFound, format!("{what} is not there"), None),
            Fail::Kind(is) => (Code::FileNotFound, format!("{what} {is}"), None),
            Fail::Damaged(why) => (
                Code::FileUnreadable,
                format!("{what}: damaged in the file system that was imaged: {why}"),
                Some(
                    "Restore the partition to a spare disk and check it with the file system's own tool.",
                ),
            ),
            Fail::Unsupported(why) => (
                Code::FileUnreadable,
                format!("{what}: {why}"),
                Some("Serve the image with imager nbd, or export it, and mount it."),
            ),
            Fail::Lost(why) => (
                Code::FileUnreadable,
                format!("{what}: the image does not hold all of it: {why}"),
                Some("Take the file from another image or backup."),
            ),
            Fail::Interrupted => (Code::Interrupted, "stopped by an operator".to_owned(), None),
        };
        let report = Report::new(code, found, DiskState::NotInvolved);
        match advice {
            Some(advice) => report.with_advice(advice),
            None => report,
        }
    }
}
