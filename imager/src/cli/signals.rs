//! Ctrl-C and termination: the job stops in order.
//!
//! Owns: turning signals into the job's interrupt. Does not own: what stopping means.

use crate::progress::{ProgressSink, Tracker};
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A signal asked the job to stop.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Whether a signal asked the job to stop, for whoever waits for a person.
pub(super) fn stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// SIGINT and SIGTERM, blocked in this thread and in those that it starts.
pub struct Held(SigSet);

/// Holds the signals back. `None` if they cannot be: they keep their default then, and the
/// process ends.
pub fn hold() -> Option<Held> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    set.thread_block().ok().map(|()| Held(set))
}

impl Held {
    /// From now on the signals ask the job to stop.
    pub fn interrupt(self, tracker: Arc<Tracker>) {
        std::thread::spawn(move || {
            if self.0.wait().is_ok() {
                STOPPING.store(true, Ordering::Relaxed);
                tracker.interrupt();
                tracker.note("stopping; once more ends at once and leaves things as they are");
                // A second one ends the process at once.
                if self.0.wait().is_ok() {
                    super::prompt::restore();
                    std::process::exit(i32::from(crate::report::EXIT_FAILED));
                }
            }
        });
    }
}
