//! The imager as `/init`: mounts, network, check-in, job, report, reboot.
//!
//! Owns: the order, and that process 1 never ends without a word. Does not own: its
//! parts: command line ([`cmdline`]), network and server ([`start`]), consoles ([`console`]),
//! the conversation with the server ([`session`]), the restore that needs none ([`local`]).

pub mod cmdline;
pub mod console;
pub mod discovery;
pub mod form;
pub mod hardware;
pub mod heartbeat;
pub mod inventory;
pub mod journal;
pub mod local;
pub mod medium;
pub mod net;
mod observer;
pub mod session;
pub mod settings;
pub mod shelf;
mod start;
pub mod system;
pub mod watchdog;

use crate::remote::{Options, Remote};
use cmdline::{AfterChoice, CommandLine};
use console::{Console, Key};
use inventory::InUse;
use journal::Journal;
use session::{Engine, Session};
use start::Stop;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use system::End;
use watchdog::Watchdog;
use wire::{After, Code, DiskState, Report};

/// The medium that a machine was started from is waited for this long, where it is not needed.
const MEDIUM_LIMIT: Duration = Duration::from_secs(10);

/// Whether this process is the first one of a machine that booted our initramfs. (In a
/// container a program may be process 1 too, but is not called `init`.)
pub fn is_init() -> bool {
    let name = std::env::args_os().next().unwrap_or_default();
    std::process::id() == 1
        && Path::new(&name)
            .file_name()
            .is_some_and(|name| name == "init")
}

/// Runs a machine from here to its reboot or power off.
pub fn main_init() -> ! {
    let engine = Engine {
        run: crate::job::run,
        list: crate::disks::list,
    };
    // What panics outside of the session is caught here: if process 1 ended, the kernel
    // would panic and hide the reason.
    match catch_unwind(|| live(engine)) {
        Ok(end) => system::end(end),
        Err(panic) => {
            eprintln!("deploy-os: failed internal\n{}", panic_text(panic.as_ref()));
            eprintln!("deploy-os: the machine reboots in 60 s");
            std::thread::sleep(Duration::from_secs(60));
            system::end(End::Reboot)
        }
    }
}

fn live(engine: Engine) -> End {
    let problems = system::mount_all();
    system::use_console();
    system::restart_after_panic();
    let text = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let line = CommandLine::parse(&text);
    let journal = Arc::new(Journal::default());
    log_panics(Arc::clone(&journal));
    let console = Console::start(journal, !line.debug);
    let told = console.clone();
    let _watchdog = match line.no_watchdog {
        true => None,
        false => Watchdog::start(move |text| told.say(&format!("note {text}"))),
    };
    console.say(&format!("{} starting", wire::SOFTWARE_VERSION));
    for problem in problems.iter().chain(&line.problems) {
        console.say(&format!("note {problem}"));
    }
    if line.shell {
        console.shell();
    }
    let worked = catch_unwind(AssertUnwindSafe(|| work(&line, &console, engine)));
    let worked =
        worked.unwrap_or_else(|panic| Err(panic_report(panic.as_ref(), DiskState::NotInvolved)));
    let end = match worked {
        Ok(end) => end,
        Err(report) => match console.ask(&report, reboot_after(&report, line.error_reboot)) {
            Some(Key::PowerOff) => End::PowerOff,
            _ => End::Reboot,
        },
    };
    console.say(match end {
        End::Reboot => "rebooting",
        End::PowerOff => "powering off",
    });
    console.flush();
    end
}

/// When an error screen starts the machine again by itself. What came damaged may come whole
/// the next time, and nobody has to be there for that.
fn reboot_after(report: &Report, chosen: Option<Duration>) -> Option<Duration> {
    let again = (report.code == Code::BootDamaged).then_some(Duration::from_secs(60));
    chosen.or(again)
}

