//! Rows of images.
//!
//! Owns: their queries. Does not own: manifests and chunks ([`crate::store`]).

use super::{Conn, signed, unsigned};
use crate::exec::state::State;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

/// An image as it is kept. Only published ones are ever visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Id, also the manifest's file name.
    pub id: String,
    /// Name; the newest of a name is what the name means.
    pub name: String,
    /// The name as it was ordered (`{machine}-{date}`); else the name.
    pub series: String,
    /// Id of the machine that was backed up.
    pub machine: String,
    /// Its name at that time.
    pub machine_name: String,
    /// Execution that made it.
    pub execution: String,
    /// When it was published.
    pub created: i64,
    /// Root hash, hex.
    pub root: String,
    /// Size of the disk.
    pub disk_bytes: u64,
    /// Used bytes.
    pub used_bytes: u64,
    /// Number of chunks.
    pub chunks: u64,
    /// Bytes of its records in the store, those that it shares included.
    pub stored_bytes: u64,
    /// Counts up from image to image: which one is newer, whatever the clock said. Zero
    /// while it is not visible.
    pub order: i64,
    /// Kept until somebody says otherwise.
    pub pinned: bool,
    /// Its manifest was found damaged.
    pub damaged: bool,
    /// The images that were published with it, if it is one of several disks.
    pub set: Option<SetPart>,
}

/// Membership in the images of one backup of several disks. They are published, named and
/// deleted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetPart {
    /// Id of the set: that of the execution.
    pub id: String,
    /// Position of the disk in the job, from 0.
    pub part: u32,
    /// How many disks the job had.
    pub of: u32,
}

fn image(row: &SqliteRow) -> Result<Image, sqlx::Error> {
    let number = |column: &str| -> Result<u32, sqlx::Error> {
        Ok(u32::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
    };
    let (part, of) = (number("part")?, number("set_size")?);
    let set = row.try_get::<Option<String>, _>("set_id")?;
    let set = set.map(|id| SetPart { id, part, of });
    Ok(Image {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        series: row.try_get("series")?,
        machine: row.try_get("machine")?,
        machine_name: row.try_get("machine_name")?,
        execution: match &set {
            Some(set) => set.id.clone(),
            None => row.try_get("execution")?,
        },
        created: row.try_get("created")?,
        root: row.try_get("root")?,
        disk_bytes: unsigned(row.try_get("disk_bytes")?),
        used_bytes: unsigned(row.try_get("used_bytes")?),
        chunks: unsigned(row.try_get("chunks")?),
        stored_bytes: unsigned(row.try_get("stored_bytes")?),
        order: row.try_get("published")?,
        pinned: row.try_get::<i64, _>("pinned")? != 0,
        damaged: row.try_get::<i64, _>("damaged")? != 0,
        set,
    })
}

/// Adds an image that is not visible yet.
pub async fn insert_unpublished(conn: &mut Conn, new: &Image) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO images (id, name, machine, machine_name, execution, published, created, root, disk_bytes,
         used_bytes, chunks, series, pinned, set_id, part, set_size)
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(&new.id)
    .bind(&new.name)
    .bind(&new.machine)
    .bind(&new.machine_name)
    .bind(match &new.set {
        // The column is unique: one execution, one image. Ids have no dot.
        Some(set) if set.part > 0 => format!("{}.{}", new.execution, set.part),
        _ => new.execution.clone(),
    })
    .bind(new.created)
    .bind(&new.root)
    .bind(signed(new.disk_bytes))
    .bind(signed(new.used_bytes))
    .bind(signed(new.chunks))
    .bind(&new.series)
    .bind(i64::from(new.pinned))
    .bind(new.set.as_ref().map(|set| &set.id))
    .bind(new.set.as_ref().map_or(0, |set| i64::from(set.part)))
    .bind(new.set.as_ref().map_or(0, |set| i64::from(set.of)))
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes images visible, those of a set together; each with the bytes of its records.
pub async fn publish(
    conn: &mut Conn,
    images: &[(String, u64)],
    now: i64,
) -> Result<(), sqlx::Error> {
    // `published` counts up: clocks have only seconds, and may be set back.
    let row = sqlx::query("SELECT MAX(published) + 1 AS next FROM images")
        .fetch_one(&mut *conn)
        .await?;
    let next: i64 = row.try_get("next")?;
    for (id, stored_bytes) in images {
        sqlx::query(
            "UPDATE images SET published = $4, stored_bytes = $2, created = $3 WHERE id = $1",
        )
        .bind(id)
        .bind(signed(*stored_bytes))
        .bind(now)
        .bind(next)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Notes how many bytes an image's records have.
pub async fn set_stored_bytes(conn: &mut Conn, id: &str, bytes: u64) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE images SET stored_bytes = $2 WHERE id = $1")
        .bind(id)
        .bind(signed(bytes))
        .execute(conn)
        .await?;
    Ok(())
}

/// Forgets all images; nothing may refer to them any more.
pub async fn clear(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM images").execute(conn).await?;
    Ok(())
}

/// Pins or unpins an image.
pub async fn set_pinned(conn: &mut Conn, id: &str, pinned: bool) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE images SET pinned = $2 WHERE id = $1")
        .bind(id)
        .bind(i64::from(pinned))
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes that an image's manifest is damaged, or whole after all.
pub async fn set_damaged(conn: &mut Conn, id: &str, damaged: bool) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE images SET damaged = $2 WHERE id = $1")
        .bind(id)
        .bind(i64::from(damaged))
        .execute(conn)
        .await?;
    Ok(())
}

/// All visible images, newest first within a name.
pub async fn all(conn: &mut Conn) -> Result<Vec<Image>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT * FROM images WHERE published > 0 ORDER BY name, published DESC, part, rowid DESC",
    )
    .fetch_all(conn)
    .await?;
    rows.iter().map(image).collect()
}

