//! Which bytes of the disk an image holds.
//!
//! Owns: the order and joining of ranges. Does not own: reading them.

use super::OpenImage;
use super::pages::{Key, OpenPage};
use super::source::ReadAt;
use crate::Error;
use std::sync::Arc;

/// Bytes of the disk: first one and how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte on the disk.
    pub start: u64,
    /// Bytes, at least one.
    pub len: u64,
}

impl Range {
    /// The byte after the last one.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.len)
    }
}

/// Iterator of [`OpenImage::used`]: ascending ranges that do not touch. It ends after the
/// first error.
pub struct UsedRanges<'a, S> {
    image: &'a OpenImage<S>,
    /// The table's piece that comes next.
    piece: usize,
    cells: Cells<'a, S>,
    /// The extent of a region that comes next, if it was fetched already.
    extent: Option<Range>,
    from: u64,
    /// Nothing is told of what lies behind this byte.
    until: u64,
    ended: bool,
}

impl<'a, S: ReadAt> UsedRanges<'a, S> {
    pub(super) fn new(image: &'a OpenImage<S>, from: u64, until: u64) -> Self {
        UsedRanges {
            image,
            piece: image.pieces.partition_point(|piece| piece.end() <= from),
            cells: Cells::new(image, from),
            extent: None,
            from,
            until,
            ended: false,
        }
    }

    fn step(&mut self) -> Result<Option<Range>, Error> {
        let mut joined: Option<Range> = None;
        loop {
            // What touches it behind the end may be long, and nobody wants to know.
            if let Some(range) = joined
                && range.end() >= self.until
            {
                self.ended = true;
                let len = self.until.saturating_sub(range.start);
                return Ok((len > 0).then_some(Range { len, ..range }));
            }
            if self.extent.is_none() {
                self.extent = self.cells.next()?;
            }
            let piece = self.image.pieces.get(self.piece).map(|piece| Range {
                start: piece.start,
                len: piece.len,
            });
            let table_first = match (piece, self.extent) {
                (Some(piece), Some(extent)) => piece.start <= extent.start,
                (piece, _) => piece.is_some(),
            };
            let Some(next) = (if table_first { piece } else { self.extent }) else {
                return Ok(joined);
            };
            match joined.as_mut() {
                Some(range) if next.start > range.end() => return Ok(joined),
                Some(range) => range.len = range.end().max(next.end()) - range.start,
                // What is asked for may begin within a range, or behind this one.
                None if next.end() > self.from => {
                    let start = next.start.max(self.from);
                    joined = Some(Range {
                        start,
                        len: next.end() - start,
                    });
                }
                None => {}
            }
            if table_first {
                self.piece += 1;
            } else {
                self.extent = None;
            }
        }
    }
}

impl<S: ReadAt> Iterator for UsedRanges<'_, S> {
    type Item = Result<Range, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended |= !matches!(step, Some(Ok(_)));
        step
    }
}

/// The used extents of the regions, in the order of the disk.
struct Cells<'a, S> {
    image: &'a OpenImage<S>,
    /// Where to begin; then the cell that came last.
    start: Option<Key>,
    page: Option<(usize, Arc<OpenPage>)>,
    index: usize,
    last: Option<Key>,
    base: u64,
    extents: std::vec::IntoIter<(u32, u32)>,
}

impl<'a, S: ReadAt> Cells<'a, S> {
    fn new(image: &'a OpenImage<S>, from: u64) -> Self {
        let regions = &image.layout.regions;
        let region = regions.partition_point(|r| r.start.saturating_add(r.size) <= from);
        let cell = regions.get(region).map_or(0, |r| {
            from.saturating_sub(r.start) / u64::from(image.layout.cell_size)
        });
        Cells {
            image,
            // At most 65,536 regions.
            start: Some((region as u32, cell)),
            page: None,
            index: 0,
            last: None,
            base: 0,
            extents: Vec::new().into_iter(),
        }
    }

    fn next(&mut self) -> Result<Option<Range>, Error> {
        loop {
            if let Some((start, len)) = self.extents.next() {
                return Ok(Some(Range {
                    start: self.base.saturating_add(u64::from(start)),
                    len: u64::from(len),
                }));
            }
            if !self.next_cell()? {
                return Ok(None);
            }
        }
    }

    fn next_cell(&mut self) -> Result<bool, Error> {
        let image = self.image;
        if let Some(start) = self.start.take() {
            let number = image.pages.page_of(&image.source, &image.layout, start)?;
            self.page = image.page(number)?.map(|page| (number, page));
            self.index = self
                .page
                .as_ref()
                .map_or(0, |(_, page)| page.position(start));
        }
        if let Some((number, page)) = &self.page
            && self.index >= page.len()
        {
            let next = number + 1;
            self.page = image.page(next)?.map(|page| (next, page));
            self.index = 0;
        }
        let Some((_, page)) = &self.page else {
            return Ok(false);
        };
        let cell = page.cell(self.index)?;
        let key = (cell.region, cell.cell);
        if self.last.is_some_and(|last| last >= key) {
            let what = "chunks are not in the order of the disk";
            return Err(Error::damaged(what, 0));
        }
        self.last = Some(key);
        self.index += 1;
        let region = image.layout.regions.get(cell.region as usize);
        let offset = cell.offset(image.layout.cell_size);
        let base = region.and_then(|region| region.start.checked_add(offset?));
        self.base = base.ok_or_else(|| Error::damaged("a chunk leaves its region", 0))?;
        self.extents = cell.used.extents().to_vec().into_iter();
        Ok(true)
    }
}
