//! The receiver: from packets in any order to whole records.
//!
//! Owns: what came, what is lacking, and what the sender is told. Does not own: sockets,
//! clocks, the disk, and the proof that a record is the chunk that it should be.
//!
//! The caller has a loop: give it packets that came ([`Receiver::handle`]), take records
//! ([`Receiver::next_record`]) as fast as the disk takes them, send what is due
//! ([`Receiver::transmit`]), look at [`Receiver::standing`]. While the queue of records is
//! full, new blocks are thrown away and the sender is told that this one is slow: nobody
//! waits for it. What is lacking in the end ([`Receiver::lacking`]) is for another way.

mod blocks;
mod records;

use crate::bits::Bits;
use crate::packet::{
    self, Announce, Data, Down, MAX_NEEDS, Need, Reason, ReceiverState, Report, SessionState,
};
use crate::plan::Plan;
use crate::sender::Membership;
use blocks::{Blocks, Put};
use records::Records;
use std::time::Duration;

/// Settings of a receiver.
#[derive(Clone, Debug)]
pub struct ReceiverConfig {
    /// Bytes of blocks and records that are not complete.
    pub memory: usize,
    /// Bytes of complete records that wait for the disk before new blocks are thrown away.
    pub queue: usize,
    /// Time without any packet after which the network counts as silent.
    pub silence: Duration,
}

impl Default for ReceiverConfig {
    fn default() -> Self {
        ReceiverConfig {
            memory: 64 << 20,
            queue: 32 << 20,
            silence: Duration::from_secs(10),
        }
    }
}

/// A whole record: header and payload, not proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its place in the session's list.
    pub record: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How a receiver stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing came yet, or the session waits for others.
    Waiting,
    /// Blocks come.
    Receiving,
    /// Every record that is wanted came.
    Done,
    /// No packet, or no data of all that was sent, came for [`ReceiverConfig::silence`].
    Silent,
    /// The sender tells this one to leave.
    Dismissed(Reason),
    /// The sender has ended the session, and records are lacking.
    Ended,
}

/// Counts, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ReceiverStatus {
    /// Packets of the session that came.
    pub packets: u64,
    /// Symbols that were not needed: of blocks that are complete, or came before.
    pub surplus: u64,
    /// Packets that were thrown away because the disk is behind.
    pub refused: u32,
    /// Packets that are not of the session, or do not fit its plan.
    pub foreign: u64,
    /// The part of packets that was lost, 0 to 1.
    pub loss: f64,
    /// The sender's rate, in bytes a second.
    pub rate: f64,
    /// How often the session goes through its blocks.
    pub pass: u16,
    /// Blocks and records that were forgotten for want of memory.
    pub evicted: u64,
    /// Bytes in memory.
    pub memory: usize,
}

/// A session, seen from a receiver.
pub struct Receiver {
    plan: Plan,
    member: Membership,
    config: ReceiverConfig,
    /// Blocks that are wanted and not complete.
    open: Bits,
    wanted: u32,
    blocks: Blocks,
    records: Records,
    /// When a packet of the session came last.
    heard: Duration,
    has_heard: bool,
    /// When data came last, or none was on its way.
    data: Duration,
    newest: Option<Known>,
    /// The round that was answered last, and when the next answer is due.
    answered: Option<u32>,
    due: Option<Duration>,
    sequence: u32,
    dismissed: Option<Reason>,
    seen: u64,
    /// `refused` of the report before.
    reported_refused: u32,
    first: Option<(u64, u64)>,
    counts: ReceiverStatus,
}

/// The newest announcement, and the packets that had come then.
struct Known {
    announce: Announce,
    seen: u64,
}

impl Receiver {
    /// A receiver that wants those records of the plan.
    #[must_use]
    pub fn new(
        plan: Plan,
        member: Membership,
        wanted: Bits,
        config: ReceiverConfig,
        now: Duration,
    ) -> Self {
        let mut open = Bits::none(plan.blocks());
        for record in wanted.iter() {
            plan.blocks_of(record).for_each(|block| {
                open.insert(block);
            });
        }
        Receiver {
            blocks: Blocks::new(plan.symbol_len()),
            records: Records::new(wanted),
            wanted: open.count(),
            open,
            plan,
            member,
            config,
            heard: now,
            has_heard: false,
            data: now,
            newest: None,
            answered: None,
            due: None,
            sequence: 0,
            dismissed: None,
            seen: 0,
            reported_refused: 0,
            first: None,
            counts: ReceiverStatus::default(),
        }
    }

