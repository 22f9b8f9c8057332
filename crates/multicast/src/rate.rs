//! How fast a session sends.
//!
//! Owns: the bucket that spaces packets out, and finding the network's rate. Does not own:
//! who lost what.
//!
//! Rates are bytes a second of packets with all headers down to Ethernet's, so that they can
//! be compared with that of a link.

use std::time::Duration;

/// Headers of Ethernet, IPv6 and UDP, in bytes.
pub const HEADERS: usize = 14 + 40 + 8;
/// The same under IPv4.
pub const HEADERS_V4: usize = 14 + 20 + 8;
/// Longest time of which packets go out at once.
const BURST: Duration = Duration::from_micros(900);
/// Longest time that a sender which was not woken in time catches up with.
const LATE: Duration = Duration::from_millis(20);
/// How much faster than its rate it sends until then.
const CATCH_UP: f64 = 1.25;
/// Packets that may always go out at once: what one system call carries well.
const BURST_PACKETS: f64 = 16.0 * 1514.0;
/// Loss that everybody sees, beyond what the network always has, from which the rate falls.
const LOSS_TO_FALL: f64 = 0.02;
/// Loss up to which the rate rises.
const LOSS_TO_RISE: f64 = 0.008;
/// Most loss that can be a network's own: beyond it, parity is no answer.
const MOST_OWN: f64 = 0.25;

/// What rate a session may have, in bytes a second with all headers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// This one.
    Fixed(f64),
    /// Whatever the network gives, up to this one.
    Auto {
        /// Where it begins.
        start: f64,
        /// Where it ends.
        most: f64,
    },
}

/// Spaces packets out: short bursts, and over a few milliseconds as much as the rate says.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: f64,
    /// What the rate allows; and what a burst does.
    tokens: f64,
    burst: f64,
    at: Duration,
}

impl Bucket {
    pub(crate) fn new(rate: f64, now: Duration) -> Self {
        Bucket {
            rate,
            tokens: 0.0,
            burst: 0.0,
            at: now,
        }
    }

    /// Refills up to `now` at the rate that held, which is `rate` from then on.
    pub(crate) fn refill(&mut self, now: Duration, rate: f64) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        let most = |time: Duration| (self.rate * time.as_secs_f64()).max(BURST_PACKETS);
        let new = passed * self.rate;
        self.tokens = (self.tokens + new).min(most(LATE));
        self.burst = (self.burst + new * CATCH_UP).min(most(BURST));
        self.rate = rate;
    }

    /// Whether a packet may go now.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens > 0.0 && self.burst > 0.0
    }

    /// Counts a packet of `len` bytes, all headers among them.
    pub(crate) fn take(&mut self, len: usize) {
        self.tokens -= len as f64;
        self.burst -= len as f64;
    }

    /// When about half a burst may go out: waking for each packet would cost more than
    /// sending it.
    pub(crate) fn ready_at(&self) -> Duration {
        let wanted = (self.rate * BURST.as_secs_f64()).min(BURST_PACKETS) / 2.0;
        let missing = (wanted - self.tokens).max((wanted - self.burst) / CATCH_UP);
        self.at + Duration::from_secs_f64((missing.max(1.0) / self.rate.max(1.0)).min(1.0))
    }
}

/// What the receivers saw since the last look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    /// Loss that four of five receivers have at least, 0 to 1.
    pub common_loss: f64,
    /// Part of the receivers whose disks are behind, 0 to 1.
    pub slow: f64,
    /// Whether the sender sent as much as it was allowed to.
    pub busy: bool,
}

/// Finds the network's rate.
///
/// It rises until everybody loses packets, which is what a full link or a switch that is
/// overrun looks like, and falls to what got through. Loss that stays when the rate fell
/// three times is not of the rate: it is the network's own, which parity answers, and counts
/// as none. (On a full link each fall to what got through ends the loss.)
#[derive(Debug)]
pub(crate) struct Control {
    rate: f64,
    auto: Option<Auto>,
}

#[derive(Debug)]
struct Auto {
    least: f64,
    most: f64,
    /// What got through when the rate last fell.
    known: Option<f64>,
    /// Loss that is there at any rate.
    own: f64,
    /// Loss because of which the rate fell, and how often in a row.
    fell: Option<(f64, u32)>,
    /// Looks that still tell of the time before the rate changed.
    wait: u32,
    /// Whether the rate rose at the last look.
    rose: bool,
    /// Looks in a row with some loss, too little to fall.
    between: u32,
}

impl Control {
    pub(crate) fn new(rate: Rate) -> Self {
        match rate {
            Rate::Fixed(rate) => Control { rate, auto: None },
            Rate::Auto { start, most } => Control {
                rate: start.min(most),
                auto: Some(Auto {
                    least: (most / 1000.0).clamp(50_000.0, 1_000_000.0).min(most),
                    most,
                    known: None,
                    own: 0.0,
                    fell: None,
                    wait: 0,
                    rose: false,
                    between: 0,
                }),
            },
        }
    }

