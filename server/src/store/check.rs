//! Verification of a stored image.
//!
//! Owns: reading everything that belongs to it and comparing. Does not own: repair; a
//! damaged chunk is asked for again by the next backup that has it.

use super::Store;
use super::proof::Proof;
use super::publish::open_manifest;
use crate::db::chunks;
use crate::db::images::Image;
use crate::failure::{Failure, Outcome};
use image::manifest::Page;
use image::{BadRange, Hash, Layout, PublicKey, Version};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use tokio::runtime::Handle;
use wire::Code;

/// Damaged places that a result lists; more are only counted.
const LISTED: usize = 100;

/// Result of a verification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Chunks that were read.
    pub chunks: u64,
    /// Their plain bytes.
    pub bytes: u64,
    /// How many are damaged.
    pub damaged: u64,
    /// The first of them, in words: chunk, pack, place, what is wrong.
    pub places: Vec<String>,
}

impl Verified {
    /// Adds the result of another image.
    pub fn add(&mut self, other: Verified) {
        self.chunks += other.chunks;
        self.bytes += other.bytes;
        self.damaged += other.damaged;
        self.places.extend(other.places);
        self.places.truncate(LISTED);
    }
}

/// What a manifest says besides its chunks.
pub struct Contents {
    /// Disk, partitions and file systems.
    pub layout: Layout,
    /// What the disk did not give.
    pub bad: Vec<BadRange>,
    /// Whose signatures it has, each found good.
    pub signed_by: Vec<PublicKey>,
}

impl Store {
    /// What an image's manifest says besides its chunks.
    ///
    /// # Errors
    /// `image-damaged` if the manifest cannot be read.
    pub async fn contents(&self, id: &str) -> Outcome<Contents> {
        let path = self.manifest_path(id);
        tokio::task::spawn_blocking(move || {
            let mut reader = open_manifest(&path)?;
            // Bad ranges and signatures stand at the end; the first version has none.
            if reader.version() > Version::V1 {
                while reader.next_page()?.is_some() {}
            }
            Ok(Contents {
                layout: reader.layout().clone(),
                bad: reader.bad().to_vec(),
                signed_by: reader.signatures().iter().map(|s| s.key).collect(),
            })
        })
        .await?
    }

    /// The layout at the beginning of an image's manifest. Of the rest nothing is read, so
    /// that it can be asked for where others wait.
    ///
    /// # Errors
    /// As [`Store::contents`].
    pub async fn layout(&self, id: &str) -> Outcome<Layout> {
        let path = self.manifest_path(id);
        tokio::task::spawn_blocking(move || Ok(open_manifest(&path)?.layout().clone())).await?
    }

    /// Reads and rehashes every chunk of an image once, and its manifest.
    ///
    /// # Errors
    /// `image-damaged` if the manifest itself is damaged; damaged chunks are a result. I/O
    /// errors, which tell nothing about the image.
    pub async fn verify(self: &Arc<Self>, image: &Image) -> Outcome<Verified> {
        let (store, image, runtime) = (Arc::clone(self), image.clone(), Handle::current());
        tokio::task::spawn_blocking(move || {
            let mut reader = open_manifest(&store.manifest_path(&image.id))?;
            let mut run = Run {
                store: &store,
                runtime,
                seen: HashSet::new(),
                files: HashMap::new(),
                proof: Proof::default(),
                result: Verified::default(),
            };
            while let Some(page) = reader.next_page()? {
                run.page(&page)?;
            }
            if reader.root().map(|root| root.root.to_hex()) != Some(image.root.clone()) {
                return Err(Failure::new(
                    Code::ImageDamaged,
                    "the manifest is not the one that was published",
                ));
            }
            Ok(run.result)
        })
        .await?
    }
}

struct Run<'a> {
    store: &'a Store,
    runtime: Handle,
    seen: HashSet<Hash>,
    files: HashMap<i64, File>,
    proof: Proof,
    result: Verified,
}

impl Run<'_> {
    fn page(&mut self, page: &Page) -> Outcome<()> {
        let names: Vec<Hash> = page
            .chunks
            .iter()
            .map(|chunk| chunk.name)
            .filter(|name| self.seen.insert(*name))
            .collect();
        let found = self
            .runtime
            .block_on(async { chunks::find(&mut *self.store.db.read().await?, &names).await })?;
        for name in names {
            self.result.chunks += 1;
            let Some(mut place) = found.get(&name).copied() else {
                self.damage(format!("chunk {name}: not in the store"));
                continue;
            };
            let checked = self
                .store
                .read_following(&self.runtime, &mut self.files, name, &mut place)
                .and_then(|(header, payload)| self.proof.check(&header, &payload, place.offset));
            match checked {
                Ok(()) => {
                    self.result.bytes += u64::from(place.plain_len);
                    if place.damaged {
                        self.runtime
                            .block_on(self.store.set_damaged(&place, false))?;
                    }
                }
                // What cannot be read now may be whole: no result at all.
                Err(error @ image::Error::Io { .. }) => {
                    let what = format!("chunk {name}, pack {}: {error}", place.pack);
                    return Err(Failure::internal(what));
                }
                Err(error) => {
                    self.damage(format!(
                        "chunk {name}, pack {} at byte {}: {error}",
                        place.pack, place.offset
                    ));
                    self.runtime
                        .block_on(self.store.set_damaged(&place, true))?;
                }
            }
        }
        Ok(())
    }

    fn damage(&mut self, place: String) {
        tracing::error!(%place, "verification found damage");
        self.result.damaged += 1;
        if self.result.places.len() < LISTED {
            self.result.places.push(place);
        }
    }
}
