//! Where a container's bytes come from, at any offset and from several threads at once.
//!
//! Owns: the trait, and sections read through it. Does not own: opening files.

use crate::section::{self, Counted, Kind};
use crate::{Error, Layout};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// Bytes that can be read at any offset, by several threads at once.
pub trait ReadAt: Send + Sync {
    /// Reads bytes at `offset` into `buf`; fewer than asked for only where the data ends
    /// or a signal came, none only at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Length in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.as_slice().read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| self.get(at..))
            .unwrap_or(&[]);
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl<T: ReadAt + ?Sized> ReadAt for std::sync::Arc<T> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

impl<T: ReadAt + ?Sized> ReadAt for Box<T> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
}

/// The bytes from an offset on, as a stream.
pub(super) struct From<'a, S: ?Sized> {
    source: &'a S,
    at: u64,
}

impl<S: ReadAt + ?Sized> Read for From<'_, S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read_at(buf, self.at)?;
        self.at = self.at.saturating_add(count as u64);
        Ok(count)
    }
}

/// A stream from `at` on that knows where it stands.
pub(super) fn stream<S: ReadAt + ?Sized>(source: &S, at: u64) -> Counted<From<'_, S>> {
    Counted::starting_at(From { source, at }, at)
}

/// Reads the section at `at`, which has to be of `kind`, and returns the offset after it.
pub(super) fn section_at<S: ReadAt + ?Sized>(
    source: &S,
    at: u64,
    kind: Kind,
    body: &mut Vec<u8>,
) -> Result<u64, Error> {
    let mut input = stream(source, at);
    section::expect_section(&mut input, kind, body)?;
    Ok(input.position())
}

/// As [`section_at`], for a section of any kind.
pub(super) fn any_section_at<S: ReadAt + ?Sized>(
    source: &S,
    at: u64,
    body: &mut Vec<u8>,
) -> Result<(u64, Kind), Error> {
    let mut input = stream(source, at);
    let mut first = [0; 4];
    input
        .read_exact(&mut first)
        .map_err(|e| Error::io("reading a section", e, at))?;
    let header = section::read_section_header(&mut input, first)?;
    header.read_body(&mut input, body)?;
    Ok((input.position(), header.kind))
}

/// A part of the disk of the table's blobs: `data[from..from + len]` of blob number `blob`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TablePiece {
    pub(super) start: u64,
    pub(super) len: u64,
    blob: usize,
    from: usize,
}

impl TablePiece {
    pub(super) fn end(&self) -> u64 {
        self.start + self.len
    }

    /// The bytes of the disk from `at` on, which lies in the piece.
    pub(super) fn bytes<'a>(&self, layout: &'a Layout, at: u64) -> &'a [u8] {
        let skip = (at - self.start) as usize;
        layout
            .table
            .blobs
            .get(self.blob)
            .and_then(|blob| {
                blob.data
                    .get(self.from + skip..self.from + self.len as usize)
            })
            .unwrap_or(&[])
    }
}

/// The table's bytes, ascending and disjoint. A restore writes blobs from the disk's end
/// to its start, so where two overlap the one that begins first is what stays.
pub(super) fn table_pieces(layout: &Layout) -> Vec<TablePiece> {
    let blobs = &layout.table.blobs;
    let mut order: Vec<usize> = (0..blobs.len()).collect();
    order.sort_by_key(|&number| (blobs[number].offset, std::cmp::Reverse(number)));
    let mut pieces = Vec::with_capacity(order.len());
    let mut covered = 0;
    for number in order {
        let blob = &blobs[number];
        // The layout was checked: no blob leaves the disk.
        let end = blob.offset.saturating_add(blob.data.len() as u64);
        let start = blob.offset.max(covered);
        if start < end {
            pieces.push(TablePiece {
                start,
                len: end - start,
                blob: number,
                from: (start - blob.offset) as usize,
            });
            covered = end;
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::{ReadAt, table_pieces};
    use crate::layout::{Blob, tests::small};

    #[test]
    fn where_blobs_overlap_the_first_one_stays() {
        let mut layout = small(1 << 20);
        let blob = |offset, byte, len| Blob {
            offset,
            data: vec![byte; len],
        };
        layout.table.blobs = vec![
            blob(8, 1, 4),
            blob(0, 2, 10),
            blob(9, 3, 1),
            blob(12, 4, 2),
            blob(20, 5, 0),
            blob(0, 6, 2),
        ];
        let mut disk = [0; 16];
        for piece in table_pieces(&layout) {
            let bytes = piece.bytes(&layout, piece.start);
            disk[piece.start as usize..piece.end() as usize].copy_from_slice(bytes);
        }
        assert_eq!(disk, [6, 6, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 4, 4, 0, 0]);
    }

    #[test]
    fn bytes_in_memory_end_where_they_end() {
        let bytes = vec![1, 2, 3];
        let mut two = [0; 2];
        assert_eq!(bytes.read_at(&mut two, 2).unwrap(), 1);
        assert_eq!(bytes.read_at(&mut two, u64::MAX).unwrap(), 0);
        assert_eq!(bytes.size().unwrap(), 3);
    }
}
