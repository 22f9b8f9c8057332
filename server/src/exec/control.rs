//! What an operator does with executions.
//!
//! Owns: creating, interrupting and clearing. Does not own: what targets report.

use super::rate::LEAST;
use super::state::State;
use super::{choices, conclude, concluded, failed, kind_name, names, watch};
use super::{scope, scripts, set, wipe};
use crate::app::App;
use crate::db::executions::{self, Execution};
use crate::db::machines::Machine;
use crate::db::{Conn, chunks, images, machines};
use crate::failure::{Failure, Outcome};
use crate::netboot::LocalBoot;
use crate::secrets;
use crate::view::{JobRequest, NewExecution};
use wire::{Code, DiskSelector, JobKind, Session};

/// The machine that people mean by a name, id or address.
///
/// # Errors
/// There is none.
pub async fn machine(conn: &mut Conn, reference: &str) -> Outcome<Machine> {
    machines::by_reference(conn, reference)
        .await?
        .ok_or_else(|| {
            Failure::not_found(format!("there is no machine \"{reference}\""))
                .with_advice("List the machines with: deployctl machines list")
        })
}

/// Makes an execution for a machine.
///
/// # Errors
/// The machine has an open one, or the job cannot work.
pub async fn create(
    app: &App,
    reference: &str,
    request: NewExecution,
    now: i64,
) -> Outcome<Execution> {
    let mut tx = app.db.write().await?;
    let execution = insert(app, tx.conn(), reference, request, None, now).await?;
    tx.commit().await?;
    tracing::info!(execution = %execution.id, machine = reference, kind = kind_name(&execution.job), "execution created");
    Ok(execution)
}

/// As [`create`], in the caller's transaction; a restore belongs to `session`, if one is
/// given.
///
/// # Errors
/// As [`create`].
pub(crate) async fn insert(
    app: &App,
    conn: &mut Conn,
    reference: &str,
    request: NewExecution,
    session: Option<Session>,
    now: i64,
) -> Outcome<Execution> {
    let random = |e: std::io::Error| Failure::io("random numbers", &e);
    let machine = machine(conn, reference).await?;
    if let Some(open) = executions::open_of(conn, &machine.id).await? {
        let found = format!(
            "machine \"{}\" has a {} that is {}",
            machine.name,
            kind_name(&open.job),
            open.state.as_str()
        );
        let advice = if open.state.is_final() {
            format!(
                "Look at it, then clear it with: deployctl clear {}",
                machine.name
            )
        } else {
            format!(
                "Wait for its end, or interrupt it with: deployctl interrupt {}",
                machine.name
            )
        };
        return Err(Failure::conflict(found).with_advice(advice));
    }
    if let Some(rate) = request.rate.filter(|&rate| rate < LEAST) {
        return Err(Failure::usage(format!(
            "a limit of {rate} bytes a second; the smallest one is {LEAST} (1M)"
        )));
    }
    let series = match &request.job {
        JobRequest::Backup { image, .. } => Some(image.clone()),
        _ => None,
    };
    let (mut job, image) = job(app, conn, &machine, request.job, now).await?;
    if let JobKind::Restore { multicast, .. } = &mut job {
        *multicast = session;
    }
    let id = secrets::random_id().map_err(random)?;
    let key = app.store.signing_key();
    let scripts = scripts::sign(key.as_deref(), &id, &job, request.scripts)?;
    let execution = Execution {
        id,
        machine: machine.id,
        job,
        after: request.after,
        token: secrets::random_hex().map_err(random)?,
        series,
        rate: request.rate,
        scripts,
        state: State::Waiting,
        open: true,
        created: now,
        changed: now,
        started: None,
        ended: None,
        boot_id: None,
        image,
        begin_write: None,
        outcome: None,
        summary: None,
    };
    executions::insert(conn, &execution).await?;
    Ok(execution)
}

