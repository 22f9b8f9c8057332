//! An open disk: a block device or a raw image file.
//!
//! Owns: opening and geometry. Does not own: reading and writing (`io`), zeroing and
//! discarding (`erase`), identity and holders.

use crate::direct::DirectWriter;
use crate::error::{Error, ErrorKind, Operation};
use crate::ioctl;
use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What kind of disk this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block device.
    Block,
    /// A regular file that holds a raw disk.
    File,
}

/// An open block device or raw image file.
///
/// All I/O is positional and goes through a shared reference, so one handle serves
/// several threads. Ranges are checked against the size: a write never enlarges a
/// file, and a read past the end is an error.
#[derive(Debug)]
pub struct Device {
    pub(crate) file: File,
    path: PathBuf,
    kind: Kind,
    size_bytes: u64,
    sector_size: u32,
    physical_sector_size: u32,
    read_only: bool,
    /// Reads must come from the medium.
    pub(crate) uncached: bool,
    /// `uncached` is reached by `O_DIRECT`; else by dropping cached pages.
    direct: bool,
    /// For large writes past the page cache, if that was asked for.
    pub(crate) direct_writer: Option<DirectWriter>,
}

impl Device {
    /// Opens for reading, through the page cache.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, `NotADisk`, or what the geometry queries give.
    pub fn open_read(path: &Path) -> Result<Device, Error> {
        Self::open(path, OpenOptions::new().read(true), Operation::Open)
    }

    /// Opens for reading and writing. A block device is opened exclusively: `Busy`
    /// if it or one of its partitions is mounted, in RAID, swap or held by another
    /// exclusive opener. `ReadOnly` if it is write-protected. Raw files have no such
    /// lock; ask [`crate::holders`].
    pub fn open_write(path: &Path) -> Result<Device, Error> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if kind_at(path)? == Kind::Block {
            options.custom_flags(libc::O_EXCL);
        }
        Self::writable(path, &mut options)
    }

    fn writable(path: &Path, options: &mut OpenOptions) -> Result<Device, Error> {
        let device = Self::open(path, options, Operation::Open)?;
        if device.kind == Kind::Block && device.read_only {
            // Some drivers let it be opened and refuse the first write only.
            let source = io::Error::from_raw_os_error(libc::EROFS);
            return Err(Error::new(Operation::Open, path, source));
        }
        Ok(device)
    }

    /// Opens for reading and writing without a claim: other partitions of the disk may be
    /// in use. Ask [`crate::holders_within`] about those that are written.
    ///
    /// # Errors
    /// As [`Device::open_write`], but for `Busy`.
    pub fn open_write_shared(path: &Path) -> Result<Device, Error> {
        Self::writable(path, OpenOptions::new().read(true).write(true))
    }

    /// Opens for reading past the page cache, to see what is on the medium: with
    /// `O_DIRECT`, or where a file system refuses that (tmpfs), by dropping cached
    /// pages before each read. [`Device::is_direct`] says which.
    pub fn open_direct_read(path: &Path) -> Result<Device, Error> {
        let direct = Self::open(
            path,
            OpenOptions::new().read(true).custom_flags(libc::O_DIRECT),
            Operation::Open,
        );
        match direct {
            Ok(device) => Ok(Device {
                uncached: true,
                direct: true,
                ..device
            }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                let device = Self::open_read(path)?;
                Ok(Device {
                    uncached: true,
                    direct: false,
                    ..device
                })
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a new raw image file of that size (sparse) and opens it for reading and
    /// writing. An existing path is an error (`Other`, source `EEXIST`).
    pub fn create_file(path: &Path, size_bytes: u64) -> Result<Device, Error> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_CLOEXEC);
        let file = options
            .open(path)
            .map_err(|e| Error::new(Operation::Create, path, e))?;
        file.set_len(size_bytes).map_err(|e| {
            // Nothing is left of a file that cannot have its size.
            let _ = std::fs::remove_file(path);
            Error::new(Operation::Resize, path, e)
        })?;
        Self::from_file(file, path, Operation::Create)
    }

    fn open(path: &Path, options: &mut OpenOptions, operation: Operation) -> Result<Device, Error> {
        // Before opening: to open a FIFO would wait, and a tape would rewind.
        kind_at(path)?;
        let file = options
            .open(path)
            .map_err(|e| Error::new(operation, path, e))?;
        Self::from_file(file, path, operation)
    }

    fn from_file(file: File, path: &Path, operation: Operation) -> Result<Device, Error> {
        let inspect = |errno: Errno| Error::errno(Operation::Inspect, path, errno);
        let metadata = file
            .metadata()
            .map_err(|e| Error::new(operation, path, e))?;
        let device = Device {
            path: path.to_owned(),
            kind: kind_of(&metadata.file_type(), path)?,
            size_bytes: metadata.len(),
            sector_size: 512,
            physical_sector_size: 512,
            read_only: false,
            uncached: false,
            direct: false,
            direct_writer: None,
            file,
        };
        match device.kind {
            Kind::File => {
                let read_only = metadata.permissions().readonly();
                Ok(Device {
                    read_only,
                    ..device
                })
            }
            Kind::Block => Ok(Device {
                size_bytes: ioctl::size_bytes(&device.file).map_err(inspect)?,
                sector_size: ioctl::logical_sector_size(&device.file).map_err(inspect)?,
                physical_sector_size: ioctl::physical_sector_size(&device.file).map_err(inspect)?,
                read_only: ioctl::read_only(&device.file).map_err(inspect)?,
                ..device
            }),
        }
    }

    /// Block device or file.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size in bytes, as of opening or the last [`Device::set_len`].
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Logical sector size in bytes. Files have 512 until
    /// [`Device::set_sector_size`] says otherwise. Not checked against what is
    /// supported: a disk formatted with 520 bytes says so.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Physical sector size in bytes; for files the same as the logical one.
    pub fn physical_sector_size(&self) -> u32 {
        self.physical_sector_size
    }

    /// Whether the device is write-protected (a file: whether its mode is).
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Whether reads bypass the page cache by `O_DIRECT`.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Says which sector size the disk in a raw file has. No effect on devices,
    /// which know their own.
    pub fn set_sector_size(&mut self, sector_size: u32) {
        if self.kind == Kind::File {
            self.sector_size = sector_size;
            self.physical_sector_size = sector_size;
        }
    }

    /// Gives a raw file another size; `Unsupported` on block devices.
    pub fn set_len(&mut self, size_bytes: u64) -> Result<(), Error> {
        let failed = |e| Error::new(Operation::Resize, &self.path, e);
        if self.kind == Kind::Block {
            return Err(failed(io::Error::from_raw_os_error(libc::EOPNOTSUPP)));
        }
        self.file.set_len(size_bytes).map_err(failed)?;
        self.size_bytes = size_bytes;
        Ok(())
    }
}

fn kind_at(path: &Path) -> Result<Kind, Error> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::new(Operation::Open, path, e))?;
    kind_of(&metadata.file_type(), path)
}

pub(crate) fn kind_of(file_type: &std::fs::FileType, path: &Path) -> Result<Kind, Error> {
    if file_type.is_block_device() {
        Ok(Kind::Block)
    } else if file_type.is_file() {
        Ok(Kind::File)
    } else {
        let source = io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither a block device nor a regular file",
        );
        Err(Error::new(Operation::Open, path, source).with_kind(ErrorKind::NotADisk))
    }
}
