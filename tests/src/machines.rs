//! The virtual machines of a run, and how long they may take.
//!
//! Owns: the shapes that tests boot again and again. Does not own: QEMU (`testkit`),
//! what a machine is told to do (`story`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use testkit::accel::Accelerator;
use testkit::debian::LOGIN_PROMPT;
use testkit::machine::Machine;
use testkit::qemu::{Disk, Firmware, Nic, Spec};

use crate::site::{SERVER, Site};

/// For anything that a machine does: emulation on a loaded host is slow, and a test
/// that fails for the clock proves nothing. Broken machines end sooner by themselves.
pub const LIMIT: Duration = Duration::from_secs(900);

/// Bytes per second: a quarter of a minute for a test disk.
const SLOW: u64 = 20 << 20;
/// iPXE in a form that QEMU starts directly.
const IPXE_AS_KERNEL: &str = "/usr/lib/ipxe/ipxe.lkrn";

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
        self.spec(site, accelerator, boot, disk)
            .start(|qemu| site.command(qemu), site.logs())
    }

    /// As [`Pc::boot`] with a disk so slow that something can happen in the middle of a
    /// job, however fast this host is.
    ///
    /// # Errors
    /// As [`Pc::boot`].
    pub fn boot_slow(
        &self,
        site: &Site,
        accelerator: Accelerator,
        boot: &str,
        disk: &Path,
    ) -> io::Result<Machine> {
        let mut spec = self.spec(site, accelerator, boot, disk);
        for disk in &mut spec.disks {
            disk.bytes_per_second = Some(SLOW);
        }
        spec.start(|qemu| site.command(qemu), site.logs())
    }

    /// Switches a BIOS machine on whose card has no iPXE of its own: the boot file that
    /// the server names to such cards is loaded by TFTP and run. (QEMU's cards all have
    /// iPXE, to which the server rightly gives its script at once. So an iPXE that stands
    /// in for the card's maker fetches the file by its name.)
    ///
    /// # Errors
    /// As [`Pc::boot`], or Debian's `ipxe` is not installed.
    pub fn boot_by_undionly(
        &self,
        site: &Site,
        accelerator: Accelerator,
        boot: &str,
        disk: &Path,
    ) -> io::Result<Machine> {
        let script = site.logs().join("maker.ipxe");
        fs::write(
            &script,
            format!("#!ipxe\ndhcp\nchain tftp://{SERVER}/undionly.kpxe\n"),
        )?;
        if !Path::new(IPXE_AS_KERNEL).is_file() {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{IPXE_AS_KERNEL} is missing: apt-get install ipxe"),
            ));
        }
        let mut spec = self.spec(site, accelerator, boot, disk);
        spec.kernel = Some((PathBuf::from(IPXE_AS_KERNEL), script, String::new()));
        spec.start(|qemu| site.command(qemu), site.logs())
    }

    /// Where UEFI firmware of this machine keeps its variables from one boot to the next.
    pub fn vars(&self, site: &Site) -> PathBuf {
        site.logs().join(format!("{}.vars", self.name))
    }

    fn spec(&self, site: &Site, accelerator: Accelerator, boot: &str, disk: &Path) -> Spec {
        let name = format!("{}-{boot}", self.name);
        let mut spec = Spec::new(&name, self.firmware, accelerator);
        // What a machine has to have at least. OVMF needs more before we are even started.
        if self.firmware == Firmware::Bios {
            spec.memory_mib = 512;
        }
        spec.vars = Some(self.vars(site));
        spec.uuid = Some(self.uuid.to_owned());
        spec.nics.push(Nic::new(self.tap, self.mac));
        spec.disks
            .push(Disk::new(disk, &format!("{}-disk", self.name)));
        spec
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
