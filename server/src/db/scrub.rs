//! The row of the scrub, and what it reads.
//!
//! Owns: their queries. Does not own: reading packs ([`crate::store::scrub`]).

use super::chunks::{Place, place};
use super::{Conn, signed, unsigned};
use image::Hash;
use sqlx::Row;

/// The scrub that runs, or ran last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrub {
    /// When it began.
    pub started: i64,
    /// When it ended; it goes on if not.
    pub ended: Option<i64>,
    /// Where it goes on: this pack or the next one; 0 for manifests, which come first.
    pub next_pack: i64,
    /// Records read.
    pub chunks: u64,
    /// Their stored bytes.
    pub bytes: u64,
    /// Records and manifests that it found damaged.
    pub damaged: u64,
}

/// The last scrub, if there ever was one.
pub async fn last(conn: &mut Conn) -> Result<Option<Scrub>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM scrub")
        .fetch_optional(conn)
        .await?;
    row.map(|row| {
        Ok(Scrub {
            started: row.try_get("started")?,
            ended: row.try_get("ended")?,
            next_pack: row.try_get("next_pack")?,
            chunks: unsigned(row.try_get("chunks")?),
            bytes: unsigned(row.try_get("bytes")?),
            damaged: unsigned(row.try_get("damaged")?),
        })
    })
    .transpose()
}

/// Notes how far it is.
pub async fn store(conn: &mut Conn, scrub: &Scrub) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM scrub").execute(&mut *conn).await?;
    sqlx::query(
        "INSERT INTO scrub (started, ended, next_pack, chunks, bytes, damaged) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(scrub.started)
    .bind(scrub.ended)
    .bind(scrub.next_pack)
    .bind(signed(scrub.chunks))
    .bind(signed(scrub.bytes))
    .bind(signed(scrub.damaged))
    .execute(conn)
    .await?;
    Ok(())
}

/// The first pack whose number is at least `from`.
pub async fn pack_from(conn: &mut Conn, from: i64) -> Result<Option<i64>, sqlx::Error> {
    let row = sqlx::query("SELECT MIN(id) AS id FROM packs WHERE id >= $1")
        .bind(from)
        .fetch_one(conn)
        .await?;
    row.try_get("id")
}

/// How many packs have smaller numbers than `before`, and how many there are.
pub async fn packs_done(conn: &mut Conn, before: i64) -> Result<(u64, u64), sqlx::Error> {
    let row = sqlx::query(
        "SELECT COUNT(*) AS packs, COALESCE(SUM(CASE WHEN id < $1 THEN 1 ELSE 0 END), 0) AS done FROM packs",
    )
    .bind(before)
    .fetch_one(conn)
    .await?;
    Ok((
        unsigned(row.try_get("done")?),
        unsigned(row.try_get("packs")?),
    ))
}

/// The chunks of a pack in the order of their places.
pub async fn chunks_of(conn: &mut Conn, pack: i64) -> Result<Vec<(Hash, Place)>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM chunks WHERE pack = $1 ORDER BY place")
        .bind(pack)
        .fetch_all(conn)
        .await?;
    rows.iter().map(place).collect()
}

/// A chunk that is damaged, and an image that it hurts, if any does.
pub struct Hurt {
    /// The chunk.
    pub name: Hash,
    /// Where its record is.
    pub place: Place,
    /// Name and id of an image.
    pub image: Option<(String, String)>,
}

/// Damaged chunks of one pack or of all, once for each image; at most `limit` of these.
pub async fn damaged(
    conn: &mut Conn,
    pack: Option<i64>,
    limit: i64,
) -> Result<Vec<Hurt>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.*, i.name AS image_name, i.id AS image_id FROM chunks c
         LEFT JOIN refs r ON r.chunk = c.seq LEFT JOIN images i ON i.id = r.image AND i.published > 0
         WHERE c.damaged = 1 AND ($1 IS NULL OR c.pack = $1) ORDER BY c.pack, c.place, i.name, i.id LIMIT $2",
    )
    .bind(pack)
    .bind(limit)
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| {
            let (name, place) = place(row)?;
            let image: Option<String> = row.try_get("image_id")?;
            let image = match image {
                Some(id) => Some((row.try_get("image_name")?, id)),
                None => None,
            };
            Ok(Hurt { name, place, image })
        })
        .collect()
}

/// How many chunks are damaged.
pub async fn damaged_count(conn: &mut Conn) -> Result<u64, sqlx::Error> {
    let row = sqlx::query("SELECT COUNT(*) AS count FROM chunks WHERE damaged = 1")
        .fetch_one(conn)
        .await?;
    Ok(unsigned(row.try_get("count")?))
}
