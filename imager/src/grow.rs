//! A file system that grows to the size of its partition, after a restore.
//!
//! Owns: which way each file system takes: online through the kernel (ext4, XFS, Btrfs),
//! or by its own tool where one is installed (ext4 without the right to do it online,
//! NTFS). Does not own: the partition's new size, nor whether growing was asked for.
//!
//! The restore is complete and proved before any of this begins. What cannot be grown
//! here stays as it was restored, whole and usable, in a larger partition.

use blockdev::PartDevice;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a file system that is busy is waited for, before it is said that it is.
const BUSY_TRIES: u32 = 50;
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// What became of a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It fills its partition now.
    Grown,
    /// It did not change; why, and what to do, in whole sentences.
    AsBefore(String),
}

/// Where a partition lies.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The disk, or a raw image file.
    pub disk: &'a Path,
    /// First byte.
    pub start: u64,
    /// Size in bytes, after the partition was grown.
    pub size: u64,
    /// Logical sector size of the disk in bytes.
    pub sector_size: u32,
}

/// Grows the file system of that name (as the map calls it) to the size of its place.
pub fn file_system(place: Place<'_>, name: &str) -> Outcome {
    let grown = match name {
        "ext2" | "ext3" | "ext4" => ext(place),
        "xfs" => online(place, "xfs", "nouuid", |at, part| {
            blockdev::grow_xfs(at, part.size)
        }),
        "btrfs" => online(place, "btrfs", "", |at, _| blockdev::grow_btrfs(at)),
        "ntfs" => ntfs(place),
        "" => Err("What the partition holds is not known, so nothing in it was grown.".into()),
        other => Err(format!(
            "{other} cannot be grown by this program; it keeps its size inside the larger partition."
        )),
    };
    match grown {
        Ok(()) => Outcome::Grown,
        Err(why) => Outcome::AsBefore(why),
    }
}

/// ext4 grows online; where that is not allowed, its tool does it.
fn ext(place: Place<'_>) -> Result<(), String> {
    let online = online(place, "ext4", "", |at, part| {
        let blocks = part.size / block_size(part)?;
        blockdev::grow_ext4(at, blocks)
    });
    let Err(first) = online else {
        return Ok(());
    };
    let advice = "Grow it with resize2fs, on the restored system or on any Linux.";
    let part = attach(place)?;
    // The tool wants a file system that was just checked.
    let checked = tool("e2fsck", &["-f", "-p"], part.path());
    let done = checked.and_then(|code| match code {
        0 | 1 => tool("resize2fs", &[], part.path()),
        code => Err(format!("e2fsck ended with {code}")),
    });
    match done {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!("{first} resize2fs ended with {code}. {advice}")),
        Err(why) => Err(format!("{first} {why}. {advice}")),
    }
}

fn ntfs(place: Place<'_>) -> Result<(), String> {
    let advice = "In Windows, extend it to the end of its partition: diskpart, select volume, extend filesystem.";
    let part = attach(place)?;
    let ready = tool("ntfsresize", &["--force", "--no-action"], part.path());
    let done = ready.and_then(|code| match code {
        0 => tool("ntfsresize", &["--force", "--force"], part.path()),
        code => Ok(code),
    });
    match done {
        Ok(0) => Ok(()),
        Ok(code) => Err(format!(
            "ntfsresize ended with {code}; NTFS was left as it was. {advice}"
        )),
        Err(why) => Err(format!("NTFS was left as it was: {why}. {advice}")),
    }
}

fn attach(place: Place<'_>) -> Result<PartDevice, String> {
    PartDevice::attach(place.disk, place.start, place.size, place.sector_size)
        .map_err(|e| format!("The partition cannot be opened as a device of its own: {e}."))
}

/// Block size of an ext file system, from its superblock.
fn block_size(place: Place<'_>) -> io::Result<u64> {
    let mut raw = [0; 4];
    File::open(place.disk)?.read_exact_at(&mut raw, place.start + 1024 + 24)?;
    let shift = u32::from_le_bytes(raw);
    match 1024u64.checked_shl(shift) {
        Some(size) if shift <= 6 => Ok(size),
        _ => Err(io::Error::other("no ext file system")),
    }
}

/// Runs a tool without questions; its exit code.
fn tool(name: &str, args: &[&str], device: &Path) -> Result<i32, String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let status = Command::new(name)
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(args)
        .arg(device)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) => Ok(status.code().unwrap_or(-1)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(format!("{name} is not installed")),
        Err(e) => Err(format!("{name} does not start: {e}")),
    }
}

/// Mounts the partition where nobody else sees it, grows, unmounts.
fn online(
    place: Place<'_>,
    kind: &'static str,
    options: &'static str,
    grow: fn(&Path, Place<'_>) -> io::Result<()>,
) -> Result<(), String> {
    let part = attach(place)?;
    // A thread of its own: what it does to its view of the mounts is gone with it.
    let worker = || {
        let _ = unshare(CloneFlags::CLONE_NEWNS);
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        let _ = mount(None::<&str>, "/", None::<&str>, private, None::<&str>);
        let mounted = Mounted::new(part.path(), kind, options)?;
        let before = mounted.bytes();
        grow(&mounted.at, place).map_err(|e| format!("The kernel does not grow {kind}: {e}."))?;
        let after = mounted.bytes();
        mounted.close()?;
        match (before, after) {
            (Ok(before), Ok(after)) if after >= before => Ok(()),
            (before, after) => Err(format!(
                "The size of {kind} cannot be told, or did not grow: {before:?}, {after:?}."
            )),
        }
    };
    std::thread::scope(|scope| scope.spawn(worker).join())
        .unwrap_or_else(|_| Err(format!("Growing {kind} stopped in the middle.")))
}

/// A file system mounted on a folder of its own.
struct Mounted {
    at: PathBuf,
    open: bool,
}

impl Mounted {
    fn new(device: &Path, kind: &str, options: &str) -> Result<Mounted, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("imager-grow-{}-{number}", std::process::id());
        let at = std::env::temp_dir().join(name);
        std::fs::create_dir(&at).map_err(|e| format!("No folder to mount on: {e}."))?;
        let mut mounted = Mounted { at, open: false };
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some(device), &mounted.at, Some(kind), flags, Some(options))
            .map_err(|e| format!("The kernel does not mount it as {kind}: {e}."))?;
        mounted.open = true;
        Ok(mounted)
    }

    /// Size that it shows.
    fn bytes(&self) -> nix::Result<u64> {
        let stat = statvfs(&self.at)?;
        Ok(stat.blocks().saturating_mul(stat.fragment_size()))
    }

    /// Unmounts it, which flushes it. Who looks at it for a moment, as a scan for disks does or
    /// a program that is just being started, is waited for.
    fn close(mut self) -> Result<(), String> {
        self.open = false;
        let mut tries = 0;
        loop {
            match umount2(&self.at, MntFlags::empty()) {
                Err(Errno::EBUSY) if tries < BUSY_TRIES => {
                    tries += 1;
                    std::thread::sleep(BUSY_WAIT);
                }
                done => return done.map_err(|e| format!("It cannot be unmounted: {e}.")),
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.open {
            let _ = umount2(&self.at, MntFlags::empty());
        }
        let _ = std::fs::remove_dir(&self.at);
    }
}
