//! Uploads: records come in as a stream, are checked and become durable.
//!
//! Owns: decoding, rehashing, and the order file, index, answer. Does not own: HTTP.
//! Memory is bounded by a few frames of the body and one record.

use super::Store;
use super::packs::{OpenPack, PACK_BYTES};
use crate::db::chunks::{self, Place};
use crate::failure::{Failure, Outcome};
use axum::body::Bytes;
use image::Hash;
use image::record::{HEADER_LEN, RecordHeader, RecordReader};
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use wire::{Code, Stored};

/// Bytes of records after which they are made durable although more may follow.
const BATCH_BYTES: u64 = 32 << 20;

/// Body of a request as a blocking reader.
pub struct BodyReader {
    frames: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// Reads what comes over `frames`, to its end. Must be read outside of async code.
    pub fn new(frames: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        BodyReader {
            frames,
            current: Bytes::new(),
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.frames.blocking_recv() {
                Some(frame) => self.current = frame?,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        let head = self.current.split_to(count);
        // `head` has `count` bytes, and `count` is at most the buffer's length.
        buffer[..count].copy_from_slice(&head);
        Ok(count)
    }
}

impl Store {
    /// Stores the records of `body` for an execution. `length` is what the request says.
    /// Records before a damaged or missing one stay stored, so that a repeated upload
    /// goes on.
    ///
    /// # Errors
    /// `image-damaged` for a record that is not what it says, `no-space`, I/O errors.
    pub async fn upload(
        self: &Arc<Self>,
        execution: &str,
        length: Option<u64>,
        body: BodyReader,
    ) -> Outcome<Stored> {
        self.room_for(length.unwrap_or(0))?;
        let mut tx = self.db.write().await?;
        Store::hold(tx.conn(), execution).await?;
        tx.commit().await?;
        let (store, execution) = (Arc::clone(self), execution.to_owned());
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || Ingest::new(store, execution, runtime).run(body))
            .await?
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
}

impl Ingest {
    pub(super) fn new(store: Arc<Store>, execution: String, runtime: Handle) -> Self {
        Ingest {
            store,
            execution,
            runtime,
            pack: None,
            batch: HashMap::new(),
            batch_bytes: 0,
            stored: Stored::default(),
        }
    }

    fn run(mut self, body: BodyReader) -> Outcome<Stored> {
        let result = self.records(&mut RecordReader::new(body, 0));
        // Also after an error: what came before it is good.
        let ended = self.finish();
        result?;
        ended
    }

    /// Makes durable what is not yet, and gives the pack back.
    pub(super) fn finish(mut self) -> Outcome<Stored> {
        let flushed = self.flush();
        if let Some(pack) = self.pack.take() {
            self.runtime
                .block_on(self.store.packs.give_back(&self.store.db, pack))?;
        }
        flushed?;
        Ok(self.stored)
    }

    fn records(&mut self, reader: &mut RecordReader<BodyReader>) -> Outcome<()> {
        let mut payload = Vec::new();
        loop {
            let at = reader.position();
            match reader.next_record(&mut payload) {
                Ok(Some(header)) => self.record(&header, &payload, at)?,
                Ok(None) => return Ok(()),
                Err(image::Error::Io { source, .. }) => {
                    return Err(Failure::new(
                        Code::ConnectionLost,
                        format!("the upload broke off: {source}"),
                    ));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Takes a record that came from byte `at` of what is sent.
    pub(super) fn record(&mut self, header: &RecordHeader, payload: &[u8], at: u64) -> Outcome<()> {
        // Only now: nobody waits for a desk while another one waits for the network.
        let store = Arc::clone(&self.store);
        store.desks.at_one(|desk| -> Outcome<()> {
            desk.check(header, payload, at)?;
            if self.batch.contains_key(&header.name) || self.is_stored(header.name)? {
                self.stored.duplicate += 1;
                return Ok(());
            }
            self.append(header, desk.record(header, payload))
        })?;
        if self.batch_bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Whether the chunk is there; then it is held.
    fn is_stored(&self, name: Hash) -> Outcome<bool> {
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
        self.batch_bytes += (HEADER_LEN + record.len()) as u64;
        Ok(())
    }

    /// Makes the batch durable: first the file, then its index and the hold.
    fn flush(&mut self) -> Outcome<()> {
        let Some(pack) = self.pack.as_ref().filter(|_| !self.batch.is_empty()) else {
            return Ok(());
        };
        pack.writer
            .sync()
            .map_err(|e| Failure::io("writing a pack", &e))?;
        let (store, execution, batch) = (&self.store, &self.execution, &self.batch);
        self.runtime.block_on(async {
            let mut tx = store.db.write().await?;
            for (name, place) in batch {
                chunks::insert(tx.conn(), *name, place).await?;
            }
            let names: Vec<Hash> = batch.keys().copied().collect();
            let held: Vec<i64> = chunks::find(tx.conn(), &names)
                .await?
                .values()
                .map(|place| place.seq)
                .collect();
            chunks::pin(tx.conn(), execution, &held).await?;
            chunks::set_pack_bytes(tx.conn(), pack.id, pack.writer.len()).await?;
            tx.commit().await
        })?;
        self.stored.stored += self.batch.len() as u64;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