    /// Takes a packet that came. `false` if it is not one of the session; who sent it is
    /// then of no interest.
    pub fn handle(&mut self, now: Duration, bytes: &[u8]) -> bool {
        let (session, key) = (self.member.session, &self.member.down);
        let taken = match packet::decode_down(bytes, session, key) {
            Some(Down::Data(data)) => {
                let fits = self.data(&data);
                if fits {
                    self.data = now;
                }
                fits
            }
            Some(Down::Announce(announce)) => self.announce(now, announce),
            None => false,
        };
        if taken {
            self.heard = now;
            self.has_heard = true;
        } else {
            self.counts.foreign += 1;
        }
        taken
    }

    fn data(&mut self, data: &Data<'_>) -> bool {
        let fits = self.plan.block(data.block).is_some_and(|place| {
            (place.record, place.offset, place.len, place.source)
                == (data.record, data.offset, data.len, data.source)
        });
        if !fits || data.payload.len() != self.plan.symbol_len() {
            return false;
        }
        self.seen += 1;
        self.counts.packets += 1;
        if !self.open.has(data.block) {
            self.counts.surplus += 1;
            return true;
        }
        if !self.blocks.has(data.block) && self.is_slow() {
            self.counts.refused = self.counts.refused.wrapping_add(1);
            return true;
        }
        match self.blocks.put(data) {
            Put::Kept => {}
            Put::Wrong => self.counts.evicted += 1,
            Put::Complete(source) => {
                self.open.remove(data.block);
                self.records.put(&self.plan, data.block, &source);
                self.blocks.give_back(source);
            }
        }
        self.keep_within_memory(data.block);
        true
    }

    fn keep_within_memory(&mut self, except: u32) {
        while self.blocks.bytes() + self.records.bytes() > self.config.memory {
            self.counts.evicted += 1;
            if self.records.bytes() > self.config.memory / 2 {
                let again = self.records.evict(&self.plan).unwrap_or(0..0);
                for block in again {
                    self.open.insert(block);
                }
            } else if !self.blocks.evict(except) {
                return;
            }
        }
    }

    fn announce(&mut self, now: Duration, announce: Announce) -> bool {
        let is_old = self
            .newest
            .as_ref()
            .is_some_and(|known| announce.number <= known.announce.number);
        if is_old || announce.blocks != self.plan.blocks() {
            return false;
        }
        let me = self.member.receiver;
        let told = announce.dismissed.iter().find(|(who, _)| *who == me);
        self.dismissed = self.dismissed.or(told.map(|(_, reason)| *reason));
        // Who joined after the round began has no slot in it.
        if self.answered != Some(announce.poll) && me < announce.slots {
            let began = now.saturating_sub(Duration::from_micros(announce.elapsed.into()));
            let (slot, slots) = (u64::from(me), u64::from(announce.slots));
            let micros = u64::from(announce.period) * (2 * slot + 1) / (2 * slots);
            self.due = Some(began + Duration::from_micros(micros));
        }
        if self
            .newest
            .as_ref()
            .is_none_or(|known| known.announce.sent == announce.sent)
        {
            self.data = now;
        }
        self.first.get_or_insert((announce.sent, self.seen));
        self.newest = Some(Known {
            announce,
            seen: self.seen,
        });
        true
    }

    /// The next whole record.
    pub fn next_record(&mut self) -> Option<Record> {
        self.records.next()
    }

    /// Wants a record again: what came of it was not the chunk that it should be.
    pub fn want_again(&mut self, record: u32) {
        self.records.lacking.insert(record);
        for block in self.plan.blocks_of(record) {
            self.open.insert(block);
        }
    }

