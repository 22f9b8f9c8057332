//! What a session is told when it begins, and what it tells.
//!
//! Owns: settings, events, counts. Does not own: the session.

use super::MemberStatus;
use crate::key::PacketKey;
use crate::packet::{Reason, SessionState};
use crate::rate::{HEADERS, Rate};
use std::time::Duration;

/// Settings of a session.
#[derive(Clone, Debug)]
pub struct SenderConfig {
    /// Number of the session: tells those on one group address apart.
    pub session: u32,
    /// How fast it sends.
    pub rate: Rate,
    /// Bytes of headers that a packet has on the network, which its rate counts.
    pub headers: usize,
    /// Most receivers, gone ones among them.
    pub most_receivers: u16,
    /// Most reports a second, of all receivers together.
    pub reports_per_second: u16,
    /// Time after which a receiver of which nothing is heard is dropped.
    pub timeout: Duration,
    /// Time for which a receiver's disk may be behind those of most others.
    pub patience: Duration,
}

impl SenderConfig {
    /// The defaults, with that number.
    #[must_use]
    pub fn new(session: u32) -> Self {
        SenderConfig {
            session,
            rate: Rate::Auto {
                start: 12.5e6,
                most: 1.25e9,
            },
            headers: HEADERS,
            most_receivers: 4096,
            reports_per_second: 250,
            timeout: Duration::from_secs(10),
            patience: Duration::from_secs(10),
        }
    }
}

/// Something that the caller may want to act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// A receiver has everything.
    Done(u16),
    /// A receiver left or was dropped; unless it was [`Reason::Done`], it lacks something.
    Left(u16, Reason),
}

/// What a receiver needs to take part, for its control connection.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Number of the session.
    pub session: u32,
    /// Its number.
    pub receiver: u16,
    /// The key of what the sender says.
    pub down: PacketKey,
    /// The key of what it says.
    pub up: PacketKey,
}

/// Counts, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderStatus {
    /// What the session is doing.
    pub state: SessionState,
    /// Bytes a second with all headers.
    pub rate: f64,
    /// How often the session goes through its blocks.
    pub pass: u16,
    /// Blocks that were sent at least once, of how many.
    pub blocks: (u32, u32),
    /// DATA packets sent.
    pub packets: u64,
    /// Those of them that were parity sent beforehand.
    pub parity_packets: u64,
    /// Those of them that were sent because somebody lacked something.
    pub repair_packets: u64,
    /// Loss that parity is reckoned by, 0 to 1.
    pub loss: f64,
    /// Packets of receivers that were taken, and that were thrown away.
    pub reports: (u64, u64),
    /// The receivers.
    pub members: Vec<MemberStatus>,
}
