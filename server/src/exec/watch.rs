//! Time limits of executions.
//!
//! Owns: when a target counts as silent, and which limits end an execution. Does not
//! own: the clock.

use super::stall::{self, Boots};
use super::state::State;
use super::{conclude, concluded, failed};
use crate::app::App;
use crate::cast;
use crate::db::executions::{self, Execution};
use crate::db::machines;
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

/// How an execution ends by itself, if a limit has passed. `boots` are those of its machine.
fn overdue(
    app: &App,
    execution: &Execution,
    boots: Option<&Boots>,
    now: i64,
) -> Option<(State, JobOutcome)> {
    let quiet = now - last_heard(app, execution);
    let since_change = now - execution.changed.max(app.started);
    let limit = app.limits.start_within;
    match execution.state {
        // Of a machine that starts again and again the first boot counts. One that waits in
        // line asks again and again, and has no boots: it checked in.
        State::Booting if quiet > limit || boots.is_some() => {
            let heard = last_heard(app, execution);
            let gone = Boots {
                first: heard,
                last: heard,
                count: 1,
            };
            let boots = boots.unwrap_or(&gone);
            let stalled = stall::stalled(Some(boots), app.started, now, limit)?;
            let outcome = match failed(execution, stalled.code, stalled.found) {
                JobOutcome::Failed { report } => JobOutcome::Failed {
                    report: report.with_advice(stalled.advice),
                },
                other => other,
            };
            Some((State::Failed, outcome))
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
    let (open, boots) = {
        let mut conn = app.db.read().await?;
        let open = executions::all_open(&mut conn).await?;
        (open, machines::boots(&mut conn).await?)
    };
    for seen in open {
        if overdue(app, &seen, boots.get(&seen.machine), now).is_none() {
            continue;
        }
        let mut tx = app.db.write().await?;
        // Read again: the target may have been quicker.
        let Some(mut execution) = executions::by_id(tx.conn(), &seen.id).await? else {
            continue;
        };
        let machine = machines::by_id(tx.conn(), &execution.machine).await?;
        let fetched = machine.and_then(|machine| machine.boots);
        let Some((state, outcome)) = overdue(app, &execution, fetched.as_ref(), now) else {
            continue;
        };
        conclude(tx.conn(), &mut execution, state, outcome, None, now).await?;
        tx.commit().await?;
        concluded(app, &execution, now).await;
    }
    app.store.release(now).await
}