/// The visible image of this id.
pub async fn by_id(conn: &mut Conn, id: &str) -> Result<Option<Image>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM images WHERE id = $1 AND published > 0")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(image).transpose()
}

/// The visible image that people mean: the newest of a name, else by id.
pub async fn by_reference(conn: &mut Conn, text: &str) -> Result<Option<Image>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT * FROM images WHERE published > 0 AND (name = $1 OR id = $1)
         ORDER BY CASE WHEN name = $1 THEN 0 ELSE 1 END, published DESC, part, rowid DESC LIMIT 1",
    )
    .bind(text)
    .fetch_optional(conn)
    .await?;
    row.as_ref().map(image).transpose()
}

/// The visible image that an execution made.
pub async fn by_execution(conn: &mut Conn, execution: &str) -> Result<Option<Image>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM images WHERE execution = $1 AND published > 0")
        .bind(execution)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(image).transpose()
}

/// The visible images of a set, in the order of its disks.
pub async fn of_set(conn: &mut Conn, set: &str) -> Result<Vec<Image>, sqlx::Error> {
    let rows =
        sqlx::query("SELECT * FROM images WHERE set_id = $1 AND published > 0 ORDER BY part")
            .bind(set)
            .fetch_all(conn)
            .await?;
    rows.iter().map(image).collect()
}

/// Name of another machine that has a visible image of this name.
pub async fn other_owner(
    conn: &mut Conn,
    name: &str,
    machine: &str,
) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT machine_name FROM images WHERE name = $1 AND machine <> $2 AND published > 0 LIMIT 1")
        .bind(name)
        .bind(machine)
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.try_get("machine_name")).transpose()
}

/// Ids of images whose publishing was cut off, of one execution or of all.
pub async fn unpublished(
    conn: &mut Conn,
    execution: Option<&str>,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = match execution {
        Some(execution) => sqlx::query(
            "SELECT id FROM images WHERE published = 0 AND (execution = $1 OR set_id = $1)",
        )
        .bind(execution.to_owned()),
        None => sqlx::query("SELECT id FROM images WHERE published = 0"),
    }
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.try_get("id")).collect()
}

/// Id of the image folder that belongs to this database.
pub async fn store_id(conn: &mut Conn) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM store")
        .fetch_optional(conn)
        .await?;
    row.map(|row| row.try_get("id")).transpose()
}

/// Notes the id of the image folder, which never changes afterwards.
pub async fn set_store_id(conn: &mut Conn, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO store (id) VALUES ($1)")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether the image is still being published.
pub async fn is_unpublished(conn: &mut Conn, id: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query("SELECT id FROM images WHERE published = 0 AND id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(row.is_some())
}

/// Whether an operator wants the execution that makes the image to stop.
pub async fn is_interrupted(conn: &mut Conn, id: &str) -> Result<bool, sqlx::Error> {
    let row = sqlx::query(
        "SELECT e.id FROM executions e JOIN images i ON i.execution = e.id OR i.set_id = e.id WHERE i.id = $1 AND e.state = $2",
    )
    .bind(id)
    .bind(State::Interrupting.as_str())
    .fetch_optional(conn)
    .await?;
    Ok(row.is_some())
}

/// Removes the images that an execution has begun and not published. Their files go with
/// the publishing that fails for it, or with the next start.
pub async fn delete_unpublished(conn: &mut Conn, execution: &str) -> Result<(), sqlx::Error> {
    for id in unpublished(&mut *conn, Some(execution)).await? {
        delete(&mut *conn, &id).await?;
    }
    Ok(())
}

/// The newest whole image of a machine, of a series if there is one of that; of a backup of
/// several disks all of its images.
pub async fn newest_of(
    conn: &mut Conn,
    machine: &str,
    series: Option<&str>,
) -> Result<Vec<String>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT id FROM images WHERE machine = $1 AND damaged = 0 AND published = (
         SELECT published FROM images WHERE machine = $1 AND damaged = 0 AND published > 0
         ORDER BY CASE WHEN series = $2 THEN 0 ELSE 1 END, published DESC LIMIT 1) ORDER BY part",
    )
    .bind(machine)
    .bind(series)
    .fetch_all(conn)
    .await?;
    rows.iter().map(|row| row.try_get("id")).collect()
}

/// Removes an image and its hold on its chunks, which backups that count on it get.
pub async fn delete(conn: &mut Conn, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO pins (execution, chunk) SELECT b.execution, r.chunk
         FROM bases b JOIN refs r ON r.image = b.image WHERE b.image = $1 ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM bases WHERE image = $1")
        .bind(id)
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM refs WHERE image = $1")
        .bind(id)
        .execute(&mut *conn)
        .await?;
    sqlx::query("DELETE FROM images WHERE id = $1")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(())
}
