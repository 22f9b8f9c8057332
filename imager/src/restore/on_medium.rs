//! What a disk holds at the place of a cell, read past the page cache.
//!
//! Owns: reading a cell's used bytes from the medium and hashing them. Does not own: what
//! that means (`verify`: wrong; `held`: need not be written).

use super::plan::Place;
use blockdev::{AlignedBuf, Device};
use image::seal::Namer;
use image::{CellMap, Hash, ImageKey};
use std::io;

/// Direct reads start and end at multiples of this.
const ALIGN: u64 = 4096;
/// A hole up to this long is read over.
const READ_OVER: u64 = 256 << 10;

/// Reads cells from the medium; one for each thread.
pub struct OnMedium<'a> {
    medium: &'a Device,
    buffer: AlignedBuf,
}

impl<'a> OnMedium<'a> {
    /// Of `medium`, which reads past the page cache, for cells of at most `cell_size` bytes.
    pub fn new(medium: &'a Device, cell_size: u32) -> Self {
        let room = cell_size as usize + 2 * ALIGN as usize;
        OnMedium {
            medium,
            buffer: AlignedBuf::new(room),
        }
    }

    /// Name of those used bytes of the cell that have a place, as a chunk of an encrypted
    /// image if there is a key.
    pub fn hash(
        &mut self,
        cell: &CellMap,
        place: Place,
        key: Option<&ImageKey>,
    ) -> io::Result<Hash> {
        let base = place.start;
        let mut namer = Namer::new(key);
        let inside = |&(start, len): &(u32, u32)| {
            let room = u32::try_from(place.len).unwrap_or(u32::MAX);
            Some((start, len.min(room.checked_sub(start)?))).filter(|&(_, len)| len > 0)
        };
        let extents: Vec<_> = cell.used.extents().iter().filter_map(inside).collect();
        let mut at = 0;
        while let Some(&(start, len)) = extents.get(at) {
            let first = base + u64::from(start);
            let mut end = first + u64::from(len);
            let mut next = at + 1;
            while let Some(&(s, l)) = extents
                .get(next)
                .filter(|&&(s, _)| base + u64::from(s) - end <= READ_OVER)
            {
                end = base + u64::from(s + l);
                next += 1;
            }
            let from = first / ALIGN * ALIGN;
            let until = end.next_multiple_of(ALIGN).min(self.medium.size_bytes());
            let buffer = &mut self.buffer[..(until - from) as usize];
            self.medium.read_exact_at(from, buffer)?;
            for &(s, l) in &extents[at..next] {
                let offset = (base + u64::from(s) - from) as usize;
                namer.update(&buffer[offset..offset + l as usize]);
            }
            at = next;
        }
        Ok(namer.name())
    }
}
