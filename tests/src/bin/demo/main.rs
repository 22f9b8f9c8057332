//! The demo: a machine boots from the network, is backed up, and a blank one is restored
//! from its image and boots.
//!
//! Owns: what is shown on the terminal. Does not own: how machines are run (crate `e2e`), the
//! demo with several machines at once ([`multicast`]).

mod multicast;

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use e2e::built::Built;
use e2e::machines::{LIMIT, Pc};
use e2e::proof;
use e2e::site::{Site, TAPS};
use e2e::status::Execution;
use e2e::story::Story;
use nix::sys::signal::{SigSet, Signal};
use testkit::debian;
use testkit::netns;
use testkit::qemu::Firmware;

const USAGE: &str = "demo [--keep] [--uefi] [--multicast]
  --keep       leave the server and its page up at the end, until Ctrl-C
  --uefi       UEFI machines instead of BIOS ones (slower under emulation)
  --multicast  three blank machines are restored at once";
/// Set in the child that does the work.
const SUPERVISED: &str = "DEPLOY_DEMO_SUPERVISED";
const IMAGE: &str = "office";
const SOURCE: &str = "source.img";
const MIB: f64 = 1_048_576.0;
/// The blank disk: larger than the 2 GiB of the source.
const BLANK_BYTES: u64 = 4 << 30;
const BAR: usize = 30;

fn main() -> ExitCode {
    let (mut keep, mut firmware, mut room) = (false, Firmware::Bios, false);
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--keep" => keep = true,
            "--uefi" => firmware = Firmware::Uefi,
            "--multicast" => room = true,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let result = if std::env::var_os(SUPERVISED).is_some() {
        run(firmware, keep, room).map(|()| ExitCode::SUCCESS)
    } else {
        supervise()
    };
    result.unwrap_or_else(|error| {
        eprintln!("\ndemo: {error}");
        ExitCode::FAILURE
    })
}

/// Runs the demo as a child with a folder of its own for temporary files. However the
/// child ends, by Ctrl-C too, its namespaces, programs and files are removed.
fn supervise() -> io::Result<ExitCode> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGHUP);
    // The child is started with an empty mask: it alone ends.
    signals.thread_block()?;
    let folder = tempfile::Builder::new().prefix("deploy-demo-").tempdir()?;
    let status = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(SUPERVISED, "1")
        .env("TMPDIR", folder.path())
        .status()?;
    netns::remove_leftovers();
    Ok(ExitCode::from(if status.success() { 0 } else { 1 }))
}

