//! Publishing: an image becomes visible, complete or not at all.
//!
//! Owns: the check of a manifest against the store, and the steps from a temporary file
//! to a visible image. Does not own: the format (`image::manifest`).
//!
//! References are stored some pages at a time, each time in a short transaction that sees
//! the chunks whole, so that no other machine waits for a large image; from then on garbage
//! collection leaves the chunks alone. The last transaction looks at all of them once
//! more and makes the image visible.

use super::Store;
use super::sign::sign;
use super::upload::BodyReader;
use crate::db::executions::{self, Execution};
use crate::db::{Conn, chunks, images};
use crate::failure::{Failure, Outcome};
use crate::secrets;
use axum::http::StatusCode;
use image::manifest::ManifestReader;
use image::{ChunkRef, Layout, Root};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;
use wire::{Code, DiskState, JobKind, Published, Report};

/// Longest manifest, in bytes: that of a full, fragmented disk of 16 TiB fits.
pub const MAX_MANIFEST_BYTES: u64 = 16 << 30;

/// References that one transaction stores: few enough that others hardly wait, so many
/// that making them durable costs little.
const REFERRED: usize = 16 * image::PAGE_CHUNKS;

impl Store {
    /// Checks the manifest in `body` and makes it the image of a backup. Said twice it
    /// gives the same image.
    ///
    /// # Errors
    /// `image-damaged` for a manifest that is not whole, that does not fit, or that names
    /// a chunk which is not stored; `image-exists`; `no-space`. Nothing is visible then.
    pub async fn publish(
        self: &Arc<Self>,
        execution: &Execution,
        machine_name: &str,
        body: BodyReader,
        now: i64,
    ) -> Outcome<Published> {
        // One at a time for each execution: a manifest that is sent again waits for the first.
        let turn = self.publishing(&execution.id);
        let _turn = turn.lock().await;
        if let Some(image) =
            images::by_execution(&mut *self.db.read().await?, &execution.id).await?
        {
            return Ok(Published {
                image: image.id,
                root: image.root,
            });
        }
        let JobKind::Backup { image: name, .. } = &execution.job else {
            return Err(Failure::refused("only a backup has a manifest to publish"));
        };
        let id = secrets::random_id().map_err(|e| Failure::io("random numbers", &e))?;
        let temporary = self.manifest_path(&id).with_extension("new");
        let result = self
            .publish_as(&id, name, execution, machine_name, body, &temporary, now)
            .await;
        if result.is_err() {
            // The database first: a row without its file would be worse than the reverse.
            self.forget(&id).await?;
            for path in [temporary, self.manifest_path(&id)] {
                let _ = tokio::fs::remove_file(path).await;
            }
        }
        result
    }

    #[allow(clippy::too_many_arguments)] // one call site; a struct would only rename them
    async fn publish_as(
        self: &Arc<Self>,
        id: &str,
        name: &str,
        execution: &Execution,
        machine_name: &str,
        body: BodyReader,
        temporary: &Path,
        now: i64,
    ) -> Outcome<Published> {
        let room = self.free_bytes()?;
        let (path, signer) = (temporary.to_owned(), self.signer.clone());
        let (layout, root) = tokio::task::spawn_blocking(move || {
            let received = receive(&path, room, body)?;
            if let Some(key) = signer {
                sign(&path, received.1.root, &key)?;
            }
            Outcome::Ok(received)
        })
        .await??;
        let new = images::Image {
            id: id.to_owned(),
            name: name.to_owned(),
            series: execution.series.clone().unwrap_or_else(|| name.to_owned()),
            machine: execution.machine.clone(),
            machine_name: machine_name.to_owned(),
            execution: execution.id.clone(),
            created: now,
            root: root.root.to_hex(),
            disk_bytes: layout.disk.size_bytes,
            used_bytes: root.plain_bytes,
            chunks: root.chunks,
            stored_bytes: 0,
            order: 0,
            pinned: false,
            damaged: false,
        };
        // A manifest that was sent before and given up leaves a row behind.
        self.forget_unpublished(&execution.id).await?;
        let mut tx = self.db.write().await?;
        images::insert_unpublished(tx.conn(), &new).await?;
        tx.commit().await?;
        let distinct = self.refer(&new, temporary).await?;
        let (from, to) = (temporary.to_owned(), self.manifest_path(id));
        tokio::task::spawn_blocking(move || {
            std::fs::rename(from, &to).and_then(|()| secrets::sync_dir(&to))
        })
        .await?
        .map_err(|e| Failure::io("putting the manifest in its place", &e))?;
        self.make_visible(&new, distinct, Some(&execution.id), now)
            .await?;
        self.describe(&new.id).await;
        tracing::info!(image = %new.id, name = %new.name, chunks = new.chunks, bytes = new.used_bytes, "image published");
        Ok(Published {
            image: new.id,
            root: new.root,
        })
    }

