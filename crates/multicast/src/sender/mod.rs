//! The sender: decides at every moment which packet goes out next.
//!
//! Owns: the course of a session. Does not own: sockets, clocks, where records come from,
//! and how receivers get their keys.
//!
//! The caller has a loop: give it packets that came ([`Sender::handle`]), take packets that
//! are due ([`Sender::transmit`]), wait until [`Sender::wake_at`] or until something comes.
//! `now` is the time since some fixed moment, the same for all calls. Memory: the plan, two
//! bytes a block, a block with its parity, and about 200 bytes for each receiver.

mod batch;
mod members;
mod told;
mod work;

pub use batch::Batch;
pub use members::{MemberStatus, Standing};
pub use told::{Membership, SenderConfig, SenderEvent, SenderStatus};

use crate::bits::Bits;
use crate::fec::Encoder;
use crate::key::{PacketKey, SessionSecret};
use crate::packet::{self, Announce, Data, Reason, SessionState, Up};
use crate::plan::{PARITY_SYMBOLS, Plan};
use crate::rate::{Bucket, Control, Seen};
use members::Members;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use work::{Job, Work};

/// Time between announcements while blocks go out.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(25);
/// Time between announcements while nothing is to be sent.
const ANNOUNCE_IDLE: Duration = Duration::from_millis(250);
/// Shortest time over which reports are spread.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);
/// The same while only reports are waited for.
const SETTLING_PERIOD: Duration = Duration::from_millis(20);
/// Time for reports on their way.
const GRACE: Duration = Duration::from_millis(40);
/// How often the end is announced.
const LAST_WORDS: u32 = 8;
/// Loss below which nothing is sent beforehand.
const NO_LOSS: f64 = 0.0005;

/// The run of all records of the session, one after another.
pub trait Run {
    /// Fills `out` with the bytes that stand at `at`.
    ///
    /// # Errors
    /// Whatever keeps them from being read; the session cannot go on without.
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

/// A session, seen from the sender.
pub struct Sender {
    plan: Plan,
    config: SenderConfig,
    secret: SessionSecret,
    down: PacketKey,
    state: SessionState,
    members: Members,
    work: Work,
    control: Control,
    bucket: Bucket,
    encoder: Encoder,
    job: Option<Job>,
    loaded: Option<u32>,
    source: Vec<u8>,
    parity: Vec<u8>,
    counts: Counts,
    announce_at: Duration,
    announced: u32,
    poll: u32,
    poll_at: Duration,
    period: Duration,
    /// Receivers that were there when the round began.
    slots: u16,
    /// Whether the rate was what held sending back in this round.
    busy: bool,
    last_words: u32,
    events: VecDeque<SenderEvent>,
}

#[derive(Default)]
struct Counts {
    packets: u64,
    parity: u64,
    repair: u64,
    taken: u64,
    thrown: u64,
}

impl Sender {
    /// A session that waits for receivers.
    #[must_use]
    pub fn new(plan: Plan, secret: SessionSecret, config: SenderConfig, now: Duration) -> Self {
        let control = Control::new(config.rate);
        Sender {
            down: secret.down(config.session),
            work: Work::new(&plan),
            bucket: Bucket::new(control.rate(), now),
            plan,
            secret,
            state: SessionState::Waiting,
            members: Members::default(),
            control,
            encoder: Encoder::default(),
            job: None,
            loaded: None,
            source: Vec::new(),
            parity: Vec::new(),
            counts: Counts::default(),
            announce_at: now,
            announced: 0,
            poll: 0,
            poll_at: now,
            period: SHORTEST_PERIOD,
            slots: 0,
            busy: false,
            last_words: 0,
            events: VecDeque::new(),
            config,
        }
    }

    /// Takes a receiver in, at any time before the end. `None` if there are too many.
    pub fn join(&mut self, now: Duration) -> Option<Membership> {
        let receiver = u16::try_from(self.members.len()).ok()?;
        if receiver >= self.config.most_receivers || self.state == SessionState::Ended {
            return None;
        }
        let session = self.config.session;
        let up = self.secret.up(session, receiver);
        self.members.join(now, up.clone());
        if self.state == SessionState::Settling {
            self.state = SessionState::Sending;
        }
        Some(Membership {
            session,
            receiver,
            down: self.down.clone(),
            up,
        })
    }

    /// Drops a receiver of which the control connection says that it is gone.
    pub fn leave(&mut self, receiver: u16, reason: Reason) {
        if self.members.leave(receiver, reason, false) {
            self.events.push_back(SenderEvent::Left(receiver, reason));
        }
    }

    /// Leaves out, the first time, all that stands in blocks without a byte of these records:
    /// nobody wanted it when the session began. Before [`Sender::start`]. Who wants it later
    /// gets it.
    pub fn only(&mut self, records: &Bits) {
        let mut blocks = Bits::none(self.plan.blocks());
        for record in records.iter() {
            self.plan.blocks_of(record).for_each(|block| {
                blocks.insert(block);
            });
        }
        self.work.only(blocks);
    }

