//! Space of packs that are dead in part.
//!
//! Owns: which packs are worth it, and moving what is alive in them to another pack, after
//! which they are dead as a whole. Does not own: removing dead packs
//! ([`super::release`]).
//!
//! A record is read, decoded and hashed, written again and durable before the index points
//! to its new place; whoever was told the old one reads on from the open file, or looks the
//! chunk up again. Holds and references are of chunks, not of places: moving one changes
//! nothing about who needs it.

use super::Store;
use super::fetch::is_damage;
use super::proof::Proof;
use crate::db::chunks::{self, Place};
use crate::failure::{Failure, Outcome};
use image::Hash;
use image::record::RecordHeader;
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use tokio::runtime::Handle;

impl Store {
    /// Moves what is alive out of closed packs that are dead by half or more, removes
    /// these, and returns how many bytes of packs that was. One at a time.
    ///
    /// # Errors
    /// The database or the folder cannot be used; `no-space` for the copies.
    pub async fn compact(self: &Arc<Self>) -> Outcome<u64> {
        let Ok(_turn) = self.compacting.try_lock() else {
            return Ok(0);
        };
        let worth = chunks::half_dead_packs(&mut *self.db.read().await?).await?;
        let mut moved = 0;
        for (pack, bytes) in worth {
            let alive = chunks::alive_in(&mut *self.db.read().await?, pack).await?;
            let store = Arc::clone(self);
            let whole = tokio::task::spawn_blocking(move || store.move_out(alive)).await??;
            if whole {
                moved += bytes;
                tracing::info!(pack, bytes, "a pack was half dead; what is alive was moved");
            }
        }
        if moved > 0 {
            self.collect().await?;
        }
        Ok(moved)
    }

    /// Copies chunks to another pack; whether none had to stay because it is damaged.
    fn move_out(&self, alive: Vec<(Hash, Place)>) -> Outcome<bool> {
        let runtime = Handle::current();
        self.room_for(alive.iter().map(|(_, place)| record_len(place)).sum())?;
        let mut pack = runtime.block_on(self.packs.take(&self.db))?;
        let copied = self.copy_to(&mut pack, &runtime, &alive);
        // Also after an error: a pack must not stay open.
        runtime.block_on(self.packs.give_back(&self.db, pack))?;
        copied
    }

    fn copy_to(
        &self,
        pack: &mut super::packs::OpenPack,
        runtime: &Handle,
        alive: &[(Hash, Place)],
    ) -> Outcome<bool> {
        let io = |e: std::io::Error| Failure::io("writing a pack", &e);
        let (mut files, mut proof) = (HashMap::new(), Proof::default());
        let mut places = Vec::with_capacity(alive.len());
        for (name, place) in alive {
            let record = self.read(&mut files, *name, place);
            let (header, payload) = match record {
                Ok((header, payload)) => {
                    match proof.check(&header, &payload, place.offset) {
                        Ok(()) => (header, payload),
                        // The scrub tells; here it only stays where it is.
                        Err(error) if is_damage(&error) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) if is_damage(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let mut bytes = header.encode().to_vec();
            bytes.extend_from_slice(&payload);
            let offset = pack.writer.append(&bytes).map_err(io)?;
            places.push((*place, offset));
        }
        pack.writer.sync().map_err(io)?;
        runtime.block_on(async {
            let mut tx = self.db.write().await?;
            for (old, offset) in &places {
                chunks::set_place(tx.conn(), old, pack.id, *offset).await?;
            }
            chunks::set_pack_bytes(tx.conn(), pack.id, pack.writer.len()).await?;
            tx.commit().await
        })?;
        Ok(places.len() == alive.len())
    }

    /// As [`Store::read`], at the chunk's new place if it was moved since `place` was looked
    /// up, which is set to it then.
    pub(super) fn read_following(
        &self,
        runtime: &Handle,
        files: &mut HashMap<i64, File>,
        name: Hash,
        place: &mut Place,
    ) -> Result<(RecordHeader, Vec<u8>), image::Error> {
        self.following(runtime, name, place, |place| self.read(files, name, place))
    }

    /// Does `look` at a chunk's place, and again at its new place if it was moved since
    /// `place` was looked up, which is set to it then.
    pub(super) fn following<T>(
        &self,
        runtime: &Handle,
        name: Hash,
        place: &mut Place,
        mut look: impl FnMut(&Place) -> Result<T, image::Error>,
    ) -> Result<T, image::Error> {
        let seen = look(place);
        if seen.as_ref().is_err_and(is_damage)
            && let Ok(Some(now)) = runtime.block_on(self.moved(name, place))
        {
            *place = now;
            return look(place);
        }
        seen
    }

    /// Where a chunk is now, if it is not where `old` says any more.
    async fn moved(&self, name: Hash, old: &Place) -> Outcome<Option<Place>> {
        let found = chunks::find(&mut *self.db.read().await?, &[name]).await?;
        Ok(found
            .get(&name)
            .filter(|now| !now.damaged && (now.pack, now.offset) != (old.pack, old.offset))
            .copied())
    }
}

fn record_len(place: &Place) -> u64 {
    image::record::HEADER_LEN as u64 + u64::from(place.stored_len)
}
