//! When a serial console gets its next progress line: a fresh line every few seconds or
//! tenth, because a line that is redrawn cannot be read in a captured log.
//!
//! Owns: the pace and the words. Does not own: the device.

use crate::progress::Snapshot;
use std::time::Duration;
use wire::{Step, size};

const EVERY: Duration = Duration::from_secs(5);
const NOT_WITHIN: Duration = Duration::from_millis(500);

/// What was last printed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    step: Option<Step>,
    percent: u8,
    at: Duration,
}

impl Pace {
    /// The lines that are due now.
    pub fn due(&mut self, now: Duration, snapshot: &Snapshot) -> Vec<String> {
        let mut lines = Vec::new();
        let percent = snapshot.percent();
        if self.step != Some(snapshot.step) {
            *self = Pace {
                step: Some(snapshot.step),
                percent: 0,
                at: now,
            };
            lines.push(marker(snapshot.step).to_owned());
        }
        let since = now.saturating_sub(self.at);
        let tenth = percent / 10 > self.percent / 10;
        let complete = percent == 100 && self.percent != 100;
        let moved = percent != self.percent || since >= EVERY;
        if snapshot.total > 0
            && moved
            && (complete || since >= EVERY || (tenth && since >= NOT_WITHIN))
        {
            self.percent = percent;
            self.at = now;
            lines.push(progress_line(snapshot));
        }
        lines
    }
}

/// The line at the beginning of a step.
pub fn marker(step: Step) -> &'static str {
    match step {
        Step::Preparing => "preparing",
        Step::Running => "running",
        Step::Verifying => "verifying",
        Step::Finishing => "finishing",
    }
}

fn progress_line(snapshot: &Snapshot) -> String {
    let left = match snapshot.seconds_left {
        Some(seconds) => format!(", {} left", size::duration(seconds)),
        None => String::new(),
    };
    format!(
        "progress {} % ({} of {}, {}/s{left})",
        snapshot.percent(),
        size::bytes(snapshot.done),
        size::bytes(snapshot.total),
        size::bytes(snapshot.rate),
    )
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use crate::progress::Snapshot;
    use std::time::Duration;
    use wire::Step;

    fn snapshot(step: Step, done: u64) -> Snapshot {
        Snapshot {
            step,
            done: done << 20,
            total: 100 << 20,
            wire: 0,
            rate: 1 << 20,
            seconds_left: Some(100 - done),
            elapsed: Duration::ZERO,
        }
    }

    #[test]
    fn steps_are_marked_and_progress_comes_every_five_seconds_or_tenth() {
        let mut pace = Pace::default();
        let mut lines = Vec::new();
        for (millis, step, done) in [
            (0, Step::Running, 0),
            (1000, Step::Running, 3),
            (5000, Step::Running, 9),
            (5200, Step::Running, 10),
            (5600, Step::Running, 12),
            (6000, Step::Running, 13),
            (10_700, Step::Running, 13),
            (11_000, Step::Verifying, 0),
            (11_100, Step::Verifying, 100),
            (11_200, Step::Verifying, 100),
        ] {
            lines.extend(pace.due(Duration::from_millis(millis), &snapshot(step, done)));
        }
        assert_eq!(
            lines,
            [
                "running",
                "progress 9 % (9.00 MiB of 100 MiB, 1.00 MiB/s, 1 min 31 s left)",
                "progress 12 % (12.0 MiB of 100 MiB, 1.00 MiB/s, 1 min 28 s left)",
                "progress 13 % (13.0 MiB of 100 MiB, 1.00 MiB/s, 1 min 27 s left)",
                "verifying",
                "progress 100 % (100 MiB of 100 MiB, 1.00 MiB/s, 0 s left)",
            ]
        );
    }

    #[test]
    fn a_step_without_a_total_is_only_marked() {
        let mut pace = Pace::default();
        let unknown = Snapshot {
            total: 0,
            ..snapshot(Step::Preparing, 0)
        };
        assert_eq!(pace.due(Duration::ZERO, &unknown), ["preparing"]);
        assert!(pace.due(Duration::from_secs(60), &unknown).is_empty());
    }
}
