//! Rate and time left, from counts and a clock that the caller reads.
//!
//! Owns: the arithmetic. Does not own: a clock or any output.

use std::collections::VecDeque;
use std::time::Duration;
use wire::{Progress, Step};

/// The rate is the mean over this long: short enough to show a stall, long enough not
/// to flicker.
const WINDOW: Duration = Duration::from_secs(10);
/// Samples closer together than this replace one another.
const SAMPLE_SPACING: Duration = Duration::from_millis(250);
/// No time left is told before this much of a step has been seen.
const WARM_UP: Duration = Duration::from_secs(2);

/// Turns (time, bytes done) into rate and time left. Times count from any fixed origin.
#[derive(Debug, Default)]
pub struct Meter {
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    step: Step,
    total: u64,
    began: Duration,
    samples: VecDeque<(Duration, u64)>,
}

/// Figures of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Step.
    pub step: Step,
    /// Plain bytes done in this step.
    pub done: u64,
    /// Plain bytes in this step, 0 if unknown.
    pub total: u64,
    /// Bytes over the network (or into the file) since the job began.
    pub wire: u64,
    /// Bytes per second, mean of the last seconds.
    pub rate: u64,
    /// Seconds left in this step, if it can be told.
    pub seconds_left: Option<u64>,
    /// How long the step has been running.
    pub elapsed: Duration,
}

impl Snapshot {
    /// Whole percent, 100 only when everything is done; 0 if the total is unknown.
    pub fn percent(&self) -> u8 {
        if self.total == 0 {
            return 0;
        }
        let percent = u128::from(self.done) * 100 / u128::from(self.total);
        u8::try_from(percent.min(100)).unwrap_or(100)
    }

    /// The message for the server.
    pub fn to_wire(&self) -> Progress {
        Progress {
            step: self.step,
            done_bytes: self.done,
            total_bytes: self.total,
            rate: self.rate,
            seconds_left: self.seconds_left,
            wire_bytes: self.wire,
        }
    }
}

impl Meter {
    /// A meter without a step.
    pub fn new() -> Self {
        Meter::default()
    }

    /// A step begins now.
    pub fn begin(&mut self, now: Duration, step: Step, total: u64) {
        let samples = VecDeque::from([(now, 0)]);
        self.current = Some(Current {
            step,
            total,
            began: now,
            samples,
        });
    }

    /// Takes the counts of now and gives the figures; `None` before the first step.
    pub fn sample(&mut self, now: Duration, done: u64, wire: u64) -> Option<Snapshot> {
        let current = self.current.as_mut()?;
        current.push(now, done);
        let elapsed = now.saturating_sub(current.began);
        let rate = current.window_rate(now, done);
        Some(Snapshot {
            step: current.step,
            done,
            total: current.total,
            wire,
            rate: rate as u64,
            seconds_left: current.seconds_left(done, rate, elapsed),
            elapsed,
        })
    }
}

