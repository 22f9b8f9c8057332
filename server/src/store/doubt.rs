//! Records that a target doubts.
//!
//! Owns: that the server believes its own eyes only: the record is read from the disk again,
//! and marked if that shows damage. Does not own: what damage is ([`super::proof`]), who may
//! ask ([`crate::http`]).

use super::Store;
use super::fetch::is_damage;
use super::proof::Proof;
use crate::db::chunks::{self, Place};
use crate::failure::{Failure, Outcome};
use image::Hash;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use tokio::runtime::Handle;
use wire::Reread;

impl Store {
    /// Reads the records of `doubted` again, all of them chunks of `image`, and marks those
    /// that are damaged.
    ///
    /// # Errors
    /// `server-refused` for a chunk of no or another image; `internal` where a record cannot
    /// be read for now.
    pub async fn reread(self: &Arc<Self>, image: &str, doubted: &[Hash]) -> Outcome<Reread> {
        let found = chunks::find_in_image(&mut *self.db.read().await?, image, doubted).await?;
        let mut places = Vec::with_capacity(doubted.len());
        let mut seen = HashSet::new();
        for name in doubted {
            let Some(place) = found.get(name) else {
                return Err(Failure::refused(format!(
                    "chunk {name} does not belong to the image"
                )));
            };
            if seen.insert(*name) {
                places.push((*name, *place));
            }
        }
        let (store, runtime) = (Arc::clone(self), Handle::current());
        tokio::task::spawn_blocking(move || store.reread_places(&runtime, places)).await?
    }

    fn reread_places(&self, runtime: &Handle, mut places: Vec<(Hash, Place)>) -> Outcome<Reread> {
        places.sort_unstable_by_key(|(_, place)| (place.pack, place.offset));
        let (mut files, mut proof) = (HashMap::new(), Proof::default());
        let mut reread = Reread::default();
        for (name, mut place) in places {
            if !files.contains_key(&place.pack)
                && let Ok(file) = File::open(self.packs.path(place.pack))
            {
                // What was sent may have come from memory: the disk is asked.
                let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
                files.clear();
                files.insert(place.pack, file);
            }
            let checked = self
                .read_following(runtime, &mut files, name, &mut place)
                .and_then(|(header, payload)| proof.check(&header, &payload, place.offset));
            match checked {
                Ok(()) => reread.whole += 1,
                Err(error) if is_damage(&error) => {
                    runtime.block_on(self.set_damaged(&place, true))?;
                    reread.damaged += 1;
                }
                Err(error) => {
                    let what = format!("chunk {name}, pack {}: {error}", place.pack);
                    return Err(Failure::internal(what));
                }
            }
        }
        Ok(reread)
    }
}