fn work(line: &CommandLine, console: &Console, engine: Engine) -> Result<End, Report> {
    let state = |text: &'static str| console.update(move |view| view.state = text.to_owned());
    if let Some(found) = journal::damaged_initramfs(&journal::kernel_log()) {
        return Err(Report::new(Code::BootDamaged, found, DiskState::Untouched));
    }
    if let Some(found) = line.refused.first() {
        return Err(Report::new(Code::Usage, found, DiskState::Untouched)
            .with_advice("Correct the kernel's command line."));
    }
    if line.restore {
        let local = local::Local {
            console,
            line,
            drives: &shelf::Machine,
            list: &engine.list,
        };
        return Ok(end_of(local.run()?, line.after, console));
    }
    if let Some(id) = &line.medium {
        state("looking for the medium");
        say_medium(console, id);
    }
    // Disks are still appearing while the network comes up; both are waited for at once.
    let disks = std::thread::spawn(move || inventory::settled_disks(engine.list));
    let connected = match start::find_server(line, inventory::raw_uuid(), console) {
        Ok(connected) => connected,
        Err(Stop::Report(report)) => return Err(*report),
        Err(Stop::End(end)) => return Ok(end),
    };
    let address = format!("{}/{}", connected.lease.address, connected.lease.prefix);
    let shown = format!(
        "{}, {}, {address}",
        connected.nic.name,
        connected.nic.mac_text()
    );
    let server = connected.server.to_string();
    console.update(move |view| {
        view.network = shown;
        view.server = server;
    });
    let remote = Remote::new(&connected.server, Some(&connected.pin), &Options::default())?;
    let in_use = InUse {
        name: &connected.nic.name,
        address,
    };
    state("looking for disks");
    let disks = disks
        .join()
        .unwrap_or_else(|panic| Err(panic_report(panic.as_ref(), DiskState::Untouched)))?;
    Session {
        console,
        remote,
        engine,
        keyring: line.keyring(),
        in_use: Some(in_use),
    }
    .run(disks)
    .map(|after| end_of(after, line.after, console))
}

/// Says from which medium the machine was started: its drive may appear late.
fn say_medium(console: &Console, id: &str) {
    let media = medium::find(MEDIUM_LIMIT);
    match media.iter().find(|medium| medium.about.id == id) {
        Some(medium) => console.say(&format!("medium {}: {id}", medium.device.display())),
        None => console.say(&format!("note the medium {id} is in no drive")),
    }
}

fn end_of(after: After, chosen: Option<AfterChoice>, console: &Console) -> End {
    match (chosen, after) {
        (Some(AfterChoice::PowerOff), _) | (None, After::PowerOff) => End::PowerOff,
        (Some(AfterChoice::Reboot), _) | (None, After::Reboot | After::BootLocal) => End::Reboot,
        (Some(AfterChoice::Shell), _) => {
            console.shell();
            End::Reboot
        }
    }
}

/// Every panic is in the log, wherever it is caught.
fn log_panics(journal: Arc<Journal>) {
    std::panic::set_hook(Box::new(move |info| {
        journal.add(uptime_ms(), &format!("panic: {info}"));
    }));
}

/// A panic as the failure that people see.
pub(crate) fn panic_report(panic: &(dyn Any + Send), disk: DiskState) -> Report {
    Report::new(Code::Internal, panic_text(panic), disk)
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}

/// Milliseconds since the kernel started; 0 while /proc is not there.
pub fn uptime_ms() -> u64 {
    parse_uptime(&std::fs::read_to_string("/proc/uptime").unwrap_or_default())
}

/// `12.34 5.67` in milliseconds.
fn parse_uptime(text: &str) -> u64 {
    let seconds = text
        .split_whitespace()
        .next()
        .and_then(|s| s.parse::<f64>().ok());
    seconds.map_or(0, |seconds| (seconds * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::{is_init, panic_text, parse_uptime};

    #[test]
    fn uptime_is_in_milliseconds() {
        assert_eq!(parse_uptime("12.34 5.67\n"), 12_340);
        assert_eq!(parse_uptime(""), 0);
        assert_eq!(parse_uptime("-1 x"), 0);
        assert_eq!(parse_uptime("nan"), 0);
    }

    #[test]
    fn a_test_is_not_process_one() {
        assert!(!is_init());
    }

    #[test]
    fn panics_keep_their_words() {
        let text = |f: fn()| panic_text(std::panic::catch_unwind(f).unwrap_err().as_ref());
        assert_eq!(text(|| std::panic::panic_any("plain")), "plain");
        assert_eq!(text(|| std::panic::panic_any(String::from("made"))), "made");
        assert_eq!(
            text(|| std::panic::panic_any(7)),
            "a panic without a message"
        );
    }
}
