//! Which symbols go out next.
//!
//! Owns: passes over the blocks, what is sent again, and what of a block was sent. Does not
//! own: when, or how many parity symbols are sent at first.
//!
//! Every block goes out once, with some parity. What receivers need of it then is collected
//! over a round of reports; the greatest need of all is answered by so many parity symbols
//! that nobody has yet, and is of use to everybody. A block of which somebody needs more than
//! is left of its parity comes whole in the next pass: so do all that a late joiner missed.

use crate::bits::Bits;
use crate::packet::Need;
use crate::plan::{PARITY_SYMBOLS, Plan};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

/// Blocks of which is known when they were sent last: more than are on their way.
const RECENT: usize = 1 << 14;
/// In place of the count of packets: the block is being sent.
const ON_ITS_WAY: u64 = u64::MAX;

/// Symbols of one block that go out one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub block: u32,
    pub symbols: Range<u16>,
    /// Whether somebody asked for it, or it is sent for the first time.
    pub repair: bool,
}

#[derive(Debug)]
pub(super) struct Work {
    /// The block that comes next in this pass.
    next: u32,
    pub pass: u16,
    /// Blocks of this pass; all if it is not given.
    current: Option<Bits>,
    /// Blocks of the next pass.
    again: Bits,
    /// Of each block, the parity that went out since it was sent whole: 64 at most.
    parity: Vec<u8>,
    /// The count of packets when a block was sent last.
    recent: HashMap<u32, u64>,
    order: VecDeque<(u32, u64)>,
    /// Greatest need of each block that was reported in this round.
    collecting: BTreeMap<u32, u16>,
    /// What the last rounds asked for.
    ready: VecDeque<(u32, u16)>,
}

