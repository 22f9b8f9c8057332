//! Checking every byte of a container.
//!
//! Owns: reading it once, decoding all records on all cores. Does not own: the format.

use crate::backup::container::worker_count;
use crate::keyring::Keyring;
use crate::progress::ProgressSink;
use crate::{report, trust};
use crossbeam_channel::{bounded, unbounded};
use image::container::{ContainerReader, Event};
use image::record::{Decoder, RecordHeader};
use image::{BadRange, Layout, Root, Signature};
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{Code, DiskState, Report, Step};

/// Bytes that are read at a time.
const BUFFER: usize = 256 << 10;

/// A container of which every byte is what was written.
pub struct Verified {
    /// Its layout.
    pub layout: Layout,
    /// Its root.
    pub root: Root,
    /// What the disk did not give when it was made.
    pub bad: Vec<BadRange>,
    /// Who signed it.
    pub signatures: Vec<Signature>,
}

/// Reads the whole container; the first damage is the error.
pub fn verify(
    input: impl Read + Send,
    keyring: &Keyring,
    progress: &dyn ProgressSink,
) -> Result<Verified, Report> {
    // In a box, so that there is this code once for all kinds of input.
    verify_boxed(
        Box::new(BufReader::with_capacity(BUFFER, input)),
        keyring,
        progress,
    )
}

fn verify_boxed(
    input: Box<dyn Read + Send + '_>,
    keyring: &Keyring,
    progress: &dyn ProgressSink,
) -> Result<Verified, Report> {
    let damaged = |e: image::Error| report::image(&e, DiskState::NotInvolved);
    let mut reader = ContainerReader::open(input).map_err(damaged)?;
    let key = keyring.for_image(reader.layout())?;
    if let Some(key) = &key {
        reader.unlock(Arc::clone(key)).map_err(damaged)?;
    }
    progress.step(Step::Verifying, reader.layout().used_bytes());
    let workers = worker_count();
    let (work_tx, work_rx) = bounded::<(RecordHeader, u64, Vec<u8>)>(workers * 2 + 2);
    let (free_tx, free_rx) = unbounded::<Vec<u8>>();
    let (error_tx, error_rx) = bounded::<image::Error>(workers);
    // Set by the first worker that finds damage, so that it is told at once.
    let failed = &AtomicBool::new(false);
    let root = std::thread::scope(|scope| {
        for _ in 0..workers {
            let (work_rx, free_tx, error_tx) = (work_rx.clone(), free_tx.clone(), error_tx.clone());
            let key = key.clone();
            scope.spawn(move || {
                let mut decoder = Decoder::new().opened_with(key);
                let mut plain = Vec::new();
                for (header, offset, payload) in work_rx {
                    if let Err(error) = decoder.decode(&header, &payload, offset, &mut plain) {
                        failed.store(true, Ordering::Relaxed);
                        let _ = error_tx.send(error);
                        return;
                    }
                    progress.advance(u64::from(header.plain_len), header.record_len());
                    let _ = free_tx.send(payload);
                }
            });
        }
        drop((work_rx, free_tx, error_tx));
        let mut payload = Vec::new();
        let read = loop {
            if failed.load(Ordering::Relaxed) {
                break Err(report::thread_lost(DiskState::NotInvolved));
            }
            if progress.interrupted() {
                break Err(Report::new(
                    Code::Interrupted,
                    "stopped",
                    DiskState::NotInvolved,
                ));
            }
            match reader.next_event(&mut payload) {
                Err(error) => break Err(damaged(error)),
                Ok(Event::End(root)) => break Ok(root),
                Ok(Event::Page(_)) => {}
                Ok(Event::Record { header, offset }) => {
                    let next = free_rx.try_recv().unwrap_or_default();
                    let full = std::mem::replace(&mut payload, next);
                    if work_tx.send((header, offset, full)).is_err() {
                        break Err(report::thread_lost(DiskState::NotInvolved));
                    }
                }
            }
        };
        drop(work_tx);
        // Ends when the last worker has dropped its sender: all is checked then.
        match error_rx.iter().next() {
            Some(error) => Err(damaged(error)),
            None => read,
        }
    })?;
    let signatures = reader.signatures().to_vec();
    trust::demand(keyring.trusted, &signatures, DiskState::NotInvolved)?;
    Ok(Verified {
        layout: reader.layout().clone(),
        root,
        bad: reader.bad().to_vec(),
        signatures,
    })
}
