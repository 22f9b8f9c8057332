//! "Have": which chunks need not be sent, asked for or told beforehand.
//!
//! Owns: the answers and the holds that go with them. Does not own: who may ask. To a
//! running backup the answer tells whether somebody stored a chunk before; that is what
//! deduplication across machines costs. It gives no way to read the chunk.

use super::Store;
use crate::db::executions::Execution;
use crate::db::{chunks, images};
use crate::failure::Outcome;
use axum::body::Bytes;
use image::Hash;
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;
use wire::MAX_BASE_HASHES;

/// Names that are read and sent at once.
const NAMES: i64 = 4096;

impl Store {
    /// Names of the chunks of the machine's newest image, which the backup will mostly need
    /// again: a disk of a terabyte that has not changed would ask a million times else. They
    /// are held for the execution from now on.
    ///
    /// # Errors
    /// The database fails.
    pub async fn base(
        self: &Arc<Self>,
        execution: &Execution,
    ) -> Outcome<mpsc::Receiver<io::Result<Bytes>>> {
        let mut tx = self.db.write_quickly().await?;
        let series = execution.series.as_deref();
        let images = images::newest_of(tx.conn(), &execution.machine, series).await?;
        if !images.is_empty() {
            Store::hold(tx.conn(), &execution.id).await?;
        }
        for image in &images {
            chunks::hold_image(tx.conn(), &execution.id, image).await?;
        }
        tx.commit().await?;
        let (sender, names) = mpsc::channel(1);
        let store = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = store.send_names(&images, &sender).await {
                let _ = sender.send(Err(io::Error::other(error))).await;
            }
        });
        Ok(names)
    }

    async fn send_names(
        &self,
        images: &[String],
        to: &mpsc::Sender<io::Result<Bytes>>,
    ) -> Result<(), sqlx::Error> {
        let mut left = MAX_BASE_HASHES;
        for image in images {
            let mut after = 0;
            loop {
                // The connection is not kept while a slow target reads.
                let mut conn = self.db.read().await?;
                let found = chunks::names_of_image(&mut conn, image, after, NAMES).await?;
                drop(conn);
                let Some((last, _)) = found.last() else { break };
                after = *last;
                let names = found.iter().take(left).flat_map(|(_, name)| name.0);
                let names: Vec<u8> = names.collect();
                left = left.saturating_sub(found.len());
                if to.send(Ok(names.into())).await.is_err() || left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Bitmap of those chunks that are durable and undamaged, bit i (LSB first) for
    /// `wanted[i]`. They are held for the execution from now on.
    ///
    /// # Errors
    /// The database fails.
    pub async fn have(&self, execution: &str, wanted: &[Hash]) -> Outcome<Vec<u8>> {
        let mut bitmap = vec![0u8; wanted.len().div_ceil(8)];
        // A hold that a power cut takes back costs at most a refusal: publishing looks at
        // every chunk again. To wait for the disk at every question costs a third of the
        // time of a backup that has nothing to send.
        let mut tx = self.db.write_quickly().await?;
        let found = chunks::find(tx.conn(), wanted).await?;
        let mut held: Vec<i64> = Vec::with_capacity(found.len());
        for (at, name) in wanted.iter().enumerate() {
            if let Some(place) = found.get(name).filter(|place| !place.damaged) {
                if let Some(byte) = bitmap.get_mut(at / 8) {
                    *byte |= 1 << (at % 8);
                }
                held.push(place.seq);
            }
        }
        if !held.is_empty() {
            Store::hold(tx.conn(), execution).await?;
            chunks::pin(tx.conn(), execution, &held).await?;
        }
        tx.commit().await?;
        Ok(bitmap)
    }
}
