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
        let all = self
            .publish_all(execution, machine_name, body, false, now)
            .await?;
        let only = all.into_iter().next();
        only.ok_or_else(|| Failure::new(Code::Internal, "nothing was published"))
    }

    /// As [`Store::publish`], for a backup of several disks: of each one, in order, the
    /// length of its manifest (8 bytes, little endian) and the manifest. All become visible
    /// in one transaction, or none.
    ///
    /// # Errors
    /// As [`Store::publish`].
    pub async fn publish_set(
        self: &Arc<Self>,
        execution: &Execution,
        machine_name: &str,
        body: BodyReader,
        now: i64,
    ) -> Outcome<Vec<Published>> {
        self.publish_all(execution, machine_name, body, true, now)
            .await
    }

    async fn publish_all(
        self: &Arc<Self>,
        execution: &Execution,
        machine_name: &str,
        body: BodyReader,
        as_set: bool,
        now: i64,
    ) -> Outcome<Vec<Published>> {
        // One at a time for each execution: a manifest that is sent again waits for the first.
        let turn = self.publishing(&execution.id);
        let _turn = turn.lock().await;
        let JobKind::Backup { disks, .. } = &execution.job else {
            return Err(Failure::refused("only a backup has a manifest to publish"));
        };
        if as_set == disks.is_empty() {
            return Err(Failure::refused(format!(
                "the backup is of {} disks, and its manifests came otherwise",
                disks.len().max(1)
            )));
        }
        let before = self.published(execution).await?;
        if !before.is_empty() {
            return Ok(before);
        }
        let mut ids = Vec::new();
        for _ in 0..disks.len().max(1) {
            ids.push(secrets::random_id().map_err(|e| Failure::io("random numbers", &e))?);
        }
        let result = self
            .publish_as(&ids, execution, machine_name, body, as_set, now)
            .await;
        if result.is_err() {
            for id in &ids {
                // The database first: a row without its file would be worse than the reverse.
                self.forget(id).await?;
                for path in [self.temporary(id), self.manifest_path(id)] {
                    let _ = tokio::fs::remove_file(path).await;
                }
            }
        }
        result
    }

    /// What the execution has published before.
    async fn published(&self, execution: &Execution) -> Outcome<Vec<Published>> {
        let mut conn = self.db.read().await?;
        let mut images = images::of_set(&mut conn, &execution.id).await?;
        if images.is_empty() {
            images.extend(images::by_execution(&mut conn, &execution.id).await?);
        }
        let published = images.into_iter().map(|image| Published {
            image: image.id,
            root: image.root,
        });
        Ok(published.collect())
    }

    fn temporary(&self, id: &str) -> PathBuf {
        self.manifest_path(id).with_extension("new")
    }

    async fn publish_as(
        self: &Arc<Self>,
        ids: &[String],
        execution: &Execution,
        machine_name: &str,
        body: BodyReader,
        as_set: bool,
        now: i64,
    ) -> Outcome<Vec<Published>> {
        let JobKind::Backup { image: name, .. } = &execution.job else {
            return Err(Failure::refused("only a backup has a manifest to publish"));
        };
        let room = self.free_bytes()?;
        let paths: Vec<PathBuf> = ids.iter().map(|id| self.temporary(id)).collect();
        let signer = self.signer.clone();
        let received = tokio::task::spawn_blocking(move || {
            let received = receive_all(&paths, room, body, as_set)?;
            if let Some(key) = signer {
                for (path, (_, root)) in paths.iter().zip(&received) {
                    sign(path, root.root, &key)?;
                }
            }
            Outcome::Ok(received)
        })
        .await??;
        // A manifest that was sent before and given up leaves a row behind.
        self.forget_unpublished(&execution.id).await?;
        let mut images = Vec::with_capacity(ids.len());
        for (part, (id, (layout, root))) in ids.iter().zip(received).enumerate() {
            let new = images::Image {
                id: id.clone(),
                name: name.clone(),
                series: execution.series.clone().unwrap_or_else(|| name.clone()),
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
                set: as_set.then(|| images::SetPart {
                    id: execution.id.clone(),
                    part: part as u32,
                    of: ids.len() as u32,
                }),
            };
            let mut tx = self.db.write().await?;
            images::insert_unpublished(tx.conn(), &new).await?;
            tx.commit().await?;
            let temporary = self.temporary(id);
            let distinct = self.refer(&new, &temporary).await?;
            let to = self.manifest_path(id);
            tokio::task::spawn_blocking(move || {
                std::fs::rename(temporary, &to).and_then(|()| secrets::sync_dir(&to))
            })
            .await?
            .map_err(|e| Failure::io("putting the manifest in its place", &e))?;
            images.push((new, distinct));
        }
        self.make_visible(&images, Some(&execution.id), now).await?;
        let mut published = Vec::with_capacity(images.len());
        for (new, _) in images {
            self.describe(&new.id).await;
            tracing::info!(image = %new.id, name = %new.name, chunks = new.chunks, bytes = new.used_bytes, "image published");
            published.push(Published {
                image: new.id,
                root: new.root,
            });
        }
        Ok(published)
    }

    /// The last step: all chunks are looked at once more, and from the end of the
    /// transaction on the images are there. An execution whose images they are must not be
    /// over. `all`: each image with the number of chunks that differ.
    pub(super) async fn make_visible(
        &self,
        all: &[(images::Image, u64)],
        execution: Option<&str>,
        now: i64,
    ) -> Outcome<()> {
        let Some((new, _)) = all.first() else {
            return Err(Failure::new(Code::Internal, "there is no image to publish"));
        };
        let mut tx = self.db.write().await?;
        let mut sizes = Vec::with_capacity(all.len());
        for (image, distinct) in all {
            let (whole, damaged, bytes) = chunks::totals(tx.conn(), &image.id).await?;
            if damaged > 0 || whole != *distinct {
                return Err(Failure::new(
                    Code::ImageDamaged,
                    format!("{damaged} chunks were found damaged while publishing"),
                ));
            }
            sizes.push((image.id.clone(), bytes));
        }
        own_name(tx.conn(), &new.name, &new.machine).await?;
        images::publish(tx.conn(), &sizes, now).await?;
        if let Some(id) = execution {
            let Some(mut execution) = executions::by_id(tx.conn(), id)
                .await?
                .filter(|e| !e.state.is_final())
            else {
                return Err(Failure::refused("the execution has ended"));
            };
            chunks::release_images(tx.conn(), id).await?;
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

/// Writes the manifests of a body to `paths`, durable, and checks all of them.
fn receive_all(
    paths: &[PathBuf],
    room: u64,
    mut body: BodyReader,
    as_set: bool,
) -> Outcome<Vec<(Layout, Root)>> {
    let damaged = |found: String| Failure::new(Code::ImageDamaged, found);
    let unread = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => damaged("the length of a manifest is missing".to_owned()),
        _ => broke_off(&e),
    };
    let mut received = Vec::with_capacity(paths.len());
    for path in paths {
        if !as_set {
            received.push(receive(path, room, &mut body)?);
            continue;
        }
        let mut length = [0; 8];
        body.read_exact(&mut length).map_err(unread)?;
        let mut part = (&mut body).take(u64::from_le_bytes(length));
        received.push(receive(path, room, &mut part)?);
        if part.limit() > 0 {
            return Err(damaged(format!("{} bytes are missing", part.limit())));
        }
    }
    match body.read(&mut [0]) {
        Ok(0) => Ok(received),
        Ok(_) => Err(damaged("something follows the last manifest".to_owned())),
        Err(e) => Err(broke_off(&e)),
    }
}

fn broke_off(e: &io::Error) -> Failure {
    Failure::new(Code::ConnectionLost, format!("the upload broke off: {e}"))
}

/// Writes the body to `path`, durable, and checks all of it.
fn receive(path: &PathBuf, room: u64, body: &mut dyn Read) -> Outcome<(Layout, Root)> {
    let io = |e: &io::Error| Failure::io("writing a manifest", e);
    let limit = MAX_MANIFEST_BYTES.min(room);
    let mut file = File::create_new(path).map_err(|e| io(&e))?;
    let mut body = body.take(limit);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(e) => return Err(broke_off(&e)),
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
