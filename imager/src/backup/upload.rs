//! Backup to a server: only the chunks that it lacks travel.
//!
//! Owns: the pipeline of one reader and several senders, each with its own connection:
//! hash, ask what the server has, compress and send the rest; then the manifest. Does
//! not own: the connection's retries (`remote`).

use super::proof::Proof;
use super::readers::{Cells, Readers, stop_if_asked};
use super::{CellReader, Options, Plan};
use crate::progress::ProgressSink;
use crate::remote::Remote;
use crate::report;
use crate::source::Disk;
use blockdev::Device;
use crossbeam_channel::{Receiver, Sender, bounded};
use image::manifest::ManifestWriter;
use image::record::Encoder;
use image::{BadRange, CellMap, ChunkRef, Hash, PAGE_CHUNKS};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::{DiskState, Published, Report, Step};

/// Plain bytes of one batch: large enough to hide a round trip, small enough for memory.
const BATCH_BYTES: u64 = 8 << 20;
/// Batches in flight, each on its own connection.
const SENDERS: usize = 3;

/// Said where a manifest was not taken, because an earlier one of the execution was.
pub const PUBLISHED_BEFORE: &str = "the server had published what this execution read at an \
    earlier start of the machine already; that stays, and not what was read now";

/// Buffers that are kept for the next chunks: those of the batches that there can be at once.
/// More come where many cells have few bytes, and each may have grown to a whole cell.
const KEPT_BUFFERS: usize = 64;

/// Consecutive chunks.
struct Batch {
    first: usize,
    chunks: Vec<Vec<u8>>,
}

/// What was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The image as the server published it.
    pub published: Published,
    /// Bytes of records that went over the network.
    pub wire_bytes: u64,
    /// Chunks of the image.
    pub chunks: u64,
    /// Chunks that the server had.
    pub known: u64,
    /// What the disk did not give.
    pub bad: Vec<BadRange>,
}

/// Totals of the senders.
#[derive(Default)]
struct Totals {
    wire_bytes: AtomicU64,
    known: AtomicU64,
}

/// A disk's chunks that are on the server, and the manifest that makes an image of them.
pub struct Unpublished {
    /// The manifest.
    pub manifest: Vec<u8>,
    /// Its root hash, hex.
    pub root: String,
    /// Bytes of records that went over the network.
    pub wire_bytes: u64,
    /// Chunks of the image.
    pub chunks: u64,
    /// Chunks that the server had.
    pub known: u64,
    /// What the disk did not give.
    pub bad: Vec<BadRange>,
}

/// Sends the disk's image; returns after the server has published it.
pub fn send(
    device: &Device,
    plan: &Plan,
    options: &Options,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<Sent, Report> {
    let sent = send_chunks(device, plan, options, remote, progress)?;
    progress.step(Step::Finishing, 0);
    let manifest = sent.manifest.as_slice();
    let published = remote.put_manifest(manifest.len() as u64, || Ok(manifest))?;
    if published.root != sent.root {
        progress.note(PUBLISHED_BEFORE);
    }
    Ok(Sent {
        published,
        wire_bytes: sent.wire_bytes + manifest.len() as u64,
        chunks: sent.chunks,
        known: sent.known,
        bad: sent.bad,
    })
}

/// Sends what the server lacks of a disk; no image is made of it yet.
pub fn send_chunks(
    device: &Device,
    plan: &Plan,
    options: &Options,
    remote: &Remote,
    progress: &dyn ProgressSink,
) -> Result<Unpublished, Report> {
    progress.step(Step::Running, plan.used_bytes());
    let totals = Totals::default();
    let (batch_tx, batch_rx) = bounded::<Batch>(1);
    let (free_tx, free_rx) = bounded::<Vec<u8>>(KEPT_BUFFERS);
    let (named_tx, named_rx) = bounded::<Result<(usize, Vec<ChunkRef>), Report>>(SENDERS * 2);
    let (chunks, bad) = std::thread::scope(|scope| {
        let failed = named_tx.clone();
        let cells = Arc::new(Cells::of(plan));
        let readers = Readers::start(
            scope,
            device,
            plan,
            options.skip_bad,
            progress,
            move |reader| read_all(reader, &cells, &batch_tx, &free_rx, progress),
            move |report| drop(failed.send(Err(report))),
        );
        for _ in 0..SENDERS {
            let sender = BatchSender {
                options,
                remote,
                progress,
                totals: &totals,
                free: free_tx.clone(),
            };
            let (batch_rx, named_tx) = (batch_rx.clone(), named_tx.clone());
            scope.spawn(move || sender.run(&batch_rx, &named_tx));
        }
        drop((batch_rx, named_tx, free_tx));
        let chunks = collect(named_rx)?;
        // The channel is closed, so they have ended; a failure was among the results.
        let bad = readers.join()?;
        Ok((chunks, bad))
    })?;
    if !options.in_use {
        device.refuse_if_written_now()?;
    }
    let (manifest, root) = manifest(plan, options, &chunks, &bad)?;
    Ok(Unpublished {
        manifest,
        root,
        wire_bytes: totals.wire_bytes.load(Ordering::Relaxed),
        chunks: chunks.len() as u64,
        known: totals.known.load(Ordering::Relaxed),
        bad,
    })
}

/// The names in the order of the disk. Returning early closes the channel, which ends
/// the threads.
fn collect(
    named: Receiver<Result<(usize, Vec<ChunkRef>), Report>>,
) -> Result<Vec<ChunkRef>, Report> {
    let mut chunks: Vec<Option<ChunkRef>> = Vec::new();
    for result in named {
        let (first, names) = result?;
        let end = first + names.len();
        if chunks.len() < end {
            chunks.resize(end, None);
        }
        for (slot, name) in chunks[first..end].iter_mut().zip(names) {
            *slot = Some(name);
        }
    }
    let complete: Option<Vec<ChunkRef>> = chunks.into_iter().collect();
    complete.ok_or_else(|| report::thread_lost(DiskState::NotInvolved))
}

fn read_all(
    reader: &mut CellReader<'_>,
    cells: &Cells<'_>,
    batches: &Sender<Batch>,
    free: &Receiver<Vec<u8>>,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    loop {
        let (first, cells) = cells.take(BATCH_BYTES);
        if cells.is_empty() {
            return Ok(());
        }
        let mut chunks = Vec::with_capacity(cells.len());
        for cell in &cells {
            stop_if_asked(progress)?;
            let mut plain = free.try_recv().unwrap_or_default();
            reader.read(cell, &mut plain)?;
            chunks.push(plain);
        }
        if batches.send(Batch { first, chunks }).is_err() {
            return Ok(()); // the senders failed and tell why
        }
    }
}

struct BatchSender<'a> {
    options: &'a Options,
    remote: &'a Remote,
    progress: &'a dyn ProgressSink,
    totals: &'a Totals,
    free: Sender<Vec<u8>>,
}

