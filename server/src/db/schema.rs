//! The tables, by version.
//!
//! Owns: how each version comes from the one before. Does not own: queries. A version
//! that was released is never edited; a new one is added at the end.

use super::Conn;
use sqlx::Row;

const VERSIONS: &[&[&str]] = &[
    &[
        "CREATE TABLE machines (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        uuid TEXT UNIQUE,
        serial TEXT NOT NULL DEFAULT '',
        model TEXT NOT NULL DEFAULT '',
        firmware TEXT NOT NULL DEFAULT '',
        architecture TEXT NOT NULL DEFAULT '',
        memory_bytes BIGINT NOT NULL DEFAULT 0,
        version TEXT NOT NULL DEFAULT '',
        address TEXT NOT NULL DEFAULT '',
        uptime_ms BIGINT NOT NULL DEFAULT 0,
        disk_list TEXT,
        disk_check TEXT,
        disk_check_at BIGINT,
        first_seen BIGINT NOT NULL,
        last_seen BIGINT NOT NULL
    )",
        "CREATE TABLE macs (
        mac TEXT PRIMARY KEY,
        machine TEXT NOT NULL REFERENCES machines(id) ON DELETE CASCADE
    )",
        "CREATE INDEX macs_of_machine ON macs(machine)",
        // open: counts against \"one execution per machine\": unfinished, or failed and not cleared.
        "CREATE TABLE executions (
        id TEXT PRIMARY KEY,
        machine TEXT NOT NULL REFERENCES machines(id) ON DELETE CASCADE,
        job TEXT NOT NULL,
        after_job TEXT NOT NULL,
        token TEXT NOT NULL,
        state TEXT NOT NULL,
        open INTEGER NOT NULL,
        created BIGINT NOT NULL,
        changed BIGINT NOT NULL,
        started BIGINT,
        ended BIGINT,
        boot_id TEXT,
        image TEXT,
        begin_write TEXT,
        outcome TEXT,
        summary TEXT
    )",
        "CREATE UNIQUE INDEX one_open_execution ON executions(machine) WHERE open = 1",
        "CREATE INDEX executions_by_time ON executions(machine, created)",
        "CREATE TABLE images (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        machine TEXT NOT NULL,
        machine_name TEXT NOT NULL,
        execution TEXT NOT NULL UNIQUE,
        published INTEGER NOT NULL,
        created BIGINT NOT NULL,
        root TEXT NOT NULL,
        disk_bytes BIGINT NOT NULL,
        used_bytes BIGINT NOT NULL,
        chunks BIGINT NOT NULL,
        stored_bytes BIGINT NOT NULL DEFAULT 0
    )",
        "CREATE INDEX images_by_name ON images(name, created)",
        "CREATE TABLE packs (
        id BIGINT PRIMARY KEY,
        bytes BIGINT NOT NULL,
        sealed INTEGER NOT NULL
    )",
        "CREATE TABLE chunks (
        seq INTEGER PRIMARY KEY,
        name BLOB NOT NULL UNIQUE,
        pack BIGINT NOT NULL,
        place BIGINT NOT NULL,
        stored_len BIGINT NOT NULL,
        plain_len BIGINT NOT NULL,
        damaged INTEGER NOT NULL DEFAULT 0
    )",
        "CREATE INDEX chunks_of_pack ON chunks(pack)",
        "CREATE TABLE refs (
        image TEXT NOT NULL REFERENCES images(id),
        chunk BIGINT NOT NULL REFERENCES chunks(seq),
        PRIMARY KEY (image, chunk)
    )",
        "CREATE INDEX refs_of_chunk ON refs(chunk)",
        // expires: NULL while the execution is unfinished.
        "CREATE TABLE leases (
        execution TEXT PRIMARY KEY REFERENCES executions(id) ON DELETE CASCADE,
        expires BIGINT
    )",
        "CREATE TABLE pins (
        execution TEXT NOT NULL REFERENCES leases(execution) ON DELETE CASCADE,
        chunk BIGINT NOT NULL REFERENCES chunks(seq),
        PRIMARY KEY (execution, chunk)
    )",
        "CREATE INDEX pins_of_chunk ON pins(chunk)",
    ],
    &["CREATE TABLE store (id TEXT NOT NULL)"],
    // The disks of storage networks that the last disk check saw.
    &["ALTER TABLE machines ADD COLUMN san_disks TEXT"],
    &[
        // Chunks are held for imports too, which are no executions.
        "CREATE TABLE leases_4 (execution TEXT PRIMARY KEY, expires BIGINT)",
        "INSERT INTO leases_4 SELECT execution, expires FROM leases",
        "CREATE TABLE pins_4 (
        execution TEXT NOT NULL REFERENCES leases_4(execution) ON DELETE CASCADE,
        chunk BIGINT NOT NULL REFERENCES chunks(seq),
        PRIMARY KEY (execution, chunk)
    )",
        "INSERT INTO pins_4 SELECT execution, chunk FROM pins",
        "DROP TABLE pins",
        "DROP TABLE leases",
        "ALTER TABLE leases_4 RENAME TO leases",
        "ALTER TABLE pins_4 RENAME TO pins",
        "CREATE INDEX pins_of_chunk ON pins(chunk)",
        // series: the name as it was ordered, of which many images may come.
        "ALTER TABLE images ADD COLUMN series TEXT NOT NULL DEFAULT ''",
        "UPDATE images SET series = name",
        "ALTER TABLE images ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
        // damaged: its manifest was found damaged.
        "ALTER TABLE images ADD COLUMN damaged INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE executions ADD COLUMN series TEXT",
        // rate: most bytes a second of its transfer.
        "ALTER TABLE executions ADD COLUMN rate BIGINT",
        "CREATE INDEX damaged_chunks ON chunks(seq) WHERE damaged = 1",
        // scope: 'all', 'machine' (subject: its id) or 'image' (subject: a series).
        "CREATE TABLE retention (
        scope TEXT NOT NULL,
        subject TEXT NOT NULL,
        policy TEXT NOT NULL,
        PRIMARY KEY (scope, subject)
    )",
        // The scrub that runs or ran last: at most one row.
        "CREATE TABLE scrub (
        started BIGINT NOT NULL,
        ended BIGINT,
        next_pack BIGINT NOT NULL,
        chunks BIGINT NOT NULL,
        bytes BIGINT NOT NULL,
        damaged BIGINT NOT NULL
    )",
    ],
    // The images of one backup of several disks: set_id is its execution.
    &[
        "ALTER TABLE images ADD COLUMN set_id TEXT",
        "ALTER TABLE images ADD COLUMN part BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE images ADD COLUMN set_size BIGINT NOT NULL DEFAULT 0",
        "CREATE INDEX images_of_set ON images(set_id)",
    ],
    // Images whose chunks a backup was told to be there: an image that goes leaves its chunks
    // to those who count on it.
    &[
        "CREATE TABLE bases (
        execution TEXT NOT NULL REFERENCES leases(execution) ON DELETE CASCADE,
        image TEXT NOT NULL,
        PRIMARY KEY (execution, image)
    )",
        "CREATE INDEX bases_of_image ON bases(image)",
    ],
    // Addresses that the server leases itself; how machines boot their own disks.
    &[
        "CREATE TABLE addresses (
        address TEXT PRIMARY KEY,
        client TEXT NOT NULL,
        mac TEXT NOT NULL,
        host TEXT NOT NULL,
        held TEXT NOT NULL,
        since BIGINT NOT NULL,
        until BIGINT NOT NULL
    )",
        "ALTER TABLE machines ADD COLUMN local_boot TEXT NOT NULL DEFAULT 'auto'",
    ],
    // Scripts that run with an execution, signed.
    &["ALTER TABLE executions ADD COLUMN scripts TEXT"],
    // Boot scripts of the Deploy-OS that a machine fetched since its last check-in: when first
    // and last, how many. hardware: what it is made of, by its last check-in.
    &[
        "ALTER TABLE machines ADD COLUMN boot_first BIGINT",
        "ALTER TABLE machines ADD COLUMN boot_last BIGINT",
        "ALTER TABLE machines ADD COLUMN boot_count BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE machines ADD COLUMN hardware TEXT",
    ],
];

