//! The cells of a region of an opened container, with the names of their chunks.
//!
//! Owns: their order. Does not own: pages, or records: none is read.

use super::OpenImage;
use super::source::ReadAt;
use crate::Error;
use crate::cells::CellMap;
use crate::tree::ChunkRef;

/// Iterator of [`OpenImage::cells`]: the cells of one region, ascending. It ends after the first
/// error.
pub struct Cells<'a, S> {
    image: &'a OpenImage<S>,
    region: u32,
    /// The next place, once it was looked up.
    place: Option<(usize, usize)>,
    last: Option<u64>,
    ended: bool,
}

impl<'a, S: ReadAt> Cells<'a, S> {
    pub(super) fn new(image: &'a OpenImage<S>, region: usize) -> Self {
        Cells {
            image,
            // At most 65,536 regions.
            region: region as u32,
            place: None,
            last: None,
            ended: false,
        }
    }

    fn step(&mut self) -> Result<Option<(CellMap, ChunkRef)>, Error> {
        let image = self.image;
        let (mut number, mut index) = match self.place {
            Some(place) => place,
            None => {
                let first = (self.region, 0);
                let number = image.pages.page_of(&image.source, &image.layout, first)?;
                let page = image.page(number)?;
                (number, page.map_or(0, |page| page.position(first)))
            }
        };
        loop {
            let Some(page) = image.page(number)? else {
                return Ok(None);
            };
            if index >= page.len() {
                (number, index) = (number + 1, 0);
                continue;
            }
            let cell = page.cell(index)?;
            if cell.region != self.region {
                return Ok(None);
            }
            let chunk = page.chunk(index);
            let chunk = chunk
                .ok_or_else(|| Error::damaged("a page's map and list have different lengths", 0))?;
            if self.last.is_some_and(|last| last >= cell.cell) {
                let what = "chunks are not in the order of the disk";
                return Err(Error::damaged(what, 0));
            }
            self.last = Some(cell.cell);
            self.place = Some((number, index + 1));
            return Ok(Some((cell, chunk)));
        }
    }
}

impl<S: ReadAt> Iterator for Cells<'_, S> {
    type Item = Result<(CellMap, ChunkRef), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}