impl Current {
    fn push(&mut self, now: Duration, done: u64) {
        match self.samples.back() {
            Some((last, _)) if now.saturating_sub(*last) < SAMPLE_SPACING => return,
            _ => self.samples.push_back((now, done)),
        }
        // One sample at or beyond the window's far edge stays, so that the window is full.
        while self
            .samples
            .get(1)
            .is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW)
        {
            self.samples.pop_front();
        }
    }

    fn window_rate(&self, now: Duration, done: u64) -> f64 {
        let Some((first_at, first_done)) = self.samples.front() else {
            return 0.0;
        };
        let seconds = now.saturating_sub(*first_at).as_secs_f64();
        if seconds < 0.001 {
            return 0.0;
        }
        done.saturating_sub(*first_done) as f64 / seconds
    }

    /// Half from the last seconds, half from the whole step: follows a change without
    /// jumping with every slow chunk.
    fn seconds_left(&self, done: u64, rate: f64, elapsed: Duration) -> Option<u64> {
        if self.total == 0 || elapsed < WARM_UP {
            return None;
        }
        let left = self.total.saturating_sub(done);
        if left == 0 {
            return Some(0);
        }
        if rate < 1.0 {
            return None;
        }
        let mean = done as f64 / elapsed.as_secs_f64();
        Some((left as f64 / ((rate + mean) / 2.0)).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::{Meter, Snapshot};
    use std::time::Duration;
    use wire::Step;

    const MIB: u64 = 1 << 20;

    fn steady(meter: &mut Meter, seconds: std::ops::RangeInclusive<u64>, rate: u64) -> Snapshot {
        let mut last = None;
        for second in seconds {
            last = meter.sample(Duration::from_secs(second), second * rate, 0);
        }
        last.unwrap()
    }

    #[test]
    fn a_steady_rate_gives_the_exact_time_left() {
        let mut meter = Meter::new();
        meter.begin(Duration::ZERO, Step::Running, 100 * MIB);
        let snapshot = steady(&mut meter, 1..=20, MIB);
        assert_eq!(snapshot.rate, MIB);
        assert_eq!(snapshot.seconds_left, Some(80));
        assert_eq!(snapshot.percent(), 20);
        assert_eq!(snapshot.elapsed, Duration::from_secs(20));
    }

    #[test]
    fn a_stall_brings_the_rate_to_zero_within_the_window() {
        let mut meter = Meter::new();
        meter.begin(Duration::ZERO, Step::Running, 100 * MIB);
        steady(&mut meter, 1..=20, MIB);
        for second in 21..=29 {
            let at = meter
                .sample(Duration::from_secs(second), 20 * MIB, 0)
                .unwrap();
            assert!(at.rate > 0 && at.rate < MIB, "{second}: {}", at.rate);
        }
        let stalled = meter.sample(Duration::from_secs(31), 20 * MIB, 0).unwrap();
        assert_eq!((stalled.rate, stalled.seconds_left), (0, None));
    }

    #[test]
    fn nothing_is_promised_at_once_or_without_a_total() {
        let mut meter = Meter::new();
        assert_eq!(meter.sample(Duration::ZERO, 0, 0), None);
        meter.begin(Duration::ZERO, Step::Running, 10 * MIB);
        assert_eq!(
            meter
                .sample(Duration::from_secs(1), MIB, 0)
                .unwrap()
                .seconds_left,
            None
        );
        meter.begin(Duration::ZERO, Step::Running, 0);
        let unknown = steady(&mut meter, 1..=20, MIB);
        assert_eq!((unknown.seconds_left, unknown.percent()), (None, 0));
    }

    #[test]
    fn a_hundred_percent_only_when_done_and_never_more() {
        let mut meter = Meter::new();
        meter.begin(Duration::ZERO, Step::Running, 1000);
        assert_eq!(
            meter
                .sample(Duration::from_secs(3), 999, 0)
                .unwrap()
                .percent(),
            99
        );
        let done = meter.sample(Duration::from_secs(4), 1000, 0).unwrap();
        assert_eq!((done.percent(), done.seconds_left), (100, Some(0)));
        assert_eq!(
            meter
                .sample(Duration::from_secs(5), u64::MAX, 0)
                .unwrap()
                .percent(),
            100
        );
    }

    #[test]
    fn many_samples_use_bounded_memory() {
        let mut meter = Meter::new();
        meter.begin(Duration::ZERO, Step::Running, u64::MAX);
        for millis in 0..100_000 {
            meter.sample(Duration::from_millis(millis), millis, 0);
        }
        let held = meter.current.map(|current| current.samples.len()).unwrap();
        assert!(held <= 43, "{held}");
    }

    #[test]
    fn a_clock_that_goes_back_does_no_harm() {
        let mut meter = Meter::new();
        meter.begin(Duration::from_secs(50), Step::Running, MIB);
        let snapshot = meter.sample(Duration::from_secs(40), 10, 0).unwrap();
        assert_eq!((snapshot.rate, snapshot.elapsed), (0, Duration::ZERO));
    }
}
