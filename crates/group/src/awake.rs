//! Time that does not go on while the program stands still.
//!
//! Owns: leaving out what a stopped process or machine slept. Does not own: what is done in
//! time.
//!
//! Nobody was silent only because this program did not listen: after a machine was suspended
//! all the others would seem to be gone.

use std::time::{Duration, Instant};

/// Longest time between two looks that counts as such.
const LONGEST: Duration = Duration::from_secs(2);

/// A clock that is looked at often.
pub struct Awake {
    last: Instant,
    passed: Duration,
}

impl Awake {
    /// A clock that begins now.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Awake {
            last: now,
            passed: Duration::ZERO,
        }
    }

    /// The time since the beginning, without pauses.
    pub fn at(&mut self, now: Instant) -> Duration {
        self.passed += now.saturating_duration_since(self.last).min(LONGEST);
        self.last = now;
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_count() {
        let start = Instant::now();
        let mut clock = Awake::new(start);
        let mut at = |millis| clock.at(start + Duration::from_millis(millis)).as_millis();
        assert_eq!(
            [at(10), at(1500), at(600_000), at(600_010)],
            [10, 1500, 3500, 3510]
        );
    }
}
