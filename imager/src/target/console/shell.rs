//! The rescue shell: busybox as a child on one console.
//!
//! Owns: starting it and waiting for its end. Does not own: the console's modes.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

const BUSYBOX: &str = "/bin/busybox";
const PLAIN: &str = "/bin/sh";

/// Runs a shell on a terminal until it ends.
///
/// # Errors
/// There is none in this initramfs, or the terminal cannot be opened.
pub fn run(device: &Path, term: &str) -> io::Result<()> {
    let open = || OpenOptions::new().read(true).write(true).open(device);
    let mut command = if Path::new(BUSYBOX).exists() {
        let mut command = Command::new(BUSYBOX);
        // A session of its own with this terminal gives job control.
        command.args(["setsid", "-c", BUSYBOX, "sh"]);
        command
    } else if Path::new(PLAIN).exists() {
        Command::new(PLAIN)
    } else {
        let text = "there is no shell in this initramfs (neither /bin/busybox nor /bin/sh)";
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    };
    command
        .env_clear()
        .env("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
        .env("HOME", "/")
        .env("TERM", term)
        .env("PS1", "deploy-os# ")
        .current_dir("/")
        .stdin(Stdio::from(open()?))
        .stdout(Stdio::from(open()?))
        .stderr(Stdio::from(open()?));
    let child = command.spawn()?;
    // Process ids fit into i32 on Linux.
    let shell = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    if std::process::id() == 1 {
        wait_and_reap(shell);
    } else {
        waitpid(shell, None)?;
    }
    Ok(())
}

/// Waits for one child and collects all others that end meanwhile: they are orphans,
/// and we are their heir.
fn wait_and_reap(child: Pid) {
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid() == Some(child) => {
                if matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
                    return;
                }
            }
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Collects orphans that have ended. Only as process 1, and only while no child of our
/// own is waited for.
pub fn reap() {
    if std::process::id() != 1 {
        return;
    }
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