    /// Bytes a second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// Looks at what a round of reports said.
    pub(crate) fn look(&mut self, seen: Seen) {
        let Some(auto) = &mut self.auto else {
            return;
        };
        if auto.wait > 0 {
            auto.wait -= 1;
            return;
        }
        let rose = std::mem::take(&mut auto.rose);
        if seen.slow > 0.5 {
            auto.known = Some(self.rate);
            auto.wait = 1;
            self.rate = (self.rate * 0.8).max(auto.least);
            return;
        }
        let loss = (seen.common_loss - auto.own).max(0.0);
        if loss > LOSS_TO_FALL {
            let times = match auto.fell {
                Some((before, times)) if seen.common_loss > before * 0.7 => times + 1,
                _ => 1,
            };
            if times > 3 && seen.common_loss < MOST_OWN {
                auto.own = seen.common_loss;
                (auto.known, auto.fell) = (None, None);
                return;
            }
            auto.fell = Some((seen.common_loss, times));
            auto.wait = 2;
            let through = self.rate * (1.0 - loss).max(0.3);
            auto.known = Some(through);
            self.rate = (through * 0.97).max(auto.least);
            return;
        }
        auto.fell = None;
        auto.own = auto.own.min(seen.common_loss);
        if loss >= LOSS_TO_RISE {
            auto.between += 1;
            if auto.between > 4 && auto.known.is_none() {
                auto.own = seen.common_loss;
            }
            return;
        }
        auto.between = 0;
        // Every other look, since the first after a rise tells half of the time before it.
        if seen.busy && !rose {
            let factor = match auto.known {
                None => 1.5,
                Some(known) if self.rate < known * 0.9 => 1.15,
                Some(_) => 1.01,
            };
            auto.rose = true;
            self.rate = (self.rate * factor).min(auto.most);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(common_loss: f64) -> Seen {
        Seen {
            common_loss,
            slow: 0.0,
            busy: true,
        }
    }

    #[test]
    fn a_bucket_gives_its_rate_in_short_bursts() {
        let mut bucket = Bucket::new(1e8, Duration::ZERO);
        let (mut now, mut sent) = (Duration::ZERO, 0.0);
        while now < Duration::from_secs(1) {
            bucket.refill(now, 1e8);
            let mut burst = 0;
            while bucket.is_open() {
                bucket.take(1514);
                burst += 1;
                sent += 1514.0;
            }
            assert!(burst <= 62, "{burst}");
            let next = bucket.ready_at();
            assert!(next > now);
            now = next;
        }
        assert!((0.99e8..1.01e8).contains(&sent), "{sent}");
    }

    #[test]
    fn what_was_late_is_caught_up_with_in_short_bursts() {
        let step = Duration::from_micros(300);
        let mut bucket = Bucket::new(1e8, Duration::ZERO);
        let (mut now, mut sent) = (Duration::ZERO, 0.0);
        for n in 0..1000 {
            // Every tenth time it is woken 4 ms late.
            now += if n % 10 == 9 { step * 14 } else { step };
            bucket.refill(now, 1e8);
            let mut burst = 0;
            while bucket.is_open() {
                bucket.take(1514);
                burst += 1;
                sent += 1514.0;
            }
            assert!(burst <= 62, "{burst}");
        }
        let share = sent / 1e8 / now.as_secs_f64();
        assert!((0.6..=1.01).contains(&share), "{share}");
        // Once in time, it is back at its rate.
        bucket.refill(now + Duration::from_secs(10), 1e8);
        let mut after = 0.0;
        for _ in 0..1000 {
            now += step;
            bucket.refill(now + Duration::from_secs(10), 1e8);
            while bucket.is_open() {
                bucket.take(1514);
                after += 1514.0;
            }
        }
        assert!((0.29e8..0.33e8).contains(&after), "{after}");
    }

    #[test]
    fn a_sender_that_others_keep_from_running_holds_its_rate() {
        let step = Duration::from_micros(500);
        let mut bucket = Bucket::new(1e8, Duration::ZERO);
        let (mut now, mut sent) = (Duration::ZERO, 0.0);
        for n in 0..10_000 {
            // 15 ms late every 115 ms.
            now += if n % 200 == 199 { step * 30 } else { step };
            bucket.refill(now, 1e8);
            while bucket.is_open() {
                bucket.take(1514);
                sent += 1514.0;
            }
        }
        let share = sent / 1e8 / now.as_secs_f64();
        assert!((0.99..=1.01).contains(&share), "{share}");
    }

    /// Against a link of that rate, with some loss of its own, seen one round late.
    fn settle(link: f64, own: f64, rounds: usize) -> Vec<f64> {
        let mut control = Control::new(Rate::Auto {
            start: 1e6,
            most: 1e9,
        });
        let mut before = control.rate();
        (0..rounds)
            .map(|_| {
                let over = (1.0 - link / before).max(0.0);
                before = control.rate();
                control.look(seen(over + (1.0 - over) * own));
                control.rate()
            })
            .collect()
    }

    #[test]
    fn the_rate_of_a_link_is_found_and_kept() {
        for own in [0.0, 0.01] {
            let rates = settle(1e8, own, 200);
            let after = &rates[60..];
            let mean = after.iter().sum::<f64>() / after.len() as f64;
            assert!((0.9e8..1.03e8).contains(&mean), "{mean} with {own}");
            assert!(after.iter().all(|&rate| rate < 1.2e8));
        }
    }

    #[test]
    fn loss_that_is_there_at_any_rate_does_not_slow_down() {
        let rates = settle(1e12, 0.05, 100);
        assert!(*rates.last().unwrap() > 0.99e9, "{rates:?}");
    }

    #[test]
    fn a_room_of_slow_disks_slows_down_and_a_fixed_rate_stays() {
        let auto = Rate::Auto {
            start: 1e8,
            most: 1e9,
        };
        for (rate, falls) in [(auto, true), (Rate::Fixed(1e8), false)] {
            let mut control = Control::new(rate);
            control.look(Seen {
                slow: 0.6,
                ..seen(0.0)
            });
            assert_eq!(control.rate() < 1e8, falls);
        }
    }
}
