//! Time limits of executions.
//!
//! Owns: when a target counts as silent, and which limits end an execution. Does not
//! own: the clock.

use super::state::State;
use super::{conclude, concluded, failed};
use crate::app::App;
use crate::cast;
use crate::db::executions::{self, Execution};
use crate::failure::Outcome;
use wire::{Code, JobOutcome};

/// Seconds that a target has to confirm an interrupt.
pub const INTERRUPT_SECONDS: i64 = 30;

/// When the target of an execution was heard last, as far as this server can know: what
/// was before its own start counts as its start.
pub fn last_heard(app: &App, execution: &Execution) -> i64 {
    let contact = app.live.get(&execution.id).contact.unwrap_or(i64::MIN);
    contact.max(execution.changed).max(app.started)
}

/// Whether a target has the job and is not heard any more. It can still come back.
pub fn is_silent(app: &App, execution: &Execution, now: i64) -> bool {
    execution.state.is_active() && now - last_heard(app, execution) > app.limits.silent_after
}

fn in_session(execution: &Execution) -> bool {
    cast::settings(&execution.job).is_some()
}

/// How an execution ends by itself, if a limit has passed.
fn overdue(app: &App, execution: &Execution, now: i64) -> Option<(State, JobOutcome)> {
    let quiet = now - last_heard(app, execution);
    let since_change = now - execution.changed.max(app.started);
    let limit = app.limits.start_within;
    match execution.state {
        // last_heard: a target that waits in line asks again and again.
        State::Booting if quiet > limit => {
            let found =
                format!("the boot script was fetched {quiet} s ago, and no check-in followed");
            Some((State::Failed, failed(execution, Code::BootStalled, found)))
        }
        // One that waits for a session asks again and again, however long.
        State::Preparing if since_change > limit && !(in_session(execution) && quiet <= limit) => {
            let found =
                format!("the machine checked in {since_change} s ago, and no transfer began");
            Some((
                State::Failed,
                failed(execution, Code::TransferNotStarted, found),
            ))
        }
        State::Interrupting if quiet > INTERRUPT_SECONDS => {
            let found = format!(
                "an operator interrupted it; the machine did not confirm that within {INTERRUPT_SECONDS} s"
            );
            Some((
                State::Interrupted,
                failed(execution, Code::Interrupted, found),
            ))
        }
        _ => None,
    }
}

/// Ends what is overdue, and releases what nobody holds any more.
///
/// # Errors
/// The database fails; the next round tries again.
pub async fn round(app: &App, now: i64) -> Outcome<()> {
    let open = executions::all_open(&mut *app.db.read().await?).await?;
    for seen in open {
        if overdue(app, &seen, now).is_none() {
            continue;
        }
        let mut tx = app.db.write().await?;
        // Read again: the target may have been quicker.
        let Some(mut execution) = executions::by_id(tx.conn(), &seen.id).await? else {
            continue;
        };
        let Some((state, outcome)) = overdue(app, &execution, now) else {
            continue;
        };
        conclude(tx.conn(), &mut execution, state, outcome, None, now).await?;
        tx.commit().await?;
        concluded(app, &execution, now).await;
    }
    app.store.release(now).await
}
