//! The records of an image, one after another, as a multicast session sends them.
//!
//! Owns: their order and places, and reading any piece of the run. Does not own: the session
//! (`crate::cast`). Nothing is checked on the way: targets compare every chunk with its name,
//! and what is wrong they ask for again, which is checked.

use super::Store;
use super::publish::open_manifest;
use crate::db::chunks::{self, Place};
use crate::failure::{Failure, Outcome};
use image::Hash;
use image::record::HEADER_LEN;
use multicast::{Plan, Run};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::runtime::Handle;
use wire::Code;

/// Packs that are kept open.
const OPEN_PACKS: usize = 64;

/// An image's records: chunks by their first place in the manifest, each once. About 72
/// bytes of memory for each.
pub struct ImageRun {
    store: Arc<Store>,
    runtime: Handle,
    plan: Plan,
    records: Vec<(Hash, Place)>,
    files: HashMap<i64, File>,
}

impl Store {
    /// The run of an image, in blocks of symbols of that length; `None` for an image without
    /// chunks.
    ///
    /// # Errors
    /// `image-damaged`; more records than a session can have; I/O errors.
    pub async fn run_of(self: &Arc<Self>, image: &str, symbol: u16) -> Outcome<Option<ImageRun>> {
        let (store, image, runtime) = (Arc::clone(self), image.to_owned(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let mut reader = open_manifest(&store.manifest_path(&image))?;
            let mut seen = HashSet::new();
            let mut records = Vec::new();
            while let Some(page) = reader.next_page()? {
                let names = page.chunks.iter().map(|chunk| chunk.name);
                let names: Vec<Hash> = names.filter(|name| seen.insert(*name)).collect();
                let found = runtime.block_on(async {
                    chunks::find_in_image(&mut *store.db.read().await?, &image, &names).await
                })?;
                for name in names {
                    match found.get(&name) {
                        Some(place) if !place.damaged => records.push((name, *place)),
                        _ => {
                            let found =
                                format!("chunk {name} of the image is not there, or damaged");
                            return Err(Failure::new(Code::ImageDamaged, found));
                        }
                    }
                }
            }
            if records.is_empty() {
                return Ok(None);
            }
            let lengths = records.iter().map(|(_, place)| record_len(place));
            let plan = Plan::new(lengths, symbol).map_err(|e| Failure::usage(e.to_string()))?;
            Ok(Some(ImageRun {
                store,
                runtime,
                plan,
                records,
                files: HashMap::new(),
            }))
        })
        .await?
    }
}

fn record_len(place: &Place) -> u32 {
    HEADER_LEN as u32 + place.stored_len
}

impl ImageRun {
    /// Its records and blocks.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn piece(&mut self, record: u32, from: u64, out: &mut [u8]) -> Result<(), image::Error> {
        let Some((name, place)) = self.records.get_mut(record as usize) else {
            return Err(image::Error::damaged("there is no such record", 0));
        };
        if self.files.len() >= OPEN_PACKS && !self.files.contains_key(&place.pack) {
            self.files.clear();
        }
        let (store, files, len) = (&self.store, &mut self.files, place.stored_len);
        store.following(&self.runtime, *name, place, |place| {
            if place.stored_len != len {
                return Err(image::Error::damaged(
                    "the record was stored anew, with another length",
                    place.offset,
                ));
            }
            let file = store.pack_file(files, place.pack)?;
            file.read_exact_at(out, place.offset + from)
                .map_err(|e| image::Error::io("reading a pack", e, place.offset))
        })
    }
}

impl Run for ImageRun {
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let mut record = self.plan.record_at(at);
        let mut filled = 0;
        while filled < out.len() {
            let range = self.plan.record_range(record);
            let from = at + filled as u64;
            let len = usize::try_from(range.end.saturating_sub(from)).unwrap_or(usize::MAX);
            let end = filled.saturating_add(len).min(out.len());
            if range.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let piece = out.get_mut(filled..end).unwrap_or_default();
            self.piece(record, from - range.start, piece)
                .map_err(|error| io::Error::other(error.to_string()))?;
            filled = end;
            record += 1;
        }
        Ok(())
    }
}
