//! Image files that a virtual machine is writing.
//!
//! Owns: noticing it by the locks that QEMU holds. Does not own: disks of this machine
//! (`crate::in_use`).

use crate::in_use;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::fs::File;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// QEMU locks this byte as long as somebody may write to an image (its permission to write
/// is number 1, and byte 100 is that of number 0).
const WRITER: libc::off_t = 101;

/// Refuses a file that something may write to: half of what is read would be older than the
/// rest.
pub fn refuse_if_written(path: &Path, file: &File) -> Result<(), Report> {
    in_use::refuse_if_written(path)?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: WRITER,
        l_len: 1,
        l_pid: 0,
    };
    // Where files cannot be locked nobody has locked them.
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
    if asked.is_err() || lock.l_type == libc::F_UNLCK as libc::c_short {
        return Ok(());
    }
    let found = format!("{}: a virtual machine may write to it", path.display());
    Err(Report::new(Code::DiskInUse, found, DiskState::NotInvolved)
        .with_advice("Shut the virtual machine down, or add --force: the image may be torn then."))
}
