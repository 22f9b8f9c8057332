//! The receivers of a session, as the sender knows them by their reports.
//!
//! Owns: who is there, what each loses, who is slow, who is to leave. Does not own: what is
//! sent because of it.

use crate::key::PacketKey;
use crate::packet::{Reason, ReceiverState, Report};
use std::time::Duration;

/// Packets of which at least the loss is reckoned.
const WINDOW: u64 = 32;
/// Loss of a receiver, and so many times that of the middle one, from which it holds others.
const LOSSY: f64 = 0.25;
const LOSSY_FACTOR: f64 = 5.0;
/// Passes in which a receiver that wants something gets something: all that it lacks goes
/// out in each.
const PASSES_IN_VAIN: u16 = 4;

/// What a receiver is, seen from the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It joined, and has not reported.
    Joined,
    /// It takes what comes.
    Receiving,
    /// Its disk is behind.
    Slow,
    /// It has everything.
    Done,
    /// It was told to leave, or left.
    Left(Reason),
}

/// A receiver, for people.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MemberStatus {
    /// Its number.
    pub receiver: u16,
    /// What it is.
    pub standing: Standing,
    /// The part of packets that it loses, 0 to 1, smoothed.
    pub loss: f64,
    /// Blocks that it has.
    pub done: u32,
    /// Blocks that it wants.
    pub wanted: u32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub key: PacketKey,
    pub standing: Standing,
    heard: Duration,
    sequence: Option<u32>,
    poll: Option<u32>,
    /// `announced`, `seen` and `refused` of the report before.
    before: Option<(u64, u64, u32)>,
    loss: f64,
    /// Loss since the report before, of this round.
    window: Option<f64>,
    slow_since: Option<Duration>,
    lossy_rounds: u32,
    done: u32,
    wanted: u32,
    /// The pass in which it had more than ever before.
    grew: u16,
    /// Whether it still has to be told that it is to leave.
    tell: bool,
}

/// The receivers; a receiver's number is its place.
#[derive(Debug, Default)]
pub(super) struct Members(Vec<Member>);

impl Members {
    pub(super) fn join(&mut self, now: Duration, key: PacketKey) {
        self.0.push(Member {
            key,
            standing: Standing::Joined,
            heard: now,
            sequence: None,
            poll: None,
            before: None,
            loss: 0.0,
            window: None,
            slow_since: None,
            lossy_rounds: 0,
            done: 0,
            wanted: 0,
            grew: 0,
            tell: false,
        });
    }

    /// Blocks go out from now on: nobody was asked to report before.
    pub(super) fn begin(&mut self, now: Duration) {
        self.0.iter_mut().for_each(|member| member.heard = now);
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn key(&self, receiver: u16) -> Option<&PacketKey> {
        self.0.get(usize::from(receiver)).map(|member| &member.key)
    }

    /// Takes a packet's number if it is newer than all before.
    pub(super) fn is_new(&mut self, receiver: u16, sequence: u32) -> bool {
        let Some(member) = self.0.get_mut(usize::from(receiver)) else {
            return false;
        };
        let new = member.sequence.is_none_or(|last| sequence > last);
        if new {
            member.sequence = Some(sequence);
        }
        new
    }

    /// Takes a report, one for each round; whether what it needs counts, and whether it is
    /// done only now.
    pub(super) fn report(
        &mut self,
        now: Duration,
        report: &Report,
        (poll, pass): (u32, u16),
        sent: u64,
    ) -> Option<Heard> {
        if report.poll > poll || report.announced > sent {
            return None;
        }
        let member = self.0.get_mut(usize::from(report.receiver))?;
        let left = matches!(member.standing, Standing::Left(_));
        if left || member.poll.is_some_and(|last| last >= report.poll) {
            return None;
        }
        member.poll = Some(report.poll);
        member.heard = now;
        if report.done > member.done || member.grew == 0 {
            member.grew = pass;
        }
        (member.done, member.wanted) = (report.done, report.wanted);
        let newly_done = report.state == ReceiverState::Done && member.standing != Standing::Done;
        member.measure(report);
        member.standing = match report.state {
            ReceiverState::Receiving => Standing::Receiving,
            ReceiverState::Slow => Standing::Slow,
            ReceiverState::Done => Standing::Done,
        };
        match member.standing {
            Standing::Slow => member.slow_since = member.slow_since.or(Some(now)),
            _ => member.slow_since = None,
        }
        let slow = member.standing == Standing::Slow;
        Some(Heard {
            counts: !slow || !self.0.iter().any(|m| m.is_fast()),
            newly_done,
        })
    }

    /// A receiver left, or is told to; whether it was there.
    pub(super) fn leave(&mut self, receiver: u16, reason: Reason, tell: bool) -> bool {
        let Some(member) = self.0.get_mut(usize::from(receiver)) else {
            return false;
        };
        member.tell = tell;
        if matches!(member.standing, Standing::Left(_)) {
            return false;
        }
        member.standing = Standing::Left(reason);
        true
    }

    /// Who is to leave and may not know yet.
    pub(super) fn dismissed(&self) -> impl Iterator<Item = (u16, Reason)> + '_ {
        self.0
            .iter()
            .zip(0..)
            .filter_map(|(member, receiver)| match member.standing {
                Standing::Left(reason) if member.tell => Some((receiver, reason)),
                _ => None,
            })
    }