fn run(firmware: Firmware, keep: bool, room: bool) -> io::Result<()> {
    let built = Built::find()?;
    let story = Story::begin("Deploy-OS demo", built.accelerator()?);
    let mut table = Table::default();
    let folder = tempfile::tempdir()?;

    story.step("the first machine's disk: a small Debian (made once, then cached)");
    let source = folder.path().join(SOURCE);
    let start = Instant::now();
    debian::copy(&debian::disk(firmware, built.cache())?, &source)?;
    table.row("Debian disk", start.elapsed(), "");

    let site = Site::new(&built, "demo")?;
    let page = site.page()?;
    story.step(&format!(
        "server is up, beside another DHCP server; page: http://{page}/"
    ));

    let old = pc("office1", firmware, 0);
    let name = table.timed("first network boot, registers", || {
        story.register(&site, &old, &source)
    })?;
    site.ctl(&["backup", &name, "--image", IMAGE])?;
    let backup = table.timed("network boot and backup", || {
        job(&story, &site, &old, &name, "backup", &source)
    })?;
    table.note(&figures(&backup));

    match room {
        false => one_machine(&story, &site, &mut table, folder.path(), firmware)?,
        true => multicast::three_machines(&story, &site, &mut table, folder.path(), firmware)?,
    }
    table.print(&story, &site);
    if keep {
        println!("\nThe server stays up.  Page:  http://{page}/");
        println!("Token of its administrator: {}", site.token()?);
        println!("On its command line:  {}", site.ctl_line());
        println!("Ctrl-C ends it and removes everything.");
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

/// A blank machine is restored, and boots.
fn one_machine(
    story: &Story,
    site: &Site,
    table: &mut Table,
    folder: &Path,
    firmware: Firmware,
) -> io::Result<()> {
    let blank = folder.join("blank.img");
    proof::blank(&blank, BLANK_BYTES)?;
    let new = pc("office2", firmware, 1);
    let name = table.timed("a blank machine registers", || {
        story.register(site, &new, &blank)
    })?;
    site.ctl(&["restore", &name, "--image", IMAGE, "--yes"])?;
    let restore = table.timed("network boot and restore", || {
        job(story, site, &new, &name, "restore", &blank)
    })?;
    table.note(&figures(&restore));

    let differences = table.timed("every file compared", || {
        proof::differences(firmware, &folder.join(SOURCE), &blank)
    })?;
    if !differences.is_empty() {
        return Err(io::Error::other(format!("differences: {differences:#?}")));
    }
    table.note("no difference");
    table.timed("restored machine to its login prompt", || {
        story.boots_through(site, &new, &blank)
    })?;
    Ok(())
}

fn pc(name: &'static str, firmware: Firmware, number: usize) -> Pc {
    const MACS: [&str; 4] = [
        "52:54:00:00:30:01",
        "52:54:00:00:30:02",
        "52:54:00:00:30:03",
        "52:54:00:00:30:04",
    ];
    const UUIDS: [&str; 4] = [
        "4c4c4544-0001-4010-8010-b1c04f000011",
        "4c4c4544-0001-4010-8010-b1c04f000012",
        "4c4c4544-0001-4010-8010-b1c04f000013",
        "4c4c4544-0001-4010-8010-b1c04f000014",
    ];
    Pc {
        name,
        mac: MACS[number],
        uuid: UUIDS[number],
        // The first machine is off when the others run.
        tap: TAPS[number % TAPS.len()],
        firmware,
    }
}

/// Boots a machine into its job and shows how it goes.
fn job(
    story: &Story,
    site: &Site,
    pc: &Pc,
    machine: &str,
    kind: &str,
    disk: &Path,
) -> io::Result<Execution> {
    story.step(&format!("{}: network boot, then {kind}", pc.name));
    let mut guest = pc.boot(site, story.accelerator, kind, disk)?;
    let mut bar = Bar::default();
    let done = story.wait_execution(site, &mut guest, (machine, kind), "done", |execution| {
        bar.show(execution);
        execution.is_done()
    });
    bar.end();
    let done = done?;
    guest.wait_exit(LIMIT)?;
    Ok(done)
}

fn figures(execution: &Execution) -> String {
    let number = |name| execution.summary(name).unwrap_or(0.0);
    format!(
        "{:.0} MiB used of {:.0} MiB, {:.0} MiB over the network, {:.0} s of work",
        number("used_bytes") / MIB,
        number("disk_bytes") / MIB,
        number("wire_bytes") / MIB,
        number("seconds"),
    )
}

/// A progress line: redrawn on a terminal, one line for each state elsewhere.
#[derive(Default)]
struct Bar {
    state: String,
}

impl Bar {
    fn show(&mut self, execution: &Execution) {
        if !io::stdout().is_terminal() {
            if self.state != execution.state() {
                self.state = execution.state().to_owned();
                println!("           {}", self.state);
            }
            return;
        }
        let percent = execution.percent();
        let full = usize::try_from(percent).unwrap_or(0).min(100) * BAR / 100;
        let rate = execution.progress().map_or(0, |(_, _, rate)| rate);
        print!(
            "\r           {:<10} [{}{}] {percent:3} %  {:6.1} MiB/s ",
            execution.state(),
            "#".repeat(full),
            "-".repeat(BAR - full),
            rate as f64 / MIB
        );
        // A terminal that is gone is noticed elsewhere.
        let _ = io::stdout().flush();
    }

    fn end(&self) {
        if io::stdout().is_terminal() {
            println!();
        }
    }
}

/// What took how long.
#[derive(Default)]
struct Table {
    rows: Vec<(String, Duration, String)>,
}

impl Table {
    fn row(&mut self, what: &str, time: Duration, note: &str) {
        self.rows.push((what.to_owned(), time, note.to_owned()));
    }

    fn timed<T>(&mut self, what: &str, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let start = Instant::now();
        let result = work()?;
        self.row(what, start.elapsed(), "");
        Ok(result)
    }

    fn note(&mut self, text: &str) {
        if let Some(row) = self.rows.last_mut() {
            text.clone_into(&mut row.2);
        }
    }

    fn print(&self, story: &Story, site: &Site) {
        println!("\n{:<40} {:>8}", "what", "seconds");
        let mut total = 0.0;
        for (what, time, note) in &self.rows {
            total += time.as_secs_f64();
            println!("{what:<40} {:>8.1}  {note}", time.as_secs_f64());
        }
        println!(
            "{:<40} {total:>8.1}  guests by {}",
            "total",
            story.accelerator.name()
        );
        if let Ok(status) = site.status()
            && let Some(stored) = status.image_number(IMAGE, "stored_bytes")
        {
            println!(
                "{:<40} {:>8.1}  MiB on the server",
                "image",
                stored as f64 / MIB
            );
        }
    }
}
