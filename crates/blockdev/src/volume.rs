//! A partition as a device of its own, and mounted file systems that grow.
//!
//! Owns: attaching a byte range of a disk or file through the kernel's loop driver
//! (which needs no partition nodes), and the online growth of ext4, XFS and Btrfs.
//! Does not own: mounting, or deciding what is grown.

use crate::error::{Error, Operation};
use crate::ioctl::volume;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Times that somebody else may take the free loop device first.
const ATTEMPTS: u32 = 16;

/// A byte range of a disk as a block device; dropping it detaches it, as soon as nobody
/// else uses it.
#[derive(Debug)]
pub struct PartDevice {
    path: PathBuf,
    _open: File,
}

impl PartDevice {
    /// Attaches `len` bytes of the disk or file at `disk` from `offset` on, for reading
    /// and writing, in sectors of `sector_size` bytes. Needs root.
    ///
    /// # Errors
    /// No loop driver, no right, or no such disk.
    pub fn attach(
        disk: &Path,
        offset: u64,
        len: u64,
        sector_size: u32,
    ) -> Result<PartDevice, Error> {
        let failed = |path: &Path, source| Error::new(Operation::Open, path, source);
        let both = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let backing = both(disk).map_err(|e| failed(disk, e))?;
        let control_path = Path::new("/dev/loop-control");
        let control = both(control_path).map_err(|e| failed(control_path, e))?;
        let mut last = Errno::EBUSY;
        for _ in 0..ATTEMPTS {
            let number = volume::free_loop(&control).map_err(|e| failed(control_path, e.into()))?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = both(&path).map_err(|e| failed(&path, e))?;
            match volume::configure_loop(&device, &backing, offset, len, sector_size) {
                Ok(()) => {
                    return Ok(PartDevice {
                        path,
                        _open: device,
                    });
                }
                Err(Errno::EBUSY) => last = Errno::EBUSY,
                Err(error) => return Err(failed(&path, error.into())),
            }
        }
        Err(failed(control_path, last.into()))
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Grows the ext4 file system mounted at `mounted` to `blocks` of its own blocks.
///
/// # Errors
/// What the kernel says.
pub fn grow_ext4(mounted: &Path, blocks: u64) -> io::Result<()> {
    Ok(volume::grow_ext4(&File::open(mounted)?, blocks)?)
}

/// Grows the XFS file system mounted at `mounted` to what fits a device of `bytes`.
///
/// # Errors
/// What the kernel says.
pub fn grow_xfs(mounted: &Path, bytes: u64) -> io::Result<()> {
    Ok(volume::grow_xfs(&File::open(mounted)?, bytes)?)
}

/// Grows the Btrfs file system mounted at `mounted` to the size of its device.
///
/// # Errors
/// What the kernel says.
pub fn grow_btrfs(mounted: &Path) -> io::Result<()> {
    Ok(volume::grow_btrfs(&File::open(mounted)?)?)
}
