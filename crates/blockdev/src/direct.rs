//! Writes past the page cache.
//!
//! Owns: which bytes of a write go straight to the device. Does not own: the rest, which
//! goes through the cache (`io`).
//!
//! A restore writes more than memory holds and reads none of it again: through the cache it
//! is copied once more, is written out at a time of the kernel's own, and an error of the
//! device comes at the end, without its place.
//!
//! No page is ever reached both ways by two writers at once: only whole pages go straight
//! to the device, and the callers' writes do not overlap. A page that was written partly
//! through the cache before is written out and dropped by the kernel first.

use crate::buffer::AlignedBuf;
use crate::device::{Device, Kind};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

/// Below this a write is left to the cache, which joins neighbours.
pub(crate) const AT_LEAST: u64 = 128 << 10;
/// What goes to the device at once.
const PIECE: usize = 1 << 20;

/// The same device, open past the page cache.
#[derive(Debug)]
pub(crate) struct DirectWriter {
    file: File,
    /// A multiple of a page and of a sector.
    unit: u64,
    /// The device refused once; it would again.
    refused: AtomicBool,
}

thread_local! {
    static ALIGNED: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::new(PIECE));
}

impl Device {
    /// From now on large writes go past the page cache, if the device lets them: then an
    /// error is met by the write that causes it. Still not durable without
    /// [`Device::flush`]. Without effect on files, whose file system does better with a
    /// cache. Writes of several threads at once must not overlap.
    pub fn write_directly(&mut self) {
        if self.kind() != Kind::Block {
            return;
        }
        // By the handle, not the path: it cannot be another device, and the claim stays.
        let own = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DIRECT)
            .open(own);
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = page
            .ok()
            .flatten()
            .and_then(|size| u64::try_from(size).ok());
        // Without /proc the cache does it, as before.
        if let (Ok(file), Some(page)) = (opened, page) {
            self.direct_writer = Some(DirectWriter {
                file,
                unit: page.max(u64::from(self.sector_size())),
                refused: AtomicBool::new(false),
            });
        }
    }

    /// Writes `buf`, checked to lie inside the device: whole pages straight to it if they
    /// are at least so many bytes, the rest through the cache.
    pub(crate) fn write_through(&self, offset: u64, buf: &[u8], at_least: u64) -> io::Result<()> {
        let whole = self.direct_writer.as_ref().and_then(|writer| {
            let (from, until) = writer.whole_pages(offset, buf.len(), at_least)?;
            Some((writer, from, until))
        });
        let Some((writer, from, until)) = whole else {
            return self.file.write_all_at(buf, offset);
        };
        let (before, rest) = buf.split_at(from);
        let (middle, after) = rest.split_at(until - from);
        if !before.is_empty() {
            self.file.write_all_at(before, offset)?;
        }
        let at = offset + from as u64;
        if !writer.write(at, middle)? {
            self.file.write_all_at(middle, at)?;
        }
        if !after.is_empty() {
            self.file.write_all_at(after, offset + until as u64)?;
        }
        Ok(())
    }
}

impl DirectWriter {
    /// The part of a write that is whole pages, as positions in its bytes.
    fn whole_pages(&self, offset: u64, len: usize, at_least: u64) -> Option<(usize, usize)> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let end = offset.checked_add(len as u64)?;
        let from = offset.checked_next_multiple_of(self.unit)?;
        let until = end / self.unit * self.unit;
        if until.checked_sub(from)? < at_least {
            return None;
        }
        let within = |at: u64| usize::try_from(at - offset).ok();
        Some((within(from)?, within(until)?))
    }

    /// Whether it was written; false if the device does not take such writes.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<bool> {
        ALIGNED.with_borrow_mut(|aligned| {
            let mut at = offset;
            for piece in bytes.chunks(PIECE) {
                let memory = &mut aligned[..piece.len()];
                memory.copy_from_slice(piece);
                match self.file.write_all_at(memory, at) {
                    Ok(()) => at += piece.len() as u64,
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                        self.refused.store(true, Ordering::Relaxed);
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(true)
        })
    }
}
