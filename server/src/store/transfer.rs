//! Images as single files, to and from other servers.
//!
//! Owns: an export's hold on its image, and an import's steps, which are those of a backup:
//! every record decoded and hashed, the image visible whole or not at all. Does not own:
//! the format (`image::assemble`, `image::container`).

use super::Store;
use super::ingest::Ingest;
use super::publish::{open_manifest, own_name};
use super::sign;
use super::upload::BodyReader;
use crate::db::images::{self, Image};
use crate::db::{Conn, chunks, machines};
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use crate::secrets;
use axum::body::Bytes;
use image::assemble::Assembler;
use image::container::{ContainerReader, Event};
use image::{ChunkRef, Hash, Layout, Root};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use wire::Code;

/// Parts of an export on their way to the network, and their length in bytes.
const AHEAD: usize = 4;
const PART_BYTES: usize = 256 << 10;

/// An image that is being exported is not deleted.
struct Exporting {
    store: Arc<Store>,
    image: String,
}

impl Exporting {
    fn begin(store: &Arc<Store>, image: &str) -> Self {
        let mut exporting = store
            .exporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *exporting.entry(image.to_owned()).or_default() += 1;
        Exporting {
            store: Arc::clone(store),
            image: image.to_owned(),
        }
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        let exporting = self.store.exporting.lock();
        let mut exporting = exporting.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = exporting.get_mut(&self.image) {
            *count -= 1;
            if *count == 0 {
                exporting.remove(&self.image);
            }
        }
    }
}

/// Writes into a channel.
struct Parts(mpsc::Sender<io::Result<Bytes>>);

impl Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// The image as a container; an error ends it early.
    ///
    /// # Errors
    /// `image-damaged` if it is known to be damaged.
    pub async fn export(
        self: &Arc<Self>,
        image: &Image,
    ) -> Outcome<mpsc::Receiver<io::Result<Bytes>>> {
        let guard = Exporting::begin(self, &image.id);
        let mut conn = self.db.read().await?;
        if images::by_id(&mut conn, &image.id).await?.is_none() {
            return Err(Failure::new(
                Code::ImageNotFound,
                "the image was just deleted",
            ));
        }
        let (_, damaged, _) = chunks::totals(&mut conn, &image.id).await?;
        drop(conn);
        if damaged > 0 || image.damaged {
            let found = match image.damaged {
                true => format!("the manifest of image \"{}\" is damaged", image.name),
                false => format!("{damaged} chunks of image \"{}\" are damaged", image.name),
            };
            return Err(Failure::new(Code::ImageDamaged, found));
        }
        let (sender, parts) = mpsc::channel(AHEAD);
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || {
            let result = assemble(&guard, &runtime, sender.clone());
            if let Err(failure) = result {
                tracing::error!(image = %guard.image, %failure, "an export breaks off");
                let _ = sender.blocking_send(Err(io::Error::other(failure.report.found)));
            }
        });
        Ok(parts)
    }

    /// Takes a container as an image called `name`. It belongs to the machine that was
    /// backed up if this server knows it.
    ///
    /// # Errors
    /// `image-damaged`, `image-exists`, `no-space`; nothing is visible then.
    pub async fn import(
        self: &Arc<Self>,
        name: &str,
        length: Option<u64>,
        body: BodyReader,
        now: i64,
    ) -> Outcome<Image> {
        self.room_for(length.unwrap_or(0))?;
        let random = |e| Failure::io("random numbers", &e);
        let id = secrets::random_id().map_err(random)?;
        let holder = format!("import-{id}");
        let mut tx = self.db.write().await?;
        chunks::open_lease(tx.conn(), &holder).await?;
        tx.commit().await?;
        let result = self.import_as(&id, &holder, name, body, now).await;
        if result.is_err() {
            self.forget(&id).await?;
            self.remove_files(&id).await;
            let _ = tokio::fs::remove_file(self.manifest_path(&id).with_extension("new")).await;
        }
        let mut tx = self.db.write().await?;
        chunks::end_lease(tx.conn(), &holder, now).await?;
        tx.commit().await?;
        self.release(now).await?;
        result
    }

    async fn import_as(
        self: &Arc<Self>,
        id: &str,
        holder: &str,
        name: &str,
        body: BodyReader,
        now: i64,
    ) -> Outcome<Image> {
        let temporary = self.manifest_path(id).with_extension("new");
        let work = Import {
            store: Arc::clone(self),
            holder: holder.to_owned(),
            name: name.to_owned(),
            temporary: temporary.clone(),
            runtime: Handle::current(),
        };
        let (layout, root) = tokio::task::spawn_blocking(move || work.run(body)).await??;
        let new = Image {
            id: id.to_owned(),
            name: name.to_owned(),
            series: name.to_owned(),
            machine: machine_of(&mut *self.db.read().await?, &layout).await?,
            machine_name: layout.machine.name.clone(),
            execution: holder.to_owned(),
            created: now,
            root: root.root.to_hex(),
            disk_bytes: layout.disk.size_bytes,
            used_bytes: root.plain_bytes,
            chunks: root.chunks,
            stored_bytes: 0,
            order: 0,
            pinned: false,
            damaged: false,
            set: None,
        };
        let mut tx = self.db.write().await?;
        images::insert_unpublished(tx.conn(), &new).await?;
        tx.commit().await?;
        let distinct = self.refer(&new, &temporary).await?;
        let to = self.manifest_path(id);
        tokio::task::spawn_blocking(move || {
            std::fs::rename(&temporary, &to).and_then(|()| secrets::sync_dir(&to))
        })
        .await?
        .map_err(|e| Failure::io("putting the manifest in its place", &e))?;
        let all = [(new, distinct)];
        self.make_visible(&all, None, now).await?;
        self.describe(id).await;
        let [(new, _)] = &all;
        tracing::info!(image = %id, %name, chunks = new.chunks, bytes = new.used_bytes, "image imported");
        images::by_id(&mut *self.db.read().await?, id)
            .await?
            .ok_or_else(|| Failure::internal("the image vanished while it was imported"))
    }
}

