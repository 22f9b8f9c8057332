//! From the libraries' typed errors to what people are told.
//!
//! Owns: which check code a failure has, and exit codes. Does not own: headlines and
//! advice (the catalogue in `wire`).

use std::io;
use wire::codes::Outcome;
use wire::{Code, DiskState, Report};

/// Done.
pub const EXIT_DONE: u8 = 0;
/// Failed while working.
pub const EXIT_FAILED: u8 = 1;
/// Wrong usage.
pub const EXIT_USAGE: u8 = 2;
/// Refused by a check; nothing was written.
pub const EXIT_REFUSED: u8 = 3;

/// Done, and what was compared differs.
pub const EXIT_DIFFERENT: u8 = 4;

/// The exit code that a failure gives.
pub fn exit_code(report: &Report) -> u8 {
    match (report.code, report.disk, report.code.outcome()) {
        (Code::Usage, ..) => EXIT_USAGE,
        (
            _,
            DiskState::Incomplete
            | DiskState::PartitionsIncomplete
            | DiskState::Complete
            | DiskState::Unknown,
            _,
        ) => EXIT_FAILED,
        (Code::Interrupted | Code::Internal | Code::OutputFailed | Code::NoSpace, ..) => {
            EXIT_FAILED
        }
        (_, DiskState::Untouched, _) => EXIT_REFUSED,
        (.., Outcome::Refused | Outcome::Warning) => EXIT_REFUSED,
        _ => EXIT_FAILED,
    }
}

/// A scan that gave no map.
pub fn scan(error: &diskmap::ScanError, disk: DiskState) -> Report {
    let code = match error {
        diskmap::ScanError::Read { .. } => Code::ReadError,
        diskmap::ScanError::GptDamaged { .. } => Code::GptDamaged,
        diskmap::ScanError::MbrDamaged { .. } => Code::MbrDamaged,
        diskmap::ScanError::DiskSmallerThanLayout { .. } => Code::DiskSmallerThanLayout,
        diskmap::ScanError::SectorSizeUnsupported { .. } => Code::SectorSizeUnsupported,
        diskmap::ScanError::FsDamaged { .. } => Code::FsDamaged,
        diskmap::ScanError::FsDirty { .. } => Code::FsDirty,
        _ => Code::Internal,
    };
    let report = Report::new(code, error.to_string(), disk);
    match error {
        diskmap::ScanError::Read { .. } => report.with_advice(
            "Replace the disk soon. With --skip-bad a partition is copied whole whose file system \
             cannot be read; with --full, a disk whose table cannot.",
        ),
        _ => report,
    }
}

/// A warning of a scan.
pub fn warning(warning: &diskmap::Warning) -> Report {
    let code = match warning.kind {
        diskmap::WarningKind::GptDamaged => Code::GptDamaged,
        diskmap::WarningKind::FsDamaged => Code::FsDamaged,
        diskmap::WarningKind::FsDirty => Code::FsDirty,
        diskmap::WarningKind::ReadError => Code::ReadError,
    };
    let found = match warning.partition {
        Some(0) => format!("whole disk: {}", warning.detail),
        Some(number) => format!("partition {number}: {}", warning.detail),
        None => warning.detail.clone(),
    };
    let advice = match warning.kind {
        diskmap::WarningKind::GptDamaged => "Repair the table when the machine can be stopped.",
        _ => code.advice(),
    };
    Report::new(code, found, DiskState::NotInvolved).with_advice(advice)
}

/// An image that cannot be read.
pub fn image(error: &image::Error, disk: DiskState) -> Report {
    match error {
        image::Error::Damaged { .. } => Report::new(Code::ImageDamaged, error.to_string(), disk),
        image::Error::Key { .. } => Report::new(Code::ImageLocked, error.to_string(), disk),
        image::Error::Version { .. } => Report::new(Code::ImageVersion, error.to_string(), disk),
        image::Error::Io { .. } => Report::new(Code::ImageDamaged, error.to_string(), disk)
            .with_advice("Check the medium that the image is on."),
    }
}

/// An image of another program that cannot be read; `name` is what it is called.
pub fn foreign(name: &dyn std::fmt::Display, error: &foreign::Error) -> Report {
    let report = |code| Report::new(code, format!("{name}: {error}"), DiskState::NotInvolved);
    match error {
        foreign::Error::Unsupported { advice, .. } => {
            report(Code::ImportUnsupported).with_advice(*advice)
        }
        foreign::Error::Io(_) => {
            report(Code::ReadError).with_advice("Check the medium that the image is on.")
        }
        _ => report(Code::ImageDamaged),
    }
}

/// A device that cannot be opened.
pub fn open(error: &blockdev::Error, disk: DiskState) -> Report {
    use blockdev::ErrorKind as Kind;
    let code = match error.kind() {
        Kind::NotFound | Kind::NotADisk => Code::DiskNotFound,
        Kind::Busy | Kind::ReadOnly => Code::DiskInUse,
        Kind::NoSpace => Code::NoSpace,
        _ => Code::DiskNotFound,
    };
    let report = Report::new(code, error.to_string(), disk);
    match error.kind() {
        Kind::PermissionDenied => report.with_advice("Run the command as root."),
        Kind::ReadOnly => report.with_advice("Remove the write protection."),
        Kind::NotFound => report.with_advice("Run `imager disks` for the disks that are there."),
        Kind::NotADisk => report.with_advice("Name a block device or a raw image file."),
        _ => report,
    }
}

/// A disk that does not take what is written.
pub fn write(error: &io::Error, disk: DiskState) -> Report {
    let full = blockdev::Error::of(error).is_some_and(|e| e.kind() == blockdev::ErrorKind::NoSpace);
    let code = if full {
        Code::NoSpace
    } else {
        Code::WriteError
    };
    Report::new(code, error.to_string(), disk)
}

/// The image file (or standard output) does not take what is written.
pub fn output(error: &io::Error) -> Report {
    let full = matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    );
    let code = if full {
        Code::NoSpace
    } else {
        Code::OutputFailed
    };
    Report::new(
        code,
        format!("writing the image: {error}"),
        DiskState::NotInvolved,
    )
    .with_advice("Check space and rights of the destination; nothing half-made was left there.")
}

/// A thread that ended without a result.
pub fn thread_lost(disk: DiskState) -> Report {
    Report::new(
        Code::Internal,
        "a thread of the job ended without a result",
        disk,
    )
}

#[cfg(test)]
mod tests {
    use super::{EXIT_FAILED, EXIT_REFUSED, EXIT_USAGE, exit_code};
    use wire::{Code, DiskState, Report};

    #[test]
    fn exit_codes_follow_what_happened_to_the_disk() {
        let code = |code, disk| exit_code(&Report::new(code, "", disk));
        assert_eq!(code(Code::ImageDamaged, DiskState::Untouched), EXIT_REFUSED);
        assert_eq!(code(Code::ImageDamaged, DiskState::Incomplete), EXIT_FAILED);
        assert_eq!(
            code(Code::ImageDamaged, DiskState::NotInvolved),
            EXIT_FAILED
        );
        assert_eq!(code(Code::GptDamaged, DiskState::NotInvolved), EXIT_REFUSED);
        assert_eq!(code(Code::FsDirty, DiskState::NotInvolved), EXIT_REFUSED);
        assert_eq!(code(Code::ReadError, DiskState::NotInvolved), EXIT_FAILED);
        assert_eq!(code(Code::Usage, DiskState::NotInvolved), EXIT_USAGE);
        assert_eq!(
            code(Code::VerifyMismatch, DiskState::Incomplete),
            EXIT_FAILED
        );
    }
}
