//! The thread that has the terminals.
//!
//! Owns: drawing, lines, keys. Does not own: when something is said.

use super::choice::{Key, Keyboard, is_escape};
use super::line::{self, Answer, Editor};
use super::pace::Pace;
use super::screen::Screen;
use super::tty::{Kind, Tty};
use super::view::{self, Frame, View};
use super::{Asking, Command, Question, shell};
use crate::progress::Tracker;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use wire::size;

/// A second's digits of the uptime change at once; more often nobody looks.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Consoles {
    origin: Instant,
    ttys: Vec<Line>,
    view: View,
    tracker: Option<Arc<Tracker>>,
    pace: Pace,
    question: Option<Asked>,
    prompt: Option<Prompted>,
    escape: Option<Arc<AtomicBool>>,
}

struct Line {
    tty: Tty,
    screen: Screen,
    keyboard: Keyboard,
    editor: Editor,
}

struct Prompted {
    asking: Box<Asking>,
    answer: Sender<Answer>,
    /// The part of a long text that screens show.
    page: usize,
    /// When a key was last pressed.
    since: Duration,
}

struct Asked {
    question: Box<Question>,
    since: Duration,
}

impl Consoles {
    pub fn new(ttys: Vec<Tty>) -> Self {
        let line = |tty| Line {
            tty,
            screen: Screen::default(),
            keyboard: Keyboard::default(),
            editor: Editor::default(),
        };
        Consoles {
            origin: Instant::now(),
            ttys: ttys.into_iter().map(line).collect(),
            view: View::default(),
            tracker: None,
            pace: Pace::default(),
            question: None,
            prompt: None,
            escape: None,
        }
    }