/// The machine whose UUID the layout names; empty if there is none.
async fn machine_of(conn: &mut Conn, layout: &Layout) -> Outcome<String> {
    let identity = Identity::new([], &layout.machine.uuid, "");
    if identity.uuid.is_none() {
        return Ok(String::new());
    }
    let found = machines::candidates(conn, &identity).await?;
    Ok(found.into_iter().next().map(|m| m.id).unwrap_or_default())
}

/// Writes the container of an image.
fn assemble(
    guard: &Exporting,
    runtime: &Handle,
    sender: mpsc::Sender<io::Result<Bytes>>,
) -> Outcome<()> {
    let store = &guard.store;
    let path = store.manifest_path(&guard.image);
    let file = File::open(&path).map_err(|e| Failure::of_image_file(&path, &e))?;
    let mut assembler = Assembler::open(
        io::BufReader::with_capacity(1 << 20, file),
        BufWriter::with_capacity(PART_BYTES, Parts(sender)),
    )?;
    let mut files = HashMap::new();
    while let Some(wanted) = assembler.next_page()? {
        let names: Vec<Hash> = wanted.iter().map(|chunk| chunk.name).collect();
        let places =
            runtime.block_on(async { chunks::find(&mut *store.db.read().await?, &names).await })?;
        for ChunkRef { name, .. } in &wanted {
            let mut place = places.get(name).copied().ok_or_else(|| {
                Failure::new(
                    Code::ImageDamaged,
                    format!("chunk {name} is not in the store"),
                )
            })?;
            match store.read_following(runtime, &mut files, *name, &mut place) {
                Ok((header, payload)) => assembler.record(&header, &payload)?,
                Err(error) => {
                    if matches!(error, image::Error::Damaged { .. }) {
                        runtime.block_on(store.set_damaged(&place, true))?;
                    }
                    return Err(error.into());
                }
            }
        }
    }
    Ok(())
}

/// The blocking part of an import.
struct Import {
    store: Arc<Store>,
    holder: String,
    name: String,
    temporary: PathBuf,
    runtime: Handle,
}

impl Import {
    /// Stores the records and the manifest, both durable, and checks all of it.
    fn run(self, body: BodyReader) -> Outcome<(Layout, Root)> {
        let io = |e: &io::Error| Failure::io("writing a manifest", e);
        let manifest = File::create_new(&self.temporary).map_err(|e| io(&e))?;
        let mut reader = ContainerReader::open_copying(
            io::BufReader::with_capacity(1 << 20, body),
            BufWriter::with_capacity(1 << 20, manifest),
        )?;
        // Before hours of sending.
        self.runtime.block_on(async {
            let mut conn = self.store.db.read().await?;
            let machine = machine_of(&mut conn, reader.layout()).await?;
            own_name(&mut conn, &self.name, &machine).await
        })?;
        let mut ingest = Ingest::new(
            Arc::clone(&self.store),
            self.holder.clone(),
            self.runtime.clone(),
        )
        .unasked();
        let result = records(&mut reader, &mut ingest);
        // Also after an error: a pack must not stay open.
        let ended = ingest.finish();
        let root = result?;
        ended?;
        let ours = self.store.signer.as_ref().map(|key| key.sign(root.root));
        sign::add(&self.temporary, reader.signatures(), ours)?;
        let layout = check(&self.temporary, root)?;
        Ok((layout, root))
    }
}

fn records(
    reader: &mut ContainerReader<io::BufReader<BodyReader>>,
    ingest: &mut Ingest,
) -> Outcome<Root> {
    let (mut payload, mut record) = (Vec::new(), Vec::new());
    loop {
        match reader.next_event(&mut payload) {
            Ok(Event::Page(_)) => {}
            Ok(Event::Record { header, offset }) => {
                record.clear();
                record.extend_from_slice(&header.encode());
                record.extend_from_slice(&payload);
                ingest.record(&header, &record, offset)?;
                if ingest.is_full() {
                    ingest.flush()?;
                }
            }
            Ok(Event::End(root)) => return Ok(root),
            Err(image::Error::Io { operation, source }) if operation != "writing the manifest" => {
                return Err(Failure::new(
                    Code::ConnectionLost,
                    format!("the upload broke off: {source}"),
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads the manifest that was written; it is the container's.
fn check(path: &Path, root: Root) -> Outcome<Layout> {
    let mut reader = open_manifest(path)?;
    while reader.next_page()?.is_some() {}
    if reader.root() == Some(root) {
        return Ok(reader.layout().clone());
    }
    Err(Failure::internal(
        "the manifest of an import is another one",
    ))
}
