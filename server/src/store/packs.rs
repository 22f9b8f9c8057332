//! Open pack files.
//!
//! Owns: which packs are being written, by one upload each, and their files. Does not
//! own: their index (the database).

use crate::db::{Db, chunks};
use crate::failure::{Failure, Outcome};
use image::pack::PackWriter;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A pack of this length or more gets no further records, in bytes.
pub(super) const PACK_BYTES: u64 = 256 << 20;

/// A pack that one upload writes to.
pub(super) struct OpenPack {
    pub(super) id: i64,
    pub(super) writer: PackWriter,
}

/// Packs that are open and not in use. An upload takes one, or makes a new one, so that
/// parallel uploads never wait for each other.
pub(super) struct PackPool {
    dir: PathBuf,
    idle: Mutex<Vec<OpenPack>>,
    /// Numbers are never used twice while the server runs: a file is deleted after the
    /// row of its pack is gone.
    next: AtomicI64,
}

impl PackPool {
    pub(super) fn new(dir: PathBuf) -> Self {
        PackPool {
            dir,
            idle: Mutex::new(Vec::new()),
            next: AtomicI64::new(1),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<OpenPack>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn path(&self, id: i64) -> PathBuf {
        self.dir.join(format!("{id:08}.pack"))
    }

    /// A pack to write to.
    pub(super) async fn take(&self, db: &Db) -> Outcome<OpenPack> {
        if let Some(pack) = self.idle().pop() {
            return Ok(pack);
        }
        let mut tx = db.write().await?;
        let id = chunks::new_pack(tx.conn(), self.next.load(Ordering::Relaxed)).await?;
        tx.commit().await?;
        self.next.fetch_max(id + 1, Ordering::Relaxed);
        let path = self.path(id);
        let writer =
            create(&path).map_err(|e| Failure::io(&format!("making {}", path.display()), &e))?;
        Ok(OpenPack { id, writer })
    }

    /// Takes a pack back, or closes it if it is full.
    pub(super) async fn give_back(&self, db: &Db, pack: OpenPack) -> Outcome<()> {
        if pack.writer.len() < PACK_BYTES {
            self.idle().push(pack);
            return Ok(());
        }
        self.close(db, pack).await
    }

    /// Closes a pack: nobody will write to it any more.
    pub(super) async fn close(&self, db: &Db, pack: OpenPack) -> Outcome<()> {
        let mut tx = db.write().await?;
        chunks::seal(tx.conn(), Some(pack.id)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Closes all packs that are not in use and returns their numbers.
    pub(super) fn close_idle(&self) -> Vec<i64> {
        self.idle().drain(..).map(|pack| pack.id).collect()
    }

    /// Pack files that are not in the list.
    pub(super) fn strangers(&self, known: &[(i64, u64)]) -> io::Result<Vec<PathBuf>> {
        let known: HashSet<PathBuf> = known.iter().map(|(id, _)| self.path(*id)).collect();
        let mut strangers = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "pack") && !known.contains(&path) {
                strangers.push(path);
            }
        }
        Ok(strangers)
    }
}

fn create(path: &Path) -> io::Result<PackWriter> {
    let writer = PackWriter::create(path)?;
    // The records are only as durable as the file's name.
    crate::secrets::sync_dir(path)?;
    Ok(writer)
}