    /// Begins to send.
    pub fn start(&mut self, now: Duration) {
        if self.state == SessionState::Waiting {
            self.state = SessionState::Sending;
            self.members.begin(now);
            self.bucket = Bucket::new(self.control.rate(), now);
            self.announce_at = now;
            self.begin_poll(now);
        }
    }

    /// Ends the session: that is announced some times, and nothing else is sent.
    pub fn finish(&mut self, now: Duration) {
        self.state = SessionState::Ended;
        self.announce_at = now;
    }

    /// Whether the end was announced and the caller can stop.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == SessionState::Ended && self.last_words >= LAST_WORDS
    }

    /// Whether there were receivers and none of them wants anything any more.
    #[must_use]
    pub fn all_done(&self) -> bool {
        self.members.len() > 0 && self.members.all_done()
    }

    /// Takes a packet that came. Whatever is not a newer packet of a member is thrown away.
    pub fn handle(&mut self, now: Duration, bytes: &[u8]) {
        match self.take(now, bytes) {
            Some(()) => self.counts.taken += 1,
            None => self.counts.thrown += 1,
        }
    }

    fn take(&mut self, now: Duration, bytes: &[u8]) -> Option<()> {
        let (_, _, receiver) = packet::peek(bytes)?;
        let key = self.members.key(receiver)?;
        match packet::decode_up(bytes, self.config.session, key)? {
            Up::Leave {
                receiver,
                reason,
                sequence,
            } => {
                if !self.members.is_new(receiver, sequence) {
                    return None;
                }
                if self.members.leave(receiver, reason, false) {
                    self.events.push_back(SenderEvent::Left(receiver, reason));
                }
            }
            Up::Report(report) => {
                if !self.members.is_new(receiver, report.sequence) {
                    return None;
                }
                let sent = self.counts.packets;
                let heard = self
                    .members
                    .report(now, &report, (self.poll, self.work.pass), sent)?;
                if heard.newly_done {
                    self.events.push_back(SenderEvent::Done(receiver));
                }
                if heard.counts {
                    for &need in &report.needs {
                        self.work.need(&self.plan, need, report.announced);
                    }
                }
            }
        }
        Some(())
    }

    /// The next event.
    pub fn next_event(&mut self) -> Option<SenderEvent> {
        self.events.pop_front()
    }

    /// Adds the packets that are due to `batch`, up to `most` of them in it.
    ///
    /// # Errors
    /// The records cannot be read.
    pub fn transmit(
        &mut self,
        now: Duration,
        run: &mut dyn Run,
        batch: &mut Batch,
        most: usize,
    ) -> io::Result<()> {
        if self.state != SessionState::Waiting && now >= self.round_end() {
            self.end_round(now);
        }
        if now >= self.announce_at {
            self.announce(now, batch);
        }
        if self.state == SessionState::Waiting || self.state == SessionState::Ended {
            return Ok(());
        }
        self.bucket.refill(now, self.control.rate());
        while self.bucket.is_open() && batch.len() < most {
            if self.job.is_none() && !self.take_job() {
                // What nobody needed yet is not saved up.
                self.state = SessionState::Settling;
                return Ok(());
            }
            self.state = SessionState::Sending;
            self.symbol(run, batch)?;
        }
        self.busy |= !self.bucket.is_open();
        Ok(())
    }

    /// When [`Self::transmit`] has something to do next.
    #[must_use]
    pub fn wake_at(&self) -> Duration {
        let other = match self.state {
            SessionState::Waiting | SessionState::Ended => return self.announce_at,
            SessionState::Settling => self.round_end(),
            SessionState::Sending => self.bucket.ready_at(),
        };
        self.announce_at.min(other)
    }

