//! The index made anew from what lies in the image folder.
//!
//! Owns: which packs, manifests and names become an index again, and that nothing which
//! belongs to no image is lost over it. Does not own: reading packs ([`scan`]), the
//! ordinary start ([`super::Store::open`]).
//!
//! Everything happens in one transaction: until it is durable the database is as it was.
//! Every record is decoded and hashed; one that is damaged, and a chunk that is nowhere,
//! is entered as damaged, so that the next backup of a machine that has it brings it back.
//! Packs that no image needs go to `lost/`, like everything else that is not understood.

mod scan;

use super::about::{self, About};
use super::owner;
use super::publish::open_manifest;
use crate::db::chunks::{self, Place};
use crate::db::images::{self, Image, SetPart};
use crate::db::{Conn, Db, machines};
use crate::exec::registry;
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use image::manifest::Page;
use image::{Hash, Layout, Root};
use scan::{Scanned, scan};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use tokio::sync::mpsc;

/// An image that is visible again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Chunks that are damaged or nowhere.
    pub damaged: u64,
}

/// What a rebuild did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Packs that are in the index.
    pub packs: u64,
    /// Records that were read and hashed.
    pub records: u64,
    /// Of these, how many are not what they say.
    pub damaged_records: u64,
    /// Bytes of packs in which there is no record.
    pub lost_bytes: u64,
    /// Images.
    pub images: Vec<Recovered>,
    /// Files that went to `lost/`.
    pub set_aside: Vec<PathBuf>,
}

impl Rebuilt {
    /// Whether every image can be restored.
    pub fn is_whole(&self) -> bool {
        self.images.iter().all(|image| image.damaged == 0)
    }
}

/// Makes the index of the image folder `dir` anew.
///
/// # Errors
/// The database belongs to another folder; a file cannot be read; the database fails.
/// Nothing of the database is changed then.
pub async fn rebuild(dir: &Path, db: &Db) -> Outcome<Rebuilt> {
    let io = |e: std::io::Error| Failure::io(&format!("the image folder {}", dir.display()), &e);
    for folder in ["packs", "manifests"] {
        std::fs::create_dir_all(dir.join(folder)).map_err(io)?;
    }
    let mut tx = db.write().await?;
    owner::reclaim(dir, tx.conn()).await?;
    let before = images::all(tx.conn()).await?;
    chunks::clear(tx.conn()).await?;
    images::clear(tx.conn()).await?;
    let mut run = Run {
        dir: dir.to_owned(),
        result: Rebuilt::default(),
        strangers: Vec::new(),
        next_pack: 1,
    };
    let (kept, strays) = run.packs().map_err(io)?;
    run.next_pack = 1 + kept.keys().max().copied().unwrap_or(0);
    run.read_kept(tx.conn(), kept).await?;
    run.images(tx.conn(), before).await?;
    run.read_strays(tx.conn(), strays).await?;
    run.settle(tx.conn()).await?;
    for id in chunks::unreferenced_packs(tx.conn()).await? {
        chunks::drop_pack(tx.conn(), id).await?;
        run.strangers.push(run.pack_path(id));
        run.result.packs -= 1;
    }
    tx.commit().await?;
    for path in std::mem::take(&mut run.strangers) {
        owner::set_aside(dir, &path).map_err(io)?;
        run.result.set_aside.push(path);
    }
    Ok(run.result)
}

struct Run {
    dir: PathBuf,
    result: Rebuilt,
    /// Files that belong to nothing.
    strangers: Vec<PathBuf>,
    next_pack: i64,
}

impl Run {
    fn pack_path(&self, id: i64) -> PathBuf {
        self.dir.join("packs").join(format!("{id:08}.pack"))
    }

