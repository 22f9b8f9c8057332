//! Which ways there are to wipe a disk, and which are taken.
//!
//! Owns: asking the disk what it can do, and the choice. Does not own: the ways.

use super::nvme::Drive;
use super::outcome::{Done, Failure};
use super::{discard, nvme, overwrite};
use crate::progress::ProgressSink;
use crate::report;
use blockdev::nvme::{Controller, FormatErase, Nvme, SanitizeAction};
use blockdev::{Abilities, Device, Kind};
use std::path::Path;
use wire::{Code, DiskState, Report, WipeMethod, WipeOrder};

/// A way to wipe a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Sanitize.
    Sanitize(SanitizeAction),
    /// Format NVM.
    Format(FormatErase),
    /// Discard.
    Discard,
    /// Every sector is written, so many times.
    Overwrite(u32),
}

impl Way {
    /// The method that it is one of.
    pub fn method(self) -> WipeMethod {
        match self {
            Way::Sanitize(_) => WipeMethod::NvmeSanitize,
            Way::Format(_) => WipeMethod::NvmeFormat,
            Way::Discard => WipeMethod::Discard,
            Way::Overwrite(_) => WipeMethod::Overwrite,
        }
    }

    /// What is done and how it is proved, for people.
    pub fn words(self) -> String {
        match self {
            Way::Sanitize(SanitizeAction::BlockErase) => {
                "the drive erases all its memory, spare blocks too".to_owned()
            }
            Way::Sanitize(SanitizeAction::CryptoErase) => {
                "the drive forgets the key of all its memory".to_owned()
            }
            Way::Sanitize(SanitizeAction::Overwrite) => {
                "the drive overwrites all its memory".to_owned()
            }
            Way::Format(FormatErase::UserData) => "the drive erases the user data".to_owned(),
            Way::Format(FormatErase::Cryptographic) => {
                "the drive forgets the key of the user data".to_owned()
            }
            Way::Discard => "every block is given back; the disk must give zeros then".to_owned(),
            Way::Overwrite(1) => "every sector is written with zeros and read back".to_owned(),
            Way::Overwrite(passes) => format!(
                "every sector is written {passes} times, with zeros in the end, and read back each \
                 time"
            ),
        }
    }
}

/// What will be done with a disk.
pub struct Plan {
    /// Size of the disk.
    pub disk_bytes: u64,
    /// What was ordered.
    pub ordered: WipeMethod,
    /// What is tried, one after the other until one is proved.
    pub ways: Vec<Way>,
    /// What the disk says that it can do, for people.
    pub can: Vec<String>,
    /// The drive, if it takes commands.
    drive: Option<Box<dyn Drive>>,
}

impl Plan {
    /// Asks the disk what it can do, and chooses. Nothing is written.
    ///
    /// # Errors
    /// `wipe-unsupported`: the disk cannot do what was ordered; `usage`.
    pub fn make(device: &Device, path: &Path, order: &WipeOrder) -> Result<Plan, Report> {
        let drive = Nvme::open(path).map_err(|e| report::open(&e, DiskState::Untouched))?;
        let drive = drive.map(|drive| Box::new(drive) as Box<dyn Drive>);
        Plan::of(device, path, order, drive)
    }

