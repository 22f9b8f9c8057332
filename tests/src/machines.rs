//! The virtual machines of a run, and how long they may take.
//!
//! Owns: the shapes that tests boot again and again. Does not own: QEMU (`testkit`),
//! what a machine is told to do (`story`).

use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testkit::accel::Accelerator;
use testkit::debian::LOGIN_PROMPT;
use testkit::machine::Machine;
use testkit::qemu::{Disk, Firmware, Nic, Spec};

use crate::site::Site;

/// For anything that a machine does: emulation on a loaded host is slow, and a test
/// that fails for the clock proves nothing. Broken machines end sooner by themselves.
pub const LIMIT: Duration = Duration::from_secs(900);

/// A computer as the server tells it apart: its card, its UUID, its firmware.
#[derive(Debug, Clone)]
pub struct Pc {
    /// Name in messages and logs.
    pub name: &'static str,
    /// MAC address of its network card.
    pub mac: &'static str,
    /// SMBIOS UUID.
    pub uuid: &'static str,
    /// Its port on the site's bridge.
    pub tap: &'static str,
    /// BIOS or UEFI.
    pub firmware: Firmware,
}

impl Pc {
    /// Switches it on with one disk; the network comes first in its boot order, as the
    /// README tells. `boot` names the log file.
    ///
    /// # Errors
    /// QEMU does not start.
    pub fn boot(
        &self,
        site: &Site,
        accelerator: Accelerator,
        boot: &str,
        disk: &Path,
    ) -> io::Result<Machine> {
        let name = format!("{}-{boot}", self.name);
        let mut spec = Spec::new(&name, self.firmware, accelerator);
        spec.uuid = Some(self.uuid.to_owned());
        spec.nics.push(Nic::new(self.tap, self.mac));
        spec.disks
            .push(Disk::new(disk, &format!("{}-disk", self.name)));
        spec.start(|qemu| site.command(qemu), site.logs())
    }
}

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
