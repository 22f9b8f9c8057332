//! A part of a disk, read with offsets relative to its start.
//!
//! Owns: bounds, the offset of a failed read, and read-ahead for the many small
//! reads of file system metadata. Does not own: retries.

use crate::error::ScanError;
use crate::read::DiskRead;
use std::cell::RefCell;
use std::io;

/// Bytes fetched at once when small reads come in.
const WINDOW: u64 = 64 << 10;

/// A read that failed.
#[derive(Debug)]
pub(crate) struct ReadFailure {
    /// Byte offset on the disk.
    pub offset: u64,
    /// What the reader said.
    pub source: io::Error,
}

impl From<ReadFailure> for ScanError {
    fn from(failure: ReadFailure) -> Self {
        ScanError::Read {
            offset: failure.offset,
            source: failure.source,
        }
    }
}

/// A window onto `size` bytes from `start`.
pub(crate) struct View<'a> {
    disk: &'a dyn DiskRead,
    start: u64,
    size: u64,
    /// Offset in the view and bytes of the last window.
    ahead: RefCell<(u64, Vec<u8>)>,
}

impl<'a> View<'a> {
    /// The bytes `start..start + size` of a disk.
    pub(crate) fn new(disk: &'a dyn DiskRead, start: u64, size: u64) -> View<'a> {
        View {
            disk,
            start,
            size,
            ahead: RefCell::default(),
        }
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        let end = offset
            .checked_add(buf.len() as u64)
            .filter(|&end| end <= self.size);
        let Some(end) = end else {
            let offset = self.start.saturating_add(offset);
            return Err(ReadFailure {
                offset,
                source: io::ErrorKind::UnexpectedEof.into(),
            });
        };
        if buf.len() as u64 >= WINDOW {
            return self.direct(offset, buf);
        }
        let mut ahead = self.ahead.borrow_mut();
        let have = ahead.0..ahead.0 + ahead.1.len() as u64;
        if !(have.start <= offset && end <= have.end) {
            let from = offset / 4096 * 4096;
            let mut window = vec![0u8; (self.size - from).min(WINDOW + 4096) as usize];
            // A bad sector elsewhere in the window must not fail this read.
            if self.direct(from, &mut window).is_err() {
                return self.direct(offset, buf);
            }
            *ahead = (from, window);
        }
        let at = (offset - ahead.0) as usize;
        buf.copy_from_slice(&ahead.1[at..at + buf.len()]);
        Ok(())
    }

    /// `len` bytes from `offset`; callers cap `len` themselves.
    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>, ReadFailure> {
        let mut buf = vec![0u8; len];
        self.read(offset, &mut buf)?;
        Ok(buf)
    }

    /// Up to `len` bytes from `offset`: shorter at the end, empty past it.
    pub(crate) fn bytes_up_to(&self, offset: u64, len: usize) -> Result<Vec<u8>, ReadFailure> {
        let len = self.size.saturating_sub(offset).min(len as u64) as usize;
        if len == 0 {
            Ok(Vec::new())
        } else {
            self.bytes(offset, len)
        }
    }

    fn direct(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        let offset = self.start.saturating_add(offset);
        self.disk
            .read_exact_at(offset, buf)
            .map_err(|source| ReadFailure { offset, source })
    }
}

#[cfg(test)]
mod tests {
    use super::View;
    use crate::read::DiskRead;
    use std::io;

    /// Refuses every read that touches one byte.
    struct BadByte(u64);
    impl DiskRead for BadByte {
        fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            if (offset..offset + buf.len() as u64).contains(&self.0) {
                return Err(io::Error::other("bad sector"));
            }
            buf.fill((offset >> 12) as u8);
            Ok(())
        }
    }

    #[test]
    fn stays_inside_and_names_the_place() {
        let data: Vec<u8> = (0..=255).collect();
        let view = View::new(&data, 16, 32);
        assert_eq!(view.bytes(30, 2).unwrap(), [46, 47]);
        assert_eq!(view.bytes(31, 2).unwrap_err().offset, 47);
        assert_eq!(view.bytes_up_to(31, 9).unwrap(), [47]);
        assert!(view.bytes_up_to(99, 9).unwrap().is_empty());
    }

    #[test]
    fn read_ahead_does_not_spread_a_bad_sector() {
        let view = View::new(&BadByte(9000), 0, 1 << 20);
        assert_eq!(view.bytes(8192, 512).unwrap()[0], 2);
        assert_eq!(view.bytes(8192, 1024).unwrap_err().offset, 8192);
        assert_eq!(view.bytes(12288, 16).unwrap()[0], 3);
    }
}