/// Brings an empty or older database to the newest version.
pub(super) async fn migrate(conn: &mut Conn) -> Result<(), sqlx::Error> {
    sqlx::query("CREATE TABLE IF NOT EXISTS schema_version (version BIGINT NOT NULL)")
        .execute(&mut *conn)
        .await?;
    let row = sqlx::query("SELECT MAX(version) AS version FROM schema_version")
        .fetch_one(&mut *conn)
        .await?;
    let found: Option<i64> = row.try_get("version")?;
    let known = VERSIONS.len() as i64;
    let found = found.unwrap_or(0);
    if found > known {
        let text = format!(
            "the database has version {found}, this deployd knows up to {known}: update it"
        );
        return Err(sqlx::Error::Configuration(text.into()));
    }
    for (at, statements) in VERSIONS
        .iter()
        .enumerate()
        .skip(usize::try_from(found).unwrap_or(0))
    {
        for statement in *statements {
            sqlx::query(statement).execute(&mut *conn).await?;
        }
        sqlx::query("DELETE FROM schema_version")
            .execute(&mut *conn)
            .await?;
        sqlx::query("INSERT INTO schema_version (version) VALUES ($1)")
            .bind(at as i64 + 1)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{VERSIONS, migrate};
    use sqlx::{Connection, Row};

    /// A database of every older version, with an image in it, is brought to the newest one.
    #[tokio::test]
    async fn what_an_older_version_has_written_stays() {
        for from in 1..VERSIONS.len() {
            let mut memory = crate::db::Conn::connect("sqlite::memory:").await.unwrap();
            let conn = &mut memory;
            // From the beginning, as that version had made it.
            for statement in VERSIONS[..from].concat() {
                sqlx::query(statement).execute(&mut *conn).await.unwrap();
            }
            for statement in [
                "CREATE TABLE schema_version (version BIGINT NOT NULL)".to_owned(),
                format!("INSERT INTO schema_version (version) VALUES ({from})"),
                "INSERT INTO images (id, name, machine, machine_name, execution, published, created, root,
                 disk_bytes, used_bytes, chunks) VALUES ('i', 'gold', 'm', 'pc', 'e', 3, 4, 'r', 5, 6, 7)"
                    .to_owned(),
            ] {
                sqlx::query(&statement).execute(&mut *conn).await.unwrap();
            }
            migrate(conn).await.unwrap();
            let image = crate::db::images::by_id(conn, "i").await.unwrap().unwrap();
            assert_eq!(
                (image.name.as_str(), image.execution.as_str()),
                ("gold", "e")
            );
            assert!(image.set.is_none() && image.chunks == 7, "version {from}");
            migrate(conn).await.unwrap();
            let row = sqlx::query("SELECT version FROM schema_version")
                .fetch_all(conn)
                .await;
            let row = row.unwrap();
            assert_eq!(row.len(), 1);
            assert_eq!(row[0].get::<i64, _>("version"), VERSIONS.len() as i64);
        }
    }
}
