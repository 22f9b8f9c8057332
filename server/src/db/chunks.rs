//! Rows of chunks, packs, references and pins.
//!
//! Owns: their queries, and that a chunk is only removed when nothing holds it. Does
//! not own: the pack files ([`crate::store`]).

use super::{Conn, signed, unsigned};
use image::Hash;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite};
use std::collections::HashMap;

/// Most values in one list of a query.
const BATCH: usize = 500;

/// Where a chunk's record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Row of the chunk.
    pub seq: i64,
    /// Pack.
    pub pack: i64,
    /// Byte offset of the record in the pack.
    pub offset: u64,
    /// Length of the payload in bytes.
    pub stored_len: u32,
    /// Length of the chunk in bytes.
    pub plain_len: u32,
    /// The record was found damaged.
    pub damaged: bool,
}

pub(super) fn place(row: &SqliteRow) -> Result<(Hash, Place), sqlx::Error> {
    let name: Vec<u8> = row.try_get("name")?;
    let name: [u8; 32] = name
        .try_into()
        .map_err(|_| sqlx::Error::Decode("a chunk's name".into()))?;
    let length = |column: &str| -> Result<u32, sqlx::Error> {
        u32::try_from(row.try_get::<i64, _>(column)?).map_err(|e| sqlx::Error::Decode(Box::new(e)))
    };
    let place = Place {
        seq: row.try_get("seq")?,
        pack: row.try_get("pack")?,
        offset: unsigned(row.try_get("place")?),
        stored_len: length("stored_len")?,
        plain_len: length("plain_len")?,
        damaged: row.try_get::<i64, _>("damaged")? != 0,
    };
    Ok((Hash(name), place))
}

fn names(query: &mut QueryBuilder<'_, Sqlite>, names: &[Hash]) {
    query.push("name IN (");
    let mut list = query.separated(", ");
    for name in names {
        list.push_bind(name.0.to_vec());
    }
    query.push(")");
}

/// Places of those of `wanted` that are stored, damaged ones included.
pub async fn find(conn: &mut Conn, wanted: &[Hash]) -> Result<HashMap<Hash, Place>, sqlx::Error> {
    let mut found = HashMap::with_capacity(wanted.len());
    for batch in wanted.chunks(BATCH) {
        let mut query = QueryBuilder::new("SELECT * FROM chunks WHERE ");
        names(&mut query, batch);
        for row in query.build().fetch_all(&mut *conn).await? {
            let (name, place) = place(&row)?;
            found.insert(name, place);
        }
    }
    Ok(found)
}

/// As [`find`], only of chunks that belong to an image.
pub async fn find_in_image(
    conn: &mut Conn,
    image: &str,
    wanted: &[Hash],
) -> Result<HashMap<Hash, Place>, sqlx::Error> {
    let mut found = HashMap::with_capacity(wanted.len());
    for batch in wanted.chunks(BATCH) {
        let mut query = QueryBuilder::new("SELECT * FROM chunks WHERE ");
        names(&mut query, batch);
        query.push(
            " AND EXISTS (SELECT 1 FROM refs WHERE refs.chunk = chunks.seq AND refs.image = ",
        );
        query.push_bind(image).push(")");
        for row in query.build().fetch_all(&mut *conn).await? {
            let (name, place) = place(&row)?;
            found.insert(name, place);
        }
    }
    Ok(found)
}

/// Adds chunks, or gives damaged ones their new place. One that is there and whole stays
/// where it is.
pub async fn insert_all(conn: &mut Conn, places: &HashMap<Hash, Place>) -> Result<(), sqlx::Error> {
    let places: Vec<(&Hash, &Place)> = places.iter().collect();
    for batch in places.chunks(BATCH / 5) {
        let mut query =
            QueryBuilder::new("INSERT INTO chunks (name, pack, place, stored_len, plain_len) ");
        query.push_values(batch, |mut row, (name, place)| {
            row.push_bind(name.0.to_vec())
                .push_bind(place.pack)
                .push_bind(signed(place.offset))
                .push_bind(i64::from(place.stored_len))
                .push_bind(i64::from(place.plain_len));
        });
        query.push(
            " ON CONFLICT (name) DO UPDATE SET pack = excluded.pack, place = excluded.place,
             stored_len = excluded.stored_len, plain_len = excluded.plain_len, damaged = 0
             WHERE chunks.damaged = 1",
        );
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// Notes that a chunk's record is damaged or whole, unless it has another place by now.
pub async fn set_damaged(conn: &mut Conn, place: &Place, damaged: bool) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE chunks SET damaged = $4 WHERE seq = $1 AND pack = $2 AND place = $3")
        .bind(place.seq)
        .bind(place.pack)
        .bind(signed(place.offset))
        .bind(i64::from(damaged))
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds a chunk whose record is damaged or nowhere (pack 0), unless the chunk is there.
pub async fn insert_damaged(conn: &mut Conn, name: Hash, place: &Place) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO chunks (name, pack, place, stored_len, plain_len, damaged) VALUES ($1, $2, $3, $4, $5, 1)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name.0.to_vec())
    .bind(place.pack)
    .bind(signed(place.offset))
    .bind(i64::from(place.stored_len))
    .bind(i64::from(place.plain_len))
    .execute(conn)
    .await?;
    Ok(())
}

