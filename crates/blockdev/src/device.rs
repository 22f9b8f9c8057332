//! An open disk: a block device or a raw image file.
//!
//! Owns: opening, geometry, positional I/O, cache control. Does not own: zeroing and
//! discarding (`erase`), identity and holders, the order of writes.

use crate::buffer::{ALIGNMENT, AlignedBuf};
use crate::error::{Error, ErrorKind, Operation};
use crate::ioctl;
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest piece that goes through the bounce buffer at once.
const BOUNCE_BYTES: usize = 1 << 20;

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
    uncached: bool,
    /// `uncached` is reached by `O_DIRECT`; else by dropping cached pages.
    direct: bool,
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
        let device = Self::open(path, &mut options, Operation::Open)?;
        if device.kind == Kind::Block && device.read_only {
            // Some drivers let it be opened and refuse the first write only.
            let source = io::Error::from_raw_os_error(libc::EROFS);
            return Err(Error::new(Operation::Open, path, source));
        }
        Ok(device)
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
        file.set_len(size_bytes)
            .map_err(|e| Error::new(Operation::Resize, path, e))?;
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

    /// Reads exactly `buf.len()` bytes. On direct handles offset, length and memory
    /// should be multiples of the sector size (see [`AlignedBuf`]); anything else
    /// goes through an internal buffer.
    ///
    /// # Errors
    /// An [`Error`] inside: `OutOfRange`, `UnexpectedEnd` (the file shrank), `Medium`.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check_range(Operation::Read, offset, buf.len() as u64)?;
        let failed = |e| Error::new(Operation::Read, &self.path, e).at(offset);
        if self.direct && !self.is_aligned(offset, buf) {
            return self
                .read_bounced(offset, buf)
                .map_err(failed)
                .map_err(io::Error::from);
        }
        if self.uncached && !self.direct {
            self.drop_cached(offset, buf.len() as u64);
        }
        Ok(self.file.read_exact_at(buf, offset).map_err(failed)?)
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    /// An [`Error`] inside: `OutOfRange`, `NoSpace`, `Medium`.
    pub fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_range(Operation::Write, offset, buf.len() as u64)?;
        Ok(self
            .file
            .write_all_at(buf, offset)
            .map_err(|e| Error::new(Operation::Write, &self.path, e).at(offset))?)
    }

    /// Tells the kernel that the whole disk will be read in order. A hint: failure
    /// is of no consequence.
    pub fn advise_sequential(&self) {
        self.advise(0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
    }

    /// Tells the kernel to start reading a range. A hint.
    pub fn advise_willneed(&self, offset: u64, len: u64) {
        if len > 0 && !self.direct {
            self.advise(offset, len, PosixFadviseAdvice::POSIX_FADV_WILLNEED);
        }
    }

    /// Drops clean cached pages of a range, so that a backup does not push
    /// everything else out of memory. A hint.
    pub fn drop_cached(&self, offset: u64, len: u64) {
        if len > 0 {
            self.advise(offset, len, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }

    fn advise(&self, offset: u64, len: u64, advice: PosixFadviseAdvice) {
        if let (Ok(offset), Ok(len)) = (libc::off_t::try_from(offset), libc::off_t::try_from(len)) {
            // A hint that is not taken costs time, nothing else.
            let _ = posix_fadvise(&self.file, offset, len, advice);
        }
    }

    /// Makes everything that was written durable, the device's own cache included.
    /// A write error that the kernel met in the background comes back here.
    pub fn flush(&self) -> io::Result<()> {
        Ok(self
            .file
            .sync_all()
            .map_err(|e| Error::new(Operation::Flush, &self.path, e))?)
    }

    /// Flushes, then drops what is cached, so that a later read (by any handle)
    /// comes from the medium.
    pub fn invalidate_cache(&self) -> io::Result<()> {
        self.flush()?;
        let dropped = match self.kind {
            Kind::Block => ioctl::flush_buffers(&self.file),
            Kind::File => posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED),
        };
        Ok(dropped.map_err(|e| Error::errno(Operation::InvalidateCache, &self.path, e))?)
    }

    /// Asks the kernel to read the partition table again. `Unsupported` for files
    /// and for devices without partitions; `Busy` while a partition is in use.
    /// Nothing depends on it but device nodes: callers may ignore the failure.
    pub fn reread_partitions(&self) -> Result<(), Error> {
        match ioctl::reread_partitions(&self.file) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let error = Error::errno(Operation::RereadTable, &self.path, errno);
                // A device that cannot have partitions says EINVAL.
                Err(if errno == Errno::EINVAL {
                    error.with_kind(ErrorKind::Unsupported)
                } else {
                    error
                })
            }
        }
    }

    pub(crate) fn check_range(
        &self,
        operation: Operation,
        offset: u64,
        len: u64,
    ) -> Result<(), Error> {
        match offset.checked_add(len) {
            Some(end) if end <= self.size_bytes => Ok(()),
            _ => {
                let text = format!("{len} bytes reach past the end at byte {}", self.size_bytes);
                let source = io::Error::new(io::ErrorKind::InvalidInput, text);
                Err(Error::new(operation, &self.path, source)
                    .at(offset)
                    .with_kind(ErrorKind::OutOfRange))
            }
        }
    }

    /// Bytes that direct I/O is aligned to. File systems want their device's sector
    /// size, which no call tells on every kernel; 4096 serves them all.
    fn direct_alignment(&self) -> usize {
        match self.kind {
            Kind::Block => usize::try_from(self.sector_size)
                .unwrap_or(ALIGNMENT)
                .max(512),
            Kind::File => ALIGNMENT,
        }
    }

    fn is_aligned(&self, offset: u64, buf: &[u8]) -> bool {
        let unit = self.direct_alignment();
        offset.is_multiple_of(unit as u64)
            && buf.len().is_multiple_of(unit)
            && buf.as_ptr().addr().is_multiple_of(unit)
    }

    /// Reads the aligned range around the wanted one, piece by piece.
    fn read_bounced(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let unit = self.direct_alignment();
        let mut bounce = AlignedBuf::new(BOUNCE_BYTES.next_multiple_of(unit));
        let mut done = 0;
        while done < buf.len() {
            let position = offset + done as u64;
            let skip =
                usize::try_from(position % unit as u64).map_err(|_| io::ErrorKind::InvalidInput)?;
            let want = (skip + (buf.len() - done))
                .next_multiple_of(unit)
                .min(bounce.len());
            // The last unit of a file may lie partly behind its end: a short read.
            let got = match self
                .file
                .read_at(&mut bounce[..want], position - skip as u64)
            {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                got => got?,
            };
            let useful = got.saturating_sub(skip).min(buf.len() - done);
            if useful == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            buf[done..done + useful].copy_from_slice(&bounce[skip..skip + useful]);
            done += useful;
        }
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
