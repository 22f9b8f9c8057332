//! Process 1's duties: mounts, standard streams, the end of the machine's run.
//!
//! Owns: those calls. Does not own: when they are made.

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot, set_cad_enabled};
use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const NO_PROGRAMS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC);

const MOUNTS: [Mount; 6] = [
    Mount {
        kind: "proc",
        target: "/proc",
        flags: NO_PROGRAMS.union(MsFlags::MS_NODEV),
        data: "",
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        flags: NO_PROGRAMS.union(MsFlags::MS_NODEV),
        data: "",
    },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        flags: NO_PROGRAMS,
        data: "mode=0755",
    },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: NO_PROGRAMS,
        data: "mode=0620",
    },
    Mount {
        kind: "tmpfs",
        target: "/run",
        flags: NO_PROGRAMS.union(MsFlags::MS_NODEV),
        data: "mode=0755",
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=1777",
    },
];

const EFIVARS: &str = "/sys/firmware/efi/efivars";

/// Mounts what is needed. Gives the mounts that failed, as sentences: a target that can
/// still speak shall say so.
pub fn mount_all() -> Vec<String> {
    let mut problems: Vec<String> = MOUNTS.iter().filter_map(|m| mount_one(m).err()).collect();
    if Path::new(EFIVARS).exists() {
        let efivars = Mount {
            kind: "efivarfs",
            target: EFIVARS,
            flags: NO_PROGRAMS.union(MsFlags::MS_NODEV),
            data: "",
        };
        problems.extend(mount_one(&efivars).err());
    }
    problems
}

fn mount_one(wanted: &Mount) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| {
        format!("mounting {} on {}: {error}", wanted.kind, wanted.target)
    };
    if !Path::new(wanted.target).exists() {
        fs::create_dir_all(wanted.target).map_err(|error| told(&error))?;
    }
    let Mount {
        kind,
        target,
        flags,
        data,
    } = *wanted;
    match mount(Some(kind), target, Some(kind), flags, Some(data)) {
        Ok(()) => Ok(()),
        // The kernel has mounted it itself.
        Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(error) => Err(told(&error)),
    }
}

/// Seconds until a machine whose kernel has panicked starts again: long enough to read the
/// screen.
const PANIC_SECONDS: &str = "30";

/// Makes a kernel that panics start the machine again. Ours does so by itself; a
/// distribution's stops for ever, unless its command line says otherwise.
pub fn restart_after_panic() {
    restart_after_panic_in(Path::new("/proc/sys/kernel/panic"));
}

fn restart_after_panic_in(setting: &Path) {
    let now = fs::read_to_string(setting).unwrap_or_default();
    if now.trim() == "0" {
        // Where it cannot be set, the kernel does as it always did.
        let _ = fs::write(setting, PANIC_SECONDS);
    }
}

/// Standard input, output and error go to the kernel's console, so that a panic message
/// of the runtime is seen.
pub fn use_console() {
    if let Ok(console) = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/console")
    {
        // A stream that cannot be moved stays where it is.
        let _ = nix::unistd::dup2_stdin(&console);
        let _ = nix::unistd::dup2_stdout(&console);
        let _ = nix::unistd::dup2_stderr(&console);
    }
    // Ctrl-Alt-Del shall not reset the machine in mid-write; we are told and ignore it.
    let _ = set_cad_enabled(false);
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Reboot by way of the firmware.
    Reboot,
    /// Power off.
    PowerOff,
}

/// Writes everything out and ends the run. Never returns.
pub fn end(how: End) -> ! {
    nix::unistd::sync();
    let mode = match how {
        End::Reboot => RebootMode::RB_AUTOBOOT,
        End::PowerOff => RebootMode::RB_POWER_OFF,
    };
    let refused: nix::Result<Infallible> = reboot(mode);
    eprintln!("deploy-os: {how:?} is refused by the kernel: {refused:?}");
    // A machine without a way to power off stays here; the person does the rest.
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

#[cfg(test)]
mod tests {
    use super::restart_after_panic_in;

    #[test]
    fn a_kernel_that_would_stop_for_ever_is_told_to_start_again() {
        let dir = tempfile::tempdir().unwrap();
        let setting = dir.path().join("panic");
        for (before, after) in [("0\n", "30"), ("5\n", "5\n"), ("-1\n", "-1\n")] {
            std::fs::write(&setting, before).unwrap();
            restart_after_panic_in(&setting);
            assert_eq!(std::fs::read_to_string(&setting).unwrap(), after);
        }
        restart_after_panic_in(&dir.path().join("none"));
        assert!(!dir.path().join("none").exists());
    }
}
