//! Rows of executions.
//!
//! Owns: their queries. Does not own: which state follows which ([`crate::exec`]).

use super::{Conn, from_json, signed, to_json, unsigned};
use crate::exec::state::State;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use wire::script::Script;
use wire::{After, BeginWrite, JobKind, JobOutcome, Summary};

/// An execution as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// Id.
    pub id: String,
    /// Id of its machine.
    pub machine: String,
    /// What it does: a snapshot that later changes of settings do not reach.
    pub job: JobKind,
    /// What the target does afterwards.
    pub after: After,
    /// Bearer token of the target.
    pub token: String,
    /// Name of the backup's image as it was ordered, with its placeholders.
    pub series: Option<String>,
    /// Most bytes a second of its transfer; no limit if not given.
    pub rate: Option<u64>,
    /// Scripts that run with it, signed.
    pub scripts: Vec<Script>,
    /// State.
    pub state: State,
    /// No other execution may be made for the machine: unfinished, or failed and not
    /// cleared.
    pub open: bool,
    /// When it was made.
    pub created: i64,
    /// When its state changed last.
    pub changed: i64,
    /// When the target got the job first.
    pub started: Option<i64>,
    /// When it reached its final state.
    pub ended: Option<i64>,
    /// Boot that has the job.
    pub boot_id: Option<String>,
    /// Image that a backup published, or a restore reads.
    pub image: Option<String>,
    /// The restore began to write to this disk.
    pub begin_write: Option<BeginWrite>,
    /// How it ended.
    pub outcome: Option<JobOutcome>,
    /// Figures of the end.
    pub summary: Option<Summary>,
}

fn execution(row: &SqliteRow) -> Result<Execution, sqlx::Error> {
    fn json<T: serde::de::DeserializeOwned>(
        row: &SqliteRow,
        column: &str,
    ) -> Result<Option<T>, sqlx::Error> {
        row.try_get::<Option<String>, _>(column)?
            .as_deref()
            .map(from_json)
            .transpose()
    }
    let state: String = row.try_get("state")?;
    Ok(Execution {
        id: row.try_get("id")?,
        machine: row.try_get("machine")?,
        job: from_json(&row.try_get::<String, _>("job")?)?,
        after: from_json(&row.try_get::<String, _>("after_job")?)?,
        token: row.try_get("token")?,
        series: row.try_get("series")?,
        rate: row.try_get::<Option<i64>, _>("rate")?.map(unsigned),
        scripts: json(row, "scripts")?.unwrap_or_default(),
        state: State::parse(&state)
            .ok_or_else(|| sqlx::Error::Decode(format!("state {state:?}").into()))?,
        open: row.try_get::<i64, _>("open")? == 1,
        created: row.try_get("created")?,
        changed: row.try_get("changed")?,
        started: row.try_get("started")?,
        ended: row.try_get("ended")?,
        boot_id: row.try_get("boot_id")?,
        image: row.try_get("image")?,
        begin_write: json(row, "begin_write")?,
        outcome: json(row, "outcome")?,
        summary: json(row, "summary")?,
    })
}

/// Adds an execution.
pub async fn insert(conn: &mut Conn, new: &Execution) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO executions (id, machine, job, after_job, token, state, open, created, changed, image,
         series, rate, scripts) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(&new.id)
    .bind(&new.machine)
    .bind(to_json(&new.job)?)
    .bind(to_json(&new.after)?)
    .bind(&new.token)
    .bind(new.state.as_str())
    .bind(i64::from(new.open))
    .bind(new.created)
    .bind(new.changed)
    .bind(&new.image)
    .bind(&new.series)
    .bind(new.rate.map(signed))
    .bind(to_json(&new.scripts)?)
    .execute(conn)
    .await?;
    Ok(())
}

/// Stores everything that changes about an execution.
pub async fn update(conn: &mut Conn, e: &Execution) -> Result<(), sqlx::Error> {
    fn json<T: serde::Serialize>(value: Option<&T>) -> Result<Option<String>, sqlx::Error> {
        value.map(to_json).transpose()
    }
    sqlx::query(
        "UPDATE executions SET state = $2, open = $3, changed = $4, started = $5, ended = $6, boot_id = $7,
         image = $8, begin_write = $9, outcome = $10, summary = $11 WHERE id = $1",
    )
    .bind(&e.id)
    .bind(e.state.as_str())
    .bind(i64::from(e.open))
    .bind(e.changed)
    .bind(e.started)
    .bind(e.ended)
    .bind(&e.boot_id)
    .bind(&e.image)
    .bind(json(e.begin_write.as_ref())?)
    .bind(json(e.outcome.as_ref())?)
    .bind(json(e.summary.as_ref())?)
    .execute(conn)
    .await?;
    Ok(())
}

/// The execution of this id.
pub async fn by_id(conn: &mut Conn, id: &str) -> Result<Option<Execution>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM executions WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(execution).transpose()
}

/// The machine's execution that is unfinished, or failed and not cleared.
pub async fn open_of(conn: &mut Conn, machine: &str) -> Result<Option<Execution>, sqlx::Error> {
    let row = sqlx::query("SELECT * FROM executions WHERE machine = $1 AND open = 1")
        .bind(machine)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(execution).transpose()
}

/// All open executions, oldest first.
pub async fn all_open(conn: &mut Conn) -> Result<Vec<Execution>, sqlx::Error> {
    let rows = sqlx::query("SELECT * FROM executions WHERE open = 1 ORDER BY created, rowid")
        .fetch_all(conn)
        .await?;
    rows.iter().map(execution).collect()
}

/// The newest executions, of one machine or of all.
pub async fn newest(
    conn: &mut Conn,
    machine: Option<&str>,
    count: i64,
) -> Result<Vec<Execution>, sqlx::Error> {
    let query = match machine {
        Some(machine) => sqlx::query(
            "SELECT * FROM executions WHERE machine = $1 ORDER BY open DESC, created DESC, changed DESC, rowid DESC LIMIT $2",
        )
        .bind(machine.to_owned())
        .bind(count),
        None => sqlx::query("SELECT * FROM executions ORDER BY open DESC, created DESC, changed DESC, rowid DESC LIMIT $1").bind(count),
    };
    query.fetch_all(conn).await?.iter().map(execution).collect()
}
