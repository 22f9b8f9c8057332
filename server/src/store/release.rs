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

    /// Deletes an image, with the others of its set.
    ///
    /// # Errors
    /// An unfinished execution restores it, it is exported or pinned, or the database fails.
    pub async fn delete(&self, id: &str) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        let mut ids = vec![id.to_owned()];
        if let Some(set) = images::by_id(tx.conn(), id).await?.and_then(|i| i.set) {
            let set = images::of_set(tx.conn(), &set.id).await?;
            ids = set.into_iter().map(|image| image.id).collect();
        }
        for execution in executions::all_open(tx.conn()).await? {
            let reads = match &execution.job {
                JobKind::Restore { image, set, .. } => {
                    ids.contains(image) || set.iter().any(|part| ids.contains(&part.image))
                }
                _ => false,
            };
            if reads && !execution.state.is_final() {
                return Err(
                    Failure::conflict("an unfinished execution restores this image")
                        .with_advice("Wait for its end, or interrupt it."),
                );
            }
        }
        if ids.iter().any(|id| self.exported().contains(id)) {
            return Err(Failure::conflict("the image is being exported")
                .with_advice("Wait for the end of the export."));
        }
        for id in &ids {
            let image = images::by_id(tx.conn(), id).await?;
            if image.is_some_and(|image| image.pinned) {
                return Err(Failure::conflict("the image is pinned")
                    .with_advice("Let it go first: deployctl images unpin"));
            }
        }
        for id in &ids {
            images::delete(tx.conn(), id).await?;
        }
        tx.commit().await?;
        for id in &ids {
            self.remove_files(id).await;
            tracing::info!(image = %id, "image deleted");
        }
        self.collect().await.map(drop)
    }
}
