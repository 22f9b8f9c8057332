//! The DHCP client's state machine: fed with time and packets, it says what to send.
//!
//! Owns: states, retransmission, renewal (RFC 2131, 4.4). Does not own: sockets, clocks
//! or the interface's configuration. Times count from any fixed origin.

use super::packet::{DISCOVER, Identity, Incoming, Lease, Outgoing, Proxy, REQUEST, parse};
use std::net::Ipv4Addr;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A spanning tree opens a port after up to 50 s; asking every 8 s finds it soon.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// Requests for an offer before another one is looked for.
const MAX_REQUESTS: u32 = 4;
/// After a refusal, so that a confused server is not flooded.
const AFTER_NAK: Duration = Duration::from_secs(2);
/// Shortest pause between renewals (RFC 2131, 4.4.5).
const RENEW_PAUSE: Duration = Duration::from_secs(60);

/// A client on one interface.
#[derive(Debug)]
pub struct Machine {
    identity: Identity,
    xid: u32,
    began: Duration,
    state: State,
    /// When there is something to do.
    due: Duration,
    /// Offers and refusals, for the message when no address is had.
    heard: Vec<String>,
    /// Offers are taken as they are, no address is asked for.
    only_asks: bool,
}

#[derive(Clone, Debug)]
enum State {
    Selecting { sent: u32 },
    Requesting { offer: Lease, sent: u32 },
    Bound { lease: Lease, since: Duration },
    Renewing { lease: Lease, since: Duration },
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// To port 67 of this address.
    pub to: Ipv4Addr,
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An address to configure (the first, or another one than before).
    Bound(Lease),
    /// The lease is longer valid now.
    Renewed(Lease),
    /// The address must not be used any more.
    Lost(Lease),
    /// A server that gives no addresses says something.
    Proxy(Proxy),
}

impl Machine {
    /// A client that begins now; `random` makes its transactions its own.
    pub fn new(identity: Identity, random: u32, now: Duration) -> Self {
        let state = State::Selecting { sent: 0 };
        Machine {
            identity,
            xid: random,
            began: now,
            state,
            due: now,
            heard: Vec::new(),
            only_asks: false,
        }
    }

    /// A client that listens to offers and takes none: a server gives no address away.
    /// [`Event::Bound`] then tells what was offered.
    pub fn asking(identity: Identity, random: u32, now: Duration) -> Self {
        Machine {
            only_asks: true,
            ..Machine::new(identity, random, now)
        }
    }

    /// When [`Machine::poll`] is to be called next, unless a packet comes before.
    pub fn due(&self) -> Duration {
        self.due
    }

    /// Notable answers so far, for people.
    pub fn heard(&self) -> &[String] {
        &self.heard
    }

    /// Does what is due: gives at most one packet, and an event when a lease ends.
    pub fn poll(&mut self, now: Duration) -> (Option<Transmit>, Option<Event>) {
        if now < self.due {
            return (None, None);
        }
        match self.state.clone() {
            State::Selecting { sent } => (Some(self.discover(now, sent)), None),
            State::Requesting { sent, .. } if sent >= MAX_REQUESTS => {
                (Some(self.discover(now, 0)), None)
            }
            State::Requesting { offer, sent } => {
                let message = Outgoing {
                    requested: Some(offer.address),
                    server: Some(offer.server),
                    ..self.outgoing(now, REQUEST)
                };
                self.state = State::Requesting {
                    offer,
                    sent: sent + 1,
                };
                self.due = now + pause(sent);
                (Some(self.broadcast(&message)), None)
            }
            State::Bound { lease, since } | State::Renewing { lease, since } => {
                self.renew(now, lease, since)
            }
        }
    }

