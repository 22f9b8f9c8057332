//! What the console and the log hear of the connection's troubles.
//!
//! Owns: which retries are worth a line, and the notice on the screen. Does not own:
//! the retries ([`crate::remote`]).

use super::console::Console;
use crate::progress::{ProgressSink, Tracker};
use crate::remote::{Observer, Retrying};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A single hiccup that the next try mends is not worth a notice.
const WORTH_TELLING: Duration = Duration::from_secs(2);
/// A line for the log and the serial console comes this often.
const LINE_EVERY: u64 = 30;
const NONE_YET: u64 = u64::MAX;

/// Tells the console.
pub struct ConsoleObserver {
    console: Console,
    /// The job that can be interrupted while it waits; final states cannot.
    job: Option<Arc<Tracker>>,
    /// Seconds of the failure at which the last line was printed.
    last_line: AtomicU64,
}

impl ConsoleObserver {
    /// For requests of a job (that an interrupt ends), or of nobody.
    pub fn new(console: &Console, job: Option<Arc<Tracker>>) -> Arc<Self> {
        let last_line = AtomicU64::new(NONE_YET);
        Arc::new(ConsoleObserver {
            console: console.clone(),
            job,
            last_line,
        })
    }
}

impl Observer for ConsoleObserver {
    fn retrying(&self, retrying: &Retrying<'_>) {
        if retrying.since < WORTH_TELLING {
            return;
        }
        let sentence = retrying.sentence();
        let seconds = retrying.since.as_secs();
        let last = self.last_line.load(Ordering::Relaxed);
        if last == NONE_YET || seconds >= last.saturating_add(LINE_EVERY) || seconds < last {
            self.last_line.store(seconds, Ordering::Relaxed);
            self.console
                .say(&format!("note {sentence}: {}", retrying.last.found));
        }
        self.console.update(move |view| view.notice = sentence);
    }

    fn recovered(&self, _what: &'static str) {
        if self.last_line.swap(NONE_YET, Ordering::Relaxed) != NONE_YET {
            self.console.say("note the server answers again");
        }
        self.console.update(|view| view.notice.clear());
    }

    fn cancelled(&self) -> bool {
        self.job
            .as_ref()
            .is_some_and(|tracker| tracker.interrupted())
    }
}
