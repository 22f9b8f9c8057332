//! Jobs of several disks: which disks, and which image goes to which.
//!
//! Owns: the choice, settled when a job is ordered. Does not own: the images of a set
//! ([`crate::store`]), the comparison with the disks that the machine then has (the target).

use super::{choices, control, run};
use crate::app::App;
use crate::db::executions::Execution;
use crate::db::images::{self, Image};
use crate::db::machines::Machine;
use crate::db::{Conn, chunks};
use crate::failure::{Failure, Outcome};
use crate::view::{JobRequest, Placement};
use wire::{BeginWrite, Code, DiskImage, DiskInfo, DiskSelector, JobKind};

/// Most disks of one job.
const MAX_DISKS: usize = 64;

/// The disks of a backup: those that are named, or all fixed ones of the last check-in.
///
/// # Errors
/// One is not there, is named twice, or none is known.
pub fn disks(machine: &Machine, named: Vec<DiskSelector>, all: bool) -> Outcome<Vec<DiskSelector>> {
    let chosen: Vec<DiskSelector> = if all {
        if !named.is_empty() {
            return Err(Failure::usage("all disks are meant, and some are named"));
        }
        let fixed = machine.disks.iter().filter(|disk| !disk.removable);
        fixed.map(choices::identity).collect()
    } else {
        let settled = named
            .into_iter()
            .map(|disk| choices::disk(machine, Some(disk)));
        settled
            .collect::<Outcome<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect()
    };
    if all && chosen.is_empty() {
        let found = format!(
            "machine \"{}\" has shown no fixed disk at its last check-in",
            machine.name
        );
        return Err(Failure::new(Code::DiskNotFound, found));
    }
    if chosen.len() > MAX_DISKS {
        return Err(Failure::usage(format!(
            "{} disks in one job; {MAX_DISKS} are possible",
            chosen.len()
        )));
    }
    for (at, disk) in chosen.iter().enumerate() {
        if chosen.iter().skip(at + 1).any(|other| other == disk) {
            return Err(Failure::usage(format!(
                "a disk is named twice: {}",
                named_as(disk)
            )));
        }
    }
    Ok(chosen)
}

/// What each disk of a restore gets: the images of the set in their order to the disks that
/// are named in the same order, or else each to the disk that it was made of.
///
/// # Errors
/// The numbers differ, a disk cannot be told, or an image is damaged.
pub async fn images(
    app: &App,
    conn: &mut Conn,
    machine: &Machine,
    image: &Image,
    named: Vec<DiskSelector>,
) -> Outcome<Vec<DiskImage>> {
    let Some(set) = &image.set else {
        return Err(Failure::usage(format!(
            "image \"{}\" is of one disk; name one disk",
            image.name
        )));
    };
    let members = images::of_set(conn, &set.id).await?;
    if members.len() != set.of as usize {
        let found = format!(
            "of the {} images \"{}\" only {} are there",
            set.of,
            image.name,
            members.len()
        );
        return Err(Failure::new(Code::ImageDamaged, found)
            .with_advice("Restore those that are there one by one, by their ids."));
    }
    let disks = if named.is_empty() {
        let mut own = Vec::with_capacity(members.len());
        for member in &members {
            own.push(own_disk(app, machine, member).await?);
        }
        own
    } else {
        disks(machine, named, false)?
    };
    if disks.len() != members.len() {
        return Err(Failure::usage(format!(
            "image \"{}\" is of {} disks, and {} are named",
            image.name,
            members.len(),
            disks.len()
        )));
    }
    let mut parts = Vec::with_capacity(members.len());
    for (member, disk) in members.into_iter().zip(disks) {
        if member.damaged {
            let found = format!("the manifest of image \"{}\" is damaged", member.name);
            return Err(Failure::new(Code::ImageDamaged, found));
        }
        let (_, damaged, _) = chunks::totals(conn, &member.id).await?;
        if damaged > 0 {
            let found = format!("{damaged} chunks of image \"{}\" are damaged", member.name);
            return Err(Failure::new(Code::ImageDamaged, found));
        }
        parts.push(DiskImage {
            disk,
            image: member.id,
            root: member.root,
        });
    }
    Ok(parts)
}