impl Work {
    pub(super) fn new(plan: &Plan) -> Self {
        Work {
            next: 0,
            pass: 1,
            current: None,
            again: Bits::none(plan.blocks()),
            parity: vec![0; plan.blocks() as usize],
            recent: HashMap::new(),
            order: VecDeque::new(),
            collecting: BTreeMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// The first pass leaves all others out; before it begins.
    pub(super) fn only(&mut self, blocks: Bits) {
        self.current = Some(blocks);
    }

    /// Blocks below this were sent at least once, or left out.
    pub(super) fn frontier(&self) -> u32 {
        match self.pass {
            1 if self.upcoming().is_some() => self.next,
            _ => self.parity.len() as u32,
        }
    }

    /// Takes what a receiver needs, which knew of the packets up to the count `announced`.
    pub(super) fn need(&mut self, plan: &Plan, need: Need, announced: u64) {
        let end = need
            .block
            .saturating_add(u32::from(need.count))
            .min(self.frontier());
        for block in need.block..end {
            // What was sent since may be all that it needs.
            let is_old = self.recent.get(&block).is_some_and(|&at| at > announced);
            let comes =
                block >= self.next && self.current.as_ref().is_some_and(|bits| bits.has(block));
            if is_old || comes {
                continue;
            }
            let Some(place) = plan.block(block) else {
                return;
            };
            let fresh = PARITY_SYMBOLS - self.parity_of(block);
            if need.symbols > fresh || need.symbols >= place.source {
                self.again.insert(block);
                self.collecting.remove(&block);
            } else if !self.again.has(block) || need.symbols < place.source / 2 {
                let most = self.collecting.entry(block).or_default();
                *most = need.symbols.max(*most);
            }
        }
    }

    /// A round of reports is over: what it asked for goes out.
    pub(super) fn end_round(&mut self) {
        self.ready.extend(std::mem::take(&mut self.collecting));
    }

    /// Whether nothing is left to send.
    pub(super) fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.again.count() == 0 && self.upcoming().is_none()
    }

    fn upcoming(&self) -> Option<u32> {
        match &self.current {
            None => (self.next < self.parity.len() as u32).then_some(self.next),
            Some(bits) => bits.next(self.next),
        }
    }

    /// The next job. `parity` says how many parity symbols a block of so many source
    /// symbols gets at first, `extra` how many are sent for so many that are needed.
    pub(super) fn next_job(
        &mut self,
        plan: &Plan,
        parity: impl Fn(u16) -> u16,
        extra: impl Fn(u16) -> u16,
    ) -> Option<Job> {
        while let Some((block, symbols)) = self.ready.pop_front() {
            let place = plan.block(block)?;
            let sent = self.parity_of(block);
            let count = extra(symbols).min(PARITY_SYMBOLS - sent);
            if count > 0 {
                self.recent.insert(block, ON_ITS_WAY);
                let from = place.source + sent;
                return Some(Job {
                    block,
                    symbols: from..from + count,
                    repair: true,
                });
            }
        }
        if self.upcoming().is_none() && self.again.count() > 0 {
            let none = Bits::none(self.parity.len() as u32);
            self.current = Some(std::mem::replace(&mut self.again, none));
            self.next = 0;
            self.pass = self.pass.saturating_add(1);
        }
        let block = self.upcoming()?;
        self.next = block + 1;
        self.recent.insert(block, ON_ITS_WAY);
        let place = plan.block(block)?;
        Some(Job {
            block,
            symbols: 0..place.source + parity(place.source).min(PARITY_SYMBOLS),
            repair: self.pass > 1,
        })
    }

    /// A job went out; `sent` packets have gone out by now.
    pub(super) fn done(&mut self, plan: &Plan, job: &Job, sent: u64) {
        let source = plan.block(job.block).map_or(0, |place| place.source);
        if let Some(parity) = self.parity.get_mut(job.block as usize) {
            *parity = job.symbols.end.saturating_sub(source) as u8;
        }
        self.recent.insert(job.block, sent);
        self.order.push_back((job.block, sent));
        if self.order.len() > RECENT
            && let Some((block, at)) = self.order.pop_front()
            && self.recent.get(&block) == Some(&at)
        {
            self.recent.remove(&block);
        }
    }

    fn parity_of(&self, block: u32) -> u16 {
        u16::from(self.parity.get(block as usize).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(block: u32, count: u16, symbols: u16) -> Need {
        Need {
            block,
            count,
            symbols,
        }
    }

    struct Bench {
        plan: Plan,
        work: Work,
        sent: u64,
    }

    impl Bench {
        fn new(blocks: u32) -> Self {
            let plan = Plan::new((0..blocks).map(|_| 192 * 256), 256).unwrap();
            let work = Work::new(&plan);
            Bench {
                plan,
                work,
                sent: 0,
            }
        }

        fn next(&mut self) -> Option<(u32, Range<u16>)> {
            let job = self.work.next_job(&self.plan, |_| 4, |n| n)?;
            self.sent += job.symbols.len() as u64;
            self.work.done(&self.plan, &job, self.sent);
            Some((job.block, job.symbols))
        }

        fn need(&mut self, need: Need) {
            self.work.need(&self.plan, need, self.sent);
        }
    }

    #[test]
    fn the_greatest_need_is_answered_by_parity_that_nobody_has() {
        let mut bench = Bench::new(3);
        assert_eq!(bench.next(), Some((0, 0..196)));
        assert_eq!(bench.next(), Some((1, 0..196)));
        for symbols in [2, 5, 3] {
            bench.need(need(0, 1, symbols));
        }
        assert_eq!(bench.next(), Some((2, 0..196)), "only after the round");
        bench.work.end_round();
        assert_eq!(bench.next(), Some((0, 196..201)));
        assert_eq!(bench.next(), None);
        assert!(bench.work.is_empty());
        bench.need(need(0, 1, 1));
        bench.work.end_round();
        assert_eq!(bench.next(), Some((0, 201..202)));
    }

    #[test]
    fn a_report_from_before_the_repair_asks_for_nothing() {
        let mut bench = Bench::new(1);
        bench.next();
        let before = bench.sent;
        bench.need(need(0, 1, 2));
        bench.work.end_round();
        bench.next();
        bench.work.need(&bench.plan, need(0, 1, 2), before);
        bench.work.end_round();
        assert_eq!(bench.next(), None);
    }

    #[test]
    fn what_a_late_joiner_missed_comes_in_the_next_pass_and_once() {
        let mut bench = Bench::new(4);
        bench.next();
        bench.next();
        bench.need(need(0, 4, 192));
        assert_eq!(bench.next(), Some((2, 0..196)));
        assert_eq!(bench.next(), Some((3, 0..196)));
        assert_eq!(bench.next(), Some((0, 0..196)));
        assert_eq!(bench.work.pass, 2);
        // It still comes in this pass.
        bench.need(need(1, 1, 192));
        assert_eq!(bench.next(), Some((1, 0..196)));
        assert_eq!(bench.next(), None);
    }

    #[test]
    fn what_nobody_wants_is_left_out_until_somebody_does() {
        let mut bench = Bench::new(5);
        let mut wanted = Bits::none(5);
        wanted.insert(1);
        wanted.insert(3);
        bench.work.only(wanted);
        assert_eq!(bench.next(), Some((1, 0..196)));
        assert_eq!(bench.work.frontier(), 2);
        // Who joins late lacks all of them; what is on its way in this pass comes once.
        bench.need(need(0, 5, 192));
        assert_eq!(bench.next(), Some((3, 0..196)));
        assert_eq!(bench.work.frontier(), 5, "nothing else comes in this pass");
        bench.need(need(2, 3, 192));
        let rest: Vec<u32> = std::iter::from_fn(|| bench.next().map(|job| job.0)).collect();
        assert_eq!(rest, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_block_without_parity_left_comes_whole() {
        let mut bench = Bench::new(1);
        bench.next();
        bench.need(need(0, 1, 60));
        bench.work.end_round();
        assert_eq!(bench.next(), Some((0, 196..256)));
        bench.need(need(0, 1, 1));
        bench.work.end_round();
        assert_eq!(bench.next(), Some((0, 0..196)));
        assert_eq!(bench.next(), None);
    }

    #[test]
    fn needs_of_what_was_not_sent_or_is_not_there_are_nothing() {
        let mut bench = Bench::new(2);
        bench.next();
        bench.need(need(1, 1, 1));
        bench.need(need(7, u16::MAX, 192));
        bench.need(need(u32::MAX, u16::MAX, 192));
        bench.work.end_round();
        assert_eq!(bench.next(), Some((1, 0..196)));
        assert_eq!(bench.next(), None);
    }
}