    /// The last step: all chunks are looked at once more, and from the end of the
    /// transaction on the image is there. An execution whose image it is must not be over.
    pub(super) async fn make_visible(
        &self,
        new: &images::Image,
        distinct: u64,
        execution: Option<&str>,
        now: i64,
    ) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        let (whole, damaged, bytes) = chunks::totals(tx.conn(), &new.id).await?;
        if damaged > 0 || whole != distinct {
            return Err(Failure::new(
                Code::ImageDamaged,
                format!("{damaged} chunks were found damaged while publishing"),
            ));
        }
        own_name(tx.conn(), &new.name, &new.machine).await?;
        images::publish(tx.conn(), &new.id, bytes, now).await?;
        if let Some(id) = execution {
            let Some(mut execution) = executions::by_id(tx.conn(), id)
                .await?
                .filter(|e| !e.state.is_final())
            else {
                return Err(Failure::refused("the execution has ended"));
            };
            execution.image = Some(new.id.clone());
            executions::update(tx.conn(), &execution).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Stores the references of a checked manifest and returns how many chunks differ.
    pub(super) async fn refer(self: &Arc<Self>, new: &images::Image, path: &Path) -> Outcome<u64> {
        let (store, image, path) = (Arc::clone(self), new.id.clone(), path.to_owned());
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let mut reader = open_manifest(&path)?;
            let mut waiting: Vec<ChunkRef> = Vec::new();
            while let Some(page) = reader.next_page()? {
                waiting.extend_from_slice(&page.chunks);
                if waiting.len() >= REFERRED {
                    runtime.block_on(store.refer_some(&image, &waiting))?;
                    waiting.clear();
                }
            }
            runtime.block_on(store.refer_some(&image, &waiting))?;
            runtime.block_on(async {
                let (whole, _, _) = chunks::totals(&mut *store.db.read().await?, &image).await?;
                Ok(whole)
            })
        })
        .await?
    }

    async fn refer_some(&self, image: &str, wanted: &[ChunkRef]) -> Outcome<()> {
        let names: Vec<_> = wanted.iter().map(|chunk| chunk.name).collect();
        let mut tx = self.db.write().await?;
        if !images::is_unpublished(tx.conn(), image).await? {
            return Err(Failure::refused("the execution has ended"));
        }
        // A large image takes its time, and nobody waits for it who has interrupted it.
        if images::is_interrupted(tx.conn(), image).await? {
            let found = "an operator interrupted the execution";
            let report = Report::new(Code::Interrupted, found, DiskState::NotInvolved);
            return Err(Failure {
                status: StatusCode::CONFLICT,
                report: Box::new(report),
            });
        }
        let found = chunks::find(tx.conn(), &names).await?;
        let mut rows = Vec::with_capacity(found.len());
        for chunk in wanted {
            let refuse = |why: &str| {
                Err(Failure::new(
                    Code::ImageDamaged,
                    format!("chunk {} {why}", chunk.name),
                ))
            };
            match found.get(&chunk.name) {
                None => return refuse("is not stored"),
                Some(place) if place.damaged => return refuse("is damaged in the store"),
                Some(place) if place.plain_len != chunk.plain_len => {
                    return refuse("has another length");
                }
                Some(place) => rows.push(place.seq),
            }
        }
        chunks::refer(tx.conn(), image, &rows).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whose turn it is to publish for an execution.
    fn publishing(&self, execution: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self
            .publishing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(execution).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        turns.insert(execution.to_owned(), Arc::downgrade(&turn));
        turn
    }

    pub(super) async fn forget(&self, image: &str) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        images::delete(tx.conn(), image).await?;
        Ok(tx.commit().await?)
    }

    async fn forget_unpublished(&self, execution: &str) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        images::delete_unpublished(tx.conn(), execution).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Refuses a name that another machine's images have.
pub(super) async fn own_name(conn: &mut Conn, name: &str, machine: &str) -> Outcome<()> {
    match images::other_owner(conn, name, machine).await? {
        None => Ok(()),
        Some(owner) => {
            let found = format!("the name \"{name}\" is that of an image of machine \"{owner}\"");
            Err(Failure::new(Code::ImageExists, found))
        }
    }
}

/// Opens a stored manifest.
pub(super) fn open_manifest(path: &Path) -> Outcome<ManifestReader<BufReader<File>>> {
    let file = File::open(path).map_err(|e| Failure::of_image_file(path, &e))?;
    Ok(ManifestReader::open(BufReader::with_capacity(
        1 << 20,
        file,
    ))?)
}

/// Writes the body to `path`, durable, and checks all of it.
fn receive(path: &PathBuf, room: u64, body: BodyReader) -> Outcome<(Layout, Root)> {
    let io = |e: &io::Error| Failure::io("writing a manifest", e);
    let limit = MAX_MANIFEST_BYTES.min(room);
    let mut file = File::create_new(path).map_err(|e| io(&e))?;
    let mut body = body.take(limit);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) => {
                return Err(Failure::new(
                    Code::ConnectionLost,
                    format!("the upload broke off: {e}"),
                ));
            }
        };
        file.write_all(&buffer[..count]).map_err(|e| io(&e))?;
    }
    if body.limit() == 0 {
        return Err(Failure::new(
            Code::NoSpace,
            format!("the manifest has more than {limit} bytes"),
        ));
    }
    file.sync_all().map_err(|e| io(&e))?;
    let mut reader = open_manifest(path)?;
    while reader.next_page()?.is_some() {}
    let root = reader
        .root()
        .ok_or_else(|| Failure::new(Code::ImageDamaged, "the manifest has no root"))?;
    Ok((reader.layout().clone(), root))
}