/// Which image goes where, as an order of this job would settle it.
///
/// # Errors
/// As for the order; `usage` for a job that is not a restore of several disks.
pub async fn preview(
    app: &App,
    reference: &str,
    request: JobRequest,
    now: i64,
) -> Outcome<Vec<Placement>> {
    let mut conn = app.db.read().await?;
    let machine = control::machine(&mut conn, reference).await?;
    let (job, _) = control::job(app, &mut conn, &machine, request, now).await?;
    let JobKind::Restore { set, .. } = job else {
        return Err(Failure::usage("only a restore has images that go to disks"));
    };
    let mut placements = Vec::with_capacity(set.len());
    for part in set {
        let disk = app.store.layout(&part.image).await?.disk;
        placements.push(Placement {
            known: choices::known(&machine, &part.disk).cloned(),
            disk: part.disk,
            image: part.image,
            size_bytes: disk.size_bytes,
            model: disk.model,
            serial: disk.serial,
        });
    }
    Ok(placements)
}

/// The machine's disk that an image was made of.
async fn own_disk(app: &App, machine: &Machine, image: &Image) -> Outcome<DiskSelector> {
    let layout = app.store.layout(&image.id).await?;
    let (serial, wwn) = (&layout.disk.serial, &layout.disk.wwn);
    let known = !serial.is_empty() || !wwn.is_empty();
    let fits = |disk: &&DiskInfo| known && (&disk.serial, &disk.wwn) == (serial, wwn);
    let mut fitting = machine.disks.iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(disk), None) => Ok(choices::identity(disk)),
        _ => {
            let found = match layout.encryption {
                Some(_) => format!(
                    "the machine's disk of image {} cannot be told, because its serial number is encrypted",
                    image.id
                ),
                None => format!(
                    "the machine's disk of image {} (serial {serial:?}, WWN {wwn:?}) cannot be told",
                    image.id
                ),
            };
            Err(Failure::new(Code::DiskNotFound, found).with_advice(
                "Name the disks with --disk, once for each image of the set, in their order.",
            ))
        }
    }
}

/// Of a restore of several disks that has begun: which disks may have been written, and
/// which have not. It completes a sentence; empty for all else.
pub fn begun_and_not(execution: &Execution) -> String {
    let (JobKind::Restore { set, .. }, Some(first)) = (&execution.job, &execution.begin_write)
    else {
        return String::new();
    };
    if set.is_empty() {
        return String::new();
    }
    let begun: Vec<&BeginWrite> = first.all().collect();
    let written: Vec<String> = begun.iter().map(|one| run::name(&one.disk)).collect();
    let whole = |(at, _): &(usize, _)| !begun.iter().any(|one| one.part as usize == *at);
    let not = set.iter().enumerate().filter(whole);
    let not: Vec<String> = not.map(|(_, part)| named_as(&part.disk)).collect();
    let mut text = format!("; may have been written: {}", written.join(", "));
    if !not.is_empty() {
        text += &format!("; not begun, so untouched: {}", not.join(", "));
    }
    text
}

fn named_as(disk: &DiskSelector) -> String {
    let known = [&disk.serial, &disk.wwn, &disk.path];
    known
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use crate::exec::failed;
    use crate::exec::state::State;
    use crate::exec::state::tests::{execution, restore};
    use wire::{BeginWrite, Code, DiskImage, DiskInfo, DiskSelector, JobKind, JobOutcome};

    #[test]
    fn a_restore_that_the_server_ends_tells_which_disks_it_had_begun() {
        let mut e = execution(restore(), State::Running);
        let found = |e: &_| match failed(e, Code::Interrupted, "ended") {
            JobOutcome::Failed { report } => report.found,
            JobOutcome::Done { .. } => panic!("done"),
        };
        let disk = |serial: &str| DiskInfo {
            serial: serial.into(),
            ..DiskInfo::default()
        };
        e.begin_write = Some(disk("A").into());
        assert_eq!(found(&e), "ended");
        if let JobKind::Restore { set, .. } = &mut e.job {
            set.extend(["A", "B", "C"].map(|serial| DiskImage {
                disk: DiskSelector {
                    serial: Some(serial.into()),
                    ..DiskSelector::default()
                },
                image: "i".into(),
                root: "r".into(),
            }));
        }
        let mut begun = BeginWrite::from(disk("A"));
        begun.others.push(BeginWrite {
            part: 2,
            ..BeginWrite::from(disk("C"))
        });
        e.begin_write = Some(begun);
        let found = found(&e);
        let (written, not) = found.split_once("untouched: ").unwrap();
        assert!(
            written.contains("serial A") && written.contains("serial C"),
            "{found}"
        );
        assert_eq!(not, "B");
    }
}
