//! The image store: packs of records, an index of chunks, manifests.
//!
//! Owns: when a chunk counts as stored (its record was decoded, rehashed and is durable),
//! when an image is visible (all its chunks are), and when space is given back (nothing
//! refers to it or holds it). Does not own: formats (`image`), who may ask
//! ([`crate::http`]).
//!
//! A folder holds `packs/NUMBER.pack`, `manifests/ID.manifest` with `ID.about` beside it, and
//! `store-id`; files that the database does not know are moved to `lost/`, never deleted.

mod about;
pub mod check;
mod compact;
mod desks;
mod doubt;
mod fetch;
mod have;
mod ingest;
mod owner;
mod packs;
mod proof;
pub mod prune;
mod publish;
pub mod rebuild;
mod release;
pub mod retention;
mod run;
pub mod scrub;
mod sign;
mod transfer;
mod upload;

use crate::db::{Conn, Db, chunks, executions};
use crate::failure::{Failure, Outcome};
use image::{PublicKey, SigningKey};
use packs::PackPool;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::Semaphore;
use wire::Code;

pub use run::ImageRun;
pub use upload::BodyReader;

/// Free bytes that uploads leave for manifests and the database.
const RESERVE: u64 = 64 << 20;

/// Answers to targets at once: each keeps one of the threads for blocking work, of which there
/// are 512 for everything.
const FETCHES: usize = 256;

/// The store.
pub struct Store {
    dir: PathBuf,
    db: Arc<Db>,
    packs: PackPool,
    desks: desks::Desks,
    fetches: Arc<Semaphore>,
    buffers: upload::Buffers,
    lately: ingest::Lately,
    reserve: u64,
    signer: Option<Arc<SigningKey>>,
    /// Executions that publish now.
    publishing: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    /// Images that are being exported, and how many times.
    exporting: Mutex<HashMap<String, usize>>,
    /// A scrub runs.
    scrubbing: AtomicBool,
    /// Whose turn it is to move chunks out of half dead packs.
    compacting: tokio::sync::Mutex<()>,
}

impl Store {
    /// Opens the store in `dir` and puts right what a crash has left.
    ///
    /// # Errors
    /// The folder or the database cannot be used, or they do not belong together.
    pub async fn open(dir: &Path, db: Arc<Db>) -> Outcome<Self> {
        let io =
            |e: std::io::Error| Failure::io(&format!("the image folder {}", dir.display()), &e);
        std::fs::create_dir_all(dir.join("packs")).map_err(io)?;
        std::fs::create_dir_all(dir.join("manifests")).map_err(io)?;
        owner::claim(dir, &db).await?;
        let packs = PackPool::new(dir.join("packs"));
        let store = Store {
            dir: dir.to_owned(),
            db,
            packs,
            desks: desks::Desks::new(),
            fetches: Arc::new(Semaphore::new(FETCHES)),
            buffers: upload::Buffers::default(),
            lately: ingest::Lately::default(),
            reserve: RESERVE,
            signer: None,
            publishing: Mutex::default(),
            exporting: Mutex::default(),
            scrubbing: AtomicBool::new(false),
            compacting: tokio::sync::Mutex::new(()),
        };
        store.recover().await?;
        Ok(store)
    }

    /// The same store with another reserve of free space, in bytes.
    pub fn with_reserve(mut self, bytes: u64) -> Self {
        self.reserve = bytes;
        self
    }

    /// The same store, which signs every image that it publishes.
    pub fn signing_with(mut self, key: Arc<SigningKey>) -> Self {
        self.signer = Some(key);
        self
    }

    /// Whose signature its images have.
    pub fn signer(&self) -> Option<PublicKey> {
        self.signer.as_ref().map(|key| key.public())
    }

    /// The key that signs them.
    pub fn signing_key(&self) -> Option<Arc<SigningKey>> {
        self.signer.clone()
    }

    /// Where the manifest of an image is. Ids are made by the server: hex digits only.
    pub fn manifest_path(&self, image: &str) -> PathBuf {
        self.dir.join("manifests").join(format!("{image}.manifest"))
    }

