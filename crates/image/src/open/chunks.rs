//! Chunks of an opened container: decoded and compared with their names when they are
//! wanted, kept while there is room.
//!
//! Owns: reading a record's payload, and the cache of plain bytes. Does not own: which
//! record it is, or the codecs.

use super::lru::Lru;
use super::pages::{OpenPage, lock};
use super::source::{ReadAt, stream};
use crate::record::{self, Decoder, RecordHeader};
use crate::{Error, Hash, ImageKey};
use std::sync::{Arc, Mutex};

/// A chunk's bytes.
pub(super) type Plain = Arc<Vec<u8>>;

/// Room for a chunk: whoever comes first fills it, the others wait for him.
type Slot = Arc<Mutex<Option<Plain>>>;

/// Decodes chunks and keeps the latest ones.
pub(super) struct Chunks {
    cache: Mutex<Lru<Hash, Slot>>,
    /// One for each thread that decoded at the same time.
    decoders: Mutex<Vec<(Decoder, Vec<u8>)>>,
    key: Option<Arc<ImageKey>>,
}

impl Chunks {
    pub(super) fn new(cache_bytes: usize) -> Self {
        Chunks {
            cache: Mutex::new(Lru::new(cache_bytes)),
            decoders: Mutex::new(Vec::new()),
            key: None,
        }
    }

    /// Chunks are those of an encrypted image.
    pub(super) fn unlock(&mut self, key: Arc<ImageKey>) {
        // Those from before have no key.
        lock(&self.decoders).clear();
        self.key = Some(key);
    }

    /// The chunk of cell number `index` of the page.
    pub(super) fn get(
        &self,
        source: &(impl ReadAt + ?Sized),
        page: &OpenPage,
        index: usize,
    ) -> Result<Plain, Error> {
        let chunk = page
            .chunk(index)
            .ok_or_else(|| Error::damaged("a page's map and list have different lengths", 0))?;
        let slot = {
            let mut cache = lock(&self.cache);
            cache.get(chunk.name).unwrap_or_else(|| {
                let slot = Slot::default();
                let weight = chunk.plain_len as usize;
                cache.put(chunk.name, Arc::clone(&slot), weight);
                slot
            })
        };
        let mut place = lock(&slot);
        if let Some(plain) = place.as_ref() {
            // One name stands for one length only, or the list lies.
            return if plain.len() as u64 == u64::from(chunk.plain_len) {
                Ok(Arc::clone(plain))
            } else {
                let what = "a chunk is listed with two different lengths";
                Err(Error::damaged(what, 0))
            };
        }
        let (header, at) = page.record(source, index)?;
        let plain = Arc::new(self.decode(source, &header, at)?);
        *place = Some(Arc::clone(&plain));
        Ok(plain)
    }

    fn decode(
        &self,
        source: &(impl ReadAt + ?Sized),
        header: &RecordHeader,
        at: u64,
    ) -> Result<Vec<u8>, Error> {
        let taken = lock(&self.decoders).pop();
        let new = || (Decoder::new().opened_with(self.key.clone()), Vec::new());
        let (mut decoder, mut payload) = taken.unwrap_or_else(new);
        let mut input = stream(source, at.saturating_add(record::HEADER_LEN as u64));
        let mut plain = Vec::with_capacity(header.plain_len as usize);
        let decoded = record::read_payload(&mut input, header, at, &mut payload)
            .and_then(|()| decoder.decode(header, &payload, at, &mut plain));
        lock(&self.decoders).push((decoder, payload));
        decoded.map(|()| plain)
    }
}
