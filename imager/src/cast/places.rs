//! Which cells of an image a record of a session is for.
//!
//! Owns: the numbers of records (chunks by their first place in the manifest, each once),
//! and the way from a number to its cells. Does not own: what is done with them.

use image::manifest::{PackedPage, Page};
use image::{CellMap, ChunkRef, Error};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Pages that are kept open: records come nearly in the order of the disk.
const OPEN_PAGES: usize = 8;

/// The cells of an image, by record.
pub(crate) struct Places {
    pages: Arc<[PackedPage]>,
    /// Number of the first cell of each page; cells are numbered through the manifest.
    starts: Vec<u32>,
    /// The record of each cell.
    record_of: Vec<u32>,
    /// The cells, ordered by record.
    order: Vec<u32>,
    records: u32,
    open: VecDeque<(usize, Arc<Page>)>,
}

/// A cell with its number and what has to be in it.
pub(super) type Cell = (u32, CellMap, ChunkRef);

impl Places {
    pub(crate) fn of(pages: Arc<[PackedPage]>) -> Result<Self, Error> {
        let mut numbers = HashMap::new();
        let mut starts = Vec::with_capacity(pages.len());
        let mut record_of = Vec::new();
        for page in pages.iter() {
            starts.push(record_of.len() as u32);
            for chunk in page.unpack()?.chunks {
                let next = numbers.len() as u32;
                record_of.push(*numbers.entry(chunk.name).or_insert(next));
            }
        }
        let mut order: Vec<u32> = (0..record_of.len() as u32).collect();
        order.sort_by_key(|&cell| record_of.get(cell as usize).copied());
        Ok(Places {
            pages,
            starts,
            records: numbers.len() as u32,
            record_of,
            order,
            open: VecDeque::new(),
        })
    }

    /// Number of records.
    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Number of cells.
    pub(crate) fn cells(&self) -> u32 {
        self.record_of.len() as u32
    }

    /// The record of a cell.
    pub(super) fn record_of(&self, cell: u32) -> u32 {
        self.record_of.get(cell as usize).copied().unwrap_or(0)
    }

    /// All cells, with their numbers, page by page.
    pub(super) fn each(
        &self,
        mut what: impl FnMut(Cell) -> Result<(), wire::Report>,
        damaged: impl Fn(Error) -> wire::Report,
    ) -> Result<(), wire::Report> {
        let mut number = 0;
        for page in self.pages.iter() {
            let page = page.unpack().map_err(&damaged)?;
            for (cell, chunk) in page.cells.into_iter().zip(page.chunks) {
                what((number, cell, chunk))?;
                number += 1;
            }
        }
        Ok(())
    }

    /// The cells of a record of which `wanted` is true.
    pub(super) fn of_record(
        &mut self,
        record: u32,
        wanted: impl Fn(u32) -> bool,
    ) -> Result<Vec<Cell>, Error> {
        let of = |cell: u32| self.record_of(cell);
        let first = self.order.partition_point(|&cell| of(cell) < record);
        let end = self.order.partition_point(|&cell| of(cell) <= record);
        let cells: Vec<u32> = self.order.get(first..end).unwrap_or_default().to_vec();
        let mut found = Vec::new();
        for number in cells.into_iter().filter(|&cell| wanted(cell)) {
            let at = self.starts.partition_point(|&start| start <= number) - 1;
            let page = self.page(at)?;
            let within = (number - self.starts.get(at).copied().unwrap_or(0)) as usize;
            if let (Some(cell), Some(chunk)) = (page.cells.get(within), page.chunks.get(within)) {
                found.push((number, cell.clone(), *chunk));
            }
        }
        Ok(found)
    }

    fn page(&mut self, at: usize) -> Result<Arc<Page>, Error> {
        if let Some((_, page)) = self.open.iter().find(|(number, _)| *number == at) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(match self.pages.get(at) {
            Some(page) => page.unpack()?,
            None => Page::default(),
        });
        if self.open.len() >= OPEN_PAGES {
            self.open.pop_front();
        }
        self.open.push_back((at, Arc::clone(&page)));
        Ok(page)
    }
}
