//! What a target reports while it has a job.
//!
//! Owns: progress, begin-write, final state and uploads beside image data. Does not own:
//! chunks and manifests ([`crate::store`]).

use super::state::{self, State};
use super::{certificates, conclude, concluded, fabric, files};
use crate::app::App;
use crate::db::executions::{self, Execution};
use crate::db::{Conn, machines};
use crate::failure::{Failure, Outcome};
use crate::secrets;
use axum::http::StatusCode;
use wire::{
    BeginWrite, Code, DiskCheck, DiskInfo, DiskState, Finish, FinishReply, JobKind, OldTables,
    Progress, ProgressReply, Report,
};

/// The execution that `token` belongs to, whatever its state.
///
/// # Errors
/// `server-refused` if there is none or the token is another one; both are told alike.
pub async fn authenticate(conn: &mut Conn, id: &str, token: &str) -> Outcome<Execution> {
    match executions::by_id(conn, id).await? {
        Some(execution) if secrets::equal(&execution.token, token) => Ok(execution),
        _ => Err(Failure::unauthorized("no execution has this id and token")),
    }
}

/// As [`authenticate`], and the execution is not over.
///
/// # Errors
/// `server-refused` if it is.
pub async fn unfinished(conn: &mut Conn, id: &str, token: &str) -> Outcome<Execution> {
    let execution = authenticate(conn, id, token).await?;
    if execution.state.is_final() {
        return Err(Failure::refused(format!(
            "the execution has ended: {}",
            execution.state.as_str()
        )));
    }
    Ok(execution)
}

/// Notes progress.
///
/// # Errors
/// Refused, or the database fails.
pub async fn progress(
    app: &App,
    id: &str,
    token: &str,
    message: Progress,
    now: i64,
) -> Outcome<ProgressReply> {
    let execution = unfinished(&mut *app.db.read().await?, id, token).await?;
    let mut current = execution.state;
    if state::after_progress(current, message.step) != current {
        let mut tx = app.db.write().await?;
        let mut execution = unfinished(tx.conn(), id, token).await?;
        execution.state = state::after_progress(execution.state, message.step);
        execution.changed = now;
        executions::update(tx.conn(), &execution).await?;
        tx.commit().await?;
        current = execution.state;
    }
    app.live.progress(id, message, now);
    app.casts.heard(&execution);
    Ok(ProgressReply {
        interrupt: current == State::Interrupting,
    })
}

/// Stores that the target is about to write; acknowledged only when durable.
///
/// # Errors
/// No restore, interrupted, or another disk than before.
pub async fn begin_write(
    app: &App,
    id: &str,
    token: &str,
    message: BeginWrite,
    now: i64,
) -> Outcome<()> {
    let mut tx = app.db.write().await?;
    let mut execution = unfinished(tx.conn(), id, token).await?;
    if !state::writes(&execution.job) {
        return Err(Failure::refused("this execution does not write to a disk"));
    }
    if message.part as usize >= disks_of(&execution.job) {
        return Err(Failure::usage(format!(
            "the job has no disk {}",
            message.part
        )));
    }
    for begun in execution.begin_write.iter().flat_map(BeginWrite::all) {
        let same = same_disk(&begun.disk, &message.disk);
        if begun.part == message.part && same {
            return Ok(());
        }
        // Neither two disks for one image, nor two images on one disk.
        if begun.part == message.part || same {
            let found = format!(
                "part {} of the job began on disk {}, and part {} now wants to write to {}",
                begun.part,
                name(&begun.disk),
                message.part,
                name(&message.disk)
            );
            return Err(Failure::new(Code::DisksChanged, found));
        }
    }
    if execution.state == State::Interrupting {
        let report = Report::new(
            Code::Interrupted,
            "an operator interrupted the execution",
            DiskState::Untouched,
        );
        return Err(Failure {
            status: StatusCode::CONFLICT,
            report: Box::new(report),
        });
    }
    tracing::info!(execution = %id, disk = %name(&message.disk), "the job begins to write");
    let new = BeginWrite {
        others: Vec::new(),
        ..message
    };
    match &mut execution.begin_write {
        Some(first) => first.others.push(new),
        first => *first = Some(new),
    }
    execution.changed = now;
    executions::update(tx.conn(), &execution).await?;
    tx.commit().await?;
    app.live.contact(id, now);
    Ok(())
}

/// How many disks a job has.
fn disks_of(job: &JobKind) -> usize {
    match job {
        JobKind::Restore { set, .. } => set.len().max(1),
        JobKind::Backup { .. } | JobKind::Wipe(_) | JobKind::Script { .. } | JobKind::DiskCheck => {
            1
        }
    }
}

/// Device paths change between boots; serial number and WWN do not.
fn same_disk(a: &DiskInfo, b: &DiskInfo) -> bool {
    let identity = (a.serial.as_str(), a.wwn.as_str(), a.size_bytes)
        == (b.serial.as_str(), b.wwn.as_str(), b.size_bytes);
    let anonymous = a.serial.is_empty() && a.wwn.is_empty();
    identity && (!anonymous || a.path == b.path)
}

