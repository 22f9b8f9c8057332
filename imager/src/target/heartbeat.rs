//! What the server hears while a job runs, and what it answers.
//!
//! Owns: the thread that sends progress, and turning the server's interrupt into the
//! job's. Does not own: the figures ([`crate::progress`]), the job.

use crate::alive;
use crate::progress::{ProgressSink, Tracker};
use crate::remote::Remote;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for one answer: a connection that is dead must not keep an interrupt from
/// being heard over the next one.
const PATIENCE: Duration = Duration::from_secs(3);
/// The thread may be in the middle of a request when the job is over.
const LAST_PROGRESS: Duration = Duration::from_secs(2);

/// Runs `job`; meanwhile its progress goes to the server.
pub fn beside<T>(remote: &Remote, tracker: &Arc<Tracker>, job: impl FnOnce() -> T) -> T {
    let (stop, stopped) = mpsc::channel::<()>();
    let (ended, end) = mpsc::channel::<()>();
    let (sender, told) = (remote.impatient(PATIENCE), Arc::clone(tracker));
    std::thread::spawn(move || {
        alive::beside_the_work();
        while stopped.recv_timeout(PROGRESS_EVERY) == Err(RecvTimeoutError::Timeout) {
            let Some(snapshot) = told.snapshot() else {
                continue;
            };
            // One that is lost is replaced by the next.
            if let Ok(reply) = sender.progress(&snapshot.to_wire())
                && reply.interrupt
                && !told.interrupted()
            {
                told.note("an operator interrupts the job");
                told.interrupt();
            }
        }
        // The receiver may have given up waiting.
        let _ = ended.send(());
    });
    let result = job();
    drop(stop);
    let _ = end.recv_timeout(LAST_PROGRESS);
    result
}