    /// Number of the round of reports.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.poll
    }

    /// What the session is doing.
    #[must_use]
    pub fn state(&self) -> SessionState {
        self.state
    }

    /// Blocks that were sent at least once, of how many.
    #[must_use]
    pub fn frontier(&self) -> (u32, u32) {
        (self.work.frontier(), self.plan.blocks())
    }

    /// Counts, for people.
    #[must_use]
    pub fn status(&self) -> SenderStatus {
        SenderStatus {
            state: self.state,
            rate: self.control.rate(),
            pass: self.work.pass,
            blocks: (self.work.frontier(), self.plan.blocks()),
            packets: self.counts.packets,
            parity_packets: self.counts.parity,
            repair_packets: self.counts.repair,
            loss: self.members.design_loss(),
            reports: (self.counts.taken, self.counts.thrown),
            members: self.members.status(),
        }
    }

    fn take_job(&mut self) -> bool {
        let loss = self.members.design_loss();
        let parity = |source| parity_for(source, loss);
        let extra = |needed: u16| needed + (f64::from(needed) * loss * 1.5).round() as u16;
        self.job = self.work.next_job(&self.plan, parity, extra);
        self.job.is_some()
    }

    /// Sends the next symbol of the job.
    fn symbol(&mut self, run: &mut dyn Run, batch: &mut Batch) -> io::Result<()> {
        let Some(mut job) = self.job.take() else {
            return Ok(());
        };
        let Some(place) = self.plan.block(job.block) else {
            return Ok(());
        };
        let symbol_len = self.plan.symbol_len();
        if self.loaded != Some(job.block) {
            self.loaded = None;
            self.source.clear();
            self.source
                .resize(usize::from(place.source) * symbol_len, 0);
            let bytes = self.source.get_mut(..place.len as usize);
            run.read_at(place.start, bytes.unwrap_or_default())?;
            self.parity.clear();
            self.loaded = Some(job.block);
        }
        let Some(symbol) = job.symbols.next() else {
            return Ok(());
        };
        let (from, number) = if symbol < place.source {
            (&self.source, symbol)
        } else {
            if self.parity.is_empty() {
                self.encoder
                    .parity(&self.source, symbol_len, &mut self.parity)
                    .ok_or_else(|| io::Error::other("no parity for a block"))?;
            }
            (&self.parity, symbol - place.source)
        };
        let at = usize::from(number) * symbol_len;
        let payload = from.get(at..at + symbol_len).unwrap_or_default();
        let data = Data {
            block: job.block,
            record: place.record,
            offset: place.offset,
            len: place.len,
            symbol,
            source: place.source,
            payload,
        };
        data.encode(self.config.session, &self.down, batch.bytes());
        batch.end();
        self.bucket
            .take(symbol_len + packet::DATA_OVERHEAD + self.config.headers);
        self.counts.packets += 1;
        if job.repair {
            self.counts.repair += 1;
        } else if symbol >= place.source {
            self.counts.parity += 1;
        }
        if job.symbols.is_empty() {
            self.work.done(&self.plan, &job, self.counts.packets);
        } else {
            self.job = Some(job);
        }
        Ok(())
    }

    fn announce(&mut self, now: Duration, batch: &mut Batch) {
        self.announced = self.announced.wrapping_add(1);
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let announce = Announce {
            number: self.announced,
            state: self.state,
            sent: self.counts.packets,
            frontier: self.work.frontier(),
            blocks: self.plan.blocks(),
            rate: (self.control.rate() / 1000.0) as u32,
            pass: self.work.pass,
            poll: self.poll,
            elapsed: micros(now.saturating_sub(self.poll_at)),
            period: micros(self.period),
            slots: self.slots,
            dismissed: self
                .members
                .dismissed()
                .take(packet::MAX_DISMISSED)
                .collect(),
        };
        let start = batch.bytes().len();
        announce.encode(self.config.session, &self.down, batch.bytes());
        let len = batch.bytes().len() - start;
        batch.end();
        self.bucket.take(len + self.config.headers);
        if self.state == SessionState::Ended {
            self.last_words += 1;
        }
        let every = match self.state {
            SessionState::Waiting => ANNOUNCE_IDLE,
            SessionState::Settling if self.members.all_done() => ANNOUNCE_IDLE,
            SessionState::Settling => SETTLING_PERIOD,
            SessionState::Sending | SessionState::Ended => ANNOUNCE_EVERY,
        };
        self.announce_at = now + every;
    }

    fn round_end(&self) -> Duration {
        self.poll_at + self.period + GRACE
    }

    fn end_round(&mut self, now: Duration) {
        // A session with many receivers asks seldom, and must not take that for silence.
        let timeout = self.config.timeout.max((self.period + GRACE) * 4);
        for (receiver, reason) in
            self.members
                .judge(now, timeout, self.config.patience, self.work.pass)
        {
            self.events.push_back(SenderEvent::Left(receiver, reason));
        }
        if let Some((common_loss, slow)) = self.members.round() {
            self.control.look(Seen {
                common_loss,
                slow,
                busy: self.busy,
            });
        }
        self.busy = false;
        self.work.end_round();
        self.begin_poll(now);
        // The reports that the next round is made of wait for its announcement.
        self.announce_at = now;
    }

    fn begin_poll(&mut self, now: Duration) {
        self.poll = self.poll.wrapping_add(1);
        self.poll_at = now;
        let shortest = match self.state {
            SessionState::Settling if !self.work.is_empty() => SHORTEST_PERIOD,
            SessionState::Settling => SETTLING_PERIOD,
            _ => SHORTEST_PERIOD,
        };
        // Members are numbered with 16 bits.
        self.slots = self.members.len() as u16;
        let needed = f64::from(self.slots) / f64::from(self.config.reports_per_second.max(1));
        self.period = shortest.max(Duration::from_secs_f64(needed));
    }
}

/// Parity symbols that a block of so many source symbols gets at first: for what is lost on
/// average, and once its deviation. What is lost beyond that is cheaper to repair.
fn parity_for(source: u16, loss: f64) -> u16 {
    if loss < NO_LOSS {
        return 0;
    }
    let lost = f64::from(source) * loss / (1.0 - loss.min(0.5));
    ((lost + lost.sqrt()).round() as u16).min(PARITY_SYMBOLS / 2)
}
