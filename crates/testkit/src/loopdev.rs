//! Loop devices that a test attaches and that go away with it.
//!
//! Owns: attaching and detaching. Does not own: the files behind them (`build`).
//!
//! Root is needed; without it the tests fail and say so.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::tool::run;

/// How often unmounting is tried, a fiftieth of a second apart.
const MOMENTS: u32 = 250;

/// An attached loop device; dropping it detaches it. What a test mounts on it, it
/// has to unmount before.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
}

impl LoopDevice {
    /// Attaches a whole file with a logical sector size of 512 or 4096 bytes.
    ///
    /// # Panics
    /// If it cannot be done: not root, no loop driver, no such file.
    pub fn attach(file: &Path, sector_size: u32) -> LoopDevice {
        Self::losetup(file, sector_size, &[])
    }

    /// Attaches `size` bytes of a file from byte `offset` on: a partition, for
    /// kernels that parse no tables.
    ///
    /// # Panics
    /// As [`LoopDevice::attach`].
    pub fn attach_at(file: &Path, offset: u64, size: u64, sector_size: u32) -> LoopDevice {
        let range = [
            "--offset".to_owned(),
            offset.to_string(),
            "--sizelimit".to_owned(),
            size.to_string(),
        ];
        Self::losetup(file, sector_size, &range)
    }

    /// As [`LoopDevice::attach_at`], write-protected.
    ///
    /// # Panics
    /// As [`LoopDevice::attach`].
    pub fn attach_at_read_only(
        file: &Path,
        offset: u64,
        size: u64,
        sector_size: u32,
    ) -> LoopDevice {
        let range = [
            "--read-only".to_owned(),
            "--offset".to_owned(),
            offset.to_string(),
            "--sizelimit".to_owned(),
            size.to_string(),
        ];
        Self::losetup(file, sector_size, &range)
    }

    /// Attaches a whole file write-protected.
    ///
    /// # Panics
    /// As [`LoopDevice::attach`].
    pub fn attach_read_only(file: &Path, sector_size: u32) -> LoopDevice {
        Self::losetup(file, sector_size, &["--read-only".to_owned()])
    }

    /// Attaches a whole file and lets the kernel look for partitions, if it can.
    ///
    /// # Panics
    /// As [`LoopDevice::attach`].
    pub fn attach_scanning(file: &Path, sector_size: u32) -> LoopDevice {
        Self::losetup(file, sector_size, &["--partscan".to_owned()])
    }

    fn losetup(file: &Path, sector_size: u32, more: &[String]) -> LoopDevice {
        require_root();
        let sector_size = sector_size.to_string();
        let mut command = Command::new("losetup");
        command
            .args(["--find", "--show", "--sector-size", &sector_size])
            .args(more)
            .arg(file);
        LoopDevice {
            path: run(&mut command).trim().into(),
        }
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        // A device still in use detaches itself when its last user goes.
        let detached = Command::new("losetup")
            .arg("--detach")
            .arg(&self.path)
            .status();
        if !detached.is_ok_and(|status| status.success()) {
            eprintln!("could not detach {}", self.path.display());
        }
    }
}

/// A mounted file system; dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    directory: tempfile::TempDir,
}

impl Mounted {
    /// Mounts a device (or, with the option `loop`, a file) on a directory of its own.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn new(source: &Path, options: &str) -> Mounted {
        require_root();
        let directory = tempfile::tempdir().expect("a directory to mount on");
        run(Command::new("mount")
            .args(["-o", options])
            .arg(source)
            .arg(directory.path()));
        Mounted { directory }
    }

    /// Mounts an empty ramfs. Its files cannot be punched, so that a loop device of one is a
    /// disk that cannot discard: what nobody overwrites stays.
    ///
    /// (A limit set by `/sys/block/loopN/queue/discard_max_bytes` would stay with the number:
    /// while it is 0, the kernel reports a granularity of 0 and takes no other limit.)
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn ramfs() -> Mounted {
        Self::in_memory("ramfs")
    }

    /// Mounts an empty tmpfs, which takes at most half of the memory.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn tmpfs() -> Mounted {
        Self::in_memory("tmpfs")
    }

    fn in_memory(kind: &str) -> Mounted {
        require_root();
        let directory = tempfile::tempdir().expect("a directory to mount on");
        run(Command::new("mount")
            .args(["-t", kind, kind])
            .arg(directory.path()));
        Mounted { directory }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Between the fork and the exec of a program that another thread starts, its copies
        // of open files keep the file system busy: for a moment, then they are gone.
        for _ in 0..MOMENTS {
            let unmounted = Command::new("umount")
                .arg("--quiet")
                .arg(self.directory.path())
                .stderr(Stdio::null())
                .status();
            if unmounted.is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let path = self.directory.path().display();
        // What a test does next would be done to a file system that is still changing.
        if std::thread::panicking() {
            eprintln!("could not unmount {path}");
        } else {
            panic!("could not unmount {path}");
        }
    }
}

fn require_root() {
    let id = run(Command::new("id").arg("-u"));
    assert_eq!(
        id.trim(),
        "0",
        "this test attaches loop devices and has to run as root"
    );
}
