//! Giving space back.
//!
//! Owns: expired holds, deletion of images, removal of packs that nothing holds. Does
//! not own: who may delete. A pack that is dead in part is another module's work
//! ([`super::compact`]).

use super::Store;
use crate::db::{chunks, executions, images};
use crate::failure::{Failure, Outcome};
use wire::JobKind;

impl Store {
    /// Drops holds whose end has come, and what they alone held.
    ///
    /// # Errors
    /// The database or the folder cannot be used.
    pub async fn release(&self, now: i64) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        let dropped = chunks::drop_expired(tx.conn(), now).await?;
        tx.commit().await?;
        if dropped > 0 {
            self.collect().await.map(drop)
        } else {
            Ok(())
        }
    }

    /// Removes packs that nothing refers to or holds, and returns how many.
    ///
    /// # Errors
    /// The database or the folder cannot be used.
    pub async fn collect(&self) -> Outcome<usize> {
        let mut tx = self.db.write().await?;
        for id in self.packs.close_idle() {
            chunks::seal(tx.conn(), Some(id)).await?;
        }
        let mut dead = chunks::empty_dead_packs(tx.conn()).await?;
        tx.commit().await?;
        dead.retain(|id| match std::fs::remove_file(self.packs.path(*id)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                // Its row stays, so that it is tried again.
                tracing::warn!(pack = id, error = %e, "a dead pack could not be deleted");
                false
            }
            _ => {
                tracing::info!(pack = id, "dead pack deleted");
                true
            }
        });
        if !dead.is_empty() {
            let mut tx = self.db.write().await?;
            chunks::forget_packs(tx.conn(), &dead).await?;
            tx.commit().await?;
        }
        Ok(dead.len())
    }

    /// Keeps an image until it is unpinned, or lets it go again.
    ///
    /// # Errors
    /// The database or the folder cannot be used.
    pub async fn pin(&self, id: &str, pinned: bool) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        images::set_pinned(tx.conn(), id, pinned).await?;
        tx.commit().await?;
        self.describe(id).await;
        tracing::info!(image = %id, pinned, "image pinned or unpinned");
        Ok(())
    }

    /// Removes the files of an image that the database does not know any more.
    pub(super) async fn remove_files(&self, id: &str) {
        // A manifest without its name would be found again by a rebuild of the index.
        for path in [self.manifest_path(id), self.about_path(id)] {
            let _ = tokio::fs::remove_file(path).await;
        }
    }

    /// Deletes an image.
    ///
    /// # Errors
    /// An unfinished execution restores it, it is exported or pinned, or the database fails.
    pub async fn delete(&self, id: &str) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        for execution in executions::all_open(tx.conn()).await? {
            let reads = matches!(&execution.job, JobKind::Restore { image, .. } if image == id);
            if reads && !execution.state.is_final() {
                return Err(
                    Failure::conflict("an unfinished execution restores this image")
                        .with_advice("Wait for its end, or interrupt it."),
                );
            }
        }
        if self.exported().contains(id) {
            return Err(Failure::conflict("the image is being exported")
                .with_advice("Wait for the end of the export."));
        }
        if images::by_id(tx.conn(), id)
            .await?
            .is_some_and(|i| i.pinned)
        {
            return Err(Failure::conflict("the image is pinned")
                .with_advice("Let it go first: deployctl images unpin"));
        }
        images::delete(tx.conn(), id).await?;
        tx.commit().await?;
        self.remove_files(id).await;
        tracing::info!(image = %id, "image deleted");
        self.collect().await.map(drop)
    }
}
