//! The scrub: everything that is stored is read again from time to time.
//!
//! Owns: its order (manifests, then packs by number), its pace, and what it marks. Does not
//! own: when it begins ([`crate::daemon`]), repair: a chunk that is marked is asked for
//! again by the next backup of a machine that has it.

use super::Store;
use super::fetch::is_damage;
use super::proof::Proof;
use super::publish::open_manifest;
use crate::db::chunks::Place;
use crate::db::scrub::{self as rows, Scrub};
use crate::db::{chunks, images};
use crate::failure::{Failure, Outcome};
use image::Hash;
use image::record::HEADER_LEN;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Damaged chunks that a result lists; more are only counted.
const LISTED: i64 = 200;

/// A damaged chunk with the images that it hurts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damage {
    /// Name of the chunk, hex.
    pub chunk: String,
    /// Number of its pack; 0 if no pack has it.
    pub pack: i64,
    /// Where its record stands, in bytes.
    pub offset: u64,
    /// Images that need it, as `name (id)`.
    pub images: Vec<String>,
}

/// How the last scrub went, and what is damaged now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubView {
    /// One runs now.
    pub running: bool,
    /// When the last one began.
    pub started: Option<i64>,
    /// When it ended; null while it is not through.
    pub ended: Option<i64>,
    /// Packs that it has read.
    pub packs_done: u64,
    /// All packs.
    pub packs: u64,
    /// Records that it has read.
    pub chunks: u64,
    /// Bytes that it has read.
    pub bytes: u64,
    /// Damaged chunks that are known now, whoever found them.
    pub damaged_chunks: u64,
    /// The first of them.
    pub damaged: Vec<Damage>,
    /// Images whose manifests are damaged, as `name (id)`.
    pub damaged_manifests: Vec<String>,
}

impl ScrubView {
    /// Whether nothing is known to be damaged.
    pub fn is_clean(&self) -> bool {
        self.damaged_chunks == 0 && self.damaged_manifests.is_empty()
    }
}

/// What reading one pack gave.
struct PackRead {
    changed: Vec<(Place, bool)>,
    chunks: u64,
    bytes: u64,
    damaged: u64,
    whole: bool,
}

impl Store {
    /// How the last scrub went.
    ///
    /// # Errors
    /// The database fails.
    pub async fn scrub_view(&self) -> Outcome<ScrubView> {
        let mut conn = self.db.read().await?;
        let last = rows::last(&mut conn).await?;
        let (packs_done, packs) =
            rows::packs_done(&mut conn, last.map_or(0, |last| last.next_pack)).await?;
        let damaged_manifests = images::all(&mut conn)
            .await?
            .into_iter()
            .filter(|image| image.damaged)
            .map(|image| format!("{} ({})", image.name, image.id))
            .collect();
        Ok(ScrubView {
            running: self.scrubbing.load(std::sync::atomic::Ordering::Relaxed),
            started: last.map(|last| last.started),
            ended: last.and_then(|last| last.ended),
            packs_done,
            packs,
            chunks: last.map_or(0, |last| last.chunks),
            bytes: last.map_or(0, |last| last.bytes),
            damaged_chunks: rows::damaged_count(&mut conn).await?,
            damaged: joined(rows::damaged(&mut conn, None, LISTED).await?),
            damaged_manifests,
        })
    }