    /// As [`Plan::make`], of a disk that is this drive.
    ///
    /// # Errors
    /// As [`Plan::make`].
    pub fn of(
        device: &Device,
        path: &Path,
        order: &WipeOrder,
        drive: Option<Box<dyn Drive>>,
    ) -> Result<Plan, Report> {
        order
            .check()
            .map_err(|found| Report::new(Code::Usage, found, DiskState::Untouched))?;
        if device.size_bytes() == 0 {
            let found = format!("{} has no bytes", path.display());
            return Err(Report::new(Code::DiskNotFound, found, DiskState::Untouched));
        }
        let abilities = device.abilities();
        let is_file = device.kind() == Kind::File;
        let mut can = Vec::new();
        let by_command = match &drive {
            Some(drive) => of_drive(drive.as_ref(), &mut can),
            None => Err("it is no whole NVMe namespace".to_owned()),
        };
        can.push(discard_words(&abilities, is_file));
        can.push("overwriting".to_owned());
        let can_discard = abilities.discard_max_bytes > 0;
        let overwrite = Way::Overwrite(order.passes);
        let unsupported = |why: &str| {
            let found = format!("{} on {}: {why}", order.method, path.display());
            Err(Report::new(
                Code::WipeUnsupported,
                found,
                DiskState::Untouched,
            ))
        };
        let of_method = |method: WipeMethod| {
            let ways = by_command.as_ref().map_err(String::as_str)?;
            let these = ways.iter().copied().filter(|way| way.method() == method);
            let these: Vec<Way> = these.collect();
            match these.is_empty() {
                true => Err("the drive does not have it, or it would erase other disks"),
                false => Ok(these),
            }
        };
        let ways = match order.method {
            WipeMethod::Overwrite => vec![overwrite],
            WipeMethod::Discard if can_discard => vec![Way::Discard],
            WipeMethod::Discard => return unsupported("it cannot discard"),
            method @ (WipeMethod::NvmeFormat | WipeMethod::NvmeSanitize) => {
                match of_method(method) {
                    Ok(ways) => ways,
                    Err(why) => return unsupported(why),
                }
            }
            WipeMethod::Auto => {
                let mut ways = by_command.unwrap_or_default();
                // A disk that turns keeps what it was told to forget; behind a file is a disk
                // that hears nothing of it.
                if can_discard && !is_file && abilities.rotational != Some(true) {
                    ways.push(Way::Discard);
                }
                ways.push(overwrite);
                ways
            }
        };
        Ok(Plan {
            disk_bytes: device.size_bytes(),
            ordered: order.method,
            ways,
            can,
            drive,
        })
    }

    /// Goes one of the ways.
    pub(super) fn go(
        &self,
        way: Way,
        device: &Device,
        path: &Path,
        progress: &dyn ProgressSink,
    ) -> Result<Done, Failure> {
        match (way, &self.drive) {
            (Way::Overwrite(passes), _) => overwrite::run(device, path, passes, progress),
            (Way::Discard, _) => discard::run(device, path, progress),
            (Way::Sanitize(action), Some(drive)) => {
                nvme::sanitize(device, path, drive.as_ref(), action, progress)
            }
            (Way::Format(erase), Some(drive)) => {
                nvme::format(device, path, drive.as_ref(), erase, progress)
            }
            (Way::Sanitize(_) | Way::Format(_), None) => {
                let found = "a command for a drive without one";
                let report = Report::new(Code::Internal, found, DiskState::Untouched);
                Err(Failure::last(report))
            }
        }
    }
}

/// The ways that a drive has by its commands, the best first; or why it has none.
fn of_drive(drive: &dyn Drive, can: &mut Vec<String>) -> Result<Vec<Way>, String> {
    let controller = drive
        .controller()
        .map_err(|e| format!("the drive does not say what it can do: {e}"))?;
    let all = drive
        .namespaces(&controller)
        .map_err(|e| format!("the drive does not list its namespaces: {e}"))?;
    let alone = all.len() <= 1;
    let others = match alone {
        true => String::new(),
        false => format!(
            ", which would erase all of its {} namespaces and is not done",
            all.len()
        ),
    };
    let mut ways = Vec::new();
    let sanitize = sanitize_action(&controller);
    if let Some(action) = sanitize {
        can.push(format!("NVMe sanitize{others}"));
        if alone {
            ways.push(Way::Sanitize(action));
        }
    }
    if controller.can_format {
        let of_all = controller.format_is_of_all || controller.erase_is_of_all;
        let others = if of_all { others.as_str() } else { "" };
        can.push(format!("NVMe format with erase{others}"));
        if alone || !of_all {
            ways.push(Way::Format(FormatErase::UserData));
            if controller.can_format_crypto {
                ways.push(Way::Format(FormatErase::Cryptographic));
            }
        }
    }
    Ok(ways)
}

/// The best of what it has: what can be proved whole, then what is quick.
fn sanitize_action(controller: &Controller) -> Option<SanitizeAction> {
    if controller.can_block_erase {
        Some(SanitizeAction::BlockErase)
    } else if controller.can_crypto_erase {
        Some(SanitizeAction::CryptoErase)
    } else {
        controller
            .can_overwrite
            .then_some(SanitizeAction::Overwrite)
    }
}

fn discard_words(abilities: &Abilities, is_file: bool) -> String {
    match (is_file, abilities.discard_max_bytes) {
        (true, _) => "giving its blocks back, if the file system can".to_owned(),
        (false, 0) => "no discard".to_owned(),
        (false, _) => format!(
            "discard in units of {} bytes",
            abilities.discard_granularity
        ),
    }
}