    /// Ends a round: who has not been heard of for `timeout`, is slow for longer than
    /// `patience` or loses far more than the others while those are not done, or has got
    /// nothing in several passes, leaves.
    pub(super) fn judge(
        &mut self,
        now: Duration,
        timeout: Duration,
        patience: Duration,
        pass: u16,
    ) -> Vec<(u16, Reason)> {
        let active = self.0.iter().filter(|m| m.is_active()).count();
        let slow = self
            .0
            .iter()
            .filter(|m| m.standing == Standing::Slow)
            .count();
        let fast = self.0.iter().any(Member::is_fast);
        let middle = percentile(self.0.iter().filter(|m| m.is_fast()).map(|m| m.loss), 0.5);
        let mut left = Vec::new();
        for (member, receiver) in self.0.iter_mut().zip(0..) {
            if !member.is_active() {
                continue;
            }
            let lossy = member.loss > LOSSY && member.loss > LOSSY_FACTOR * middle.unwrap_or(1.0);
            member.lossy_rounds = if lossy && member.is_fast() && active > 2 {
                member.lossy_rounds + 1
            } else {
                0
            };
            let slow_for = member.slow_since.map(|since| now.saturating_sub(since));
            let reason = if now.saturating_sub(member.heard) > timeout {
                Reason::Vanished
            } else if slow * 2 <= active && fast && slow_for.is_some_and(|time| time > patience) {
                Reason::Slow
            } else if member.lossy_rounds >= 5
                || (member.grew > 0 && pass.saturating_sub(member.grew) >= PASSES_IN_VAIN)
            {
                Reason::Lossy
            } else {
                continue;
            };
            member.standing = Standing::Left(reason);
            member.tell = true;
            left.push((receiver, reason));
        }
        left
    }

    /// Loss that parity is reckoned by: the greatest, the worst eighth of the receivers
    /// left out, of those that keep up.
    pub(super) fn design_loss(&self) -> f64 {
        let mut losses: Vec<f64> = self
            .0
            .iter()
            .filter(|m| m.is_fast())
            .map(|m| m.loss)
            .collect();
        losses.sort_by(f64::total_cmp);
        let at = losses.len().saturating_sub(1 + losses.len() / 8);
        losses.get(at).copied().unwrap_or(0.0)
    }

    /// Loss of this round that four of five receivers had at least, and the part of those
    /// not done whose disk is behind; forgets the round.
    pub(super) fn round(&mut self) -> Option<(f64, f64)> {
        let losses = self.0.iter_mut().filter_map(|m| {
            let window = m.window.take();
            window.filter(|_| m.is_active())
        });
        let common = percentile(losses, 0.2);
        let active = self.0.iter().filter(|m| m.is_active()).count();
        let slow = self
            .0
            .iter()
            .filter(|m| m.standing == Standing::Slow)
            .count();
        common.map(|loss| (loss, slow as f64 / active.max(1) as f64))
    }

    /// Whether nobody is left who wants something.
    pub(super) fn all_done(&self) -> bool {
        !self.0.iter().any(Member::is_active)
    }

    /// For people.
    pub(super) fn status(&self) -> Vec<MemberStatus> {
        self.0
            .iter()
            .zip(0..)
            .map(|(member, receiver)| MemberStatus {
                receiver,
                standing: member.standing,
                loss: member.loss,
                done: member.done,
                wanted: member.wanted,
            })
            .collect()
    }
}

/// What a report means for the sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// Whether what it needs counts now; that of a slow one only once the others are done.
    pub counts: bool,
    /// Whether it is done, and was not before.
    pub newly_done: bool,
}

impl Member {
    /// Whether it wants something.
    fn is_active(&self) -> bool {
        !matches!(self.standing, Standing::Done | Standing::Left(_))
    }

    /// Whether it wants something and keeps up.
    fn is_fast(&self) -> bool {
        matches!(self.standing, Standing::Joined | Standing::Receiving)
    }

    fn measure(&mut self, report: &Report) {
        let (announced, seen, _) = self.before.unwrap_or((report.announced, report.seen, 0));
        let sent = report.announced.saturating_sub(announced);
        if self.before.is_some() && sent < WINDOW {
            return;
        }
        self.before = Some((report.announced, report.seen, report.refused));
        if sent == 0 {
            return;
        }
        let came = report.seen.saturating_sub(seen);
        let loss = (1.0 - came as f64 / sent as f64).clamp(0.0, 1.0);
        self.window = Some(loss);
        // Short windows say less.
        let weight = 0.3 * (sent as f64 / 1000.0).min(1.0);
        self.loss += weight * (loss - self.loss);
    }
}

/// The value below which that part of the values lies.
fn percentile(values: impl Iterator<Item = f64>, part: f64) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len().saturating_sub(1) as f64 * part) as usize;
    values.get(at).copied()
}