    /// Packs by number, and files that may be packs whose numbers others have by now.
    fn packs(&self) -> std::io::Result<(HashMap<i64, PathBuf>, Vec<PathBuf>)> {
        let (mut kept, mut strays) = (HashMap::new(), Vec::new());
        for path in files(&self.dir.join("packs"))? {
            let number = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok())
                .filter(|&id| id > 0 && self.pack_path(id) == path);
            match number {
                Some(id) => drop(kept.insert(id, path)),
                None => strays.push(path),
            }
        }
        let lost = files(&self.dir.join("lost"))?.into_iter();
        strays.extend(lost.filter(|path| name(path).contains(".pack")));
        strays.sort();
        Ok((kept, strays))
    }

    async fn read_kept(&mut self, conn: &mut Conn, kept: HashMap<i64, PathBuf>) -> Outcome<()> {
        let numbers: HashMap<PathBuf, i64> =
            kept.into_iter().map(|(id, path)| (path, id)).collect();
        let mut scanned = scan(numbers.keys().cloned().collect());
        while let Some(pack) = scanned.recv().await {
            let pack = pack?;
            self.count(&pack);
            match numbers.get(&pack.path) {
                Some(&id) if !pack.records.is_empty() => self.enter(conn, id, &pack).await?,
                _ => self.strangers.push(pack.path),
            }
        }
        Ok(())
    }

    fn count(&mut self, pack: &Scanned) {
        let damaged = pack.records.iter().filter(|record| !record.2).count();
        self.result.records += pack.records.len() as u64;
        self.result.damaged_records += damaged as u64;
        self.result.lost_bytes += pack.lost;
        if damaged > 0 || pack.lost > 0 {
            tracing::error!(pack = %pack.path.display(), damaged, lost_bytes = pack.lost, "a pack is damaged");
        }
    }

    /// Puts a pack and its chunks into the index.
    async fn enter(&mut self, conn: &mut Conn, id: i64, pack: &Scanned) -> Outcome<()> {
        chunks::insert_pack(conn, id, pack.length).await?;
        for (offset, header, whole) in &pack.records {
            let place = Place {
                seq: 0,
                pack: id,
                offset: *offset,
                stored_len: header.stored_len,
                plain_len: header.plain_len,
                damaged: !whole,
            };
            if *whole {
                chunks::insert_all(conn, &HashMap::from([(header.name, place)])).await?;
            } else {
                chunks::insert_damaged(conn, header.name, &place).await?;
            }
        }
        self.result.packs += 1;
        Ok(())
    }

    /// Packs with other names, and those in `lost/`, are taken back if they hold a chunk
    /// that an image lacks.
    async fn read_strays(&mut self, conn: &mut Conn, strays: Vec<PathBuf>) -> Outcome<()> {
        if chunks::hurt_images(conn).await?.is_empty() {
            return Ok(());
        }
        let mut scanned = scan(strays);
        while let Some(pack) = scanned.recv().await {
            // Anything may lie there, also what cannot be read.
            let Ok(mut pack) = pack else { continue };
            let names: Vec<_> = pack.records.iter().map(|record| record.1.name).collect();
            let known = chunks::find(conn, &names).await?;
            let lacking = |name: &Hash| known.get(name).is_some_and(|place| place.damaged);
            pack.records
                .retain(|(_, header, whole)| *whole && lacking(&header.name));
            if pack.records.is_empty() {
                continue;
            }
            let id = self.next_pack;
            self.next_pack += 1;
            // If the database cannot store the rest, the next start sets it aside again.
            std::fs::rename(&pack.path, self.pack_path(id))
                .and_then(|()| crate::secrets::sync_dir(&self.pack_path(id)))
                .map_err(|e| Failure::io(&pack.path.display().to_string(), &e))?;
            tracing::warn!(from = %pack.path.display(), pack = id, "a pack was taken back");
            self.count(&pack);
            self.enter(conn, id, &pack).await?;
        }
        Ok(())
    }

    async fn images(&mut self, conn: &mut Conn, before: Vec<Image>) -> Outcome<()> {
        let io = |e| Failure::io("the manifest folder", &e);
        let mut before: HashMap<String, Image> =
            before.into_iter().map(|i| (i.id.clone(), i)).collect();
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for folder in ["manifests", "lost"] {
            for path in files(&self.dir.join(folder)).map_err(io)? {
                let Some(id) = path.file_stem().and_then(|stem| stem.to_str()) else {
                    continue;
                };
                let about = about::read(&path.with_extension("about")).filter(|a| a.id == id);
                let lost = folder == "lost";
                // What was set aside without a word about it may never have been an image.
                if path.extension().is_none_or(|e| e != "manifest") || lost && about.is_none() {
                    continue;
                }
                if !seen.insert(id.to_owned()) {
                    continue;
                }
                match check(path.clone()).await {
                    Ok((layout, root)) => {
                        let image = match before.remove(id) {
                            Some(image) => (image, None),
                            None => described(id, about, &layout, &path),
                        };
                        found.push((image, path, layout, root));
                    }
                    Err(error) => {
                        tracing::error!(manifest = %path.display(), %error, "a manifest cannot be used");
                        if !lost {
                            self.strangers.push(path);
                        }
                    }
                }
            }
        }
        found.sort_by_key(|((image, _), ..)| (image.order, image.created));
        for ((mut image, about), path, layout, root) in found {
            if let Some(about) = about {
                image.machine = settle_machine(conn, &about, image.created).await?;
            }
            image.root = root.root.to_hex();
            image.disk_bytes = layout.disk.size_bytes;
            image.used_bytes = root.plain_bytes;
            image.chunks = root.chunks;
            image.damaged = false;
            let home = self
                .dir
                .join("manifests")
                .join(format!("{}.manifest", image.id));
            if path != home {
                for extension in ["manifest", "about"] {
                    let from = path.with_extension(extension);
                    std::fs::rename(from, home.with_extension(extension)).map_err(io)?;
                }
            }
            images::insert_unpublished(conn, &image).await?;
            let mut pages = pages(home);
            while let Some(page) = pages.recv().await {
                refer(conn, &image.id, &page?).await?;
            }
            images::publish(conn, &[(image.id.clone(), 0)], image.created).await?;
            self.result.images.push(Recovered {
                id: image.id,
                name: image.name,
                damaged: 0,
            });
        }
        Ok(())
    }

    /// Figures that are known when all packs are read.
    async fn settle(&mut self, conn: &mut Conn) -> Outcome<()> {
        for image in &mut self.result.images {
            let (_, damaged, bytes) = chunks::totals(conn, &image.id).await?;
            image.damaged = damaged;
            images::set_stored_bytes(conn, &image.id, bytes).await?;
        }
        Ok(())
    }
}