/// Images with damaged chunks, and how many of theirs are damaged.
pub async fn hurt_images(conn: &mut Conn) -> Result<HashMap<String, u64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT r.image AS image, COUNT(*) AS damaged FROM chunks c JOIN refs r ON r.chunk = c.seq
         WHERE c.damaged = 1 GROUP BY r.image",
    )
    .fetch_all(conn)
    .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("image")?, unsigned(row.try_get("damaged")?))))
        .collect()
}

/// Holds chunks for an execution; its lease must be there ([`open_lease`]).
pub async fn pin(conn: &mut Conn, execution: &str, chunks: &[i64]) -> Result<(), sqlx::Error> {
    for batch in chunks.chunks(BATCH / 2) {
        let mut query = QueryBuilder::new("INSERT INTO pins (execution, chunk) ");
        query.push_values(batch, |mut row, chunk| {
            row.push_bind(execution).push_bind(chunk);
        });
        query.push(" ON CONFLICT DO NOTHING");
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// Holds an image's chunks for an execution, whatever becomes of the image; its lease must be
/// there ([`open_lease`]).
pub async fn hold_image(conn: &mut Conn, execution: &str, image: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO bases (execution, image) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(execution)
        .bind(image)
        .execute(conn)
        .await?;
    Ok(())
}

/// Ends what [`hold_image`] began: the chunks that were needed belong to an image of its own
/// by now, or the execution is over.
pub async fn release_images(conn: &mut Conn, execution: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM bases WHERE execution = $1")
        .bind(execution)
        .execute(conn)
        .await?;
    Ok(())
}

/// Row and name of those of an image's chunks that are not damaged, in the order of their
/// rows, from after row `after` on, at most `most`.
pub async fn names_of_image(
    conn: &mut Conn,
    image: &str,
    after: i64,
    most: i64,
) -> Result<Vec<(i64, Hash)>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT c.* FROM refs r JOIN chunks c ON c.seq = r.chunk
         WHERE r.image = $1 AND r.chunk > $2 AND c.damaged = 0 ORDER BY r.chunk LIMIT $3",
    )
    .bind(image)
    .bind(after)
    .bind(most)
    .fetch_all(conn)
    .await?;
    let found = rows.iter().map(place);
    found
        .map(|found| found.map(|(name, place)| (place.seq, name)))
        .collect()
}

