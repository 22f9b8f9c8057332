//! Reading, writing and cache control of an open disk.
//!
//! Owns: positional I/O that goes through completely or says why not, and what
//! stands between the caller and the medium. Does not own: opening and geometry
//! (`device`), zeroing and discarding (`erase`), the order of writes.

use crate::buffer::{ALIGNMENT, AlignedBuf};
use crate::device::{Device, Kind};
use crate::direct::AT_LEAST;
use crate::error::{Error, ErrorKind, Operation};
use crate::ioctl;
use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::io;
use std::os::unix::fs::FileExt;

/// Largest piece that goes through the bounce buffer at once.
const BOUNCE_BYTES: usize = 1 << 20;

impl Device {
    /// Reads exactly `buf.len()` bytes. On direct handles offset, length and memory
    /// should be multiples of the sector size (see [`AlignedBuf`]); anything else
    /// goes through an internal buffer.
    ///
    /// # Errors
    /// An [`Error`] inside: `OutOfRange`, `UnexpectedEnd` (the file shrank), `Medium`.
    pub fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check_range(Operation::Read, offset, buf.len() as u64)?;
        let failed = |e| Error::new(Operation::Read, self.path(), e).at(offset);
        if self.is_direct() && !self.is_aligned(offset, buf) {
            return self
                .read_bounced(offset, buf)
                .map_err(failed)
                .map_err(io::Error::from);
        }
        if self.uncached && !self.is_direct() {
            self.drop_cached(offset, buf.len() as u64);
        }
        Ok(self.file.read_exact_at(buf, offset).map_err(failed)?)
    }

    /// Writes all of `buf`.
    ///
    /// # Errors
    /// An [`Error`] inside: `OutOfRange`, `NoSpace`, `Medium`.
    pub fn write_all_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_from(offset, buf, AT_LEAST)
    }

    /// As [`Device::write_all_at`], but after [`Device::write_directly`] every whole page
    /// goes past the page cache, so that an error is met by the write that causes it however
    /// small it is.
    ///
    /// # Errors
    /// As [`Device::write_all_at`].
    pub fn write_past_cache(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write_from(offset, buf, 1)
    }

    fn write_from(&self, offset: u64, buf: &[u8], at_least: u64) -> io::Result<()> {
        self.check_range(Operation::Write, offset, buf.len() as u64)?;
        Ok(self
            .write_through(offset, buf, at_least)
            .map_err(|e| Error::new(Operation::Write, self.path(), e).at(offset))?)
    }

    /// Tells the kernel that the whole disk will be read in order. A hint: failure
    /// is of no consequence.
    pub fn advise_sequential(&self) {
        self.advise(0, 0, PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL);
    }

    /// Tells the kernel to start reading a range. A hint.
    pub fn advise_willneed(&self, offset: u64, len: u64) {
        if len > 0 && !self.is_direct() {
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
            .map_err(|e| Error::new(Operation::Flush, self.path(), e))?)
    }

    /// Flushes, then drops what is cached, so that a later read (by any handle)
    /// comes from the medium.
    pub fn invalidate_cache(&self) -> io::Result<()> {
        self.flush()?;
        let dropped = match self.kind() {
            Kind::Block => ioctl::flush_buffers(&self.file),
            Kind::File => posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED),
        };
        Ok(dropped.map_err(|e| Error::errno(Operation::InvalidateCache, self.path(), e))?)
    }

    /// Asks the kernel to read the partition table again. `Unsupported` for files
    /// and for devices without partitions; `Busy` while a partition is in use or only
    /// open: its node then stands for what the old table said.
    pub fn reread_partitions(&self) -> Result<(), Error> {
        match ioctl::reread_partitions(&self.file) {
            Ok(()) => Ok(()),
            Err(errno) => {
                let error = Error::errno(Operation::RereadTable, self.path(), errno);
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
            Some(end) if end <= self.size_bytes() => Ok(()),
            _ => {
                let text = format!(
                    "{len} bytes reach past the end at byte {}",
                    self.size_bytes()
                );
                let source = io::Error::new(io::ErrorKind::InvalidInput, text);
                Err(Error::new(operation, self.path(), source)
                    .at(offset)
                    .with_kind(ErrorKind::OutOfRange))
            }
        }
    }

    /// Bytes that direct I/O is aligned to. File systems want their device's sector
    /// size, which no call tells on every kernel; 4096 serves them all.
    fn direct_alignment(&self) -> usize {
        match self.kind() {
            Kind::Block => usize::try_from(self.sector_size())
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