    /// Bytes that uploads may still take.
    ///
    /// # Errors
    /// The file system does not tell.
    pub fn free_bytes(&self) -> Outcome<u64> {
        let stat = nix::sys::statvfs::statvfs(&self.dir)
            .map_err(|e| Failure::internal(format!("free space of {}: {e}", self.dir.display())))?;
        // The field types differ between platforms.
        #[allow(clippy::useless_conversion)]
        let free =
            u64::from(stat.blocks_available()).saturating_mul(u64::from(stat.fragment_size()));
        Ok(free.saturating_sub(self.reserve))
    }

    /// Begins an execution's hold on chunks, in the transaction that sees it unfinished: a
    /// hold that begins after the end would never be released.
    async fn hold(conn: &mut Conn, execution: &str) -> Outcome<()> {
        match executions::by_id(conn, execution).await? {
            Some(found) if !found.state.is_final() => {
                Ok(chunks::open_lease(conn, execution).await?)
            }
            _ => Err(Failure::refused("the execution has ended")),
        }
    }

    /// Images that are being exported now.
    fn exported(&self) -> HashSet<String> {
        let exporting = self
            .exporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        exporting.keys().cloned().collect()
    }

    /// Refuses what does not fit any more.
    ///
    /// # Errors
    /// `no-space` with both figures.
    pub fn room_for(&self, bytes: u64) -> Outcome<()> {
        let free = self.free_bytes()?;
        if bytes <= free {
            return Ok(());
        }
        let found = format!(
            "{bytes} bytes are needed, {free} are free in {} (beside the reserve of {} bytes)",
            self.dir.display(),
            self.reserve
        );
        Err(Failure::new(Code::NoSpace, found))
    }

    /// After a start: what was being written is dropped, what is missing is marked, and
    /// what is unknown is set aside.
    async fn recover(&self) -> Outcome<()> {
        let io = |e: std::io::Error| Failure::io("cleaning the image folder", &e);
        let mut tx = self.db.write().await?;
        chunks::seal(tx.conn(), None).await?;
        chunks::end_orphaned(tx.conn()).await?;
        for id in &crate::db::images::unpublished(tx.conn(), None).await? {
            // The file first: without its row it would be a stranger.
            if let Err(e) = std::fs::remove_file(self.manifest_path(id))
                && e.kind() != std::io::ErrorKind::NotFound
            {
                return Err(io(e));
            }
            crate::db::images::delete(tx.conn(), id).await?;
        }
        let known = chunks::packs(tx.conn()).await?;
        for (id, bytes) in &known {
            let there = match std::fs::metadata(self.packs.path(*id)) {
                Ok(metadata) => metadata.len(),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
                Err(e) => return Err(io(e)),
            };
            if there < *bytes {
                let lost = chunks::mark_pack_damaged(tx.conn(), *id, there).await?;
                if lost > 0 {
                    tracing::error!(
                        pack = id,
                        bytes,
                        there,
                        lost,
                        "a pack is shorter than it was"
                    );
                }
            }
        }
        tx.commit().await?;
        for path in self.packs.strangers(&known).map_err(io)? {
            owner::set_aside(&self.dir, &path).map_err(io)?;
        }
        self.clean_manifests().await?;
        self.release(crate::db::now()).await?;
        // Packs that died when the server ended before their files were deleted.
        self.collect().await.map(drop)
    }

    async fn clean_manifests(&self) -> Outcome<()> {
        let images = crate::db::images::all(&mut *self.db.read().await?).await?;
        let known: HashSet<PathBuf> = images
            .iter()
            .flat_map(|i| [self.manifest_path(&i.id), self.about_path(&i.id)])
            .collect();
        let io = |e: std::io::Error| Failure::io("cleaning the manifest folder", &e);
        for entry in std::fs::read_dir(self.dir.join("manifests")).map_err(io)? {
            let path = entry.map_err(io)?.path();
            let is = |wanted: &str| path.extension().is_some_and(|e| e == wanted);
            if is("new") {
                // Received in part, by name.
                std::fs::remove_file(&path).map_err(io)?;
            } else if (is("manifest") || is("about")) && !known.contains(&path) {
                owner::set_aside(&self.dir, &path).map_err(io)?;
            }
        }
        for image in images {
            if !self.about_path(&image.id).exists() {
                self.write_about(&image).await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
