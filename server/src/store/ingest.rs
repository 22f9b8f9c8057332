//! Records on their way into the store.
//!
//! Owns: decoding and rehashing, and the order file, index, answer. Does not own: where the
//! records come from (uploads, imports).

use super::Store;
use super::packs::{OpenPack, PACK_BYTES};
use crate::db::chunks::{self, Place};
use crate::failure::{Failure, Outcome};
use image::Hash;
use image::record::{HEADER_LEN, RecordHeader};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use wire::Stored;

/// Bytes of records after which they are made durable although more may follow.
const BATCH_BYTES: u64 = 32 << 20;

/// Names of chunks that were stored a short time ago. A target sends what the server said it
/// lacks, so that only these can be there already when they come.
#[derive(Default)]
pub(super) struct Lately(Mutex<(HashSet<Hash>, VecDeque<Hash>)>);

impl Lately {
    /// 100 GiB of plain bytes, in 8 MiB of memory.
    const KEPT: usize = 100 << 10;

    fn add(&self, names: impl Iterator<Item = Hash>) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, order) = &mut *guard;
        for name in names {
            if set.insert(name) {
                order.push_back(name);
            }
        }
        while order.len() > Lately::KEPT {
            if let Some(oldest) = order.pop_front() {
                set.remove(&oldest);
            }
        }
    }

    fn has(&self, name: Hash) -> bool {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.contains(&name)
    }
}

/// Records on their way into packs, for one holder.
pub(super) struct Ingest {
    store: Arc<Store>,
    execution: String,
    runtime: Handle,
    pack: Option<OpenPack>,
    batch: HashMap<Hash, Place>,
    batch_bytes: u64,
    stored: Stored,
    /// Whoever sends has not asked before what is there.
    unasked: bool,
    /// The disk did not take what was written to the pack.
    lost: bool,
}

impl Ingest {
    /// For records that a target sends because the server said that it lacks them.
    pub(super) fn new(store: Arc<Store>, execution: String, runtime: Handle) -> Self {
        Ingest {
            store,
            execution,
            runtime,
            pack: None,
            batch: HashMap::new(),
            batch_bytes: 0,
            stored: Stored::default(),
            unasked: false,
            lost: false,
        }
    }

    /// The same for records of which nobody asked whether they are there: all are looked up.
    pub(super) fn unasked(mut self) -> Self {
        self.unasked = true;
        self
    }

    /// Makes durable what is not yet, and gives the pack back.
    pub(super) fn finish(mut self) -> Outcome<Stored> {
        let flushed = self.flush();
        if let Some(pack) = self.pack.take() {
            let (packs, db) = (&self.store.packs, &self.store.db);
            self.runtime.block_on(async {
                match self.lost {
                    true => packs.close(db, pack).await,
                    false => packs.give_back(db, pack).await,
                }
            })?;
        }
        flushed?;
        Ok(self.stored)
    }

    /// Takes a record (header and payload in `bytes`) that came from byte `at` of what is
    /// sent. The caller looks at [`Ingest::is_full`] after it.
    pub(super) fn record(&mut self, header: &RecordHeader, bytes: &[u8], at: u64) -> Outcome<()> {
        let payload = bytes.get(HEADER_LEN..).unwrap_or_default();
        let store = Arc::clone(&self.store);
        store.desks.at_one(|desk| desk.check(header, payload, at))?;
        if self.batch.contains_key(&header.name) || self.is_stored(header.name)? {
            self.stored.duplicate += 1;
            return Ok(());
        }
        self.append(header, bytes)
    }

    /// Whether so much waits to be made durable that [`Ingest::flush`] should be called.
    pub(super) fn is_full(&self) -> bool {
        self.batch_bytes >= BATCH_BYTES
    }

    /// Whether the chunk is there; then it is held. One that was stored long ago may be
    /// taken for missing: then its bytes are in a pack twice, and the index keeps the first.
    fn is_stored(&self, name: Hash) -> Outcome<bool> {
        if !self.unasked && !self.store.lately.has(name) {
            return Ok(false);
        }
        let (store, execution) = (&self.store, &self.execution);
        self.runtime.block_on(async {
            let seen = chunks::find(&mut *store.db.read().await?, &[name]).await?;
            if seen.get(&name).is_none_or(|place| place.damaged) {
                return Ok(false);
            }
            // Looked up again where nothing can remove it.
            let mut tx = store.db.write().await?;
            let found = chunks::find(tx.conn(), &[name]).await?;
            let Some(place) = found.get(&name).filter(|place| !place.damaged) else {
                return Ok(false);
            };
            chunks::pin(tx.conn(), execution, &[place.seq]).await?;
            tx.commit().await?;
            Ok(true)
        })
    }

    fn append(&mut self, header: &RecordHeader, record: &[u8]) -> Outcome<()> {
        self.store.room_for(record.len() as u64)?;
        if self
            .pack
            .as_ref()
            .is_some_and(|pack| pack.writer.len() >= PACK_BYTES)
        {
            self.flush()?;
            if let Some(full) = self.pack.take() {
                self.runtime
                    .block_on(self.store.packs.give_back(&self.store.db, full))?;
            }
        }
        let pack = match &mut self.pack {
            Some(pack) => pack,
            slot => slot.insert(
                self.runtime
                    .block_on(self.store.packs.take(&self.store.db))?,
            ),
        };
        let offset = pack
            .writer
            .append(record)
            .map_err(|e| Failure::io("writing a pack", &e))?;
        let place = Place {
            seq: 0,
            pack: pack.id,
            offset,
            stored_len: header.stored_len,
            plain_len: header.plain_len,
            damaged: false,
        };
        self.batch.insert(header.name, place);
        self.batch_bytes += record.len() as u64;
        Ok(())
    }

    /// Makes the batch durable: first the file, then its index and the hold.
    pub(super) fn flush(&mut self) -> Outcome<()> {
        let Some(pack) = self.pack.as_ref().filter(|_| !self.batch.is_empty()) else {
            return Ok(());
        };
        if let Err(error) = pack.writer.sync() {
            // The system tells this once and takes the pages for written from then on: a
            // second try would find nothing wrong, and the bytes are nowhere.
            self.lost = true;
            self.batch.clear();
            return Err(Failure::io("writing a pack", &error));
        }
        let (store, execution, batch) = (&self.store, &self.execution, &self.batch);
        let names: Vec<Hash> = batch.keys().copied().collect();
        let known = self.runtime.block_on(async {
            let mut tx = store.db.write().await?;
            let before = chunks::find(tx.conn(), &names).await?;
            let known = before.values().filter(|place| !place.damaged).count();
            chunks::insert_all(tx.conn(), batch).await?;
            let held: Vec<i64> = chunks::find(tx.conn(), &names)
                .await?
                .values()
                .map(|place| place.seq)
                .collect();
            chunks::pin(tx.conn(), execution, &held).await?;
            chunks::set_pack_bytes(tx.conn(), pack.id, pack.writer.len()).await?;
            tx.commit().await?;
            Ok::<_, Failure>(known)
        })?;
        self.stored.stored += (batch.len() - known) as u64;
        self.stored.duplicate += known as u64;
        self.store.lately.add(self.batch.keys().copied());
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