/// A disk as people are told of it.
pub(super) fn name(disk: &DiskInfo) -> String {
    let serial = if disk.serial.is_empty() {
        "without serial number".to_owned()
    } else {
        format!("serial {}", disk.serial)
    };
    format!("{} ({serial}, {} bytes)", disk.path, disk.size_bytes)
}

/// Stores the final state. Said twice it is acknowledged twice; the first one counts.
///
/// # Errors
/// The claim contradicts what the server has, or an earlier final state.
pub async fn finish(
    app: &App,
    id: &str,
    token: &str,
    message: Finish,
    now: i64,
) -> Outcome<FinishReply> {
    let mut tx = app.db.write().await?;
    let mut execution = authenticate(tx.conn(), id, token).await?;
    let claimed = state::final_state(&execution, &message.outcome, &message.summary)
        .map_err(|why| Failure::conflict(format!("the target reports \"done\", but {why}")))?;
    if execution.state.is_final() {
        return if execution.state == claimed {
            Ok(FinishReply {
                after: execution.after,
            })
        } else {
            Err(Failure::refused(format!(
                "the execution has ended before: {}",
                execution.state.as_str()
            )))
        };
    }
    if let (State::Done, Some(wiped)) = (claimed, &message.summary.wipe) {
        // Said twice because its first answer was lost, it is written twice.
        certificates::make(app, tx.conn(), &execution, wiped, now).await?;
    }
    conclude(
        tx.conn(),
        &mut execution,
        claimed,
        message.outcome,
        Some(message.summary),
        now,
    )
    .await?;
    // The target leaves after the answer: it must not be sent before this is durable.
    tx.commit().await?;
    concluded(app, &execution, now).await;
    Ok(FinishReply {
        after: execution.after,
    })
}

/// Stores a disk check. Every job begins with one; the disks of storage networks have to
/// be those of the last job that was nothing but a disk check (or else of the first job).
///
/// # Errors
/// `disks-changed`; refused, or the database fails.
pub async fn disk_check(
    app: &App,
    id: &str,
    token: &str,
    message: &DiskCheck,
    now: i64,
) -> Outcome<()> {
    let mut tx = app.db.write().await?;
    let execution = unfinished(tx.conn(), id, token).await?;
    let seen: Vec<DiskInfo> = message.disks.iter().map(|disk| disk.info.clone()).collect();
    let now_there = fabric::of(&seen);
    let machine = machines::by_id(tx.conn(), &execution.machine).await?;
    let known = machine
        .as_ref()
        .and_then(|machine| machine.san_disks.as_ref());
    match known {
        Some(known) if execution.job != JobKind::DiskCheck => {
            let changes = fabric::changes(known, &now_there);
            if !changes.is_empty() {
                let name = machine.map(|machine| machine.name).unwrap_or_default();
                tracing::warn!(machine = %name, changes = %changes.join("; "), "disks-changed");
                return Err(
                    Failure::new(Code::DisksChanged, changes.join("; ")).with_advice(format!(
                        "If that is as it should be: deployctl disk-check {name}, then order the job again."
                    )),
                );
            }
        }
        _ => machines::set_san_disks(tx.conn(), &execution.machine, &now_there).await?,
    }
    machines::set_disk_check(tx.conn(), &execution.machine, message, now).await?;
    tx.commit().await?;
    app.live.contact(id, now);
    Ok(())
}

/// Stores the old partition tables. Once writing has begun the first ones are kept: what
/// a resumed target finds on the disk are zeros.
///
/// # Errors
/// Refused, or the file cannot be written.
pub async fn old_tables(
    app: &App,
    id: &str,
    token: &str,
    part: u32,
    message: &OldTables,
) -> Outcome<()> {
    let execution = unfinished(&mut *app.db.read().await?, id, token).await?;
    if part as usize >= disks_of(&execution.job) {
        return Err(Failure::usage(format!("the job has no disk {part}")));
    }
    let path = files::tables_path(app, &execution.id, part);
    let mut begun = execution.begin_write.iter().flat_map(BeginWrite::all);
    if begun.any(|begun| begun.part == part) && path.exists() {
        return Ok(());
    }
    let json = serde_json::to_vec_pretty(message)?;
    files::write(path, json).await
}

/// Stores the target's log; allowed after the final state too, since a target uploads it
/// last. Only the newest runs of a machine keep theirs.
///
/// # Errors
/// Refused, or the file cannot be written.
pub async fn log(app: &App, id: &str, token: &str, text: Vec<u8>) -> Outcome<()> {
    let mut conn = app.db.read().await?;
    let execution = authenticate(&mut conn, id, token).await?;
    files::write(files::log_path(app, &execution.id), text).await?;
    let all = executions::newest(&mut conn, Some(&execution.machine), 1000).await?;
    files::prune_logs(app, &execution, &all).await
}