/// What a target is told to do for a request, and the image that it is about.
///
/// # Errors
/// It cannot work.
pub(super) async fn job(
    app: &App,
    conn: &mut Conn,
    machine: &Machine,
    request: JobRequest,
    now: i64,
) -> Outcome<(JobKind, Option<String>)> {
    match request {
        JobRequest::DiskCheck => Ok((JobKind::DiskCheck, None)),
        JobRequest::Script { name } => Ok((JobKind::Script { name }, None)),
        JobRequest::Wipe(order) => Ok((wipe::settle(machine, order)?, None)),
        JobRequest::Backup {
            disk,
            image,
            full,
            codec,
            level,
            partitions,
            full_partitions,
            skip_bad,
            disks,
            all_disks,
        } => {
            let macs = machines::macs(conn, &machine.id).await?;
            let known = names::Known {
                name: &machine.name,
                uuid: machine.uuid.as_deref(),
                mac: macs.first().map(String::as_str),
            };
            let image = names::fill(&image, &known, now)?;
            check_name("image", &image)?;
            // How much a backup will send is not known before; that nothing can be stored is.
            app.store.room_for(1)?;
            if !(1..=codec.max_level()).contains(&level) {
                return Err(Failure::usage(format!(
                    "compression level {level}; levels are 1 to {}",
                    codec.max_level()
                )));
            }
            if let Some(owner) = images::other_owner(conn, &image, &machine.id).await? {
                let found =
                    format!("the name \"{image}\" is that of an image of machine \"{owner}\"");
                return Err(Failure::new(Code::ImageExists, found));
            }
            one_way(disk.as_ref(), &disks, all_disks)?;
            let mut disk = choices::disk(machine, disk)?;
            let mut disks = set::disks(machine, disks, all_disks)?;
            if disks.len() == 1 {
                disk = disks.pop();
            }
            let in_part = !partitions.is_empty() || !full_partitions.is_empty();
            if in_part && !disks.is_empty() {
                return Err(Failure::usage(
                    "partitions are chosen of one disk, not of several",
                ));
            }
            let partitions = choices::partitions(machine, disk.as_ref(), &partitions, false)?;
            Ok((
                JobKind::Backup {
                    disk,
                    image,
                    full,
                    codec,
                    level,
                    partitions,
                    full_partitions,
                    skip_bad,
                    disks,
                },
                None,
            ))
        }
        JobRequest::Restore {
            disk,
            image,
            verify,
            force,
            mut scope,
            reuse,
            mut disks,
            all_disks,
        } => {
            one_way(disk.as_ref(), &disks, all_disks)?;
            let disk = match disks.len() {
                1 => disks.pop(),
                _ => disk,
            };
            let reference = image;
            let Some(image) = images::by_reference(conn, &reference).await? else {
                return Err(Failure::new(
                    Code::ImageNotFound,
                    format!("there is no image \"{reference}\""),
                ));
            };
            let several = all_disks || disks.len() > 1;
            if image.set.is_some() && reference != image.id && !several {
                return Err(Failure::usage(format!(
                    "the image \"{reference}\" is of several disks"
                ))
                .with_advice("Restore all of them (all_disks, or disks), or name one by its id."));
            }
            let (_, damaged, _) = chunks::totals(conn, &image.id).await?;
            if image.damaged {
                let found = format!("the manifest of image \"{}\" is damaged", image.name);
                return Err(Failure::new(Code::ImageDamaged, found));
            }
            if damaged > 0 {
                let found = format!("{damaged} chunks of image \"{}\" are damaged", image.name);
                return Err(Failure::new(Code::ImageDamaged, found));
            }
            let disk = choices::disk(machine, disk)?;
            let set = if several {
                if !scope.is_default() {
                    return Err(Failure::usage(
                        "several disks are restored whole, or one of them in part",
                    ));
                }
                set::images(app, conn, machine, &image, disks).await?
            } else {
                Vec::new()
            };
            if !scope.is_default() {
                let layout = app.store.layout(&image.id).await?;
                scope::settle(&mut scope, &layout, machine, disk.as_ref())?;
            }
            let id = image.id.clone();
            let job = JobKind::Restore {
                disk,
                image: image.id,
                image_name: image.name,
                // A target that does not know sets would write the first image to the only
                // disk that it takes for meant: it gets a root that no image has.
                root: match set.is_empty() {
                    true => image.root,
                    false => String::new(),
                },
                verify,
                force,
                scope,
                reuse,
                set,
                multicast: None,
            };
            Ok((job, Some(id)))
        }
    }
}

/// Disks are named in one way, so that none of what was said is passed over.
fn one_way(disk: Option<&DiskSelector>, disks: &[DiskSelector], all: bool) -> Outcome<()> {
    let ways = [disk.is_some(), !disks.is_empty(), all];
    if ways.iter().filter(|&&way| way).count() > 1 {
        return Err(Failure::usage(
            "disks are named by one of disk, disks and all_disks",
        ));
    }
    Ok(())
}

/// Refuses names that are hard to type, to show or to keep apart.
///
/// # Errors
/// The name is empty, long, or has characters that do not belong into one.
pub fn check_name(what: &str, name: &str) -> Outcome<()> {
    let plain = !name.is_empty()
        && name.chars().count() <= 128
        && name.trim() == name
        && !name.starts_with('-')
        && !name
            .chars()
            .any(|c| c.is_control() || matches!(c, '/' | '\\'));
    if plain {
        Ok(())
    } else {
        Err(Failure::usage(format!("{name:?} is no name for a {what}"))
            .with_advice("Names have 1 to 128 characters, no slash, no control character, no space at either end and no \"-\" first."))
    }
}

