//! Restore from a server: chunks by their names, over several connections.
//!
//! Owns: the manifest (proved against the root that the job names), batches, and asking
//! again for what did not come. Does not own: the connection's retries (`remote`).

use super::held::Held;
use super::{CellWriter, Delivered, Source};
use crate::keyring::Keyring;
use crate::remote::{Body, Failure, Remote};
use crate::{report, trust};
use crossbeam_channel::{Receiver, bounded};
use image::manifest::{ManifestReader, PackedPage};
use image::record::{Decoder, RecordReader};
use image::{BadRange, CellMap, ChunkRef, Error, Hash, ImageKey, Layout, Root};
use std::io::BufReader;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wire::{Code, DiskState, Report, Reread};

/// Plain bytes of one batch.
const BATCH_BYTES: u64 = 8 << 20;
/// Heads that are asked for at once.
const HEADS_AT_ONCE: usize = 8;
/// Batches in flight, each on its own connection.
const FETCHERS: usize = 3;
/// How often data that arrives damaged is asked for again.
const DAMAGE_TRIES: u32 = 3;
/// How often the manifest is asked for.
const MANIFEST_TRIES: u32 = 5;

/// An image on a server.
pub struct ServerSource {
    remote: Remote,
    layout: Layout,
    pages: Pages,
    root: Root,
    bad: Vec<BadRange>,
    key: Option<Arc<ImageKey>>,
}

type Chunk = (CellMap, ChunkRef);

/// The pages of a manifest: what of it grows with the disk. They can be given back while
/// the disk waits for others.
#[derive(Clone)]
pub struct Pages(Arc<Mutex<Arc<[PackedPage]>>>);

impl Pages {
    fn get(&self) -> Arc<[PackedPage]> {
        Arc::clone(&self.kept())
    }

    fn kept(&self) -> MutexGuard<'_, Arc<[PackedPage]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives them back.
    pub fn set_aside(&self) {
        *self.kept() = Arc::from([]);
    }

    /// Gets those of the same image again, proved as the first time.
    ///
    /// # Errors
    /// As [`ServerSource::open`].
    pub fn bring_back(&self, remote: &Remote, root: &str, keys: &Keyring) -> Result<(), Report> {
        *self.kept() = ServerSource::open(remote, root, keys)?.pages.get();
        Ok(())
    }
}

impl ServerSource {
    /// Gets the manifest and proves it against `root`, the hex root hash that came with
    /// the job, and what the keyring demands of its signatures.
    pub fn open(remote: &Remote, root: &str, keyring: &Keyring) -> Result<Self, Report> {
        let mut retry = remote.retry("receiving the image's manifest");
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::read_manifest(remote, root, keyring) {
                Ok(source) => return Ok(source),
                Err(Stop::Broken(failure)) => retry.wait(failure)?,
                Err(Stop::Damaged(_)) if tries < MANIFEST_TRIES => {}
                Err(Stop::Damaged(error)) => {
                    return Err(report::image(&error, DiskState::Untouched));
                }
                Err(Stop::Final(report)) => return Err(report),
            }
        }
    }

    fn read_manifest(remote: &Remote, root: &str, keyring: &Keyring) -> Result<Self, Stop> {
        let body = remote.get_manifest().map_err(Stop::Final)?;
        let mut reader = ManifestReader::open(BufReader::with_capacity(1 << 20, body))?;
        let key = keyring.for_image(reader.layout()).map_err(Stop::Final)?;
        if let Some(key) = &key {
            reader.unlock(Arc::clone(key))?;
        }
        let mut pages = Vec::new();
        while let Some(page) = reader.next_page()? {
            pages.push(page.pack());
        }
        let Some(found) = reader.root().filter(|found| found.root.to_hex() == root) else {
            let found = format!("the manifest that came is not the one with root {root}");
            return Err(Stop::Final(Report::new(
                Code::ImageDamaged,
                found,
                DiskState::Untouched,
            )));
        };
        trust::demand(keyring.trusted, reader.signatures(), DiskState::Untouched)
            .map_err(Stop::Final)?;
        Ok(ServerSource {
            remote: remote.clone(),
            layout: reader.layout().clone(),
            pages: Pages(Arc::new(Mutex::new(pages.into()))),
            root: found,
            bad: reader.bad().to_vec(),
            key,
        })
    }
}