    pub fn run(mut self, commands: &Receiver<Command>) {
        loop {
            match commands.recv_timeout(TICK) {
                Ok(command) => {
                    self.obey(command);
                    // Everything that waits is taken before the screen is drawn once.
                    while let Ok(command) = commands.try_recv() {
                        self.obey(command);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.progress();
            if self.prompt.is_some() {
                self.type_line();
            } else if self.question.is_some() {
                self.keys();
            } else if self.escape.is_some() {
                self.listen();
            }
            self.draw();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Say(text) => {
                self.view.log(&text);
                self.serial(&text);
            }
            Command::Update(change) => change(&mut self.view),
            Command::Track(tracker) => {
                // The last figures of a job are told, however short it was.
                self.progress();
                self.tracker = tracker;
                self.pace = Pace::default();
            }
            Command::Ask(question) => self.ask(question),
            Command::Prompt(asking, answer) => self.begin_line(asking, answer),
            Command::Escape(pressed) => {
                // What was typed before is not meant.
                self.forget_keys();
                self.escape = pressed;
            }
            Command::Shell(done) => {
                self.shell(self.ttys.len().saturating_sub(1));
                // Nobody waits if the asker is gone.
                let _ = done.send(());
            }
            Command::Flush(done) => {
                self.draw();
                let _ = done.send(());
            }
        }
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn serial(&mut self, text: &str) {
        for line in text.lines() {
            let line = format!("deploy-os: {line}\n");
            for console in self.ttys.iter_mut().filter(|c| c.tty.kind == Kind::Serial) {
                console.tty.write(&line);
            }
        }
    }

    fn progress(&mut self) {
        let Some(snapshot) = self.tracker.as_ref().and_then(|tracker| tracker.snapshot()) else {
            return;
        };
        for line in self.pace.due(self.now(), &snapshot) {
            self.serial(&line);
        }
        let verb = self
            .view
            .job
            .as_ref()
            .map(|job| job.verb.clone())
            .unwrap_or_default();
        self.view.state = view::step_name(&verb, snapshot.step);
    }

    fn ask(&mut self, question: Box<Question>) {
        self.serial(&format!("failed {}", question.report.code));
        self.serial(&question.report.to_string());
        // What was typed during the job is no answer.
        self.forget_keys();
        self.serial("keys: p power off, r reboot, s rescue shell; then Enter");
        if question.settings {
            let after = question.reboot_after.map(|after| {
                let after = size::duration(after.as_secs());
                format!("; the local disk is booted in {after}, any key stops that")
            });
            self.serial(&format!("keys: Esc settings{}", after.unwrap_or_default()));
        }
        self.question = Some(Asked {
            question,
            since: self.now(),
        });
    }

    fn forget_keys(&mut self) {
        for console in &mut self.ttys {
            while !console.tty.typed().is_empty() {}
            console.keyboard = Keyboard::default();
        }
    }

    fn listen(&mut self) {
        let mut pressed = false;
        for console in &mut self.ttys {
            pressed |= is_escape(&console.tty.typed());
        }
        if let Some(escape) = self.escape.as_ref().filter(|_| pressed) {
            escape.store(true, Ordering::Relaxed);
        }
    }

    fn begin_line(&mut self, asking: Box<Asking>, answer: Sender<Answer>) {
        if self.ttys.is_empty() {
            // Nobody waits if the asker is gone.
            let _ = answer.send(Answer::Idle);
            return;
        }
        self.forget_keys();
        let said = match asking.as_ref() {
            Asking::Setting(prompt) => {
                let problem = match prompt.problem.as_str() {
                    "" => String::new(),
                    problem => format!("deploy-os: note {problem}\n"),
                };
                format!("{problem}deploy-os: {}", line::serial(prompt))
            }
            Asking::Inquiry(inquiry) => {
                self.serial(&inquiry.text);
                self.serial(&format!("asked: {}", inquiry.question));
                String::new()
            }
        };
        for console in &mut self.ttys {
            console.editor = Editor::default();
            if console.tty.kind == Kind::Serial {
                console.tty.write(&said);
            }
        }
        self.prompt = Some(Prompted {
            asking,
            answer,
            page: 0,
            since: self.now(),
        });
    }

    fn type_line(&mut self) {
        let now = self.now();
        let is_inquiry = |prompted: &Prompted| matches!(*prompted.asking, Asking::Inquiry(_));
        let is_inquiry = self.prompt.as_ref().is_some_and(is_inquiry);
        let mut answered = None;
        let mut any = false;
        let mut tabs = 0;
        for console in &mut self.ttys {
            let typed = console.tty.typed();
            any |= !typed.is_empty();
            tabs += typed.iter().filter(|&&byte| byte == b'\t').count();
            let (echo, answer) = console.editor.press(&typed);
            // What a person has to decide is not left by a key.
            let answer = answer.filter(|answer| !is_inquiry || *answer != Answer::Escape);
            if console.tty.kind == Kind::Serial {
                console.tty.write(&echo);
            }
            answered = answered.or(answer);
        }
        let Some(prompted) = &mut self.prompt else {
            return;
        };
        if any {
            prompted.since = now;
        }
        prompted.page += tabs;
        let patience = match prompted.asking.as_ref() {
            Asking::Setting(prompt) => prompt.patience,
            Asking::Inquiry(_) => None,
        };
        if patience.is_some_and(|limit| now.saturating_sub(prompted.since) >= limit) {
            answered = answered.or(Some(Answer::Idle));
        }
        if let Some(answer) = answered
            && let Some(prompted) = self.prompt.take()
        {
            // Nobody waits if the asker is gone.
            let _ = prompted.answer.send(answer);
        }
    }

    fn keys(&mut self) {
        let now = self.now();
        let Some(asked) = &self.question else { return };
        let timeout = asked.question.reboot_after;
        if timeout.is_some_and(|limit| now.saturating_sub(asked.since) >= limit) {
            self.answer(Key::Reboot);
            return;
        }
        for at in 0..self.ttys.len() {
            let typed = self.ttys[at].tty.typed();
            let settings = self.question.as_ref().is_some_and(|a| a.question.settings);
            if settings && is_escape(&typed) {
                self.answer(Key::Settings);
                return;
            }
            if let Some(asked) = self
                .question
                .as_mut()
                .filter(|_| settings && !typed.is_empty())
            {
                asked.question.reboot_after = None;
            }
            for byte in typed {
                let console = &mut self.ttys[at];
                let confirmed = console.keyboard.press(now, byte);
                if console.tty.kind == Kind::Serial
                    && let Some(key) = console.keyboard.pending(now)
                {
                    let text = format!("deploy-os: {}: press Enter to confirm\n", key.name());
                    console.tty.write(&text);
                }
                match confirmed {
                    None => {}
                    Some(Key::Shell) => self.shell(at),
                    Some(key) => {
                        self.answer(key);
                        return;
                    }
                }
            }
        }
        shell::reap();
    }

    fn answer(&mut self, key: Key) {
        if let Some(asked) = self.question.take() {
            // Nobody waits if the asker is gone.
            let _ = asked.question.answer.send(key);
        }
    }

    fn shell(&mut self, at: usize) {
        let Some(console) = self.ttys.get_mut(at) else {
            return;
        };
        let device = PathBuf::from("/dev").join(&console.tty.name);
        let term = match console.tty.kind {
            Kind::Screen => {
                console.tty.write(Screen::leave());
                "linux"
            }
            Kind::Serial => "vt100",
        };
        console.tty.cooked();
        console.tty.write("\nRescue shell. \"exit\" returns.\n");
        let outcome = shell::run(&device, term);
        console.tty.reopen();
        console.screen.forget();
        if let Err(error) = outcome {
            self.view.log(&format!("rescue shell: {error}"));
            self.serial(&format!("rescue shell: {error}"));
        } else {
            self.serial("the rescue shell has ended");
        }
        // Time spent in the shell does not count towards a reboot.
        let now = self.now();
        if let Some(asked) = &mut self.question {
            asked.since = now;
        }
    }

    fn draw(&mut self) {
        let now = self.now();
        let snapshot = self.tracker.as_ref().and_then(|tracker| tracker.snapshot());
        for console in self.ttys.iter_mut().filter(|c| c.tty.kind == Kind::Screen) {
            let frame: Frame = match (&self.prompt, &self.question) {
                (Some(prompted), _) => match prompted.asking.as_ref() {
                    Asking::Setting(prompt) => line::frame(prompt, &console.editor.typed),
                    Asking::Inquiry(inquiry) => {
                        view::asking(inquiry, &console.editor.typed, prompted.page)
                    }
                },
                (None, Some(asked)) => {
                    let left = asked.question.reboot_after.map(|limit| {
                        limit
                            .saturating_sub(now.saturating_sub(asked.since))
                            .as_secs()
                    });
                    let pending = console.keyboard.pending(now);
                    let report = &asked.question.report;
                    let frame = view::error(&self.view, report, pending, left);
                    match asked.question.settings {
                        true => view::with_settings(frame, pending, left),
                        false => frame,
                    }
                }
                (None, None) => view::running(
                    &self.view,
                    snapshot.as_ref(),
                    crate::target::uptime_ms() / 1000,
                ),
            };
            let bytes = console.screen.draw(&frame);
            console.tty.write(&bytes);
        }
    }
}
