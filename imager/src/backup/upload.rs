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
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use wire::{Code, DiskState, Published, Report, Step};

/// Plain bytes of one batch, about which the server is asked at once: large enough to hide a
/// round trip, small enough for memory, of which six batches are taken.
const BATCH_BYTES: u64 = 4 << 20;
/// Bytes of records from which on they are sent: the server makes each upload durable before
/// it answers, and less often is cheaper.
const UPLOAD_BYTES: usize = 4 << 20;
/// Batches after which what there is of records is sent, be it ever so little.
const BATCHES_WAITING: usize = 16;
/// Uploads in flight, each on its own connection.
const SENDERS: usize = 3;

/// Said where a manifest was not taken, because an earlier one of the execution was.
pub const PUBLISHED_BEFORE: &str = "the server had published what this execution read at an \
    earlier start of the machine already; that stays, and not what was read now";

/// Buffers that are kept for the next chunks: those of the batches that there can be at once.
/// More come where many cells have few bytes, and each may have grown to a whole cell.
const KEPT_BUFFERS: usize = 32;

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
    /// The chunks in the order of the disk.
    names: Vec<ChunkRef>,
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
    let base = remote.names_of_base()?;
    let mut sent = send_chunks(device, plan, options, remote, &base, progress)?;
    progress.step(Step::Finishing, 0);
    let manifest = sent.manifest.as_slice();
    let publish = || remote.put_manifest(manifest.len() as u64, || Ok(manifest));
    let published = match publish() {
        // A chunk that the server had at the beginning may have gone bad since.
        Err(report) if report.code == Code::ImageDamaged => {
            let again = send_again(device, plan, options, remote, &sent.names, progress)?;
            if again == 0 {
                return Err(report);
            }
            sent.wire_bytes += again;
            publish()?
        }
        published => published?,
    };
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

/// Sends what the server lacks of a disk; no image is made of it yet. `base`: what the server
/// has told of itself, in order.
pub fn send_chunks(
    device: &Device,
    plan: &Plan,
    options: &Options,
    remote: &Remote,
    base: &[[u8; 32]],
    progress: &dyn ProgressSink,
) -> Result<Unpublished, Report> {
    progress.step(Step::Running, plan.used_bytes());
    let totals = Totals::default();
    let ended = AtomicBool::new(false);
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
                base,
                ended: &ended,
                free: free_tx.clone(),
            };
            let (batch_rx, named_tx) = (batch_rx.clone(), named_tx.clone());
            scope.spawn(move || sender.run(&batch_rx, &named_tx));
        }
        drop((batch_rx, named_tx, free_tx));
        let chunks = collect(named_rx).inspect_err(|_| ended.store(true, Ordering::Relaxed))?;
        // The channel is closed, so they have ended; a failure was among the results.
        let bad = readers.join()?;
        Ok((chunks, bad))
    })?;
    if !options.in_use {
        device.refuse_if_written_now()?;
    }
    let (manifest, root) = manifest(plan, options, &chunks, &bad)?;
    let count = chunks.len() as u64;
    Ok(Unpublished {
        manifest,
        root,
        names: chunks,
        wire_bytes: totals.wire_bytes.load(Ordering::Relaxed),
        chunks: count,
        known: totals.known.load(Ordering::Relaxed),
        bad,
    })
}

/// Sends those of the disk's chunks that the server lacks by now, and returns how many bytes
/// of records that took. They are read again, and are what they were, or it ends.
fn send_again(
    device: &Device,
    plan: &Plan,
    options: &Options,
    remote: &Remote,
    chunks: &[ChunkRef],
    progress: &dyn ProgressSink,
) -> Result<u64, Report> {
    let names: Vec<[u8; 32]> = chunks.iter().map(|chunk| chunk.name.0).collect();
    let known = remote.have(&names)?;
    let open = chunks.iter().zip(known).filter(|(_, known)| !known);
    let mut lacking: HashSet<Hash> = open.map(|(chunk, _)| chunk.name).collect();
    progress.note(&format!(
        "the server lacks {} chunks that it had before; they are sent again",
        lacking.len()
    ));
    let mut reader = CellReader::new(device, &plan.layout, options.skip_bad, progress);
    let encoder = options.encoder();
    let mut encoder = encoder.map_err(|e| report::image(&e, DiskState::NotInvolved))?;
    let mut proof = Proof::new(options);
    let (mut plain, mut body, mut sent) = (Vec::new(), Vec::new(), 0);
    for (cell, chunk) in plan.cells().zip(chunks) {
        if !lacking.remove(&chunk.name) {
            continue;
        }
        stop_if_asked(progress)?;
        reader.read(&cell, &mut plain)?;
        if encoder.name(&plain) != chunk.name {
            let found = "the disk changed while it was backed up".to_owned();
            return Err(Report::new(Code::DiskInUse, found, DiskState::NotInvolved));
        }
        body.clear();
        encoder
            .encode_named(&plain, chunk.name, &mut body)
            .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
        proof.of(&body, chunk.name)?;
        remote.send_records(&body)?;
        sent += body.len() as u64;
    }
    Ok(sent)
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
            let mut plain = match free.try_recv() {
                Ok(plain) => plain,
                Err(_) => Vec::with_capacity(cell.used.len() as usize),
            };
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
    /// What the server has, in order.
    base: &'a [[u8; 32]],
    /// Another thread has failed, and tells why.
    ended: &'a AtomicBool,
    free: Sender<Vec<u8>>,
}

