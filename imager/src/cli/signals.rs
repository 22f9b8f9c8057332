//! Ctrl-C and termination: the job stops in order.
//!
//! Owns: turning signals into the job's interrupt. Does not own: what stopping means.

use crate::progress::Tracker;
use nix::sys::signal::{SigSet, Signal};
use std::sync::Arc;

/// From now on SIGINT and SIGTERM ask the job to stop. Called before other threads are
/// started, which inherit the mask.
pub fn interrupt_on_signals(tracker: Arc<Tracker>) {
    let mut set = SigSet::empty();
    set.add(Signal::SIGINT);
    set.add(Signal::SIGTERM);
    if set.thread_block().is_err() {
        return; // the signals keep their default: the process ends
    }
    std::thread::spawn(move || {
        if set.wait().is_ok() {
            tracker.interrupt();
            tracker_note(&tracker);
            // A second one ends the process at once.
            if set.wait().is_ok() {
                std::process::exit(i32::from(crate::report::EXIT_FAILED));
            }
        }
    });
}

fn tracker_note(tracker: &Tracker) {
    use crate::progress::ProgressSink;
    tracker.note("stopping; once more ends at once and leaves things as they are");
}