impl ServerSource {
    /// The manifest's pages.
    pub fn pages(&self) -> Arc<[PackedPage]> {
        self.pages.get()
    }

    /// The pages, to be given back and brought again.
    pub fn shared_pages(&self) -> Pages {
        self.pages.clone()
    }

    /// The root of the manifest, proved.
    pub fn root(&self) -> Root {
        self.root
    }

    /// What the image does not have.
    pub fn bad(&self) -> &[BadRange] {
        &self.bad
    }
}

impl Source for ServerSource {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.key.clone()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        let (work_tx, work_rx) = bounded::<Vec<Chunk>>(FETCHERS);
        let (error_tx, error_rx) = bounded::<Report>(FETCHERS);
        let remote = &self.remote;
        let pages = &self.pages();
        // Set by the first fetcher that fails, so that the others do not go on for hours.
        let failed = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..FETCHERS {
                let (work_rx, error_tx) = (work_rx.clone(), error_tx.clone());
                scope.spawn(move || {
                    if let Err(report) = fetch_all(remote, writer, &work_rx) {
                        failed.store(true, Ordering::Relaxed);
                        let _ = error_tx.send(report);
                    }
                });
            }
            drop((work_rx, error_tx));
            let listed = for_batches(pages, false, writer, |batch| {
                if failed.load(Ordering::Relaxed) {
                    return Err(report::thread_lost(DiskState::Incomplete));
                }
                work_tx
                    .send(batch)
                    .map_err(|_| report::thread_lost(DiskState::Incomplete))
            });
            drop(work_tx);
            // Ends when the last fetcher has dropped its sender: all is written then.
            match error_rx.iter().next() {
                Some(report) => Err(incomplete(report)),
                None => listed,
            }
        })?;
        Ok(Delivered {
            pages: Arc::clone(pages),
            root: self.root,
            bad: self.bad.clone(),
        })
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        let mut heads: Vec<Chunk> = Vec::new();
        for_batches(&self.pages(), true, writer, |batch| {
            heads.extend(batch);
            Ok(())
        })?;
        // Last what a file system is known by: until then nothing looks whole that is not.
        heads.reverse();
        let mut decoder = Decoder::new().opened_with(writer.key_shared());
        heads
            .chunks(HEADS_AT_ONCE)
            .try_for_each(|batch| fetch_batch(&self.remote, writer, &mut decoder, batch))
            .map_err(incomplete)
    }
}

/// What a failure after the first write means.
pub(crate) fn incomplete(report: Report) -> Report {
    Report {
        disk: DiskState::Incomplete,
        ..report
    }
}

/// Gives the chunks that are heads (or all others) to `send`, batch by batch, without
/// those that have no place. Heads that are passed over are counted as kept back.
fn for_batches(
    pages: &[PackedPage],
    heads: bool,
    writer: &CellWriter<'_>,
    mut send: impl FnMut(Vec<Chunk>) -> Result<(), Report>,
) -> Result<(), Report> {
    let mut batch: Vec<Chunk> = Vec::new();
    let mut bytes = 0;
    for page in pages {
        let page = page
            .unpack()
            .map_err(|e| report::image(&e, DiskState::Incomplete))?;
        for (cell, chunk) in page.cells.into_iter().zip(page.chunks) {
            if !writer.wants(&cell) {
                if !heads {
                    writer.leave_out(&cell);
                }
                continue;
            }
            if writer.is_head(&cell) != heads {
                if !heads {
                    writer.keep_back(&cell);
                }
                continue;
            }
            bytes += u64::from(chunk.plain_len);
            batch.push((cell, chunk));
            if bytes >= BATCH_BYTES || batch.len() >= wire::MAX_HASHES {
                bytes = 0;
                send(std::mem::take(&mut batch))?;
            }
        }
    }
    if batch.is_empty() {
        Ok(())
    } else {
        send(batch)
    }
}