/// Records that wait to be sent, and the batches that are done when they are stored.
#[derive(Default)]
struct Pending {
    body: Vec<u8>,
    /// Chunks in `body`, and their plain bytes.
    names: HashSet<Hash>,
    plain: u64,
    batches: Vec<(usize, Vec<ChunkRef>)>,
}

impl BatchSender<'_> {
    fn run(
        &self,
        batches: &Receiver<Batch>,
        named: &Sender<Result<(usize, Vec<ChunkRef>), Report>>,
    ) {
        if let Err(report) = self.send_all(batches, named) {
            let _ = named.send(Err(report));
        }
    }

    fn send_all(
        &self,
        batches: &Receiver<Batch>,
        named: &Sender<Result<(usize, Vec<ChunkRef>), Report>>,
    ) -> Result<(), Report> {
        let encoder = self.options.encoder();
        let mut encoder = encoder.map_err(|e| report::image(&e, DiskState::NotInvolved))?;
        let mut proof = Proof::new(self.options);
        let mut pending = Pending {
            // All that it will ever have: growing would copy it.
            body: Vec::with_capacity(UPLOAD_BYTES + 2 * BATCH_BYTES as usize),
            ..Pending::default()
        };
        for batch in batches {
            if self.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let names = self.add(&batch, &mut encoder, &mut proof, &mut pending)?;
            pending.batches.push((batch.first, names));
            for buffer in batch.chunks {
                let _ = self.free.try_send(buffer);
            }
            let enough = pending.body.is_empty()
                || pending.body.len() >= UPLOAD_BYTES
                || pending.batches.len() >= BATCHES_WAITING;
            if enough && !self.flush(&mut pending, named)? {
                return Ok(()); // another one has failed, and tells why
            }
        }
        self.flush(&mut pending, named).map(|_| ())
    }

    /// Adds what the server lacks of a batch.
    fn add(
        &self,
        batch: &Batch,
        encoder: &mut Encoder,
        proof: &mut Proof,
        pending: &mut Pending,
    ) -> Result<Vec<ChunkRef>, Report> {
        let names: Vec<ChunkRef> = batch
            .chunks
            .iter()
            .map(|plain| ChunkRef {
                name: encoder.name(plain),
                plain_len: plain.len() as u32,
            })
            .collect();
        let known = self.known(&names)?;
        let mut known_count = 0;
        for ((plain, chunk), known) in batch.chunks.iter().zip(&names).zip(known) {
            if known || !pending.names.insert(chunk.name) {
                known_count += 1;
                self.progress.advance(u64::from(chunk.plain_len), 0);
                continue;
            }
            pending.plain += u64::from(chunk.plain_len);
            let start = pending.body.len();
            encoder
                .encode_named(plain, chunk.name, &mut pending.body)
                .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
            proof.of(&pending.body[start..], chunk.name)?;
        }
        self.totals.known.fetch_add(known_count, Ordering::Relaxed);
        Ok(names)
    }

    /// Which of the chunks the server has.
    fn known(&self, chunks: &[ChunkRef]) -> Result<Vec<bool>, Report> {
        let told = |chunk: &ChunkRef| self.base.binary_search(&chunk.name.0).is_ok();
        let mut known: Vec<bool> = chunks.iter().map(told).collect();
        let open = chunks.iter().zip(&known).filter(|(_, known)| !**known);
        let asked: Vec<[u8; 32]> = open.map(|(chunk, _)| chunk.name.0).collect();
        if !asked.is_empty() {
            let answers = self.remote.have(&asked)?;
            let open = known.iter_mut().filter(|known| !**known);
            for (known, answer) in open.zip(answers) {
                *known = answer;
            }
        }
        Ok(known)
    }

    /// Sends what waits; then its batches are done. False if nobody waits for them any more.
    fn flush(
        &self,
        pending: &mut Pending,
        named: &Sender<Result<(usize, Vec<ChunkRef>), Report>>,
    ) -> Result<bool, Report> {
        let sent = pending.body.len() as u64;
        if sent > 0 {
            self.remote.send_records(&pending.body)?;
        }
        pending.body.clear();
        pending.names.clear();
        self.totals.wire_bytes.fetch_add(sent, Ordering::Relaxed);
        self.progress
            .advance(std::mem::take(&mut pending.plain), sent);
        let mut wanted = true;
        for done in pending.batches.drain(..) {
            wanted &= named.send(Ok(done)).is_ok();
        }
        Ok(wanted)
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