    /// The packet that is due, if one is: appended to `out`. Whether there is one.
    pub fn transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let Some(known) = self.newest.as_ref() else {
            return false;
        };
        let poll = known.announce.poll;
        if self.due.is_none_or(|due| now < due) || known.announce.state == SessionState::Ended {
            return false;
        }
        self.due = None;
        self.answered = Some(poll);
        let (announced, seen) = self.since_first(known);
        self.sequence += 1;
        let report = Report {
            receiver: self.member.receiver,
            state: if self.is_done() {
                ReceiverState::Done
            } else if self.is_slow() || self.counts.refused != self.reported_refused {
                ReceiverState::Slow
            } else {
                ReceiverState::Receiving
            },
            sequence: self.sequence,
            poll,
            announced,
            seen,
            refused: self.counts.refused,
            done: self.wanted.saturating_sub(self.open.count()),
            wanted: self.wanted,
            needs: self.needs(known.announce.frontier),
        };
        report.encode(self.member.session, &self.member.up, out);
        self.reported_refused = report.refused;
        true
    }

    /// Packets that were announced, and those of them that came: what was sent before the
    /// first announcement counts as if it had come.
    fn since_first(&self, known: &Known) -> (u64, u64) {
        let (sent, seen) = self.first.unwrap_or_default();
        let came = known.seen.saturating_sub(seen);
        (known.announce.sent, sent.saturating_add(came))
    }

    /// What is lacking of the blocks below `frontier`: those that are nearly complete
    /// first, for they fill the memory.
    fn needs(&self, frontier: u32) -> Vec<Need> {
        let mut needs: Vec<Need> = self
            .blocks
            .numbers()
            .take_while(|&block| block < frontier)
            .filter_map(|block| {
                Some(Need {
                    block,
                    count: 1,
                    symbols: self.blocks.lacks(block)?,
                })
            })
            .collect();
        needs.sort_by_key(|need| need.symbols);
        needs.truncate(MAX_NEEDS);
        let mut from = 0;
        while needs.len() < MAX_NEEDS {
            let Some(block) = self.open.next(from).filter(|&block| block < frontier) else {
                break;
            };
            let mut count = 0;
            let symbols = self.plan.block(block).map_or(1, |place| place.source);
            while count < u16::MAX
                && block + u32::from(count) < frontier
                && self.open.has(block + u32::from(count))
                && !self.blocks.has(block + u32::from(count))
            {
                count += 1;
            }
            from = block + u32::from(count.max(1));
            if count > 0 {
                needs.push(Need {
                    block,
                    count,
                    symbols,
                });
            }
        }
        needs
    }

    /// When [`Self::transmit`] has something to do next, as far as is known.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        self.due
    }

    /// A packet that says that this receiver leaves; worth sending some times, since it may
    /// be lost.
    pub fn leave(&mut self, reason: Reason) -> Vec<u8> {
        let mut out = Vec::new();
        self.sequence += 1;
        let (session, key) = (self.member.session, &self.member.up);
        let receiver = self.member.receiver;
        packet::encode_leave(receiver, reason, self.sequence, session, key, &mut out);
        out
    }

    /// How it stands. While the caller knows that the sender waits or is gone,
    /// [`Progress::Silent`] means nothing.
    #[must_use]
    pub fn standing(&self, now: Duration) -> Progress {
        if self.is_done() {
            return Progress::Done;
        }
        if let Some(reason) = self.dismissed {
            return Progress::Dismissed(reason);
        }
        let state = self.newest.as_ref().map(|known| known.announce.state);
        if state == Some(SessionState::Ended) {
            Progress::Ended
        } else if now.saturating_sub(self.heard.min(self.data)) >= self.config.silence {
            // Announcements alone are as good as nothing: something lets only short packets pass.
            Progress::Silent
        } else if matches!(state, None | Some(SessionState::Waiting)) {
            Progress::Waiting
        } else {
            Progress::Receiving
        }
    }

    /// Whether any packet of the session came.
    #[must_use]
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// The records that are wanted and did not come whole.
    #[must_use]
    pub fn lacking(&self) -> &Bits {
        &self.records.lacking
    }

    /// Counts, for people.
    #[must_use]
    pub fn status(&self) -> ReceiverStatus {
        let loss = self.newest.as_ref().map_or(0.0, |known| {
            let (sent, seen) = self.since_first(known);
            let (first, _) = self.first.unwrap_or_default();
            let all = sent.saturating_sub(first);
            1.0 - (seen.saturating_sub(first) as f64 / all.max(1) as f64).min(1.0)
        });
        let announce = self.newest.as_ref().map(|known| &known.announce);
        ReceiverStatus {
            loss,
            rate: announce.map_or(0.0, |a| f64::from(a.rate) * 1000.0),
            pass: announce.map_or(0, |a| a.pass),
            memory: self.blocks.bytes() + self.records.bytes() + self.records.queued(),
            ..self.counts
        }
    }

    fn is_done(&self) -> bool {
        self.records.lacking.count() == 0
    }

    fn is_slow(&self) -> bool {
        self.records.queued() >= self.config.queue
    }
}
