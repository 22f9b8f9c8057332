//! The firmware's boot entries after a restore.
//!
//! Owns: what is looked at on the restored disk, making the changes one by one, each read
//! back, and what is told of them. Does not own: the rules (`efi`), the restore. A disk that
//! was restored is restored whatever happens here: what fails is a warning.

mod disk;
mod loaders;
mod vars;

use crate::progress::ProgressSink;
use crate::target;
use blockdev::Device;
use efi::{Change, Signature};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vars::Vars;
use wire::{Code, DiskState, Report};

/// Where the firmware's variables are files.
const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// Disks of one job end side by side, and there is one firmware.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What was known before the disk was overwritten.
pub struct Before {
    vars: Option<PathBuf>,
    identities: Vec<Signature>,
}

/// What became of the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was changed, in words.
    pub changed: Vec<String>,
    /// Why not everything could be.
    pub warning: Option<Report>,
}

/// Looks at a disk that is about to be overwritten. Only a machine that this program booted
/// has its entries cared for, not one on which it runs as a command.
pub fn before(device: &Device) -> Before {
    before_with(device, target::is_init().then(|| PathBuf::from(EFIVARS)))
}

fn before_with(device: &Device, vars: Option<PathBuf>) -> Before {
    let vars = vars.filter(|folder| folder.is_dir());
    let identities = match vars {
        Some(_) => disk::identities(device),
        None => Vec::new(),
    };
    Before { vars, identities }
}

/// Brings the entries up to date with the disk at `path`, which was restored completely.
pub fn after(path: &Path, before: &Before, progress: &dyn ProgressSink) -> Outcome {
    let Some(folder) = &before.vars else {
        return Outcome::default();
    };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut outcome = Outcome::default();
    let failed = update(path, before, &Vars::at(folder), &mut |change: String| {
        progress.note(&change);
        outcome.changed.push(change);
    });
    if let Err(why) = failed {
        progress.note(&format!("warning: {}: {why}", Code::BootEntryFailed));
        let report = Report::new(Code::BootEntryFailed, why, DiskState::Complete);
        outcome.warning = Some(report);
    }
    outcome
}

fn update(
    path: &Path,
    before: &Before,
    vars: &Vars,
    told: &mut dyn FnMut(String),
) -> Result<(), String> {
    let disk = disk::Restored::open(path)?;
    let restored = disk.describe(&before.identities)?;
    if restored.esps.is_empty() && restored.gone.is_empty() {
        return Ok(());
    }
    let firmware = vars.firmware().map_err(|e| e.to_string())?;
    let exists = |at: usize, file: &str| disk.has(at, file);
    for change in efi::plan(&firmware, &restored, &exists) {
        let (done, why) = match change {
            Change::Set { number, bytes, why } => (vars.set_entry(number, &bytes), why),
            Change::Order { order, why } => (vars.set_order(&order), why),
            Change::Delete { number, why } => (vars.delete_entry(number), why),
        };
        // What follows may stand on it: an order does not name an entry that was not made.
        done.map_err(|e| format!("{e} ({why})"))?;
        told(why);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
