//! Uploads: records come in as a stream, are checked and become durable.
//!
//! Owns: taking records apart from one another, and who may work on them when. Does not
//! own: HTTP, what becomes of a record ([`super::ingest`]).
//!
//! A thread is busy with an upload only while it has a whole record to work on: hundreds of
//! targets that send slowly cost a buffer each.

use super::Store;
use super::ingest::Ingest;
use crate::failure::{Failure, Outcome};
use axum::body::Bytes;
use image::record::{HEADER_LEN, MAX_STORED, RecordHeader};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use wire::{Code, Stored};

/// Body of a request: as a blocking reader, or record by record.
pub struct BodyReader {
    frames: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BodyReader {
    /// What comes over `frames`, to its end.
    pub fn new(frames: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        BodyReader {
            frames,
            current: Bytes::new(),
        }
    }

    /// Appends bytes to `to` until it has `length` of them or the body ends.
    async fn fill(&mut self, to: &mut Vec<u8>, length: usize) -> io::Result<()> {
        while to.len() < length {
            while self.current.is_empty() {
                match self.frames.recv().await {
                    Some(frame) => self.current = frame?,
                    None => return Ok(()),
                }
            }
            let count = self.current.len().min(length - to.len());
            to.extend_from_slice(&self.current.split_to(count));
        }
        Ok(())
    }
}

/// To be read outside of async code only.
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

/// Buffers of records that are kept for the next ones: memory that is given back and taken
/// again costs more than what is done with it.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    /// Those of a few targets that send as fast as they can.
    const KEPT: usize = 16;

    fn take(&self) -> Vec<u8> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_default()
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < Buffers::KEPT {
            free.push(buffer);
        }
    }
}

/// A record as it came.
struct Incoming {
    header: RecordHeader,
    /// Header and payload.
    bytes: Vec<u8>,
    /// Its place in what was sent.
    at: u64,
}

/// Takes records out of a body.
struct Records {
    body: BodyReader,
    at: u64,
}

impl Records {
    /// The next record, `None` at a clean end.
    async fn next(&mut self, buffers: &Buffers) -> Outcome<Option<Incoming>> {
        let broken = |source: io::Error| {
            Failure::new(
                Code::ConnectionLost,
                format!("the upload broke off: {source}"),
            )
        };
        let torn = |at| image::Error::Damaged {
            what: "the data ends within a record".into(),
            offset: at,
        };
        let mut head = Vec::with_capacity(HEADER_LEN);
        self.body
            .fill(&mut head, HEADER_LEN)
            .await
            .map_err(broken)?;
        if head.is_empty() {
            return Ok(None);
        }
        let whole: &[u8; HEADER_LEN] = head.as_slice().try_into().map_err(|_| torn(self.at))?;
        let header = RecordHeader::decode(whole, self.at)?;
        let length = HEADER_LEN + header.stored_len.min(MAX_STORED) as usize;
        // Only now: between records nobody keeps one.
        let mut bytes = buffers.take();
        bytes.reserve_exact(length);
        bytes.extend_from_slice(&head);
        self.body.fill(&mut bytes, length).await.map_err(broken)?;
        if bytes.len() < length {
            return Err(torn(self.at).into());
        }
        let at = self.at;
        self.at = at.saturating_add(header.record_len());
        Ok(Some(Incoming { header, bytes, at }))
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
        // It need not outlive a power cut alone: what it holds is stored later and durably.
        let mut tx = self.db.write_quickly().await?;
        Store::hold(tx.conn(), execution).await?;
        tx.commit().await?;
        let (store, execution) = (Arc::clone(self), execution.to_owned());
        // Of its own, so that it ends in order although the target may hang up.
        tokio::spawn(async move { store.take_in(execution, body).await }).await?
    }

    async fn take_in(self: Arc<Self>, execution: String, body: BodyReader) -> Outcome<Stored> {
        let mut ingest = Ingest::new(Arc::clone(&self), execution, Handle::current());
        let mut records = Records { body, at: 0 };
        let result = loop {
            let incoming = match records.next(&self.buffers).await {
                Ok(Some(incoming)) => incoming,
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            };
            // Only now: nobody waits for a desk while another one waits for the network.
            let place = self.desks.place().await;
            let Incoming { header, bytes, at } = incoming;
            let (returned, bytes, done) = spawn_blocking(move || {
                let done = ingest.record(&header, &bytes, at);
                (ingest, bytes, done)
            })
            .await?;
            drop(place);
            self.buffers.give_back(bytes);
            ingest = returned;
            if done.is_err() {
                break done;
            }
            if ingest.is_full() {
                let (returned, done) = spawn_blocking(move || {
                    let done = ingest.flush();
                    (ingest, done)
                })
                .await?;
                ingest = returned;
                if done.is_err() {
                    break done;
                }
            }
        };
        // Also after an error: what came before it is good.
        let ended = spawn_blocking(move || ingest.finish()).await?;
        result?;
        ended
    }
}
