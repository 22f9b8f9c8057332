//! "Have": which chunks need not be sent.
//!
//! Owns: the answer and the hold that goes with it. Does not own: who may ask. To a
//! running backup the answer tells whether somebody stored a chunk before; that is what
//! deduplication across machines costs. It gives no way to read the chunk.

use super::Store;
use crate::db::chunks;
use crate::failure::Outcome;
use image::Hash;

impl Store {
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
