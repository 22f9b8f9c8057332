//! The thread that has the terminals.
//!
//! Owns: drawing, lines, keys. Does not own: when something is said.

use super::choice::{Key, Keyboard};
use super::pace::Pace;
use super::prompt::{Answer, Asking, Pressed, Prompt, Typing};
use super::screen::Screen;
use super::tty::{Kind, Tty};
use super::view::{self, Frame, View};
use super::{Command, Question, shell};
use crate::progress::Tracker;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// A second's digits of the uptime change at once; more often nobody looks.
const TICK: Duration = Duration::from_millis(250);

pub(super) struct Consoles {
    origin: Instant,
    ttys: Vec<Line>,
    view: View,
    tracker: Option<Arc<Tracker>>,
    pace: Pace,
    question: Option<Asked>,
    asking: Option<Asking>,
}

struct Line {
    tty: Tty,
    screen: Screen,
    keyboard: Keyboard,
    typing: Typing,
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
            typing: Typing::default(),
        };
        Consoles {
            origin: Instant::now(),
            ttys: ttys.into_iter().map(line).collect(),
            view: View::default(),
            tracker: None,
            pace: Pace::default(),
            question: None,
            asking: None,
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
            self.typed();
            self.keys();
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
            Command::Prompt(asked) => {
                let (prompt, answer) = *asked;
                self.prompt(prompt, answer);
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
        self.forget_typed();
        self.serial("keys: p power off, r reboot, s rescue shell; then Enter");
        self.question = Some(Asked {
            question,
            since: self.now(),
        });
    }

    /// What was typed before somebody was asked is no answer.
    fn forget_typed(&mut self) {
        for console in &mut self.ttys {
            while !console.tty.typed().is_empty() {}
            console.keyboard = Keyboard::default();
            console.typing = Typing::default();
        }
    }

    fn prompt(&mut self, prompt: Prompt, answer: Answer) {
        self.forget_typed();
        self.serial(&prompt.text);
        self.serial(&format!("asked: {}", prompt.question));
        self.asking = Some(Asking {
            prompt,
            answer,
            page: 0,
        });
    }

    /// Keys while a question is open: they appear where they are typed.
    fn typed(&mut self) {
        if self.asking.is_none() {
            return;
        }
        for at in 0..self.ttys.len() {
            for byte in self.ttys[at].tty.typed() {
                let console = &mut self.ttys[at];
                let pressed = console.typing.press(byte);
                let echo = match &pressed {
                    Pressed::Added(char) => char.to_string(),
                    Pressed::Removed => "\x08 \x08".to_owned(),
                    Pressed::Line(_) => "\n".to_owned(),
                    Pressed::Nothing | Pressed::Next => String::new(),
                };
                if console.tty.kind == Kind::Serial {
                    console.tty.write(&echo);
                }
                match (pressed, &mut self.asking) {
                    (Pressed::Next, Some(asking)) => asking.page += 1,
                    (Pressed::Line(line), asking) => {
                        if let Some(asking) = asking.take() {
                            let answer = asking.answer;
                            let place = answer.place.lock();
                            *place.unwrap_or_else(PoisonError::into_inner) = line;
                            // Nobody waits if the asker is gone.
                            let _ = answer.given.send(());
                        }
                        return;
                    }
                    _ => {}
                }
            }
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
            for byte in self.ttys[at].tty.typed() {
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
            let frame: Frame = match (&self.question, &self.asking) {
                (None, Some(asking)) => {
                    view::asking(&asking.prompt, console.typing.line(), asking.page)
                }
                (Some(asked), _) => {
                    let left = asked.question.reboot_after.map(|limit| {
                        limit
                            .saturating_sub(now.saturating_sub(asked.since))
                            .as_secs()
                    });
                    let pending = console.keyboard.pending(now);
                    view::error(&self.view, &asked.question.report, pending, left)
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
