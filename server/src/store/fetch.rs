//! Reading records back for a restore.
//!
//! Owns: that only chunks of the execution's image are given out, each checked on its
//! way. Does not own: HTTP.

use super::Store;
use crate::db::chunks::{self, Place};
use crate::failure::{Failure, Outcome};
use axum::body::Bytes;
use image::record::{HEADER_LEN, RecordHeader};
use image::{Hash, pack};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use wire::Code;

/// Bytes of a record that are sent at once: what waits for a slow target is this small.
const PIECE: usize = 64 << 10;
/// Pieces on their way to the network.
const PIECES_AHEAD: usize = 1;

/// Records that are about to be sent.
pub struct Records {
    /// Their length in bytes.
    pub bytes: u64,
    /// The records; an error ends the answer early, which the target notices.
    pub frames: mpsc::Receiver<io::Result<Bytes>>,
}

impl Store {
    /// The records of `wanted`, in this order. All must be chunks of `image`.
    ///
    /// # Errors
    /// `server-refused` for a chunk of no or another image, `image-damaged` for one that
    /// is known to be damaged.
    pub async fn fetch(self: &Arc<Self>, image: &str, wanted: &[Hash]) -> Outcome<Records> {
        let found = chunks::find_in_image(&mut *self.db.read().await?, image, wanted).await?;
        let mut places = Vec::with_capacity(wanted.len());
        for name in wanted {
            match found.get(name) {
                None => {
                    return Err(Failure::refused(format!(
                        "chunk {name} does not belong to the image"
                    )));
                }
                Some(place) if place.damaged => {
                    let found = format!(
                        "the record of chunk {name} in pack {} at byte {} is damaged",
                        place.pack, place.offset
                    );
                    return Err(Failure::new(Code::ImageDamaged, found));
                }
                Some(place) => places.push((*name, *place)),
            }
        }
        let bytes = places
            .iter()
            .map(|(_, place)| HEADER_LEN as u64 + u64::from(place.stored_len))
            .sum();
        let (sender, frames) = mpsc::channel(PIECES_AHEAD);
        let store = Arc::clone(self);
        let runtime = Handle::current();
        let permit = Arc::clone(&self.fetches).acquire_owned().await;
        let permit = permit.map_err(|_| Failure::later("the server stops"))?;
        tokio::task::spawn_blocking(move || {
            send(&store, &runtime, &places, &sender);
            drop(permit);
        });
        Ok(Records { bytes, frames })
    }

    /// Notes that a record is damaged, or whole after all.
    pub(super) async fn set_damaged(&self, place: &Place, damaged: bool) -> Outcome<()> {
        let mut tx = self.db.write().await?;
        chunks::set_damaged(tx.conn(), place, damaged).await?;
        Ok(tx.commit().await?)
    }

    /// Reads and checks one record; the payload's checksum stands for its bytes, since
    /// they were rehashed before they were stored.
    pub(super) fn read(
        &self,
        files: &mut HashMap<i64, File>,
        name: Hash,
        place: &Place,
    ) -> Result<(RecordHeader, Vec<u8>), image::Error> {
        let file = self.pack_file(files, place.pack)?;
        let (header, payload) = pack::read_record(file, place.offset, place.stored_len)?;
        is_meant(&header, name, place)?;
        if crc32fast::hash(&payload) != header.payload_crc {
            return Err(image::Error::damaged(
                "the record's payload is damaged (CRC-32)",
                place.offset,
            ));
        }
        Ok((header, payload))
    }

    /// As [`Store::read`], without keeping the bytes: they are read in pieces of `buffer`.
    fn look_at(
        &self,
        files: &mut HashMap<i64, File>,
        name: Hash,
        place: &Place,
        buffer: &mut [u8],
    ) -> Result<(), image::Error> {
        let file = self.pack_file(files, place.pack)?;
        let header = pack::check_record(file, place.offset, place.stored_len, buffer)?;
        is_meant(&header, name, place)
    }

    pub(super) fn pack_file<'f>(
        &self,
        files: &'f mut HashMap<i64, File>,
        pack: i64,
    ) -> Result<&'f File, image::Error> {
        match files.entry(pack) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let file = File::open(self.packs.path(pack)).map_err(|e| match e.kind() {
                    io::ErrorKind::NotFound => {
                        image::Error::damaged(format!("pack {pack} is missing"), 0)
                    }
                    // Too many open files, for one: it says nothing about the record.
                    _ => image::Error::Io {
                        operation: "opening a pack",
                        source: e,
                    },
                })?;
                Ok(entry.insert(file))
            }
        }
    }
}

/// Whether a record is that of the chunk that the index means.
fn is_meant(header: &RecordHeader, name: Hash, place: &Place) -> Result<(), image::Error> {
    if header.name == name && header.plain_len == place.plain_len {
        return Ok(());
    }
    Err(image::Error::damaged(
        "the record is that of another chunk",
        place.offset,
    ))
}

/// Whether the error is the record's: what is there is wrong, or the disk does not give it
/// any more. Others (too many open files, for one) say nothing about it.
pub(super) fn is_damage(error: &image::Error) -> bool {
    match error {
        image::Error::Damaged { .. } => true,
        image::Error::Io { source, .. } => source.raw_os_error() == Some(nix::libc::EIO),
        _ => false,
    }
}

fn send(
    store: &Store,
    runtime: &Handle,
    places: &[(Hash, Place)],
    sender: &mpsc::Sender<io::Result<Bytes>>,
) {
    let mut files = HashMap::new();
    let mut buffer = vec![0; PIECE];
    for (name, place) in places {
        let mut place = *place;
        // Checked as a whole before any of it is sent, but never kept while the network is
        // waited for.
        let checked = store.following(runtime, *name, &mut place, |place| {
            store.look_at(&mut files, *name, place, &mut buffer)
        });
        let sent = match checked {
            Ok(()) => send_pieces(&files, &place, sender),
            Err(error) => {
                tracing::error!(chunk = %name, pack = place.pack, offset = place.offset, %error, "a record cannot be read");
                if is_damage(&error)
                    && let Err(error) = runtime.block_on(store.set_damaged(&place, true))
                {
                    tracing::error!(%error, "the damage could not be noted");
                }
                Err(io::Error::other(error.to_string()))
            }
        };
        if let Err(error) = sent {
            // The next request is told in words; this answer can only break off.
            let _ = sender.blocking_send(Err(error));
            return;
        }
    }
}

/// Sends a record that was checked. The target hashes it too, should the file have changed
/// since.
fn send_pieces(
    files: &HashMap<i64, File>,
    place: &Place,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let file = files
        .get(&place.pack)
        .ok_or_else(|| io::Error::other("the pack is not open"))?;
    let end = place.offset + HEADER_LEN as u64 + u64::from(place.stored_len);
    let mut at = place.offset;
    while at < end {
        let mut piece = vec![0; PIECE.min((end - at) as usize)];
        file.read_exact_at(&mut piece, at)?;
        at += piece.len() as u64;
        // A closed channel is a target that has gone.
        sender
            .blocking_send(Ok(Bytes::from(piece)))
            .map_err(io::Error::other)?;
    }
    Ok(())
}