/// Ordinary files of a folder, which may be missing, in the order of their names.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default()
}

/// The row of an image that the database does not know.
fn described(
    id: &str,
    about: Option<About>,
    layout: &Layout,
    path: &Path,
) -> (Image, Option<About>) {
    let about = about.unwrap_or_else(|| {
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let seconds = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        let name = format!("recovered-{id}");
        About {
            id: id.to_owned(),
            series: name.clone(),
            name,
            execution: format!("recovered-{id}"),
            created: seconds.map_or(0, |s| crate::db::signed(s.as_secs())),
            machine: about::AboutMachine {
                name: layout.machine.name.clone(),
                ..Default::default()
            },
            ..About::default()
        }
    });
    let image = Image {
        id: about.id.clone(),
        name: about.name.clone(),
        series: about.series.clone(),
        machine: about.machine.id.clone(),
        machine_name: about.machine.name.clone(),
        execution: about.execution.clone(),
        created: about.created,
        root: String::new(),
        disk_bytes: 0,
        used_bytes: 0,
        chunks: 0,
        stored_bytes: 0,
        order: about.order,
        pinned: about.pinned,
        damaged: false,
        set: about
            .set
            .clone()
            .map(|(id, part, of)| SetPart { id, part, of }),
    };
    (image, Some(about))
}

/// The machine of an image: the one that is known, else one with the same cards, else it is
/// made anew. Without it the machine's next backup could not have the image's name.
async fn settle_machine(conn: &mut Conn, about: &About, now: i64) -> Outcome<String> {
    let machine = &about.machine;
    let identity = Identity::new(
        machine.macs.iter().map(String::as_str),
        &machine.uuid,
        &machine.serial,
    );
    let nobody = machine.id.is_empty() || (identity.macs.is_empty() && identity.uuid.is_none());
    if nobody || machines::by_id(conn, &machine.id).await?.is_some() {
        return Ok(machine.id.clone());
    }
    if machines::candidates(conn, &identity).await?.is_empty() {
        let name = registry::free_name(conn, &machine.name).await?;
        machines::insert(conn, &machine.id, &name, &identity, now).await?;
        return Ok(machine.id.clone());
    }
    Ok(match registry::register(conn, &identity, now).await? {
        Ok(known) => known.id,
        Err(_) => machine.id.clone(),
    })
}

/// Reads a manifest to its end.
async fn check(path: PathBuf) -> Outcome<(Layout, Root)> {
    tokio::task::spawn_blocking(move || {
        let mut reader = open_manifest(&path)?;
        while reader.next_page()?.is_some() {}
        let root = reader
            .root()
            .ok_or_else(|| Failure::internal("a manifest without a root"))?;
        Ok((reader.layout().clone(), root))
    })
    .await?
}

/// The pages of a manifest.
fn pages(path: PathBuf) -> mpsc::Receiver<Outcome<Page>> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let send = |page| sender.blocking_send(page).is_ok();
        let mut reader = match open_manifest(&path) {
            Ok(reader) => reader,
            Err(failure) => {
                send(Err(failure));
                return;
            }
        };
        loop {
            let page = match reader.next_page() {
                Ok(Some(page)) => Ok(page),
                Ok(None) => return,
                Err(error) => Err(error.into()),
            };
            let broken = page.is_err();
            if !send(page) || broken {
                return;
            }
        }
    });
    receiver
}

/// Stores the references of a page; chunks that are nowhere are entered as damaged.
async fn refer(conn: &mut Conn, image: &str, page: &Page) -> Outcome<()> {
    let names: Vec<_> = page.chunks.iter().map(|chunk| chunk.name).collect();
    let found = chunks::find(conn, &names).await?;
    for chunk in &page.chunks {
        if !found.contains_key(&chunk.name) {
            let nowhere = Place {
                seq: 0,
                pack: 0,
                offset: 0,
                stored_len: 0,
                plain_len: chunk.plain_len,
                damaged: true,
            };
            chunks::insert_damaged(conn, chunk.name, &nowhere).await?;
        }
    }
    let rows: Vec<i64> = chunks::find(conn, &names)
        .await?
        .values()
        .map(|place| place.seq)
        .collect();
    Ok(chunks::refer(conn, image, &rows).await?)
}
