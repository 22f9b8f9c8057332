//! Progress of a job: the seam between the engine, which counts, and those who show it.
//!
//! Owns: the sink that the engine calls, and the tracker that turns counts into figures.
//! Does not own: how they look (the target's console, [`terminal`]) or where they are
//! sent.

pub mod joined;
pub mod meter;
pub mod terminal;

pub use meter::{Meter, Snapshot};
pub use terminal::Terminal;

use crate::alive;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use wire::Step;

/// Where a job tells how far it is. All calls are cheap and never block for long; any
/// thread may make them.
pub trait ProgressSink: Send + Sync {
    /// A step begins; it has this many plain bytes (0 if unknown).
    fn step(&self, step: Step, total_bytes: u64);
    /// So many more plain bytes are done in this step, and so many more bytes went over
    /// the network or to the image file.
    fn advance(&self, plain_bytes: u64, wire_bytes: u64);
    /// Something that a person should see now ("the server does not answer; ...").
    fn note(&self, text: &str);
    /// An operator wants the job to stop. Asked between chunks.
    fn interrupted(&self) -> bool;
}

/// A sink that shows nothing; for tests and `--quiet`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl ProgressSink for Silent {
    fn step(&self, _step: Step, _total_bytes: u64) {}
    fn advance(&self, _plain_bytes: u64, _wire_bytes: u64) {}
    fn note(&self, _text: &str) {}
    fn interrupted(&self) -> bool {
        false
    }
}

type NoteHandler = Box<dyn Fn(&str) + Send + Sync>;

/// A sink that keeps the figures for whoever shows them.
pub struct Tracker {
    origin: Instant,
    done: AtomicU64,
    wire: AtomicU64,
    interrupt: AtomicBool,
    meter: Mutex<Meter>,
    on_note: NoteHandler,
}

impl Tracker {
    /// A tracker that hands notes to `on_note`.
    pub fn new(on_note: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Tracker {
            origin: Instant::now(),
            done: AtomicU64::new(0),
            wire: AtomicU64::new(0),
            interrupt: AtomicBool::new(false),
            meter: Mutex::new(Meter::new()),
            on_note: Box::new(on_note),
        }
    }

    /// The figures now, or `None` before the first step.
    pub fn snapshot(&self) -> Option<Snapshot> {
        let mut meter = self.meter();
        let done = self.done.load(Ordering::Relaxed);
        meter.sample(
            self.origin.elapsed(),
            done,
            self.wire.load(Ordering::Relaxed),
        )
    }

    /// Asks the job to stop; it stays asked.
    pub fn interrupt(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
    }

    fn meter(&self) -> MutexGuard<'_, Meter> {
        // The meter has no state that a panic could leave half-made.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressSink for Tracker {
    fn step(&self, step: Step, total_bytes: u64) {
        alive::sign();
        let mut meter = self.meter();
        self.done.store(0, Ordering::Relaxed);
        meter.begin(self.origin.elapsed(), step, total_bytes);
    }

    fn advance(&self, plain_bytes: u64, wire_bytes: u64) {
        alive::sign();
        self.done.fetch_add(plain_bytes, Ordering::Relaxed);
        self.wire.fetch_add(wire_bytes, Ordering::Relaxed);
    }

    fn note(&self, text: &str) {
        alive::sign();
        (self.on_note)(text);
    }

    fn interrupted(&self) -> bool {
        self.interrupt.load(Ordering::Relaxed)
    }
}

/// A bar of `width` characters: `####......`, full only when everything is done.
pub fn bar(width: usize, percent: u8) -> String {
    let filled = (width * usize::from(percent.min(100))) / 100;
    let mut text = "#".repeat(filled);
    text.push_str(&".".repeat(width - filled));
    text
}

#[cfg(test)]
mod tests {
    use super::{ProgressSink, Tracker, bar};
    use std::sync::{Arc, Mutex};
    use wire::Step;

    #[test]
    fn counts_of_many_threads_add_up_and_a_new_step_starts_at_zero() {
        let tracker = Tracker::new(|_| {});
        assert!(tracker.snapshot().is_none());
        tracker.step(Step::Running, 4000);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| tracker.advance(10, 3)));
            }
        });
        let snapshot = tracker.snapshot().unwrap();
        assert_eq!(
            (snapshot.done, snapshot.total, snapshot.wire),
            (4000, 4000, 1200)
        );
        tracker.step(Step::Verifying, 7);
        let snapshot = tracker.snapshot().unwrap();
        assert_eq!((snapshot.done, snapshot.total, snapshot.wire), (0, 7, 1200));
    }

    #[test]
    fn notes_and_interrupts_arrive() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&seen);
        let tracker = Tracker::new(move |text| into.lock().unwrap().push(text.to_owned()));
        tracker.note("the server does not answer");
        assert_eq!(*seen.lock().unwrap(), ["the server does not answer"]);
        assert!(!tracker.interrupted());
        tracker.interrupt();
        assert!(tracker.interrupted());
    }

    #[test]
    fn a_bar_is_full_only_at_the_end() {
        assert_eq!(bar(10, 0), "..........");
        assert_eq!(bar(10, 42), "####......");
        assert_eq!(bar(10, 99), "#########.");
        assert_eq!(bar(10, 100), "##########");
        assert_eq!(bar(10, 200), "##########");
    }
}
