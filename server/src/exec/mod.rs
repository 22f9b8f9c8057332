//! Executions: what machines are told to do, and how it went.
//!
//! Owns: registration, check-in, progress, final states, time limits. Does not own:
//! routes, images. Every change of state is stored before it is acted on, in one
//! transaction that reads what it depends on.

pub mod certificates;
pub mod checkin;
mod choices;
pub mod control;
pub mod decider;
pub mod fabric;
mod files;
pub mod live;
mod names;
pub mod rate;
pub mod registry;
pub mod run;
mod scope;
pub(crate) mod scripts;
pub mod set;
pub mod stall;
pub mod state;
#[cfg(test)]
pub(crate) mod tests;
pub mod watch;
mod wipe;

use crate::app::App;
use crate::db::executions::Execution;
use crate::db::{self, Conn};
use crate::exec::state::State;
use crate::failure::Outcome;
use wire::{Code, DiskState, JobKind, JobOutcome, Report, Summary};

pub(crate) use files::read_log;

/// How long the chunks of a failed backup are kept for the next try, in seconds.
pub const LEASE_SECONDS: i64 = 24 * 3600;

/// Stores the final state of an execution, in the caller's transaction. After its
/// commit the caller calls [`concluded`].
pub(crate) async fn conclude(
    conn: &mut Conn,
    execution: &mut Execution,
    state: State,
    outcome: JobOutcome,
    summary: Option<Summary>,
    now: i64,
) -> Outcome<()> {
    // What never reached a target leaves nothing to look at.
    let never_started = state == State::Interrupted && execution.started.is_none();
    let full = matches!(&outcome, JobOutcome::Failed { report } if report.code == Code::NoSpace);
    execution.state = state;
    execution.open = state != State::Done && !never_started;
    execution.ended = Some(now);
    execution.changed = now;
    execution.outcome = Some(outcome);
    execution.summary = summary;
    db::executions::update(conn, execution).await?;
    if matches!(execution.job, JobKind::Backup { .. }) {
        // A manifest that is being published now becomes no image any more.
        db::images::delete_unpublished(conn, &execution.id).await?;
        // A full store gets its space back at once; other failures keep what was sent.
        let expires = if state == State::Done || full {
            now
        } else {
            now + LEASE_SECONDS
        };
        db::chunks::end_lease(conn, &execution.id, expires).await?;
        // Another try is told anew.
        db::chunks::release_images(conn, &execution.id).await?;
    }
    Ok(())
}

/// What follows when a final state is durable.
pub(crate) async fn concluded(app: &App, execution: &Execution, now: i64) {
    app.live.forget(&execution.id);
    app.rates.forget(&execution.id);
    app.casts.gone(execution);
    tracing::info!(execution = %execution.id, machine = %execution.machine, state = execution.state.as_str(), "execution ended");
    if let Err(error) = app.store.release(now).await {
        tracing::error!(%error, "space could not be reclaimed");
    }
}

/// A failure of an execution, with what is known about its disks.
pub(crate) fn failed(execution: &Execution, code: Code, found: impl Into<String>) -> JobOutcome {
    let mut found = found.into();
    found.push_str(&set::begun_and_not(execution));
    let disk = match (state::writes(&execution.job), &execution.begin_write) {
        // It may have written nothing, some, or all of it and only lost its last word.
        (true, Some(_)) => DiskState::Unknown,
        (true, None) => DiskState::Untouched,
        (false, _) => DiskState::NotInvolved,
    };
    JobOutcome::Failed {
        report: Report::new(code, found, disk),
    }
}

/// Whether an execution has a transfer slot. A silent target holds none: one machine's
/// trouble stays its own.
pub(crate) fn holds_slot(app: &App, execution: &Execution, now: i64) -> bool {
    execution.state.is_active()
        && state::needs_slot(&execution.job)
        && !watch::is_silent(app, execution, now)
}

/// Short name of a job's kind.
pub fn kind_name(job: &JobKind) -> &'static str {
    match job {
        JobKind::Backup { .. } => "backup",
        JobKind::Restore { .. } => "restore",
        JobKind::Wipe(_) => "wipe",
        JobKind::Script { .. } => "script",
        JobKind::DiskCheck => "disk-check",
    }
}
