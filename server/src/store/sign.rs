//! The server's word for the images that it publishes.
//!
//! Owns: signing manifests, those of new images and those that were there before the key.
//! Does not own: the key ([`crate::secrets`]), what is signed (`image::signature`).

use super::Store;
use super::publish::open_manifest;
use crate::db::images;
use crate::failure::{Failure, Outcome};
use crate::secrets;
use image::signature::MAX_SIGNATURES;
use image::{Hash, Signature, SigningKey, sign};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Signs the manifest in a file that has not got its name yet, and makes it durable.
pub(super) fn sign(path: &Path, root: Hash, key: &SigningKey) -> Outcome<()> {
    let io = |e: std::io::Error| Failure::io("signing a manifest", &e);
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io)?;
    sign::add_to_manifest(&mut file, &key.sign(root))?;
    file.sync_all().map_err(io)
}

/// Adds the signatures that came with an image, and ours, to its manifest in a file that
/// has not got its name yet, and makes it durable. Where there is no room, ours stays out.
pub(super) fn add(path: &Path, came: &[Signature], ours: Option<Signature>) -> Outcome<()> {
    let io = |e: std::io::Error| Failure::io("signing a manifest", &e);
    let mut file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(io)?;
    let ours = ours.filter(|ours| {
        came.len() < MAX_SIGNATURES && came.iter().all(|other| other.key != ours.key)
    });
    for signature in came.iter().chain(&ours) {
        sign::add_to_manifest(&mut file, signature)?;
    }
    file.sync_all().map_err(io)
}

impl Store {
    /// Signs the images that were published before there was a signing key. One whose
    /// manifest is not the one that was published stays unsigned, and is told in the log.
    ///
    /// # Errors
    /// The database does not answer, or the image folder takes no file.
    pub async fn sign_all(self: &Arc<Self>) -> Outcome<()> {
        let Some(key) = self.signer.clone() else {
            return Ok(());
        };
        let all = images::all(&mut *self.db.read().await?).await?;
        for image in all {
            let (path, key, root) = (self.manifest_path(&image.id), Arc::clone(&key), image.root);
            let signed = tokio::task::spawn_blocking(move || sign_one(&path, &root, &key)).await?;
            match signed {
                Ok(()) => tracing::info!(image = %image.id, name = %image.name, "image signed"),
                Err(failure) => {
                    tracing::error!(image = %image.id, name = %image.name, error = %failure.report, "the image could not be signed");
                }
            }
        }
        Ok(())
    }
}

fn sign_one(path: &Path, root: &str, key: &SigningKey) -> Outcome<()> {
    let io = |e: std::io::Error| Failure::io("signing a manifest", &e);
    let mut reader = open_manifest(path)?;
    while reader.next_page()?.is_some() {}
    let found = reader.root().map(|found| found.root);
    let Some(found) = found.filter(|found| found.to_hex() == root) else {
        let found = "the manifest is not the one that was published";
        return Err(Failure::new(wire::Code::ImageDamaged, found));
    };
    if reader.signatures().iter().any(|s| s.key == key.public()) {
        return Ok(());
    }
    // `.new` files that a crash leaves behind are removed at the next start.
    let copy = path.with_extension("new");
    std::fs::copy(path, &copy).map_err(io)?;
    sign(&copy, found, key)?;
    std::fs::rename(&copy, path)
        .and_then(|()| secrets::sync_dir(path))
        .map_err(io)
}
