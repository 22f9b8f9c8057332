//! Check-in: a target asks what to do.
//!
//! Owns: the answer, stored before it is given. Does not own: the rule behind it
//! ([`super::state::answer`]).

use super::state::{self, Answer, State};
use super::{conclude, concluded, failed, registry};
use crate::app::App;
use crate::db::executions::{self, Execution};
use crate::db::{Conn, chunks, machines};
use crate::failure::{Failure, Outcome};
use crate::identity::Identity;
use wire::{
    Action, BeginWrite, CheckIn, CheckInReply, Code, DiskState, Job, JobKind, PROTOCOL_VERSION,
    Report, SOFTWARE_VERSION,
};

/// Seconds until a target in line asks again: an interrupt is to be heard within three.
const LINE_SECONDS: u32 = 2;

/// Answers a check-in that came from `address`.
///
/// # Errors
/// Another protocol, or the database fails.
pub async fn checkin(
    app: &App,
    message: &CheckIn,
    address: &str,
    now: i64,
) -> Outcome<CheckInReply> {
    if message.protocol != PROTOCOL_VERSION {
        return Err(Failure::refused(format!(
            "the target speaks protocol {} (version {}), the server protocol {PROTOCOL_VERSION} (version {SOFTWARE_VERSION})",
            message.protocol, message.version
        ))
        .with_advice("Boot the target with the Deploy-OS of this server."));
    }
    if message.boot_id.is_empty() || message.boot_id.len() > 128 {
        return Err(Failure::usage(
            "a check-in needs a boot id of at most 128 characters",
        ));
    }
    let macs = message.nics.iter().map(|nic| nic.mac.as_str());
    let target = Identity::new(macs, &message.uuid, &message.system_serial);
    let mut tx = app.db.write().await?;
    let machine = match registry::register(tx.conn(), &target, now).await? {
        Ok(machine) => machine,
        Err(reason) => {
            return Ok(CheckInReply {
                machine: String::new(),
                action: Action::Refused { reason },
                notice: None,
            });
        }
    };
    machines::checked_in(tx.conn(), &machine.id, message, address).await?;
    let open = executions::open_of(tx.conn(), &machine.id).await?;
    let (slot_free, place, running) = match &open {
        Some(execution) => slots(app, tx.conn(), execution, now).await?,
        None => (true, 0, 0),
    };
    let mut ended = None;
    let action = match (
        state::answer(open.as_ref(), &message.boot_id, slot_free),
        open,
    ) {
        (Answer::Job { resume }, Some(mut execution)) => {
            give(app, tx.conn(), &mut execution, &message.boot_id, now).await?;
            Action::Job(Box::new(Job {
                execution: execution.id.clone(),
                token: execution.token.clone(),
                kind: execution.job.clone(),
                resume,
                resumed: resumed(&execution),
                scripts: execution.scripts.clone(),
                after: execution.after,
            }))
        }
        (Answer::Line, Some(mut execution)) => {
            if execution.state == State::Waiting {
                execution.state = State::Booting;
                execution.changed = now;
                executions::update(tx.conn(), &execution).await?;
            }
            let found = format!(
                "{running} of {} transfers are running; this machine is number {place} in line",
                app.limits.max_transfers
            );
            let reason = Report::new(Code::Busy, found, DiskState::Untouched);
            Action::Wait {
                seconds: LINE_SECONDS,
                reason,
            }
        }
        (Answer::EndInterrupt, Some(mut execution)) => {
            let outcome = failed(
                &execution,
                Code::Interrupted,
                "the machine was rebooted after the interrupt",
            );
            conclude(
                tx.conn(),
                &mut execution,
                State::Interrupted,
                outcome,
                None,
                now,
            )
            .await?;
            ended = Some(execution);
            Action::BootLocal
        }
        (Answer::BootLocal, _) | (_, None) => Action::BootLocal,
    };
    tx.commit().await?;
    if let Some(execution) = ended {
        concluded(app, &execution, now).await;
    }
    tracing::info!(machine = %machine.name, %address, answer = action_name(&action), "check-in");
    Ok(CheckInReply {
        machine: machine.name,
        action,
        notice: notice(&message.version),
    })
}

/// Whether a Deploy-OS of that version is not the one that came with this server.
pub(crate) fn is_outdated(version: &str) -> bool {
    !version.is_empty() && version != SOFTWARE_VERSION
}

/// What is said to a Deploy-OS of another version than this server's: its medium is an older one,
/// or the server was updated and its boot files were not.
fn notice(version: &str) -> Option<String> {
    if !is_outdated(version) {
        return None;
    }
    let version: String = version
        .chars()
        .filter(|c| !c.is_control())
        .take(40)
        .collect();
    Some(format!(
        "this Deploy-OS has version {version}, its server {SOFTWARE_VERSION}: make the medium anew, \
         or renew the files in the server's PXE folder"
    ))
}

/// Of a restore of several disks: those that were begun.
fn resumed(execution: &Execution) -> Vec<u32> {
    match &execution.job {
        JobKind::Restore { set, .. } if !set.is_empty() => {
            let begun = execution.begin_write.iter().flat_map(BeginWrite::all);
            begun.map(|begun| begun.part).collect()
        }
        _ => Vec::new(),
    }
}

/// Notes that the target of boot `boot_id` has the job.
async fn give(
    app: &App,
    conn: &mut Conn,
    execution: &mut Execution,
    boot_id: &str,
    now: i64,
) -> Outcome<()> {
    let fresh = execution.boot_id.as_deref() != Some(boot_id) || !execution.state.is_active();
    if matches!(execution.job, JobKind::Backup { .. }) {
        // What an earlier boot sent stays held, so that the backup goes on from there.
        chunks::open_lease(conn, &execution.id).await?;
    }
    if fresh {
        if execution.state != State::Interrupting {
            execution.state = State::Preparing;
        }
        execution.boot_id = Some(boot_id.to_owned());
        execution.started.get_or_insert(now);
        execution.changed = now;
        executions::update(conn, execution).await?;
        app.live.restart(&execution.id, now);
    }
    Ok(())
}

/// Whether `execution` may run now, its place in line, and how many others run.
async fn slots(
    app: &App,
    conn: &mut Conn,
    execution: &Execution,
    now: i64,
) -> Outcome<(bool, usize, usize)> {
    let others = executions::all_open(conn).await?;
    let running = others
        .iter()
        .filter(|other| other.id != execution.id && super::holds_slot(app, other, now))
        .count();
    let free = app.limits.max_transfers.saturating_sub(running);
    if execution.state.is_active()
        || execution.state.is_final()
        || !state::needs_slot(&execution.job)
    {
        return Ok((true, 0, running));
    }
    let place = app.live.queue(&execution.id, now);
    Ok((place <= free, place, running))
}

fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Job(job) if job.resume => "job (resume)",
        Action::Job(_) => "job",
        Action::BootLocal => "boot-local",
        Action::Wait { .. } => "wait",
        Action::Refused { .. } => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::notice;
    use wire::SOFTWARE_VERSION;

    #[test]
    fn a_deploy_os_of_another_version_is_told() {
        assert_eq!(notice(SOFTWARE_VERSION), None);
        assert_eq!(notice(""), None);
        let told = notice("0.0.1\u{1b}[31m").unwrap();
        assert!(
            told.starts_with("this Deploy-OS has version 0.0.1[31m, its server "),
            "{told}"
        );
    }
}
