//! A job in front of a person: its progress, and Ctrl-C.
//!
//! Owns: showing it or not, and that both ways stop in order on a signal. Does not own:
//! the line (`crate::progress::terminal`), what stopping means.

use super::signals;
use crate::progress::{ProgressSink, Terminal, Tracker};
use std::sync::Arc;

/// A job that is shown on standard error, or with `--quiet` is not.
pub struct Shown {
    tracker: Arc<Tracker>,
    _terminal: Option<Terminal>,
}

impl Shown {
    /// Starts showing; `verb` names the job. From now on SIGINT and SIGTERM ask the job to
    /// stop.
    pub fn start(verb: &str, quiet: bool) -> Self {
        // Before any thread is started: a thread that does not block them takes them, and
        // ends the process.
        let held = signals::hold();
        let terminal = (!quiet).then(|| Terminal::start(verb));
        let tracker = match &terminal {
            Some(terminal) => terminal.tracker(),
            None => Arc::new(Tracker::new(|text| eprintln!("{text}"))),
        };
        if let Some(held) = held {
            held.interrupt(Arc::clone(&tracker));
        }
        Shown {
            tracker,
            _terminal: terminal,
        }
    }

    /// The figures, for whoever else wants them.
    pub fn tracker(&self) -> Arc<Tracker> {
        Arc::clone(&self.tracker)
    }

    /// The sink for the job.
    pub fn sink(&self) -> &dyn ProgressSink {
        &*self.tracker
    }
}
