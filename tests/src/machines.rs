//! The virtual machines of a run, and how long they may take.
//!
//! Owns: the shapes that tests boot again and again. Does not own: QEMU (`testkit`).

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::accel::Accelerator;
use testkit::debian::LOGIN_PROMPT;
use testkit::qemu::{Disk, Firmware, Spec};

/// For anything that a machine does: emulation on a loaded host is slow, and a test
/// that fails for the clock proves nothing. Broken machines end sooner by themselves.
pub const LIMIT: Duration = Duration::from_secs(900);

/// Boots a disk alone, without network, to its login prompt. Nothing is written to it.
///
/// # Errors
/// It does not get there; the end of its console is in the error.
pub fn boots_to_login(
    name: &str,
    firmware: Firmware,
    accelerator: Accelerator,
    disk: &Path,
    logs: &Path,
) -> io::Result<Duration> {
    let mut spec = Spec::new(name, firmware, accelerator);
    let mut disk = Disk::new(disk, "boot");
    disk.discard_writes = true;
    spec.disks.push(disk);
    spec.start(|qemu| Command::new(qemu), logs)?
        .wait_for(LOGIN_PROMPT, LIMIT)
}