impl BatchSender<'_> {
    fn run(
        &self,
        batches: &Receiver<Batch>,
        named: &Sender<Result<(usize, Vec<ChunkRef>), Report>>,
    ) {
        let mut encoder = match self.options.encoder() {
            Ok(encoder) => encoder,
            Err(error) => {
                let _ = named.send(Err(report::image(&error, DiskState::NotInvolved)));
                return;
            }
        };
        let (mut body, mut proof) = (Vec::new(), Proof::new(self.options));
        for batch in batches {
            let result = self
                .one(&batch, &mut encoder, &mut proof, &mut body)
                .map(|names| (batch.first, names));
            for buffer in batch.chunks {
                let _ = self.free.try_send(buffer);
            }
            let failed = result.is_err();
            if named.send(result).is_err() || failed {
                return;
            }
        }
    }

    fn one(
        &self,
        batch: &Batch,
        encoder: &mut Encoder,
        proof: &mut Proof,
        body: &mut Vec<u8>,
    ) -> Result<Vec<ChunkRef>, Report> {
        let names: Vec<ChunkRef> = batch
            .chunks
            .iter()
            .map(|plain| ChunkRef {
                name: encoder.name(plain),
                plain_len: plain.len() as u32,
            })
            .collect();
        let hashes: Vec<[u8; 32]> = names.iter().map(|chunk| chunk.name.0).collect();
        let known = self.remote.have(&hashes)?;
        body.clear();
        let mut sent_here: Vec<Hash> = Vec::new();
        let mut known_count = 0;
        for ((plain, chunk), known) in batch.chunks.iter().zip(&names).zip(known) {
            if known || sent_here.contains(&chunk.name) {
                known_count += 1;
                continue;
            }
            let start = body.len();
            encoder
                .encode_named(plain, chunk.name, body)
                .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
            proof.of(&body[start..], chunk.name)?;
            sent_here.push(chunk.name);
        }
        if !body.is_empty() {
            self.remote.send_records(body)?;
        }
        self.totals.known.fetch_add(known_count, Ordering::Relaxed);
        self.totals
            .wire_bytes
            .fetch_add(body.len() as u64, Ordering::Relaxed);
        let plain: u64 = names.iter().map(|chunk| u64::from(chunk.plain_len)).sum();
        self.progress.advance(plain, body.len() as u64);
        Ok(names)
    }
}

/// The manifest. A few dozen bytes a chunk: 50 MB for 1 TiB of used data.
fn manifest(
    plan: &Plan,
    options: &Options,
    chunks: &[ChunkRef],
    bad: &[BadRange],
) -> Result<(Vec<u8>, String), Report> {
    let output = |e: std::io::Error| report::output(&e);
    let layout = options.stored_layout(&plan.layout)?;
    let writer = if bad.is_empty() {
        ManifestWriter::new(Vec::new(), &layout)
    } else {
        ManifestWriter::of_bad_disk(Vec::new(), &layout)
    };
    let mut writer = writer.map_err(output)?.sealed_with(options.key());
    let mut cells = plan.cells();
    for page in chunks.chunks(PAGE_CHUNKS) {
        let maps: Vec<CellMap> = cells.by_ref().take(page.len()).collect();
        writer.page(&maps, page).map_err(output)?;
    }
    if cells.next().is_some() {
        return Err(report::thread_lost(DiskState::NotInvolved));
    }
    let (bytes, root) = writer.finish_with(bad).map_err(output)?;
    Ok((bytes, root.root.to_hex()))
}
