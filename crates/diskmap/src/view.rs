//! A part of a disk, or several parts one behind the other, read as one space.
//!
//! Owns: bounds, the offset of a failed read, read-ahead for the many small reads of
//! file system metadata, and the way from a volume's bytes back to those of what holds
//! it. Does not own: retries, or who lies where.

use crate::error::ScanError;
use crate::extents::{Extent, Extents};
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

/// A window onto bytes of a disk.
pub(crate) struct View<'a> {
    disk: &'a dyn DiskRead,
    /// In the order of the view; none is empty.
    pieces: Vec<Piece>,
    size: u64,
    /// Offset in the view and bytes of the last window.
    ahead: RefCell<(u64, Vec<u8>)>,
}

/// A run of bytes that is in one place of the disk.
#[derive(Clone, Copy)]
struct Piece {
    /// Offset in the view.
    at: u64,
    /// Byte offset on the disk.
    start: u64,
    len: u64,
}

impl<'a> View<'a> {
    /// The bytes `start..start + size` of a disk.
    pub(crate) fn new(disk: &'a dyn DiskRead, start: u64, size: u64) -> View<'a> {
        View {
            disk,
            pieces: vec![Piece {
                at: 0,
                start,
                len: size,
            }],
            size,
            ahead: RefCell::default(),
        }
    }

    /// The given parts of this view, one behind the other, as a space of its own. `None`
    /// if a part is empty or leaves the view.
    pub(crate) fn joined(&self, parts: &[Extent]) -> Option<View<'a>> {
        let mut pieces = Vec::with_capacity(parts.len());
        let mut at = 0u64;
        for part in parts {
            let end = part.start.checked_add(part.len)?;
            if part.len == 0 || end > self.size {
                return None;
            }
            let first = self.pieces.partition_point(|p| p.at + p.len <= part.start);
            for piece in self.pieces[first..].iter().take_while(|p| p.at < end) {
                let (from, to) = (piece.at.max(part.start), (piece.at + piece.len).min(end));
                pieces.push(Piece {
                    at: at.checked_add(from - part.start)?,
                    start: piece.start.saturating_add(from - piece.at),
                    len: to - from,
                });
            }
            at = at.checked_add(part.len)?;
        }
        Some(View {
            disk: self.disk,
            pieces,
            size: at,
            ahead: RefCell::default(),
        })
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Where its bytes are on the disk, one part behind the other.
    pub(crate) fn places(&self) -> Vec<Extent> {
        let places = self.pieces.iter().map(|piece| Extent {
            start: piece.start,
            len: piece.len,
        });
        places.collect()
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadFailure> {
        let end = offset
            .checked_add(buf.len() as u64)
            .filter(|&end| end <= self.size);
        let Some(end) = end else {
            return Err(ReadFailure {
                offset: self.place(offset),
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

    /// Byte offset on the disk; past the end it goes on from the last piece.
    fn place(&self, offset: u64) -> u64 {
        let next = self.pieces.partition_point(|p| p.at <= offset);
        next.checked_sub(1)
            .and_then(|last| self.pieces.get(last))
            .map_or(offset, |p| p.start.saturating_add(offset - p.at))
    }

    /// Reads what is known to lie inside.
    fn direct(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), ReadFailure> {
        let first = self.pieces.partition_point(|p| p.at + p.len <= offset);
        for piece in &self.pieces[first..] {
            if buf.is_empty() {
                break;
            }
            let skip = offset - piece.at;
            let len = (piece.len - skip).min(buf.len() as u64);
            let (part, rest) = buf.split_at_mut(len as usize);
            let start = piece.start.saturating_add(skip);
            self.disk
                .read_exact_at(start, part)
                .map_err(|source| ReadFailure {
                    offset: start,
                    source,
                })?;
            offset += len;
            buf = rest;
        }
        Ok(())
    }
}

/// Bytes of a space that [`View::joined`] made of `parts`, as bytes of what it was made
/// from. What lies past the last part has no place there and is left out.
pub(crate) fn outward(parts: &[Extent], inner: &Extents) -> Extents {
    let mut found = Vec::new();
    let mut at = 0u64;
    let mut inside = inner.as_slice();
    for part in parts {
        let end = at.saturating_add(part.len);
        let first = inside.partition_point(|e| e.end() <= at);
        inside = &inside[first..];
        for extent in inside.iter().take_while(|e| e.start < end) {
            let (from, to) = (extent.start.max(at), extent.end().min(end));
            found.push(Extent {
                start: part.start.saturating_add(from - at),
                len: to - from,
            });
        }
        at = end;
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::{View, outward};
    use crate::extents::{Extent, Extents};
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

    fn parts(list: &[(u64, u64)]) -> Vec<Extent> {
        list.iter()
            .map(|&(start, len)| Extent { start, len })
            .collect()
    }

    #[test]
    fn parts_in_any_order_become_one_space_and_its_bytes_find_back() {
        let data: Vec<u8> = (0..=255).collect();
        let view = View::new(&data, 100, 100);
        let first = parts(&[(50, 10), (20, 5), (60, 10)]);
        let joined = view.joined(&first).unwrap();
        assert_eq!(joined.size(), 25);
        let bytes = joined.bytes(8, 10).unwrap();
        assert_eq!(bytes, [158, 159, 120, 121, 122, 123, 124, 160, 161, 162]);
        // Once more, on top of that.
        let second = parts(&[(9, 7), (0, 1)]);
        let inner = joined.joined(&second).unwrap();
        assert_eq!(
            inner.bytes(0, 8).unwrap(),
            [159, 120, 121, 122, 123, 124, 160, 150]
        );
        let used = Extents::from_iter(parts(&[(0, 2), (6, 2), (99, 1)]));
        let out = outward(&first, &outward(&second, &used));
        assert_eq!(
            out,
            Extents::from_iter(parts(&[(50, 1), (59, 2), (20, 1)]))
                .union(&Extents::from_iter(parts(&[(60, 1)])))
        );
        assert_eq!(inner.bytes(8, 1).unwrap_err().offset, 151);
        for wrong in [&[(0, 0)][..], &[(99, 2)], &[(u64::MAX, 2)]] {
            assert!(view.joined(&parts(wrong)).is_none());
        }
        assert_eq!(view.joined(&[]).unwrap().size(), 0);
    }

    #[test]
    fn a_failure_names_the_place_on_the_disk() {
        let view = View::new(&BadByte(9000), 0, 1 << 20);
        let joined = view.joined(&parts(&[(65536, 4096), (8192, 4096)])).unwrap();
        assert_eq!(joined.bytes(4096 + 512, 512).unwrap_err().offset, 8704);
    }
}