/// Makes chunks belong to an image.
pub async fn refer(conn: &mut Conn, image: &str, chunks: &[i64]) -> Result<(), sqlx::Error> {
    for batch in chunks.chunks(BATCH / 2) {
        let mut query = QueryBuilder::new("INSERT INTO refs (image, chunk) ");
        query.push_values(batch, |mut row, chunk| {
            row.push_bind(image).push_bind(chunk);
        });
        query.push(" ON CONFLICT DO NOTHING");
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// Chunks of an image: how many are whole, how many are damaged, and the bytes of
/// their records.
pub async fn totals(conn: &mut Conn, image: &str) -> Result<(u64, u64, u64), sqlx::Error> {
    let row = sqlx::query(
        "SELECT COALESCE(SUM(1 - c.damaged), 0) AS whole, COALESCE(SUM(c.damaged), 0) AS damaged,
         COALESCE(SUM(c.stored_len + 64), 0) AS bytes
         FROM refs r JOIN chunks c ON c.seq = r.chunk WHERE r.image = $1",
    )
    .bind(image)
    .fetch_one(conn)
    .await?;
    let number = |column: &str| row.try_get::<i64, _>(column).map(unsigned);
    Ok((number("whole")?, number("damaged")?, number("bytes")?))
}

/// Begins or renews an execution's hold on chunks, without an end.
pub async fn open_lease(conn: &mut Conn, execution: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO leases (execution, expires) VALUES ($1, NULL) ON CONFLICT (execution) DO UPDATE SET expires = NULL")
        .bind(execution)
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives holds an end whose holders were lost with an earlier run of the server: imports.
pub async fn end_orphaned(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE leases SET expires = 0 WHERE expires IS NULL AND execution NOT IN (SELECT id FROM executions)",
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Gives an execution's hold on chunks an end.
pub async fn end_lease(conn: &mut Conn, execution: &str, expires: i64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE leases SET expires = $2 WHERE execution = $1")
        .bind(execution)
        .bind(expires)
        .execute(conn)
        .await?;
    Ok(())
}

/// Releases all holds whose end has come.
pub async fn drop_expired(conn: &mut Conn, now: i64) -> Result<u64, sqlx::Error> {
    sqlx::query(
        "DELETE FROM pins WHERE execution IN (SELECT execution FROM leases WHERE expires <= $1)",
    )
    .bind(now)
    .execute(&mut *conn)
    .await?;
    Ok(sqlx::query("DELETE FROM leases WHERE expires <= $1")
        .bind(now)
        .execute(conn)
        .await?
        .rows_affected())
}

/// Adds a pack and returns its number, which is at least `at_least`.
pub async fn new_pack(conn: &mut Conn, at_least: i64) -> Result<i64, sqlx::Error> {
    let row = sqlx::query("SELECT COALESCE(MAX(id), 0) + 1 AS id FROM packs")
        .fetch_one(&mut *conn)
        .await?;
    let id: i64 = row.try_get::<i64, _>("id")?.max(at_least);
    sqlx::query("INSERT INTO packs (id, bytes, sealed) VALUES ($1, 0, 0)")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(id)
}

/// Notes the length of a pack.
pub async fn set_pack_bytes(conn: &mut Conn, id: i64, bytes: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE packs SET bytes = $2 WHERE id = $1")
        .bind(id)
        .bind(signed(bytes))
        .execute(conn)
        .await?;
    Ok(())
}

/// Closes packs for writing: one, or all.
pub async fn seal(conn: &mut Conn, id: Option<i64>) -> Result<(), sqlx::Error> {
    match id {
        Some(id) => {
            sqlx::query("UPDATE packs SET sealed = 1 WHERE id = $1")
                .bind(id)
                .execute(conn)
                .await?
        }
        None => {
            sqlx::query("UPDATE packs SET sealed = 1")
                .execute(conn)
                .await?
        }
    };
    Ok(())
}

/// All packs with their lengths in bytes.
pub async fn packs(conn: &mut Conn) -> Result<Vec<(i64, u64)>, sqlx::Error> {
    let rows = sqlx::query("SELECT id, bytes FROM packs ORDER BY id")
        .fetch_all(conn)
        .await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, unsigned(row.try_get("bytes")?))))
        .collect()
}

/// Marks the chunks of a pack that stand at or after `from`.
pub async fn mark_pack_damaged(conn: &mut Conn, pack: i64, from: u64) -> Result<u64, sqlx::Error> {
    let result = sqlx::query("UPDATE chunks SET damaged = 1 WHERE pack = $1 AND place + stored_len + 64 > $2 AND damaged = 0")
        .bind(pack)
        .bind(signed(from))
        .execute(conn)
        .await?;
    Ok(result.rows_affected())
}

/// Removes the chunks of closed packs that nothing holds, and returns the packs' numbers.
/// Their files are deleted after the transaction is durable, then their rows
/// ([`forget_packs`]): a file without a row is never one of ours.
pub async fn empty_dead_packs(conn: &mut Conn) -> Result<Vec<i64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id FROM packs WHERE sealed = 1 AND NOT EXISTS (
            SELECT 1 FROM chunks c WHERE c.pack = packs.id AND (
                EXISTS (SELECT 1 FROM refs r WHERE r.chunk = c.seq)
                OR EXISTS (SELECT 1 FROM pins p WHERE p.chunk = c.seq)))",
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut dead = Vec::with_capacity(rows.len());
    for row in &rows {
        let id: i64 = row.try_get("id")?;
        sqlx::query("DELETE FROM chunks WHERE pack = $1")
            .bind(id)
            .execute(&mut *conn)
            .await?;
        dead.push(id);
    }
    // Chunks that a rebuilt index has found nowhere: only images name them.
    sqlx::query(
        "DELETE FROM chunks WHERE pack = 0 AND NOT EXISTS (SELECT 1 FROM refs r WHERE r.chunk = chunks.seq)
         AND NOT EXISTS (SELECT 1 FROM pins p WHERE p.chunk = chunks.seq)",
    )
    .execute(&mut *conn)
    .await?;
    Ok(dead)
}