/// Renames a machine.
///
/// # Errors
/// There is none, or the name is taken or unfit.
pub async fn rename(app: &App, reference: &str, name: &str) -> Outcome<()> {
    check_name("machine", name)?;
    let mut tx = app.db.write().await?;
    let machine = machine(tx.conn(), reference).await?;
    if !machines::rename(tx.conn(), &machine.id, name).await? {
        return Err(Failure::conflict(format!(
            "there is already a machine \"{name}\""
        )));
    }
    tx.commit().await?;
    tracing::info!(from = %machine.name, to = %name, "machine renamed");
    Ok(())
}

/// Sets how a machine's own disk is booted.
///
/// # Errors
/// There is no such machine.
pub async fn set_local_boot(app: &App, reference: &str, way: LocalBoot) -> Outcome<()> {
    let mut tx = app.db.write().await?;
    let machine = machine(tx.conn(), reference).await?;
    machines::set_local_boot(tx.conn(), &machine.id, way).await?;
    tx.commit().await?;
    tracing::info!(machine = %machine.name, way = way.as_str(), "local boot set");
    Ok(())
}

/// Forgets a machine and the history of its executions; its images stay.
///
/// # Errors
/// It has an unfinished execution.
pub async fn forget(app: &App, reference: &str) -> Outcome<()> {
    let mut tx = app.db.write().await?;
    let machine = machine(tx.conn(), reference).await?;
    if executions::open_of(tx.conn(), &machine.id)
        .await?
        .is_some_and(|e| !e.state.is_final())
    {
        return Err(Failure::conflict(format!(
            "machine \"{}\" has an unfinished execution",
            machine.name
        )));
    }
    machines::delete(tx.conn(), &machine.id).await?;
    tx.commit().await?;
    tracing::info!(machine = %machine.name, "machine forgotten");
    Ok(())
}

/// Asks a machine's execution to stop. One that no target has ends at once, one whose
/// target is silent too.
///
/// # Errors
/// There is nothing to interrupt.
pub async fn interrupt(app: &App, reference: &str, now: i64) -> Outcome<Execution> {
    let mut tx = app.db.write().await?;
    let machine = machine(tx.conn(), reference).await?;
    let open = executions::open_of(tx.conn(), &machine.id)
        .await?
        .filter(|e| !e.state.is_final());
    let Some(mut execution) = open else {
        return Err(Failure::new(
            Code::NothingAssigned,
            format!("machine \"{}\" has no unfinished execution", machine.name),
        )
        .with_advice("There is nothing to interrupt."));
    };
    let nobody_has_it = !execution.state.is_active();
    if nobody_has_it || watch::is_silent(app, &execution, now) {
        let found = if nobody_has_it {
            "an operator cancelled it before it began"
        } else {
            "an operator ended it; the machine had stopped reporting"
        };
        let outcome = failed(&execution, Code::Interrupted, found);
        conclude(
            tx.conn(),
            &mut execution,
            State::Interrupted,
            outcome,
            None,
            now,
        )
        .await?;
    } else if execution.state != State::Interrupting {
        execution.state = State::Interrupting;
        execution.changed = now;
        executions::update(tx.conn(), &execution).await?;
    }
    tx.commit().await?;
    tracing::info!(execution = %execution.id, machine = %machine.name, "interrupt");
    if execution.state.is_final() {
        concluded(app, &execution, now).await;
    }
    Ok(execution)
}

/// Clears a failed or interrupted execution, so that the machine can have a new one.
/// `None` if there was nothing to clear.
///
/// # Errors
/// The execution is not over.
pub async fn clear(app: &App, reference: &str, now: i64) -> Outcome<Option<Execution>> {
    let mut tx = app.db.write().await?;
    let machine = machine(tx.conn(), reference).await?;
    let Some(mut execution) = executions::open_of(tx.conn(), &machine.id).await? else {
        machines::forget_boots(tx.conn(), &machine.id).await?;
        tx.commit().await?;
        return Ok(None);
    };
    if !execution.state.is_final() {
        let found = format!(
            "the {} of machine \"{}\" is {}",
            kind_name(&execution.job),
            machine.name,
            execution.state.as_str()
        );
        return Err(Failure::conflict(found).with_advice(format!(
            "Interrupt it first: deployctl interrupt {}",
            machine.name
        )));
    }
    execution.open = false;
    execution.changed = now;
    executions::update(tx.conn(), &execution).await?;
    machines::forget_boots(tx.conn(), &machine.id).await?;
    tx.commit().await?;
    tracing::info!(execution = %execution.id, machine = %machine.name, "cleared");
    Ok(Some(execution))
}
