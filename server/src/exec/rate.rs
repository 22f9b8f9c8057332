//! Transfers that may take so many bytes a second and no more.
//!
//! Owns: when the next bytes of an execution may pass, over all its connections together.
//! Does not own: the limit (the execution), what the bytes are. The server enforces it, in
//! both directions: a target that knows nothing of it is held back by its own connection.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Smallest limit, in bytes a second: below it a single record takes longer than targets
/// wait for data.
pub const LEAST: u64 = 1 << 20;

/// What may pass at once after a pause.
const BURST: Duration = Duration::from_millis(100);

/// When the next bytes of each limited execution may pass.
#[derive(Default)]
pub struct Rates {
    next: Mutex<HashMap<String, Instant>>,
}

impl Rates {
    /// Waits until `bytes` of an execution may pass; they count from now on.
    pub async fn pass(&self, execution: &str, rate: Option<u64>, bytes: usize) {
        let Some(rate) = rate else { return };
        let wait = self.take(execution, rate, bytes, Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long `bytes` have to wait.
    fn take(&self, execution: &str, rate: u64, bytes: usize, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / rate.max(LEAST) as f64);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = next
            .get(execution)
            .copied()
            .unwrap_or(earliest)
            .max(earliest);
        next.insert(execution.to_owned(), start + cost);
        start.saturating_duration_since(now)
    }

    /// Forgets an execution that has ended.
    pub fn forget(&self, execution: &str) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.remove(execution);
    }
}

#[cfg(test)]
mod tests {
    use super::{BURST, Rates};
    use std::time::{Duration, Instant};

    #[test]
    fn over_any_time_no_more_passes_than_the_limit_and_one_burst() {
        let rates = Rates::default();
        let (rate, now) = (10 << 20, Instant::now());
        let mut latest = Duration::ZERO;
        // Two connections that both always want more.
        for _ in 0..200 {
            latest = rates.take("e", rate, 1 << 20, now).max(latest);
        }
        // 199 MiB went before the last one.
        let expected = Duration::from_millis(19_900) - BURST;
        assert!(
            latest.abs_diff(expected) < Duration::from_millis(1),
            "{latest:?}"
        );
        assert_eq!(rates.take("other", rate, 1 << 20, now), Duration::ZERO);
        // A pause gives back a burst and no more.
        let later = now + Duration::from_secs(60);
        assert_eq!(rates.take("e", rate, 2 << 20, later), Duration::ZERO);
        let wait = rates.take("e", rate, 1, later);
        assert!(
            wait.abs_diff(Duration::from_millis(100)) < Duration::from_millis(1),
            "{wait:?}"
        );
        rates.forget("e");
        assert_eq!(rates.take("e", rate, 1, later), Duration::ZERO);
    }
}
