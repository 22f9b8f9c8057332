//! The progress of a job of several disks: one sum.
//!
//! Owns: adding up, and the step that all of them have reached. Does not own: what is
//! shown, the disks' own work.

use super::ProgressSink;
use std::sync::{Mutex, MutexGuard, PoisonError};
use wire::Step;

/// The steps of a disk, in order.
const STEPS: [Step; 4] = [
    Step::Preparing,
    Step::Running,
    Step::Verifying,
    Step::Finishing,
];
const RUNNING: usize = 1;

/// Adds up the progress of the parts of a job.
pub struct Joined<'a> {
    inner: &'a dyn ProgressSink,
    state: Mutex<State>,
}

struct State {
    parts: Vec<Part>,
    /// Whether a disk has begun to transfer; what is shown never goes back before that.
    begun: bool,
    /// The step that is shown, and its bytes.
    shown: Option<(usize, u64)>,
}

/// One disk: position in [`STEPS`], and bytes of each.
#[derive(Clone, Copy, Default)]
struct Part {
    at: usize,
    total: [u64; STEPS.len()],
    done: [u64; STEPS.len()],
}

impl State {
    /// The step of the slowest disk, once one transfers: those that wait are about to.
    fn slowest(&self) -> usize {
        let slowest = self.parts.iter().map(|part| part.at).min().unwrap_or(0);
        match self.begun {
            true => slowest.max(RUNNING),
            false => 0,
        }
    }

    /// Bytes of a step that are done, of how many.
    fn sum(&self, step: usize) -> (u64, u64) {
        let parts = self.parts.iter();
        let sums = parts.map(|part| (part.done[step], part.total[step]));
        sums.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }
}

impl<'a> Joined<'a> {
    /// For `parts` disks, of each of which so many bytes will be transferred, as far as that
    /// is known.
    pub fn new(inner: &'a dyn ProgressSink, parts: usize, totals: &[u64]) -> Self {
        let mut parts = vec![Part::default(); parts];
        for (part, total) in parts.iter_mut().zip(totals) {
            part.total[RUNNING] = *total;
        }
        Joined {
            inner,
            state: Mutex::new(State {
                parts,
                begun: false,
                shown: None,
            }),
        }
    }

    /// The sink of disk `at`.
    pub fn part(&self, at: usize) -> Child<'_> {
        Child { joined: self, at }
    }

    /// Disk `at` has ended, well or not: nobody waits for it.
    pub fn ended(&self, at: usize) {
        self.step(at, Step::Finishing, 0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, at: usize, step: Step, total: u64) {
        let mut state = self.state();
        let before = state.shown.map(|(shown, _)| state.sum(shown).0);
        let position = STEPS.iter().position(|s| *s == step).unwrap_or(0);
        state.begun |= position == RUNNING;
        if let Some(part) = state.parts.get_mut(at) {
            part.at = position;
            if position == 0 {
                // Of what is prepared it is told how much will be transferred.
                part.total[RUNNING] = total.max(part.total[RUNNING]);
            } else {
                part.total[position] = total;
            }
            part.done[position] = 0;
            for passed in RUNNING..position {
                part.done[passed] = part.total[passed];
            }
        }
        let slowest = state.slowest();
        let (done, total) = state.sum(slowest);
        if state.shown != Some((slowest, total)) {
            state.shown = Some((slowest, total));
            self.inner.step(STEPS[slowest], total);
            self.inner.advance(done, 0);
        } else if let Some(more) = before.and_then(|before| done.checked_sub(before)) {
            self.inner.advance(more, 0);
        }
    }

    fn advance(&self, at: usize, plain_bytes: u64, wire_bytes: u64) {
        let mut state = self.state();
        let shown = state.shown.map_or(0, |(shown, _)| shown);
        let mut now = 0;
        if let Some(part) = state.parts.get_mut(at) {
            part.done[part.at] += plain_bytes;
            if part.at == shown {
                now = plain_bytes;
            }
        }
        self.inner.advance(now, wire_bytes);
    }
}

/// The sink of one disk.
pub struct Child<'a> {
    joined: &'a Joined<'a>,
    at: usize,
}

impl ProgressSink for Child<'_> {
    fn step(&self, step: Step, total_bytes: u64) {
        self.joined.step(self.at, step, total_bytes);
    }

    fn advance(&self, plain_bytes: u64, wire_bytes: u64) {
        self.joined.advance(self.at, plain_bytes, wire_bytes);
    }

    fn note(&self, text: &str) {
        self.joined.inner.note(text);
    }

    fn interrupted(&self) -> bool {
        self.joined.inner.interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::Joined;
    use crate::progress::{ProgressSink, Tracker};
    use wire::Step;

    #[test]
    fn the_slowest_disk_says_the_step_and_all_are_added_up() {
        let tracker = Tracker::new(|_| {});
        let joined = Joined::new(&tracker, 2, &[]);
        let (a, b) = (joined.part(0), joined.part(1));
        let seen = || {
            let seen = tracker.snapshot().unwrap();
            (seen.step, seen.done, seen.total, seen.wire)
        };
        a.step(Step::Preparing, 0);
        a.step(Step::Running, 100);
        a.advance(40, 4);
        b.step(Step::Running, 50);
        assert_eq!(seen(), (Step::Running, 40, 150, 4));
        a.advance(60, 6);
        a.step(Step::Verifying, 100);
        a.advance(30, 0);
        b.advance(10, 1);
        assert_eq!(seen(), (Step::Running, 110, 150, 11));
        b.step(Step::Verifying, 50);
        assert_eq!(seen(), (Step::Verifying, 30, 150, 11));
        joined.ended(1);
        a.advance(70, 0);
        assert_eq!(seen().0, Step::Verifying);
        joined.ended(0);
        assert_eq!(seen().0, Step::Finishing);
    }

    #[test]
    fn while_disks_are_checked_nothing_runs_and_those_that_wait_count() {
        let tracker = Tracker::new(|_| {});
        let joined = Joined::new(&tracker, 3, &[0, 0, 50]);
        let (a, b) = (joined.part(0), joined.part(1));
        let seen = || {
            let seen = tracker.snapshot().unwrap();
            (seen.step, seen.done, seen.total)
        };
        a.step(Step::Preparing, 0);
        a.step(Step::Preparing, 100);
        // It holds its image already, which is looked at before any disk is written.
        b.step(Step::Preparing, 0);
        b.step(Step::Verifying, 30);
        b.advance(20, 0);
        assert_eq!(seen().0, Step::Preparing);
        joined.ended(1);
        assert_eq!(seen().0, Step::Preparing);
        a.step(Step::Running, 100);
        assert_eq!(seen(), (Step::Running, 0, 150));
        a.advance(90, 0);
        a.step(Step::Verifying, 100);
        // The rest is on the disk, too: heads come later, but are counted here.
        assert_eq!(seen(), (Step::Running, 100, 150));
        joined.ended(0);
        let c = joined.part(2);
        c.step(Step::Preparing, 50);
        assert_eq!(seen(), (Step::Running, 100, 150));
        c.step(Step::Running, 50);
        c.advance(10, 0);
        assert_eq!(seen(), (Step::Running, 110, 150));
    }
}
