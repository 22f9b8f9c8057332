//! The demo's second part with `--multicast`: three blank machines restored by one session.
//!
//! Owns: those machines together. Does not own: what comes before (the image).

use super::{BLANK_BYTES, IMAGE, MIB, SOURCE, Table, figures, pc};
use e2e::machines::{LIMIT, Pc};
use e2e::proof;
use e2e::site::Site;
use e2e::status::Execution;
use e2e::story::Story;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testkit::machine::Machine;
use testkit::qemu::Firmware;

const NAMES: [&str; 3] = ["room1", "room2", "room3"];
const POLL: Duration = Duration::from_millis(500);

struct Blank {
    pc: Pc,
    disk: PathBuf,
    name: String,
}

/// Three blank machines boot from the network, wait for each other and are restored at once;
/// all files are compared, and one of them boots.
pub fn three_machines(
    story: &Story,
    site: &Site,
    table: &mut Table,
    folder: &Path,
    firmware: Firmware,
) -> io::Result<()> {
    let mut room = Vec::new();
    for (number, name) in NAMES.into_iter().enumerate() {
        let disk = folder.join(format!("{name}.img"));
        proof::blank(&disk, BLANK_BYTES)?;
        // The first number is the machine that was backed up.
        let pc = pc(name, firmware, number + 1);
        let name = String::new();
        room.push(Blank { pc, disk, name });
    }
    table.timed("three blank machines register", || {
        story.step("three machines that nobody knows boot from the network");
        let mut guests = boot(story, site, &room, "register")?;
        wait(&mut guests, "the machines register themselves", || {
            let status = site.status()?;
            for blank in &mut room {
                blank.name = status.machine(blank.pc.mac).unwrap_or_default();
            }
            Ok(room.iter().all(|blank| !blank.name.is_empty()))
        })?;
        guests
            .iter_mut()
            .try_for_each(|guest| guest.wait_exit(LIMIT).map(drop))
    })?;
    let mut order = vec!["--json", "multicast", "restore", "--image", IMAGE, "--yes"];
    order.extend(room.iter().map(|blank| blank.name.as_str()));
    let ordered: Value = serde_json::from_str(&site.ctl(&order)?)?;
    let session = ordered["session"]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let done = table.timed("network boots and one restore of all three", || {
        story.step("three network boots, then one multicast session");
        let mut guests = boot(story, site, &room, "restore")?;
        let mut stage = String::new();
        let mut done = Vec::new();
        wait(&mut guests, "all three are restored", || {
            show(story, &seen(site, &session)?, &mut stage);
            let status = site.status()?;
            done = room
                .iter()
                .filter_map(|blank| status.execution(&blank.name, "restore"))
                .collect();
            match done
                .iter()
                .find(|execution: &&Execution| execution.is_final() && !execution.is_done())
            {
                Some(failed) => Err(io::Error::other(format!("a restore failed: {failed:?}"))),
                None => Ok(done.len() == room.len() && done.iter().all(Execution::is_done)),
            }
        })?;
        guests
            .iter_mut()
            .try_for_each(|guest| guest.wait_exit(LIMIT).map(drop))?;
        Ok(done)
    })?;
    if let Some(first) = done.first() {
        table.note(&figures(first));
    }
    let sent = seen(site, &session)?;
    story.step(&format!(
        "sent once for all: {:.0} MiB in {} packets, {:.1} % parity, {:.1} % repair",
        sent["total_bytes"].as_f64().unwrap_or(0.0) / MIB,
        sent["packets"],
        sent["parity"].as_f64().unwrap_or(0.0) * 100.0,
        sent["repair"].as_f64().unwrap_or(0.0) * 100.0
    ));
    for execution in &done {
        // A session that nobody could hear would be three restores by unicast.
        if execution
            .warnings()
            .iter()
            .any(|code| code.starts_with("multicast"))
        {
            return Err(io::Error::other(format!(
                "multicast did not bring everything: {execution:?}"
            )));
        }
    }
    table.timed("every file of all three compared", || {
        for blank in &room {
            let found = proof::differences(firmware, &folder.join(SOURCE), &blank.disk)?;
            if !found.is_empty() {
                let name = blank.pc.name;
                return Err(io::Error::other(format!(
                    "differences of {name}: {found:#?}"
                )));
            }
        }
        Ok(())
    })?;
    table.note("no difference");
    if let Some(first) = room.first() {
        table.timed("a restored machine to its login prompt", || {
            story.boots_through(site, &first.pc, &first.disk)
        })?;
    }
    Ok(())
}

fn boot(story: &Story, site: &Site, room: &[Blank], what: &str) -> io::Result<Vec<Machine>> {
    room.iter()
        .map(|blank| blank.pc.boot(site, story.accelerator, what, &blank.disk))
        .collect()
}

/// Waits until something is so while the machines run.
fn wait(
    guests: &mut [Machine],
    what: &str,
    mut wanted: impl FnMut() -> io::Result<bool>,
) -> io::Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        // Asked before the server is: what a machine did before its end counts.
        let mut running = false;
        for guest in guests.iter_mut() {
            running |= guest.is_running()?;
        }
        if wanted()? {
            return Ok(());
        }
        if !running || Instant::now() >= end {
            let why = if running {
                "too long"
            } else {
                "all machines ended"
            };
            let text = format!("{what}: {why}");
            return Err(match guests.first_mut() {
                Some(guest) => guest.failure(&text),
                None => io::Error::other(text),
            });
        }
        std::thread::sleep(POLL);
    }
}

fn seen(site: &Site, id: &str) -> io::Result<Value> {
    let all: Value = serde_json::from_str(&site.ctl(&["--json", "multicast", "list"])?)?;
    let session = all
        .as_array()
        .and_then(|all| all.iter().find(|one| one["id"] == id));
    session
        .cloned()
        .ok_or_else(|| io::Error::other(format!("there is no session {id}: {all}")))
}

/// Says what changed.
fn show(story: &Story, session: &Value, before: &mut String) {
    let now = format!(
        "{}, {} of {} ready",
        session["stage"].as_str().unwrap_or_default(),
        session["ready"],
        session["targets"]
    );
    if now != *before {
        story.step(&format!("session: {now}"));
        *before = now;
    }
}
