//! Trying again: how often, for how long, and who is told.
//!
//! Owns: pace and patience. Does not own: what is tried.

use super::failure::{Failure, report};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use wire::{Code, Report};

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A pause is slept in pieces, so that an interrupt is seen soon.
const PIECE: Duration = Duration::from_millis(100);

/// Limits beyond this are not told: what is tried for so long is tried until it works.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// What is told while something is tried again.
#[derive(Clone, Debug)]
pub struct Retrying<'a> {
    /// Completes "while ...": `sending data`.
    pub what: &'static str,
    /// How long it has failed.
    pub since: Duration,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure.
    pub last: &'a Report,
    /// How long it will be tried in all.
    pub limit: Duration,
}

impl Retrying<'_> {
    /// The sentence for people.
    pub fn sentence(&self) -> String {
        let since = wire::size::duration(self.since.as_secs());
        let until = if self.limit > FOR_EVER {
            String::new()
        } else {
            format!(", up to {}", wire::size::duration(self.limit.as_secs()))
        };
        format!("the server does not answer; trying again (since {since}{until})")
    }
}

/// Hears of retries and can end them.
pub trait Observer: Send + Sync {
    /// A request failed and will be tried again after a pause.
    fn retrying(&self, retrying: &Retrying<'_>);
    /// A request that was being retried has been answered.
    fn recovered(&self, what: &'static str);
    /// The job is to stop: no more tries.
    fn cancelled(&self) -> bool;
}

/// Nobody is told and nothing stops the retries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn retrying(&self, _retrying: &Retrying<'_>) {}
    fn recovered(&self, _what: &'static str) {}
    fn cancelled(&self) -> bool {
        false
    }
}

/// Hears what another observer hears, and also ends the retries when `stop` is set.
pub(super) struct Until {
    pub inner: Arc<dyn Observer>,
    pub stop: Arc<AtomicBool>,
}

impl Observer for Until {
    fn retrying(&self, retrying: &Retrying<'_>) {
        self.inner.retrying(retrying);
    }
    fn recovered(&self, what: &'static str) {
        self.inner.recovered(what);
    }
    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.inner.cancelled()
    }
}

/// The pace-maker of one piece of work.
pub struct Retry {
    what: &'static str,
    limit: Duration,
    observer: Arc<dyn Observer>,
    failing: Option<Failing>,
}

#[derive(Clone, Copy)]
struct Failing {
    since: Instant,
    failures: u32,
}

impl Retry {
    pub(super) fn new(what: &'static str, limit: Duration, observer: Arc<dyn Observer>) -> Self {
        Retry {
            what,
            limit,
            observer,
            failing: None,
        }
    }

    /// Something was achieved: patience and pace start anew.
    pub fn succeeded(&mut self) {
        if self.failing.take().is_some() {
            self.observer.recovered(self.what);
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// The failure's report if another try cannot help or the time is used up;
    /// `interrupted` if the job is to stop.
    pub fn wait(&mut self, failure: Failure) -> Result<(), Report> {
        let last = match failure {
            Failure::Final(report) => return Err(report),
            Failure::Transient(report) => report,
        };
        let now = Instant::now();
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            failures: 0,
        });
        failing.failures = failing.failures.saturating_add(1);
        let Failing { since, failures } = *failing;
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= self.limit {
            return Err(used_up(last, self.what, elapsed));
        }
        self.observer.retrying(&Retrying {
            what: self.what,
            since: elapsed,
            failures,
            last: &last,
            limit: self.limit,
        });
        self.sleep(pause(failures).min(self.limit - elapsed))
    }

    fn sleep(&self, pause: Duration) -> Result<(), Report> {
        let end = Instant::now() + pause;
        loop {
            if self.observer.cancelled() {
                let found = format!("stopped while {}", self.what);
                return Err(report(Code::Interrupted, found));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(PIECE));
        }
    }
}

/// 0.25 s, then doubled up to 5 s.
fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE)
}

fn used_up(mut last: Report, what: &str, elapsed: Duration) -> Report {
    let tried = wire::size::duration(elapsed.as_secs());
    last.found = format!("{} (tried for {tried} while {what})", last.found);
    last
}

#[cfg(test)]
mod tests {
    use super::{Failure, LONGEST_PAUSE, Observer, Retry, Retrying, pause, report};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use wire::{Code, Report};

    #[derive(Default)]
    struct Seen {
        events: Mutex<Vec<String>>,
        cancel: bool,
    }

    impl Observer for Seen {
        fn retrying(&self, retrying: &Retrying<'_>) {
            self.events
                .lock()
                .unwrap()
                .push(format!("{} {}", retrying.what, retrying.failures));
        }
        fn recovered(&self, what: &'static str) {
            self.events
                .lock()
                .unwrap()
                .push(format!("recovered {what}"));
        }
        fn cancelled(&self) -> bool {
            self.cancel
        }
    }

    fn lost() -> Report {
        report(Code::ConnectionLost, "reset".to_owned())
    }

    #[test]
    fn pauses_double_and_stay_bounded() {
        let millis: Vec<u128> = (1..8).map(|n| pause(n).as_millis()).collect();
        assert_eq!(millis, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn observers_hear_of_failures_and_of_recovery_once() {
        let seen = Arc::new(Seen::default());
        let mut retry = Retry::new("sending data", Duration::from_secs(600), seen.clone());
        retry.succeeded();
        retry.wait(Failure::Transient(lost())).unwrap();
        retry.succeeded();
        retry.succeeded();
        assert_eq!(
            *seen.events.lock().unwrap(),
            ["sending data 1", "recovered sending data"]
        );
    }

    #[test]
    fn final_failures_end_at_once_and_patience_ends_too() {
        let seen = Arc::new(Seen::default());
        let mut retry = Retry::new("sending data", Duration::ZERO, seen.clone());
        assert_eq!(retry.wait(Failure::Final(lost())).unwrap_err(), lost());
        let used_up = retry.wait(Failure::Transient(lost())).unwrap_err();
        assert_eq!(used_up.code, Code::ConnectionLost);
        assert_eq!(used_up.found, "reset (tried for 0 s while sending data)");
        assert!(seen.events.lock().unwrap().is_empty());
    }

    #[test]
    fn an_interrupt_ends_the_waiting() {
        let seen = Arc::new(Seen {
            cancel: true,
            ..Seen::default()
        });
        let mut retry = Retry::new("sending data", Duration::from_secs(600), seen);
        let stopped = retry.wait(Failure::Transient(lost())).unwrap_err();
        assert_eq!(stopped.code, Code::Interrupted);
    }
}