fn fetch_all(
    remote: &Remote,
    writer: &CellWriter<'_>,
    work: &Receiver<Vec<Chunk>>,
) -> Result<(), Report> {
    let mut decoder = Decoder::new().opened_with(writer.key_shared());
    let mut held = Held::new(writer);
    work.iter().try_for_each(|mut batch| {
        writer.stop_if_asked()?;
        batch.retain(|(cell, chunk)| !held.skips(cell, chunk.name));
        fetch_batch(remote, writer, &mut decoder, &batch)?;
        writer.flush_in_time()
    })
}

/// Why a batch is not complete.
enum Stop {
    /// The connection broke; the rest is asked for again.
    Broken(Failure),
    /// What came is not what was asked for.
    Damaged(Error),
    /// Nothing can help.
    Final(Report),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        match error {
            Error::Io { operation, source } => match Body::failure(&source) {
                Some(failure) => Stop::Broken(failure),
                None => Stop::Damaged(Error::Io { operation, source }),
            },
            other => Stop::Damaged(other),
        }
    }
}

fn fetch_batch(
    remote: &Remote,
    writer: &CellWriter<'_>,
    decoder: &mut Decoder,
    batch: &[Chunk],
) -> Result<(), Report> {
    let mut retry = remote.retry("receiving data");
    let mut left = batch;
    let mut damaged = 0;
    while !left.is_empty() {
        writer.stop_if_asked()?;
        let (written, result) = receive(remote, writer, decoder, left);
        left = left.get(written..).unwrap_or_default();
        if written > 0 {
            retry.succeeded();
        }
        match result {
            Ok(()) => {}
            Err(Stop::Broken(failure)) => retry.wait(failure)?,
            Err(Stop::Final(report)) => return Err(report),
            Err(Stop::Damaged(error)) => {
                damaged += 1;
                if damaged >= DAMAGE_TRIES {
                    let name = left.first().map(|(_, chunk)| chunk.name);
                    return Err(told_of_spoiled(remote, &error, name));
                }
                writer.note(&format!(
                    "data arrived damaged ({error}); asking for it again"
                ));
            }
        }
    }
    Ok(())
}

/// The report on data that came damaged again and again. The server is told, and what it
/// finds is in the report.
pub(crate) fn told_of_spoiled(remote: &Remote, error: &Error, name: Option<Hash>) -> Report {
    let mut report = report::image(error, DiskState::Incomplete);
    let Some(name) = name else {
        return report;
    };
    let found = match remote.doubtful(&[name.0]) {
        Ok(Reread { damaged: 0, .. }) => {
            "the server finds its record as it was stored; without the key it cannot look into an encrypted one"
        }
        Ok(_) => "the server read its record again and found it damaged",
        // What is wrong with the data counts more than that nobody could be told of it.
        Err(_) => "the server could not be told",
    };
    report.found += &format!("; chunk {name}: {found}");
    report
}

/// Writes what comes; returns how many chunks were written, and why it ended.
fn receive(
    remote: &Remote,
    writer: &CellWriter<'_>,
    decoder: &mut Decoder,
    chunks: &[Chunk],
) -> (usize, Result<(), Stop>) {
    let mut written = 0;
    let mut all = || -> Result<(), Stop> {
        let hashes: Vec<[u8; 32]> = chunks.iter().map(|(_, chunk)| chunk.name.0).collect();
        let body = remote.fetch(&hashes).map_err(Stop::Final)?;
        let mut records = RecordReader::new(BufReader::with_capacity(256 << 10, body), 0);
        let (mut payload, mut plain) = (Vec::new(), Vec::new());
        for (cell, chunk) in chunks {
            let at = records.position();
            let header = records.next_record(&mut payload)?.ok_or_else(|| {
                Error::damaged("the server sent fewer chunks than were asked for", at)
            })?;
            if header.name != chunk.name {
                return Err(
                    Error::damaged("the server sent another chunk than was asked for", at).into(),
                );
            }
            decoder.decode(&header, &payload, at, &mut plain)?;
            writer
                .write(cell, &plain, header.record_len())
                .map_err(Stop::Final)?;
            written += 1;
        }
        Ok(())
    };
    let result = all();
    (written, result)
}