    /// Takes a packet that came from the network.
    pub fn receive(&mut self, now: Duration, bytes: &[u8]) -> Option<Event> {
        let incoming = parse(bytes, &self.identity, self.xid)?;
        match (self.state.clone(), incoming) {
            (State::Selecting { sent }, Incoming::Offer(offer)) if sent > 0 => {
                self.hear(format!("{} offers {}", offer.server, offer.address));
                if self.only_asks {
                    self.due = Duration::MAX;
                    self.state = State::Bound {
                        lease: offer.clone(),
                        since: now,
                    };
                    return Some(Event::Bound(offer));
                }
                self.state = State::Requesting { offer, sent: 0 };
                self.due = now;
                None
            }
            (State::Requesting { offer, sent }, Incoming::Ack(lease))
                if sent > 0 && lease.server == offer.server =>
            {
                self.bind(now, lease.clone());
                Some(Event::Bound(lease))
            }
            (State::Requesting { .. }, Incoming::Nak(words)) => {
                self.hear(format!("the server refused its own offer: {words}"));
                self.restart(now);
                None
            }
            (State::Renewing { lease: old, .. }, Incoming::Ack(lease)) => {
                self.bind(now, lease.clone());
                let same = (old.address, old.prefix) == (lease.address, lease.prefix);
                Some(if same {
                    Event::Renewed(lease)
                } else {
                    Event::Bound(lease)
                })
            }
            // It answers what was asked at first, whatever has become of that meanwhile.
            (_, Incoming::Proxy(proxy)) => Some(Event::Proxy(proxy)),
            (State::Renewing { lease, .. }, Incoming::Nak(words)) => {
                self.hear(format!("the server refused to renew the lease: {words}"));
                self.restart(now);
                Some(Event::Lost(lease))
            }
            _ => None,
        }
    }

    fn discover(&mut self, now: Duration, sent: u32) -> Transmit {
        self.state = State::Selecting {
            sent: sent.saturating_add(1),
        };
        self.due = now + pause(sent);
        let message = self.outgoing(now, DISCOVER);
        self.broadcast(&message)
    }

    fn renew(
        &mut self,
        now: Duration,
        lease: Lease,
        since: Duration,
    ) -> (Option<Transmit>, Option<Event>) {
        let end = lease.valid.map(|valid| since.saturating_add(valid));
        if end.is_some_and(|end| now >= end) {
            self.restart(now);
            return (None, Some(Event::Lost(lease)));
        }
        let rebind = since.saturating_add(lease.rebind);
        let (to, next) = if now < rebind {
            (lease.server, rebind)
        } else {
            (Ipv4Addr::BROADCAST, end.unwrap_or(Duration::MAX))
        };
        if let State::Bound { .. } = self.state {
            self.xid = self.xid.wrapping_add(1);
            self.began = now;
        }
        // Half of what is left, but not more often than once a minute.
        let half = (next.saturating_sub(now) / 2).max(RENEW_PAUSE);
        self.due = now.saturating_add(half).min(next);
        let message = Outgoing {
            client: Some(lease.address),
            ..self.outgoing(now, REQUEST)
        };
        self.state = State::Renewing { lease, since };
        (
            Some(Transmit {
                bytes: message.encode(&self.identity),
                to,
            }),
            None,
        )
    }

    fn bind(&mut self, now: Duration, lease: Lease) {
        self.due = now.saturating_add(lease.renew);
        self.state = State::Bound { lease, since: now };
    }

    fn restart(&mut self, now: Duration) {
        self.xid = self.xid.wrapping_add(1);
        self.began = now;
        self.state = State::Selecting { sent: 0 };
        self.due = now + AFTER_NAK;
    }

    fn outgoing(&self, now: Duration, kind: u8) -> Outgoing {
        let secs = now.saturating_sub(self.began).as_secs();
        let secs = u16::try_from(secs).unwrap_or(u16::MAX);
        Outgoing {
            kind,
            xid: self.xid,
            secs,
            ..Outgoing::default()
        }
    }

    fn broadcast(&self, message: &Outgoing) -> Transmit {
        Transmit {
            bytes: message.encode(&self.identity),
            to: Ipv4Addr::BROADCAST,
        }
    }

    fn hear(&mut self, what: String) {
        if self.heard.len() < 16 && !self.heard.contains(&what) {
            self.heard.push(what);
        }
    }
}

/// 1, 2, 4, 8, 8, ... seconds.
fn pause(sent: u32) -> Duration {
    FIRST_PAUSE
        .saturating_mul(1 << sent.min(8))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
