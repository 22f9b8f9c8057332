//! Reading packs of which the database knows nothing.
//!
//! Owns: the proof of every record in them, by several threads. Does not own: what becomes
//! of what is found ([`super`]).

use crate::failure::{Failure, Outcome};
use crate::store::proof::Proof;
use image::record::RecordHeader;
use image::salvage::{self, Found};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Mutex;
use tokio::sync::mpsc;

/// Packs that were read and wait to be put into the index.
const AHEAD: usize = 2;

/// What stands in a pack.
pub(super) struct Scanned {
    pub(super) path: PathBuf,
    /// Bytes of the file.
    pub(super) length: u64,
    /// Offset and header of each record, and whether it is the chunk that it names.
    pub(super) records: Vec<(u64, RecordHeader, bool)>,
    /// Bytes in which there is no record.
    pub(super) lost: u64,
}

/// Reads and rehashes packs, as many at a time as there are processors. They come in no
/// particular order.
pub(super) fn scan(packs: Vec<PathBuf>) -> mpsc::Receiver<Outcome<Scanned>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::task::spawn_blocking(move || {
        let waiting = Mutex::new(packs.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let (waiting, sender) = (&waiting, sender.clone());
                scope.spawn(move || {
                    let next = || {
                        waiting
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .next()
                    };
                    while let Some(path) = next() {
                        // A closed channel is a rebuild that has failed.
                        if sender.blocking_send(one(path)).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    });
    receiver
}

fn one(path: PathBuf) -> Outcome<Scanned> {
    let failed = |e: std::io::Error| Failure::io(&path.display().to_string(), &e);
    let file = File::open(&path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut scanned = Scanned {
        path: path.clone(),
        length,
        records: Vec::new(),
        lost: 0,
    };
    let mut proof = Proof::default();
    let mut unreadable = None;
    salvage::walk(&file, |found| {
        match found {
            Found::Lost { from, to } => scanned.lost += to - from,
            Found::Record {
                offset,
                header,
                payload,
            } => match proof.check(&header, payload, offset) {
                Ok(()) => scanned.records.push((offset, header, true)),
                Err(image::Error::Damaged { .. }) => scanned.records.push((offset, header, false)),
                Err(error) => unreadable = Some(error),
            },
        }
        unreadable.is_none()
    })?;
    match unreadable {
        Some(error) => Err(error.into()),
        None => Ok(scanned),
    }
}