/// Removes the rows of packs that have neither chunks nor files any more.
pub async fn forget_packs(conn: &mut Conn, ids: &[i64]) -> Result<(), sqlx::Error> {
    for id in ids {
        sqlx::query("DELETE FROM packs WHERE id = $1")
            .bind(id)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Forgets all packs, chunks, references and holds.
pub async fn clear(conn: &mut Conn) -> Result<(), sqlx::Error> {
    // The order in which they refer to one another.
    for statement in [
        "DELETE FROM pins",
        "DELETE FROM bases",
        "DELETE FROM leases",
        "DELETE FROM refs",
        "DELETE FROM chunks",
        "DELETE FROM packs",
        "DELETE FROM scrub",
    ] {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Adds a closed pack of a known number and length.
pub async fn insert_pack(conn: &mut Conn, id: i64, bytes: u64) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO packs (id, bytes, sealed) VALUES ($1, $2, 1)")
        .bind(id)
        .bind(signed(bytes))
        .execute(conn)
        .await?;
    Ok(())
}

/// Packs of which no image has a chunk.
pub async fn unreferenced_packs(conn: &mut Conn) -> Result<Vec<i64>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id FROM packs WHERE NOT EXISTS (
            SELECT 1 FROM chunks c JOIN refs r ON r.chunk = c.seq WHERE c.pack = packs.id) ORDER BY id",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.try_get("id")).collect()
}

/// Forgets a pack and its chunks, which nothing may hold.
pub async fn drop_pack(conn: &mut Conn, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM chunks WHERE pack = $1")
        .bind(id)
        .execute(&mut *conn)
        .await?;
    forget_packs(conn, &[id]).await
}

/// What keeps a chunk `c` alive.
const ALIVE: &str = "(EXISTS (SELECT 1 FROM refs r WHERE r.chunk = c.seq)
    OR EXISTS (SELECT 1 FROM pins p WHERE p.chunk = c.seq))";

/// Closed packs of which at most half is alive, and their bytes. Wholly dead ones are not
/// among them, nor any with a damaged chunk: what cannot be moved keeps its pack.
pub async fn half_dead_packs(conn: &mut Conn) -> Result<Vec<(i64, u64)>, sqlx::Error> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "SELECT k.id AS id, k.bytes AS bytes FROM packs k JOIN chunks c ON c.pack = k.id
         WHERE k.sealed = 1 GROUP BY k.id HAVING MAX(c.damaged) = 0
         AND SUM(CASE WHEN ",
    );
    query
        .push(ALIVE)
        .push(" THEN c.stored_len + 64 ELSE 0 END) BETWEEN 1 AND k.bytes / 2 ORDER BY k.id");
    let rows = query.build().fetch_all(conn).await?;
    rows.iter()
        .map(|row| Ok((row.try_get("id")?, unsigned(row.try_get("bytes")?))))
        .collect()
}

/// The chunks of a pack that are alive, in the order of their places.
pub async fn alive_in(conn: &mut Conn, pack: i64) -> Result<Vec<(Hash, Place)>, sqlx::Error> {
    let mut query = QueryBuilder::<Sqlite>::new("SELECT * FROM chunks c WHERE c.pack = ");
    query
        .push_bind(pack)
        .push(" AND ")
        .push(ALIVE)
        .push(" ORDER BY c.place");
    let rows = query.build().fetch_all(conn).await?;
    rows.iter().map(place).collect()
}

/// Notes that a chunk's record stands somewhere else now, unless it was moved, healed or
/// found damaged meanwhile.
pub async fn set_place(
    conn: &mut Conn,
    old: &Place,
    pack: i64,
    offset: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE chunks SET pack = $4, place = $5 WHERE seq = $1 AND pack = $2 AND place = $3 AND damaged = 0",
    )
    .bind(old.seq)
    .bind(old.pack)
    .bind(signed(old.offset))
    .bind(pack)
    .bind(signed(offset))
    .execute(conn)
    .await?;
    Ok(())
}
