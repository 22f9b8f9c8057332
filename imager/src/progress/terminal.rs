//! Progress of a job on standard error: one line that is redrawn on a terminal, a plain
//! line every few seconds elsewhere (logs, pipes).
//!
//! Owns: the line and the thread that writes it. Does not own: the figures, or the
//! full-screen view of a target.

use super::{ProgressSink, Snapshot, Tracker, bar};
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use wire::{Step, size};

const REDRAW: Duration = Duration::from_millis(250);
const PLAIN_EVERY: Duration = Duration::from_secs(5);

/// Shows a job's progress on standard error until it is finished or dropped.
pub struct Terminal {
    tracker: Arc<Tracker>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts showing; `verb` names the job ("backup").
    pub fn start(verb: &str) -> Self {
        let output = Arc::new(Output::stderr());
        let notes = Arc::clone(&output);
        let tracker = Arc::new(Tracker::new(move |text| notes.note(text)));
        let (stop, stopped) = mpsc::channel();
        let shown = Arc::clone(&tracker);
        let verb = verb.to_owned();
        let thread = std::thread::spawn(move || {
            let every = if output.interactive {
                REDRAW
            } else {
                PLAIN_EVERY
            };
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                if let Some(snapshot) = shown.snapshot() {
                    output.progress(&line(&verb, &snapshot));
                }
            }
            output.clear();
        });
        Terminal {
            tracker,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The sink for the job.
    pub fn sink(&self) -> &Tracker {
        &self.tracker
    }

    /// A handle on the figures, for a signal handler's thread and the like.
    pub fn tracker(&self) -> Arc<Tracker> {
        Arc::clone(&self.tracker)
    }

    /// Removes the line, so that the result can be printed.
    pub fn finish(self) {}
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to show.
            let _ = thread.join();
        }
    }
}

impl ProgressSink for Terminal {
    fn step(&self, step: Step, total_bytes: u64) {
        self.tracker.step(step, total_bytes);
    }
    fn advance(&self, plain_bytes: u64, wire_bytes: u64) {
        self.tracker.advance(plain_bytes, wire_bytes);
    }
    fn note(&self, text: &str) {
        self.tracker.note(text);
    }
    fn interrupted(&self) -> bool {
        self.tracker.interrupted()
    }
}

/// What a step is called in front of people.
pub fn step_name(verb: &str, step: Step) -> String {
    match step {
        Step::Preparing => "preparing".to_owned(),
        Step::Running => verb.to_owned(),
        Step::Verifying => "verifying".to_owned(),
        Step::Finishing => "finishing".to_owned(),
    }
}

/// One line of figures, without the bar's redraw codes.
pub fn line(verb: &str, snapshot: &Snapshot) -> String {
    let name = step_name(verb, snapshot.step);
    if snapshot.total == 0 {
        return format!("{name} ...");
    }
    let percent = snapshot.percent();
    let left = match snapshot.seconds_left {
        Some(seconds) => format!("  {} left", size::duration(seconds)),
        None => String::new(),
    };
    format!(
        "{name} {percent:3} % [{}] {} of {}  {}/s{left}",
        bar(20, percent),
        size::bytes(snapshot.done),
        size::bytes(snapshot.total),
        size::bytes(snapshot.rate),
    )
}

/// Standard error, with at most one progress line at its end.
struct Output {
    interactive: bool,
    line_shown: Mutex<bool>,
}

impl Output {
    fn stderr() -> Self {
        Output {
            interactive: std::io::stderr().is_terminal(),
            line_shown: Mutex::new(false),
        }
    }

    fn progress(&self, text: &str) {
        let mut shown = self
            .line_shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let text = if self.interactive {
            format!("\r\x1b[K{text}")
        } else {
            format!("{text}\n")
        };
        write_stderr(&text);
        *shown = self.interactive;
    }

    fn note(&self, text: &str) {
        let mut shown = self
            .line_shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let erase = if *shown { "\r\x1b[K" } else { "" };
        write_stderr(&format!("{erase}{text}\n"));
        *shown = false;
    }

    fn clear(&self) {
        let mut shown = self
            .line_shown
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *shown {
            write_stderr("\r\x1b[K");
        }
        *shown = false;
    }
}

/// Progress is best effort: a closed standard error must not stop a backup.
fn write_stderr(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

#[cfg(test)]
mod tests {
    use super::line;
    use crate::progress::Snapshot;
    use std::time::Duration;
    use wire::Step;

    fn snapshot() -> Snapshot {
        Snapshot {
            step: Step::Running,
            done: 1_288_490_188,
            total: 3_221_225_472,
            wire: 0,
            rate: 220_200_960,
            seconds_left: Some(9),
            elapsed: Duration::from_secs(6),
        }
    }

    #[test]
    fn a_line_tells_step_bar_amount_rate_and_time_left() {
        insta::assert_snapshot!(line("backup", &snapshot()),
            @"backup  39 % [#######.............] 1.20 GiB of 3.00 GiB  210 MiB/s  9 s left");
    }

    #[test]
    fn an_unknown_total_shows_no_percentage() {
        let preparing = Snapshot {
            step: Step::Preparing,
            total: 0,
            ..snapshot()
        };
        assert_eq!(line("backup", &preparing), "preparing ...");
        let verifying = Snapshot {
            step: Step::Verifying,
            seconds_left: None,
            ..snapshot()
        };
        assert!(line("restore", &verifying).starts_with("verifying  39 %"));
        assert!(!line("restore", &verifying).contains("left"));
    }
}
