//! The target's consoles: a full-screen view on VGA and frame buffer, lines on serial.
//!
//! Owns: the thread that has the terminals, and the commands to it. Does not own: what
//! happens ([`super::session`]), the layout ([`view`]).
//!
//! A console never stalls a job: everything is handed to the thread and returns at once.
//!
//! # Lines on the serial consoles
//! Each line that we write there starts with `deploy-os: `. Scripts and tests may rely
//! on these; words in capitals stand for values:
//!
//! | line | when |
//! |---|---|
//! | `VERSION starting` | first line |
//! | `network card NIC MAC DRIVER`, `network link NIC` | cards and cables |
//! | `network address NIC ADDRESS/PREFIX from SERVER` | DHCP |
//! | `server URL answers by way of NIC` | the server is found |
//! | `check-in N.NN s after the kernel's start` | a check-in is being sent |
//! | `machine NAME` | the server knows us by this name |
//! | `waiting CODE: FOUND` | the server tells to wait |
//! | `nothing to do, booting the local disk` | no job |
//! | `job KIND started` | `backup`, `restore`, `disk-check` |
//! | `preparing`, `running`, `verifying`, `finishing` | a step begins |
//! | `progress N % (...)` | every 5 s or tenth |
//! | `medium DEVICE: ID` | started from a medium that is in this drive |
//! | `asked: QUESTION` | a person is asked; what is asked about stands before it |
//! | `note TEXT` | something to know, such as retries |
//! | `waiting for the server to confirm` | the job is over, its result not yet stored |
//! | `done` | the result is stored: success |
//! | `failed CODE` | an error; the report follows in lines of its own |
//! | `keys: ...` | the error screen is up |
//! | `server found by SOURCE` | which of the six sources named the server |
//! | `settings: LABEL [DEFAULT]: ` | a line is to be typed; no line end stands behind it |
//! | `rebooting`, `powering off` | last line |

pub mod choice;
mod inquiry;
pub mod line;
mod pace;
pub mod screen;
pub mod shell;
mod thread;
pub mod tty;
pub mod view;

pub use choice::Key;
pub use inquiry::Inquiry;
pub use line::{Answer, Prompt};
pub use view::{JobView, View};

use super::journal::Journal;
use crate::alive;
use crate::progress::Tracker;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Sender};
use std::time::Duration;
use wire::Report;

/// What a line is asked for.
pub(super) enum Asking {
    /// A setting.
    Setting(Prompt),
    /// Something that needs an explanation.
    Inquiry(Inquiry),
}

pub(super) enum Command {
    Say(String),
    Update(Box<dyn FnOnce(&mut View) + Send>),
    Track(Option<Arc<Tracker>>),
    Ask(Box<Question>),
    Prompt(Box<Asking>, Sender<Answer>),
    Escape(Option<Arc<AtomicBool>>),
    Shell(Sender<()>),
    Flush(Sender<()>),
}

pub(super) struct Question {
    report: Report,
    reboot_after: Option<Duration>,
    /// Esc opens the settings, and any key ends the countdown.
    settings: bool,
    answer: Sender<Key>,
}

/// A handle on the consoles.
#[derive(Clone)]
pub struct Console {
    commands: Sender<Command>,
    journal: Arc<Journal>,
}

impl Console {
    /// Takes the machine's consoles. `quiet` keeps the kernel's messages off them.
    pub fn start(journal: Arc<Journal>, quiet: bool) -> Self {
        let active = std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        let ttys = tty::open_all(&active, std::path::Path::new("/dev"));
        if quiet {
            // Emergencies still come through. Without /proc the messages stay.
            let _ = std::fs::write("/proc/sys/kernel/printk", "1");
        }
        Self::on(journal, ttys)
    }

    /// Uses these terminals.
    pub fn on(journal: Arc<Journal>, ttys: Vec<tty::Tty>) -> Self {
        let (commands, received) = mpsc::channel();
        std::thread::spawn(move || thread::Consoles::new(ttys).run(&received));
        Console { commands, journal }
    }

    /// A line for serial consoles, screen and log.
    pub fn say(&self, text: &str) {
        alive::sign();
        self.journal.add(super::uptime_ms(), text);
        self.send(Command::Say(text.to_owned()));
    }

    /// The log of the run.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Changes what the screen shows.
    pub fn update(&self, change: impl FnOnce(&mut View) + Send + 'static) {
        alive::sign();
        self.send(Command::Update(Box::new(change)));
    }

    /// Shows the progress of a job from now on, or of none.
    pub fn track(&self, tracker: Option<Arc<Tracker>>) {
        self.send(Command::Track(tracker));
    }

    /// The error screen: returns what was chosen and confirmed ([`Key::Reboot`] after
    /// `reboot_after`). The rescue shell is run from here and does not end it.
    pub fn ask(&self, report: &Report, reboot_after: Option<Duration>) -> Option<Key> {
        self.question(report, reboot_after, false)
    }

    /// As [`Console::ask`], where Esc gives [`Key::Settings`] and any key ends the countdown.
    pub fn ask_or_settings(&self, report: &Report, reboot_after: Option<Duration>) -> Option<Key> {
        self.question(report, reboot_after, true)
    }

    fn question(
        &self,
        report: &Report,
        reboot_after: Option<Duration>,
        settings: bool,
    ) -> Option<Key> {
        self.journal.add(
            super::uptime_ms(),
            &format!("failed {}\n{report}", report.code),
        );
        let _nobody_may_come = alive::patience();
        let (answer, answered) = mpsc::channel();
        let report = report.clone();
        self.send(Command::Ask(Box::new(Question {
            report,
            reboot_after,
            settings,
            answer,
        })));
        answered.recv().ok()
    }

    /// Has a line typed on any of the consoles.
    pub fn prompt(&self, prompt: Prompt) -> Answer {
        self.line(Asking::Setting(prompt))
    }

    /// Asks a person for a line, and waits for it as long as it takes. Whoever presses Enter
    /// first answers, on whatever console. None: there is no console.
    pub fn inquire(&self, inquiry: Inquiry) -> Option<String> {
        let now = super::uptime_ms();
        let asked = format!("{}\nasked: {}", inquiry.text, inquiry.question);
        self.journal.add(now, &asked);
        let Answer::Line(typed) = self.line(Asking::Inquiry(inquiry)) else {
            return None;
        };
        let answered = format!("answered: {typed}");
        self.journal.add(super::uptime_ms(), &answered);
        Some(typed)
    }

    fn line(&self, asking: Asking) -> Answer {
        let _nobody_may_come = alive::patience();
        let (answer, answered) = mpsc::channel();
        self.send(Command::Prompt(Box::new(asking), answer));
        answered.recv().unwrap_or(Answer::Idle)
    }

    /// From now on Esc sets this; with `None` it does nothing again.
    pub fn listen_for_escape(&self, pressed: Option<Arc<AtomicBool>>) {
        self.send(Command::Escape(pressed));
    }

    /// Runs a rescue shell on the main console until it ends.
    pub fn shell(&self) {
        let _nobody_may_come = alive::patience();
        let (done, ended) = mpsc::channel();
        self.send(Command::Shell(done));
        let _ = ended.recv();
    }

    /// Waits until everything so far is written.
    pub fn flush(&self) {
        let (done, written) = mpsc::channel();
        self.send(Command::Flush(done));
        let _ = written.recv_timeout(Duration::from_secs(5));
    }

    fn send(&self, command: Command) {
        // If the console's thread is gone there is nobody to tell; the job goes on.
        let _ = self.commands.send(command);
    }
}
