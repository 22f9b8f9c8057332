//! Codecs and levels on networks of 1 and 10 Gbit/s: what a backup and a restore take.
//!
//! Owns: the links, the cases, the table that the default is chosen by. Does not own: the
//! server (`loopback`), the disk (`disk`).
//!
//! Target and server are hosts of a laboratory; what each sends passes a token bucket of
//! the link's rate. Both work on the same cores, so that at 10 Gbit/s a codec pays here for
//! the server's share too.

use crate::disk::Place;
use crate::loopback::{Server, on};
use crate::{disk, run, setting};
use e2e::built::Built;
use std::io;
use std::path::Path;
use testkit::netns::{Host, INTERFACE, Lab};

/// Rates of links as `tc` writes them, with a bucket that lets them be reached.
const LINKS: [(&str, &str); 2] = [("1gbit", "256kb"), ("10gbit", "4mb")];
const CODECS: [(&str, u8); 6] = [
    ("none", 1),
    ("zstd", 1),
    ("zstd", 3),
    ("zstd", 6),
    ("deflate", 1),
    ("deflate", 6),
];

/// Measures everything and prints the tables.
pub fn measure(built: &Built) -> io::Result<()> {
    let runs = setting("BENCH_RUNS", 5) as usize;
    for kind in disk::kinds().into_iter().take(1) {
        let place = Place::make(kind)?;
        println!(
            "\nCodecs, {}; target and server share the cores",
            place.title()
        );
        let asked = std::env::var("BENCH_LINK").unwrap_or_default();
        let wanted = |link: &(&str, &str)| asked.is_empty() || asked == link.0;
        for (rate, burst) in LINKS.into_iter().filter(wanted) {
            link(built, &place, rate, burst, runs)?;
        }
    }
    Ok(())
}

fn link(built: &Built, place: &Place, rate: &str, burst: &str, runs: usize) -> io::Result<()> {
    let lab = Lab::new()?;
    let there = lab.host("srv", "10.99.0.1/24")?;
    let here = lab.host("tgt", "10.99.0.2/24")?;
    for host in [&there, &here] {
        run::plain(&format!(
            "{}tc qdisc add dev {INTERFACE} root tbf rate {rate} burst {burst} latency 50ms",
            on(host)
        ))?;
    }
    let mut names = Vec::new();
    let mut sent = Vec::new();
    let mut backups = vec![Vec::new(); CODECS.len()];
    let mut restores = vec![Vec::new(); CODECS.len()];
    for round in 0..runs {
        for (index, (codec, level)) in CODECS.into_iter().enumerate() {
            let case = Case {
                built,
                place,
                there: &there,
                here: &here,
                codec,
                level,
            };
            let (backup, restore, bytes) = case.run(&place.folder().join("state"))?;
            backups[index].push(backup);
            restores[index].push(restore);
            if round == 0 {
                names.push(format!("{codec} {level}"));
                sent.push(bytes);
            }
        }
    }
    for (what, figures) in [("backup", backups), ("restore, not read back", restores)] {
        let rows: Vec<_> = names.iter().map(String::as_str).zip(figures).collect();
        disk::table(&format!("{what} over {rate}, warm cache"), runs, &rows);
    }
    for (name, bytes) in names.iter().zip(sent) {
        println!("  {name}: {bytes} bytes sent by the backup");
    }
    Ok(())
}

struct Case<'a> {
    built: &'a Built,
    place: &'a Place,
    there: &'a Host,
    here: &'a Host,
    codec: &'static str,
    level: u8,
}

impl Case<'_> {
    /// One backup to a server that has nothing, and its restore.
    fn run(&self, state: &Path) -> io::Result<(run::Figures, run::Figures, u64)> {
        let _ = std::fs::remove_dir_all(state);
        let server = Server::start_on(self.there, self.built, state)?;
        let (from, to) = self.place.devices();
        let target = |disk: &str| -> io::Result<String> {
            Ok(format!("{}{}", on(self.here), server.target(1, disk)?))
        };
        run::plain(&target(&from)?)?;
        run::plain(&format!("cat {from} > /dev/null"))?;
        let (machine, codec, level) = (Server::machine(1), self.codec, self.level);
        server.ctl(&format!(
            "backup {machine} --image it --codec {codec} --level {level} --disk {from}"
        ))?;
        let told = self.place.folder().join("told.json").display().to_string();
        let backup = run::timed(&format!("{} --json > {told}", target(&from)?))?;
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&told)?)?;
        let sent = json["wire_bytes"].as_u64();
        let sent = sent.ok_or_else(|| io::Error::other(format!("no wire_bytes in {json}")))?;
        server.ctl(&format!(
            "restore {machine} --image it --yes --no-verify --disk {to}"
        ))?;
        let restore = run::timed(&target(&to)?)?;
        Ok((backup, restore, sent))
    }
}
