//! Whether addresses may be leased: only while no other server does.
//!
//! Owns: when other servers are looked for, and when the server stands aside or comes
//! back. Does not own: sending or hearing. Time is passed in, in seconds of a clock
//! that only goes forward.

use std::net::Ipv4Addr;

/// Between two probes at the start.
const PROBE_AT_START: i64 = 2;
/// Between two probes later.
const PROBE_LATER: i64 = 30;
/// How long nothing must be heard of another server before addresses are leased again.
pub const QUIET: i64 = 300;

/// Where the server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It looks for other servers before it begins.
    Looking,
    /// It leases.
    Leasing,
    /// Another server answers: it leases nothing new.
    Aside {
        /// The other one.
        server: Ipv4Addr,
    },
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Send a probe.
    pub probe: bool,
    /// The stand has changed.
    pub changed: bool,
}

/// The stand and its clocks.
#[derive(Clone, Debug)]
pub struct Standing {
    stand: Stand,
    /// When looking ends.
    settled: i64,
    next_probe: i64,
    /// When the other server was heard last.
    heard: i64,
    /// Two servers that meet must not come back at the same moment again and again.
    quiet: i64,
}

impl Standing {
    /// Looks for `settle` seconds before anything is leased. `own` sets this server apart
    /// from others of its kind.
    pub fn new(now: i64, settle: i64, own: Ipv4Addr) -> Standing {
        Standing {
            stand: Stand::Looking,
            settled: now + settle,
            next_probe: now,
            heard: now,
            quiet: QUIET + i64::from(own.octets()[3]),
        }
    }

    /// Where the server stands.
    pub fn stand(&self) -> Stand {
        self.stand
    }

    /// Whether new addresses are given.
    pub fn leases(&self) -> bool {
        self.stand == Stand::Leasing
    }

    /// Time has passed; called about once a second.
    pub fn tick(&mut self, now: i64) -> Due {
        let next = match self.stand {
            Stand::Looking if now >= self.settled => Stand::Leasing,
            Stand::Aside { .. } if now - self.heard >= self.quiet => Stand::Leasing,
            stand => stand,
        };
        let changed = next != self.stand;
        self.stand = next;
        let probe = now >= self.next_probe;
        if probe {
            let pause = match self.stand {
                Stand::Looking => PROBE_AT_START,
                Stand::Leasing | Stand::Aside { .. } => PROBE_LATER,
            };
            self.next_probe = now + pause;
        }
        Due { probe, changed }
    }

    /// A client names another server. That proves nothing, so the next probe comes sooner.
    pub fn suspect(&mut self, now: i64) {
        self.next_probe = self.next_probe.min(now + PROBE_AT_START);
    }

    /// Another server was heard. Returns whether that is news.
    pub fn heard(&mut self, server: Ipv4Addr, now: i64) -> bool {
        self.heard = now;
        let aside = Stand::Aside { server };
        let news = !matches!(self.stand, Stand::Aside { .. });
        if news {
            self.stand = aside;
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::{QUIET, Stand, Standing};
    use std::net::Ipv4Addr;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    #[test]
    fn it_looks_before_it_leases() {
        let mut standing = Standing::new(100, 6, OWN);
        let probes: Vec<i64> = (100..106).filter(|now| standing.tick(*now).probe).collect();
        assert_eq!(probes, [100, 102, 104]);
        assert!(!standing.leases());
        assert!(standing.tick(106).changed && standing.leases());
        let probes: Vec<i64> = (107..200).filter(|now| standing.tick(*now).probe).collect();
        assert_eq!(probes, [136, 166, 196]);
        standing.suspect(200);
        standing.suspect(201);
        let probes: Vec<i64> = (200..240).filter(|now| standing.tick(*now).probe).collect();
        assert_eq!(probes, [202, 232], "sooner, and not more often");
        assert!(standing.leases());
    }

    #[test]
    fn it_stands_aside_until_the_other_is_quiet() {
        let mut standing = Standing::new(0, 6, OWN);
        assert!(standing.heard(OTHER, 3), "while it looks");
        assert!(!standing.heard(OTHER, 4), "no news");
        assert_eq!(standing.stand(), Stand::Aside { server: OTHER });
        let back = QUIET + 7;
        assert!((5..4 + back).all(|now| !standing.tick(now).changed));
        assert!(standing.tick(4 + back).changed && standing.leases());
        assert!(standing.heard(OTHER, 5 + back), "and again");
        assert!(!standing.leases());
    }
}
