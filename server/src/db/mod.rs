//! The server's memory.
//!
//! Owns: opening, schema versions, and the rule that writing transactions come one
//! after the other. Does not own: what the rows mean ([`crate::exec`],
//! [`crate::store`]). Queries use `$1` and standard SQL only, so that another database
//! can serve them.

pub mod chunks;
pub mod dhcp;
pub mod executions;
pub mod images;
pub mod machines;
pub mod retention;
mod schema;
pub mod scrub;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool, Transaction};
use std::str::FromStr;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};

/// A connection, in or out of a transaction.
pub type Conn = sqlx::SqliteConnection;

/// The database.
pub struct Db {
    pool: SqlitePool,
    /// One connection whose commits do not wait for the disk.
    quick: SqlitePool,
    writer: Mutex<()>,
}

/// A writing transaction; rolled back unless [`Write::commit`] is called.
pub struct Write<'a> {
    tx: Transaction<'static, Sqlite>,
    _turn: MutexGuard<'a, ()>,
}

impl Db {
    /// Opens the database at `url` (`sqlite:///path/to/file`) and brings its schema up to
    /// date.
    ///
    /// # Errors
    /// The file cannot be opened, or was written by a newer version.
    pub async fn open(url: &str) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::from_str(url)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // An acknowledged final state must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(15));
        let quick = options.clone().synchronous(SqliteSynchronous::Normal);
        let pool_of = |connections: u32| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(60))
        };
        let db = Db {
            pool: pool_of(8).connect_with(options).await?,
            quick: pool_of(1).connect_with(quick).await?,
            writer: Mutex::new(()),
        };
        let mut tx = db.write().await?;
        schema::migrate(tx.conn()).await?;
        tx.commit().await?;
        Ok(db)
    }

    /// A connection for reading.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn read(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, sqlx::Error> {
        self.pool.acquire().await
    }

    /// A transaction for writing, when its turn comes.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn write(&self) -> Result<Write<'_>, sqlx::Error> {
        let turn = self.writer.lock().await;
        let tx = begin(self.pool.clone()).await?;
        Ok(Write { tx, _turn: turn })
    }

    /// As [`Db::write`], for what need not survive a power cut: its commit does not wait for
    /// the disk. It survives the end of the program, and no later commit survives without it.
    ///
    /// # Errors
    /// No connection can be had.
    pub async fn write_quickly(&self) -> Result<Write<'_>, sqlx::Error> {
        let turn = self.writer.lock().await;
        let tx = begin(self.quick.clone()).await?;
        Ok(Write { tx, _turn: turn })
    }

    /// Closes all connections; unfinished transactions are rolled back.
    pub async fn close(&self) {
        self.quick.close().await;
        self.pool.close().await;
    }
}

/// Begins a transaction, in a task of its own: who asked may go away at any point, as the
/// handlers of connections do that are closed, and a connection that is given back between
/// its BEGIN and the existence of the transaction would stay inside it, with the database
/// locked.
///
/// IMMEDIATE: what is read in the transaction cannot be changed before its commit.
async fn begin(pool: SqlitePool) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
    let begun = tokio::spawn(async move { pool.begin_with("BEGIN IMMEDIATE").await });
    begun.await.map_err(|_| sqlx::Error::WorkerCrashed)?
}

impl Write<'_> {
    /// The connection.
    pub fn conn(&mut self) -> &mut Conn {
        &mut self.tx
    }

    /// Makes it durable (after [`Db::write_quickly`]: visible).
    ///
    /// # Errors
    /// The database could not store it; nothing of it is stored then.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.tx.commit().await
    }
}

/// Seconds since 1970 (UTC).
pub fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// An unsigned number as the database keeps it. Sizes beyond 2^63 do not exist.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number of the database that is never negative.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// JSON from a column; an unreadable one is an error of the database.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(text).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// JSON for a column.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|e| sqlx::Error::Encode(Box::new(e)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::Db;

    /// A database in `dir`.
    pub(crate) async fn open(dir: &std::path::Path) -> Db {
        Db::open(&format!("sqlite://{}", dir.join("db.sqlite").display()))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_newer_schema_is_refused_and_ours_opens_twice() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).await.close().await;
        let db = open(dir.path()).await;
        let mut tx = db.write().await.unwrap();
        sqlx::query("UPDATE schema_version SET version = 9999")
            .execute(tx.conn())
            .await
            .unwrap();
        tx.commit().await.unwrap();
        db.close().await;
        let url = format!("sqlite://{}", dir.path().join("db.sqlite").display());
        let Err(error) = Db::open(&url).await else {
            panic!("opened")
        };
        assert!(error.to_string().contains("9999"), "{error}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn who_goes_away_at_any_point_leaves_no_transaction_open() {
        let dir = tempfile::tempdir().unwrap();
        let db = std::sync::Arc::new(open(dir.path()).await);
        for turn in 0..3000u64 {
            let asked = std::sync::Arc::clone(&db);
            let task = tokio::spawn(async move {
                let Ok(tx) = asked.write_quickly().await else {
                    return;
                };
                drop(tx);
            });
            tokio::time::sleep(std::time::Duration::from_micros(turn % 100)).await;
            task.abort();
            let _ = task.await;
        }
        // There is one connection for this, and the database has one writer.
        for _ in 0..2 {
            db.write_quickly().await.unwrap().commit().await.unwrap();
            db.write().await.unwrap().commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_uncommitted_transaction_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let db = open(dir.path()).await;
        let mut tx = db.write().await.unwrap();
        sqlx::query("INSERT INTO packs (id, bytes, sealed) VALUES (7, 0, 0)")
            .execute(tx.conn())
            .await
            .unwrap();
        drop(tx);
        let mut tx = db.write().await.unwrap();
        let rows = sqlx::query("SELECT id FROM packs")
            .fetch_all(tx.conn())
            .await
            .unwrap();
        assert!(rows.is_empty());
    }
}
