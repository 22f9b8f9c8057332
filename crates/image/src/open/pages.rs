//! Pages of an opened container: read when they are wanted, kept while there is room.
//!
//! Owns: finding the page of a cell, where a page's records stand, and the proof of the
//! pages against the root. Does not own: the records' bytes.

use super::lru::Lru;
use super::source::{ReadAt, section_at, stream};
use crate::cells::{CellMap, Cursor};
use crate::index::PagePlace;
use crate::manifest::{PageChecker, decode_list};
use crate::record::{self, RecordHeader};
use crate::section::Kind;
use crate::tree::{ChunkRef, page_hash};
use crate::{Error, Hash, Layout};
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A cell in the order of the disk: region, then number.
pub(super) type Key = (u32, u64);

/// Locks, also after a thread panicked while it held the lock: what is behind the locks
/// of this module is right at every moment.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page in memory: about its stored size.
pub(super) struct OpenPage {
    /// Its position in the image.
    number: usize,
    /// Each cell, and where its used map stands in `map`.
    cells: Vec<(Key, u32)>,
    map: Vec<u8>,
    chunks: Vec<ChunkRef>,
    /// Where the list section stands: the end of the records.
    list_at: u64,
    /// Hash of the page.
    hash: Hash,
    /// Offset after the list section.
    end: u64,
    /// Where the records stand that were found so far, and the end of the last of them.
    records: Mutex<Vec<u64>>,
}

impl OpenPage {
    /// Number of cells; at least one.
    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Cell number `index` of the page.
    pub(super) fn key(&self, index: usize) -> Option<Key> {
        self.cells.get(index).map(|&(key, _)| key)
    }

    /// Position of the first cell that is not before `key`.
    pub(super) fn position(&self, key: Key) -> usize {
        self.cells.partition_point(|&(cell, _)| cell < key)
    }

    /// Used map of cell number `index`.
    pub(super) fn cell(&self, index: usize) -> Result<CellMap, Error> {
        let at = self.cells.get(index).map_or(usize::MAX, |c| c.1 as usize);
        CellMap::decode(&mut Cursor::new(self.map.get(at..).unwrap_or(&[]), 0))
    }

    /// The chunk of cell number `index`.
    pub(super) fn chunk(&self, index: usize) -> Option<ChunkRef> {
        self.chunks.get(index).copied()
    }

    fn weight(&self) -> usize {
        size_of::<Self>() + self.map.len() + self.chunks.len() * (size_of::<ChunkRef>() + 40)
    }

    /// Header of the record of cell number `index`, and where it stands. Records have
    /// different lengths, so those before it are passed over header by header; each has
    /// to be the chunk that the list names.
    pub(super) fn record(
        &self,
        source: &(impl ReadAt + ?Sized),
        index: usize,
    ) -> Result<(RecordHeader, u64), Error> {
        let mut records = lock(&self.records);
        loop {
            let known = records.len().saturating_sub(1);
            let number = known.min(index);
            let at = records.get(number).copied().unwrap_or(self.list_at);
            let mut bytes = [0; record::HEADER_LEN];
            stream(source, at)
                .read_exact(&mut bytes)
                .map_err(|e| Error::io("reading a record", e, at))?;
            let header = RecordHeader::decode(&bytes, at)?;
            let chunk = ChunkRef {
                name: header.name,
                plain_len: header.plain_len,
            };
            let end = at.saturating_add(header.record_len());
            let last = number + 1 == self.chunks.len();
            if self.chunks.get(number) != Some(&chunk) {
                let what = "a page's list does not name the record that is there";
                return Err(Error::damaged(what, at));
            }
            if end > self.list_at || last != (end == self.list_at) {
                return Err(Error::damaged("a record leaves its page", at));
            }
            if known == number {
                records.push(end);
            }
            if number == index {
                return Ok((header, at));
            }
        }
    }
}

/// What is known of a page that was read once.
#[derive(Clone, Copy)]
struct Known {
    first: Key,
    last: Key,
    hash: Hash,
}

/// The pages of a container.
pub(super) struct Pages {
    places: Vec<PagePlace>,
    known: Mutex<Vec<Option<Known>>>,
    cache: Mutex<Lru<usize, Arc<OpenPage>>>,
}

impl Pages {
    pub(super) fn new(places: Vec<PagePlace>, cache_bytes: usize) -> Self {
        Pages {
            known: Mutex::new(vec![None; places.len()]),
            places,
            cache: Mutex::new(Lru::new(cache_bytes)),
        }
    }

