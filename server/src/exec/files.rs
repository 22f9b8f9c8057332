//! Files that belong to executions: logs and old partition tables.
//!
//! Owns: their places and how many logs are kept. Does not own: who may send them.

use crate::app::App;
use crate::db::executions::Execution;
use crate::exec::kind_name;
use crate::failure::{Failure, Outcome};
use crate::secrets;
use std::path::PathBuf;

/// Logs kept for each machine and kind of job (features A14).
pub(crate) const LOGS_KEPT: usize = 10;

/// Where an execution's log is. Ids are made by the server: hex digits only.
pub(crate) fn log_path(app: &App, execution: &str) -> PathBuf {
    app.state_dir.join("logs").join(format!("{execution}.log"))
}

/// Where the partition tables are that a restore has overwritten.
/// `part` is the position of the disk in a job of several.
pub(crate) fn tables_path(app: &App, execution: &str, part: u32) -> PathBuf {
    let name = match part {
        0 => format!("{execution}.json"),
        part => format!("{execution}.{part}.json"),
    };
    app.state_dir.join("tables").join(name)
}

/// Writes a file, whole or not at all.
pub(crate) async fn write(path: PathBuf, bytes: Vec<u8>) -> Outcome<()> {
    tokio::task::spawn_blocking(move || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        secrets::replace(&path, &bytes)
    })
    .await?
    .map_err(|e| Failure::io("writing a file of the state folder", &e))
}

/// Deletes logs of runs of the same kind that are older than the newest ones; `all` are
/// the machine's executions.
pub(crate) async fn prune_logs(app: &App, like: &Execution, all: &[Execution]) -> Outcome<()> {
    let mut same: Vec<_> = all
        .iter()
        .filter(|e| kind_name(&e.job) == kind_name(&like.job))
        .collect();
    same.sort_by_key(|e| std::cmp::Reverse(e.created));
    for old in same.iter().skip(LOGS_KEPT) {
        // Already gone is as good.
        let _ = tokio::fs::remove_file(log_path(app, &old.id)).await;
    }
    Ok(())
}

/// The log of an execution, if there is one. Invalid UTF-8 is replaced.
///
/// # Errors
/// The file cannot be read.
pub(crate) async fn read_log(app: &App, execution: &str) -> Outcome<Option<String>> {
    match tokio::fs::read(log_path(app, execution)).await {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::io("reading a log", &e)),
    }
}
