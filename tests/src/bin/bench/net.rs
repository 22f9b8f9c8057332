//! Backup and restore over loopback HTTP: beside partclone, again without a change, and by
//! many targets at once.
//!
//! Owns: the cases. Does not own: the server (`loopback`), the disk and its peers (`disk`),
//! the baseline (`read`).

use crate::disk::{self, Side};
use crate::loopback::Server;
use crate::{crowd, run, setting};
use e2e::built::Built;
use std::io;

/// Measures everything and prints the tables.
pub fn measure(built: &Built) -> io::Result<()> {
    let runs = setting("BENCH_RUNS", 5) as usize;
    let bench = std::env::current_exe()?.display().to_string();
    for kind in disk::kinds() {
        let place = disk::Place::make(kind)?;
        let (from, to) = place.devices();
        println!(
            "\nOver loopback HTTPS, {}; the server's work is on the same cores",
            place.title()
        );
        let file = |name: &str| place.folder().join(name).display().to_string();
        let (checked, bare, map) = (file("checked.zst"), file("bare.zst"), file("map.json"));
        let imager = built.program("imager").display().to_string();
        run::plain(&format!("{imager} map --json --extents {from} > {map}"))?;

        // A server that knows nothing yet, for each run.
        let mut ours = Vec::new();
        let mut peers: Vec<Vec<run::Figures>> = vec![Vec::new(); 4];
        let peer: [Side; 4] = [
            ("partclone | zstd -1 -T0", kind.peer("", 1, &from, &checked)),
            (
                "the same over loopback TCP",
                kind.peer_over("", 1, &from, &bench, &checked),
            ),
            (
                "partclone -a0 | zstd -1 -T0",
                kind.peer("-a0", 1, &from, &bare),
            ),
            (
                "the same over loopback TCP",
                kind.peer_over("-a0", 1, &from, &bench, &bare),
            ),
        ];
        let state = place.folder().join("state");
        for _ in 0..runs {
            let server = fresh(built, &state, &from)?;
            run::plain(&format!("cat {from} > /dev/null"))?;
            ours.push(run::timed(&server.target(1, &from)?)?);
            drop(server);
            for ((_, script), figures) in peer.iter().zip(&mut peers) {
                run::plain(&format!("cat {from} > /dev/null"))?;
                figures.push(run::timed(script)?);
            }
        }
        let mut rows = vec![("imager, to a server", ours)];
        rows.extend(peer.iter().map(|(name, _)| *name).zip(peers));
        disk::table("backup over HTTPS, warm cache", runs, &rows);

        // The same again: nothing has changed.
        let server = fresh(built, &state, &from)?;
        run::plain(&server.target(1, &from)?)?;
        let target = server.target(1, &from)?;
        let mut again = Vec::new();
        let mut baseline = Vec::new();
        for _ in 0..runs {
            run::plain(&format!("cat {from} > /dev/null"))?;
            server.ctl(&format!(
                "backup {} --image again --disk {from}",
                Server::machine(1)
            ))?;
            again.push(run::timed(&target)?);
            run::plain(&format!("cat {from} > /dev/null"))?;
            baseline.push(run::timed(&format!("{bench} read {from} {map} hash"))?);
        }
        let rows = [("imager, unchanged", again), ("read and BLAKE3", baseline)];
        disk::table("backup of an unchanged disk, warm cache", runs, &rows);
        println!("  sent: {}", sent(&server, &from)?);

        let mut restored = Vec::new();
        let mut put_back = Vec::new();
        for _ in 0..runs {
            server.ctl(&format!(
                "restore {} --image again --yes --no-verify --disk {to}",
                Server::machine(1)
            ))?;
            restored.push(run::timed(&server.target(1, &to)?)?);
            put_back.push(run::timed(&disk::put_back(&checked, &to))?);
        }
        let rows = [
            ("imager --no-verify, from a server", restored),
            ("zstd -dc | partclone.restore", put_back),
        ];
        disk::table("restore over HTTPS, warm cache", runs, &rows);
        kind.check(&to)?;
        if kind.is_first() {
            crowd::measure(built, &place)?;
        }
    }
    Ok(())
}

/// Measures only many targets at once.
pub fn crowd(built: &Built) -> io::Result<()> {
    match disk::kinds().first() {
        Some(kind) => crowd::measure(built, &disk::Place::make(*kind)?),
        None => Ok(()),
    }
}

/// Words that name a disk to the server: a loop device is never taken for the only one.
fn named(disk: &str) -> String {
    match disk.starts_with("/dev/") {
        true => format!("--disk {disk}"),
        false => String::new(),
    }
}

/// A new server that has ordered a backup of machine 1, which has one disk.
fn fresh(built: &Built, state: &std::path::Path, disk: &str) -> io::Result<Server> {
    let _ = std::fs::remove_dir_all(state);
    let server = Server::start(built, state, 50)?;
    run::plain(&server.target(1, disk)?)?;
    server.ctl(&format!(
        "backup {} --image first {}",
        Server::machine(1),
        named(disk)
    ))?;
    Ok(server)
}

/// What one more backup of the unchanged disk sends.
fn sent(server: &Server, disk: &str) -> io::Result<String> {
    server.ctl(&format!(
        "backup {} --image again --disk {disk}",
        Server::machine(1)
    ))?;
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("{} --json", server.target(1, disk)?)])
        .output()?;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let number = |key: &str| json[key].as_f64().unwrap_or(f64::NAN);
    let (wire, used) = (number("wire_bytes"), number("used_bytes"));
    Ok(format!(
        "{wire} bytes of {used} used, {:.4} %, manifest included",
        wire / used * 100.0
    ))
}