    /// Number of pages.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Page number `number`, if there is one.
    pub(super) fn get(
        &self,
        source: &(impl ReadAt + ?Sized),
        layout: &Layout,
        number: usize,
    ) -> Result<Option<Arc<OpenPage>>, Error> {
        let Some(&place) = self.places.get(number) else {
            return Ok(None);
        };
        if let Some(page) = lock(&self.cache).get(number) {
            return Ok(Some(page));
        }
        let page = read(source, &mut PageChecker::new(layout), number, place)?;
        self.learn(&page)?;
        let page = Arc::new(page);
        lock(&self.cache).put(number, Arc::clone(&page), page.weight());
        Ok(Some(page))
    }

    /// The page that a cell stands in if it has a chunk: the last one that does not begin
    /// after it; the first one if there is none.
    pub(super) fn page_of(
        &self,
        source: &(impl ReadAt + ?Sized),
        layout: &Layout,
        key: Key,
    ) -> Result<usize, Error> {
        let (mut low, mut high) = (0, self.places.len());
        // What stands before `low` begins at or before `key`, what stands at or behind
        // `high` after it.
        while low < high {
            let middle = low + (high - low) / 2;
            if self.first(source, layout, middle)? <= key {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low.saturating_sub(1))
    }

    fn first(
        &self,
        source: &(impl ReadAt + ?Sized),
        layout: &Layout,
        number: usize,
    ) -> Result<Key, Error> {
        let known = lock(&self.known).get(number).copied().flatten();
        if let Some(known) = known {
            return Ok(known.first);
        }
        let page = self.get(source, layout, number)?;
        Ok(page.and_then(|page| page.key(0)).unwrap_or_default())
    }

    /// Reads every page once, in order, and gives each to `each` with its two bodies. The
    /// offset after the last one is returned.
    pub(super) fn prove(
        &self,
        source: &(impl ReadAt + ?Sized),
        checker: &mut PageChecker,
        first_at: u64,
        mut each: impl FnMut(&Hash, &[ChunkRef]),
    ) -> Result<u64, Error> {
        let mut at = first_at;
        for (number, &place) in self.places.iter().enumerate() {
            if place.map != at {
                return Err(Error::damaged("the index does not match the pages", at));
            }
            let page = read(source, checker, number, place)?;
            self.learn(&page)?;
            each(&page.hash, &page.chunks);
            at = page.end;
        }
        Ok(at)
    }

    /// Remembers a page that was read. One that was read before has to be the same, and
    /// neighbours have to be in order: so a page that was given out before the root was
    /// proved is proved with it.
    fn learn(&self, page: &OpenPage) -> Result<(), Error> {
        let mut known = lock(&self.known);
        let now = Known {
            first: page.key(0).unwrap_or_default(),
            last: page.key(page.len() - 1).unwrap_or_default(),
            hash: page.hash,
        };
        let at = page.list_at;
        let neighbour = |number: Option<usize>| {
            let number = number?;
            known.get(number).copied().flatten()
        };
        let before = neighbour(page.number.checked_sub(1));
        let behind = neighbour(page.number.checked_add(1));
        if before.is_some_and(|before| before.last >= now.first)
            || behind.is_some_and(|behind| behind.first <= now.last)
        {
            let what = "chunks are not in the order of the disk";
            return Err(Error::damaged(what, at));
        }
        match known.get_mut(page.number) {
            Some(Some(earlier)) if earlier.hash != now.hash => {
                let what = "a page is not what it was: the image was changed";
                Err(Error::damaged(what, at))
            }
            Some(slot) => {
                *slot = Some(now);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Reads a page and checks that it fits the layout.
fn read(
    source: &(impl ReadAt + ?Sized),
    checker: &mut PageChecker,
    number: usize,
    place: PagePlace,
) -> Result<OpenPage, Error> {
    let (mut map, mut list) = (Vec::new(), Vec::new());
    let records_at = section_at(source, place.map, Kind::Map, &mut map)?;
    let decoded = checker.map(&map, place.map)?;
    let end = section_at(source, place.list, Kind::List, &mut list)?;
    if records_at > place.list {
        let what = "the index does not match the pages";
        return Err(Error::damaged(what, place.map));
    }
    let chunks = decode_list(&list, &decoded, place.list)?;
    let hash = page_hash(&map, &list);
    let mut cells = Vec::with_capacity(decoded.len());
    let mut cursor = Cursor::new(&map, place.map);
    cursor.u32()?;
    for cell in &decoded {
        // A map is 16 MiB at most.
        let at = (map.len() - cursor.left()) as u32;
        CellMap::decode(&mut cursor)?;
        cells.push(((cell.region, cell.cell), at));
    }
    map.shrink_to_fit();
    Ok(OpenPage {
        number,
        cells,
        map,
        chunks,
        list_at: place.list,
        hash,
        end,
        records: Mutex::new(vec![records_at]),
    })
}
