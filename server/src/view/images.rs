//! Images as operators see them.
//!
//! Owns: their shape. Does not own: where they are kept (`db`, `store`).

use crate::db::images::Image;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// An image.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ImageView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// The name means this one.
    pub newest: bool,
    /// Machine that was backed up.
    pub machine: String,
    /// When it was published.
    pub created: i64,
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// Used bytes.
    pub used_bytes: u64,
    /// Bytes of its records, shared ones included.
    pub stored_bytes: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Root hash, hex.
    pub root: String,
    /// The name as it was ordered.
    #[serde(default)]
    pub series: String,
    /// It stays until it is unpinned.
    #[serde(default)]
    pub pinned: bool,
    /// Chunks that are known to be damaged.
    #[serde(default)]
    pub damaged_chunks: u64,
    /// Its manifest is damaged.
    #[serde(default)]
    pub damaged_manifest: bool,
    /// Id of the set that it belongs to: the images of one backup of several disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set: Option<String>,
    /// Its position in the set, from 0.
    #[serde(default)]
    pub part: u32,
}

impl ImageView {
    /// Whether something of it is known to be damaged.
    pub fn is_damaged(&self) -> bool {
        self.damaged_manifest || self.damaged_chunks > 0
    }
}

/// Images as operators see them; `images` have the newest of a name first.
/// `hurt` is how many chunks of an image are damaged.
pub fn images(images: Vec<Image>, hurt: &HashMap<String, u64>) -> Vec<ImageView> {
    // Name and set of the newest of a name.
    let mut last: Option<(String, Option<String>)> = None;
    images
        .into_iter()
        .map(|i| {
            let set = i.set.as_ref().map(|set| set.id.clone());
            let newest = match &last {
                Some((name, newest)) if *name == i.name => set.is_some() && set == *newest,
                _ => {
                    last = Some((i.name.clone(), set));
                    true
                }
            };
            let hurt = hurt.get(&i.id).copied().unwrap_or(0);
            image(i, newest, hurt)
        })
        .collect()
}

/// An image as operators see it.
pub fn image(i: Image, newest: bool, damaged_chunks: u64) -> ImageView {
    ImageView {
        id: i.id,
        name: i.name,
        newest,
        machine: i.machine_name,
        created: i.created,
        disk_bytes: i.disk_bytes,
        used_bytes: i.used_bytes,
        stored_bytes: i.stored_bytes,
        chunks: i.chunks,
        root: i.root,
        series: i.series,
        pinned: i.pinned,
        damaged_chunks,
        damaged_manifest: i.damaged,
        part: i.set.as_ref().map_or(0, |set| set.part),
        set: i.set.map(|set| set.id),
    }
}