    /// The last scrub.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_scrub(&self) -> Outcome<Option<Scrub>> {
        Ok(rows::last(&mut *self.db.read().await?).await?)
    }

    /// The last scrub; a store that never had one counts from now.
    ///
    /// # Errors
    /// The database fails.
    pub async fn last_scrub_or(&self, now: i64) -> Outcome<Scrub> {
        let mut tx = self.db.write().await?;
        if let Some(last) = rows::last(tx.conn()).await? {
            return Ok(last);
        }
        let never = Scrub {
            started: now,
            ended: Some(now),
            next_pack: 1,
            ..Scrub::default()
        };
        rows::store(tx.conn(), &never).await?;
        tx.commit().await?;
        Ok(never)
    }

    /// Begins a new scrub, from the start; [`Store::scrub`] does the work.
    ///
    /// # Errors
    /// The database fails.
    pub async fn begin_scrub(&self, now: i64) -> Outcome<()> {
        self.note_scrub(&Scrub {
            started: now,
            ..Scrub::default()
        })
        .await
    }

    /// Notes how far the scrub is.
    ///
    /// # Errors
    /// The database fails.
    pub async fn note_scrub(&self, scrub: &Scrub) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        rows::store(tx.conn(), scrub).await?;
        Ok(tx.commit().await?)
    }

    /// Goes on with the scrub that was begun, to its end or until `stop`. `rate` is how
    /// many bytes a second are read, at most.
    ///
    /// # Errors
    /// The database fails, or a file cannot be opened; said again it goes on.
    pub async fn scrub(
        self: &Arc<Self>,
        rate: Option<u64>,
        stop: &watch::Receiver<bool>,
    ) -> Outcome<()> {
        self.scrubbing
            .store(true, std::sync::atomic::Ordering::Relaxed);
        let result = self.scrub_on(rate, stop).await;
        self.scrubbing
            .store(false, std::sync::atomic::Ordering::Relaxed);
        result
    }

    async fn scrub_on(
        self: &Arc<Self>,
        rate: Option<u64>,
        stop: &watch::Receiver<bool>,
    ) -> Outcome<()> {
        let Some(mut state) = self.last_scrub().await?.filter(|s| s.ended.is_none()) else {
            return Ok(());
        };
        if state.next_pack == 0 {
            state.damaged += self.scrub_manifests(stop).await?;
            state.next_pack = 1;
        }
        while !*stop.borrow() {
            let next = rows::pack_from(&mut *self.db.read().await?, state.next_pack).await?;
            let Some(pack) = next else {
                state.ended = Some(crate::db::now());
                self.note_scrub(&state).await?;
                tracing::info!(
                    chunks = state.chunks,
                    bytes = state.bytes,
                    damaged = state.damaged,
                    "scrub ended"
                );
                return Ok(());
            };
            let read = self.scrub_pack(pack, rate, stop).await?;
            if !read.whole {
                // Interrupted within it: it is read again.
                return Ok(());
            }
            state.next_pack = pack + 1;
            let mut tx = self.db.write().await?;
            // A pack that died meanwhile is neither whole nor damaged.
            if rows::pack_from(tx.conn(), pack).await? != Some(pack) {
                continue;
            }
            state.chunks += read.chunks;
            state.bytes += read.bytes;
            state.damaged += read.damaged;
            for (place, damaged) in &read.changed {
                chunks::set_damaged(tx.conn(), place, *damaged).await?;
            }
            rows::store(tx.conn(), &state).await?;
            tx.commit().await?;
            if read.damaged > 0 {
                self.tell_damage(pack).await?;
            }
        }
        Ok(())
    }

    async fn tell_damage(&self, pack: i64) -> Outcome<()> {
        let hurt = rows::damaged(&mut *self.db.read().await?, Some(pack), LISTED).await?;
        for damage in joined(hurt) {
            let code = wire::Code::ImageDamaged;
            tracing::error!(%code, chunk = %damage.chunk, pack, offset = damage.offset,
                images = %damage.images.join(", "), "the scrub found a damaged record");
        }
        Ok(())
    }

    /// Reads all manifests and returns how many are damaged.
    async fn scrub_manifests(self: &Arc<Self>, stop: &watch::Receiver<bool>) -> Outcome<u64> {
        let all = images::all(&mut *self.db.read().await?).await?;
        let mut damaged = 0;
        for image in all {
            if *stop.borrow() {
                break;
            }
            let found = self.manifest_is_damaged(&image).await?;
            damaged += u64::from(found);
            if found != image.damaged {
                let mut tx = self.db.write().await?;
                images::set_damaged(tx.conn(), &image.id, found).await?;
                tx.commit().await?;
            }
        }
        Ok(damaged)
    }

    /// Whether an image's manifest is not the one that was published.
    pub(super) async fn manifest_is_damaged(&self, image: &images::Image) -> Outcome<bool> {
        let (path, root) = (self.manifest_path(&image.id), image.root.clone());
        let read = tokio::task::spawn_blocking(move || -> Outcome<bool> {
            let mut reader = open_manifest(&path)?;
            while reader.next_page()?.is_some() {}
            Ok(reader.root().map(|r| r.root.to_hex()) == Some(root))
        });
        match read.await? {
            Ok(right) => Ok(!right),
            Err(failure) if failure.report.code == wire::Code::ImageDamaged => {
                // Deleted meanwhile?
                let there = images::by_id(&mut *self.db.read().await?, &image.id).await?;
                if there.is_some() {
                    tracing::error!(image = %image.name, id = %image.id, %failure, "a manifest is damaged");
                }
                Ok(there.is_some())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn scrub_pack(
        self: &Arc<Self>,
        pack: i64,
        rate: Option<u64>,
        stop: &watch::Receiver<bool>,
    ) -> Outcome<PackRead> {
        let listed = rows::chunks_of(&mut *self.db.read().await?, pack).await?;
        let (store, stop) = (Arc::clone(self), stop.clone());
        tokio::task::spawn_blocking(move || store.read_pack(pack, &listed, rate, &stop)).await?
    }

    fn read_pack(
        &self,
        pack: i64,
        listed: &[(Hash, Place)],
        rate: Option<u64>,
        stop: &watch::Receiver<bool>,
    ) -> Outcome<PackRead> {
        let mut read = PackRead {
            changed: Vec::new(),
            chunks: 0,
            bytes: 0,
            damaged: 0,
            whole: true,
        };
        let (mut files, mut proof) = (HashMap::new(), Proof::default());
        if let Ok(file) = File::open(self.packs.path(pack)) {
            // What memory remembers of the file says nothing about the disk. Advice that
            // is not taken only makes the scrub less sharp.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
            files.insert(pack, file);
        }
        let began = Instant::now();
        for (name, place) in listed {
            if *stop.borrow() {
                read.whole = false;
                break;
            }
            let checked = self
                .read(&mut files, *name, place)
                .and_then(|(header, payload)| proof.check(&header, &payload, place.offset));
            let damaged = match checked {
                Ok(()) => false,
                Err(error) if is_damage(&error) => true,
                Err(error) => return Err(Failure::internal(format!("pack {pack}: {error}"))),
            };
            if damaged != place.damaged {
                read.changed.push((*place, damaged));
            }
            read.chunks += 1;
            read.bytes += HEADER_LEN as u64 + u64::from(place.stored_len);
            read.damaged += u64::from(damaged);
            if let Some(rate) = rate {
                let due = Duration::from_secs_f64(read.bytes as f64 / rate.max(1) as f64);
                std::thread::sleep(due.saturating_sub(began.elapsed()));
            }
        }
        Ok(read)
    }
}

/// One entry for each chunk.
fn joined(hurt: Vec<rows::Hurt>) -> Vec<Damage> {
    let mut damages: Vec<Damage> = Vec::new();
    for found in hurt {
        let chunk = found.name.to_hex();
        let image = found.image.map(|(name, id)| format!("{name} ({id})"));
        match damages.last_mut().filter(|last| last.chunk == chunk) {
            Some(last) => last.images.extend(image),
            None => damages.push(Damage {
                chunk,
                pack: found.place.pack,
                offset: found.place.offset,
                images: image.into_iter().collect(),
            }),
        }
    }
    damages
}
