//! A network in virtual time: a sender, a link with a rate and a queue, receivers that lose,
//! delay and repeat packets, and disks that are slow.
//!
//! Owns: the simulation. Does not own: what is expected of it. Everything comes from a
//! seed, so that a run is the same each time.

use multicast::{
    Batch, Bits, HEADERS, Plan, Progress, Receiver, ReceiverConfig, Run, Sender, SenderConfig,
    SenderEvent, SessionSecret,
};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Length of a step.
const STEP: Duration = Duration::from_micros(500);
/// Time that a packet is on its way.
const LATENCY: Duration = Duration::from_micros(200);

/// A small generator of random numbers (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// True with that probability.
    pub fn chance(&mut self, part: f64) -> bool {
        ((self.next() >> 11) as f64 / (1u64 << 53) as f64) < part
    }
}

/// The records: bytes that are computed of their place.
pub struct Image;

pub fn bytes_at(at: u64, out: &mut [u8]) {
    for (at, byte) in (at..).zip(out) {
        let mixed = (at ^ (at >> 9)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        *byte = (mixed >> 56) as u8;
    }
}

impl Run for Image {
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        bytes_at(at, out);
        Ok(())
    }
}

/// Records of an image of about so many bytes: compressed ones, some of zeros.
pub fn plan(bytes: u64, seed: u64) -> Plan {
    let mut random = Random::new(seed);
    let mut lengths = Vec::new();
    let mut total = 0;
    while total < bytes {
        let length = match random.next() % 8 {
            0 => 64,
            1 => (1 << 20) + 64,
            _ => 64 + (random.next() % 700_000) as u32,
        };
        total += u64::from(length);
        lengths.push(length);
    }
    Plan::new(lengths, 1408).unwrap()
}

/// How one receiver lives.
#[derive(Clone)]
pub struct Life {
    /// Packets lost by itself, 0 to 1.
    pub loss: f64,
    /// How likely a run of lost packets begins, and its length.
    pub bursts: (f64, u32),
    /// How likely a packet comes late, and twice.
    pub late: f64,
    pub twice: f64,
    /// Bytes a second that its disk takes.
    pub disk: f64,
    /// When it joins, and when it vanishes.
    pub joins: Duration,
    pub vanishes: Duration,
    /// Whether its network carries no multicast at all.
    pub deaf: bool,
    /// The longest packet that its network lets through, in bytes.
    pub longest: usize,
}

impl Life {
    pub fn lossy(loss: f64) -> Life {
        Life {
            loss,
            bursts: (0.0, 0),
            late: 0.0,
            twice: 0.0,
            disk: f64::INFINITY,
            joins: Duration::ZERO,
            vanishes: Duration::MAX,
            deaf: false,
            longest: usize::MAX,
        }
    }
}

/// When, in which order, and what.
type Arriving = (Duration, u64, Rc<[u8]>);

pub struct Node {
    pub life: Life,
    pub receiver: Option<Receiver>,
    pub id: Option<u16>,
    pub done_at: Option<Duration>,
    pub end: Option<Progress>,
    pub got: Bits,
    pub most_memory: usize,
    arriving: BinaryHeap<Reverse<Arriving>>,
    burst_left: u32,
    allowance: f64,
}

/// A network.
pub struct World {
    pub now: Duration,
    pub plan: Plan,
    pub sender: Sender,
    pub nodes: Vec<Node>,
    pub events: Vec<SenderEvent>,
    /// Packets that receivers sent.
    pub reports: u64,
    pub random: Random,
    /// Loss that all receivers see.
    pub common_loss: f64,
    pub config: ReceiverConfig,
    pub link: f64,
    free_at: Duration,
    up: Vec<Vec<u8>>,
    count: u64,
    /// What an enemy heard, if there is one.
    pub overheard: Option<Vec<Rc<[u8]>>>,
}

impl World {
    pub fn new(plan: Plan, link: f64, config: SenderConfig, lives: Vec<Life>, seed: u64) -> World {
        let records = plan.records();
        let secret = SessionSecret::new([seed as u8; 32]);
        World {
            now: Duration::ZERO,
            sender: Sender::new(plan.clone(), secret, config, Duration::ZERO),
            nodes: lives
                .into_iter()
                .map(|life| Node {
                    life,
                    receiver: None,
                    id: None,
                    done_at: None,
                    end: None,
                    got: Bits::none(records),
                    most_memory: 0,
                    arriving: BinaryHeap::new(),
                    burst_left: 0,
                    allowance: 0.0,
                })
                .collect(),
            plan,
            events: Vec::new(),
            reports: 0,
            random: Random::new(seed),
            common_loss: 0.0,
            config: ReceiverConfig::default(),
            link,
            free_at: Duration::ZERO,
            up: Vec::new(),
            count: 0,
            overheard: None,
        }
    }

    /// A packet that somebody else sends to the group.
    pub fn inject(&mut self, packet: &[u8]) {
        let packet: Rc<[u8]> = packet.into();
        self.multicast(&packet);
    }

    fn multicast(&mut self, packet: &Rc<[u8]>) {
        let took = Duration::from_secs_f64((packet.len() + HEADERS) as f64 / self.link);
        let begins = self.free_at.max(self.now);
        // A switch's queue of a quarter of a megabyte.
        if (begins - self.now).as_secs_f64() * self.link > 262_144.0 {
            return;
        }
        self.free_at = begins + took;
        if self.random.chance(self.common_loss) {
            return;
        }
        let random = &mut self.random;
        for node in &mut self.nodes {
            let too_long = packet.len() > node.life.longest;
            if node.receiver.is_none() || node.life.deaf || too_long {
                continue;
            }
            if node.burst_left == 0 && random.chance(node.life.bursts.0) {
                node.burst_left = node.life.bursts.1;
            }
            if node.burst_left > 0 {
                node.burst_left -= 1;
                continue;
            }
            if random.chance(node.life.loss) {
                continue;
            }
            let copies = 1 + u64::from(random.chance(node.life.twice));
            for _ in 0..copies {
                let late = random.chance(node.life.late);
                let delay = LATENCY + STEP * (u32::from(late) * (random.next() % 12) as u32);
                self.count += 1;
                let entry = (self.free_at + delay, self.count, Rc::clone(packet));
                node.arriving.push(Reverse(entry));
            }
        }
    }

    /// One step of time.
    pub fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for packet in std::mem::take(&mut self.up) {
            self.sender.handle(now, &packet);
        }
        for node in &mut self.nodes {
            if node.receiver.is_none() && node.end.is_none() && node.life.joins <= now {
                let member = self.sender.join(now).unwrap();
                node.id = Some(member.receiver);
                let wanted = Bits::all(self.plan.records());
                let plan = self.plan.clone();
                let config = self.config.clone();
                node.receiver = Some(Receiver::new(plan, member, wanted, config, now));
            }
            if node.life.vanishes <= now {
                node.receiver = None;
                node.end = node.end.or(Some(Progress::Silent));
            }
        }
        let mut batch = Batch::default();
        self.sender
            .transmit(now, &mut Image, &mut batch, 256)
            .unwrap();
        for packet in batch.packets() {
            let packet: Rc<[u8]> = packet.into();
            if let Some(heard) = &mut self.overheard {
                heard.push(Rc::clone(&packet));
            }
            self.multicast(&packet);
        }
        while let Some(event) = self.sender.next_event() {
            self.events.push(event);
        }
        for node in &mut self.nodes {
            let sent = node.step(now, &self.plan);
            self.reports += sent.len() as u64;
            self.up.extend(sent);
        }
    }

    /// Runs until every receiver ended in some way, or for so long.
    pub fn run(&mut self, longest: Duration) {
        self.sender.start(self.now);
        while self.now < longest && self.nodes.iter().any(|node| node.end.is_none()) {
            self.step();
        }
        assert!(
            self.nodes.iter().all(|node| node.end.is_some()),
            "after {longest:?}: {:?}",
            self.sender.status()
        );
    }
}

impl Node {
    fn step(&mut self, now: Duration, plan: &Plan) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        let Some(receiver) = &mut self.receiver else {
            return sent;
        };
        while self
            .arriving
            .peek()
            .is_some_and(|Reverse((at, ..))| *at <= now)
        {
            if let Some(Reverse((_, _, packet))) = self.arriving.pop() {
                receiver.handle(now, &packet);
            }
        }
        self.most_memory = self.most_memory.max(receiver.status().memory);
        self.allowance += self.life.disk * STEP.as_secs_f64();
        while self.allowance > 0.0 {
            let Some(record) = receiver.next_record() else {
                self.allowance = self.allowance.min(0.0);
                break;
            };
            let range = plan.record_range(record.record);
            let mut expected = vec![0; (range.end - range.start) as usize];
            bytes_at(range.start, &mut expected);
            assert!(record.bytes == expected, "record {}", record.record);
            assert!(
                self.got.insert(record.record),
                "record {} twice",
                record.record
            );
            self.allowance -= record.bytes.len() as f64;
        }
        let mut packet = Vec::new();
        if receiver.transmit(now, &mut packet) {
            sent.push(packet);
        }
        if self.end.is_some() {
            return sent;
        }
        match receiver.standing(now) {
            Progress::Waiting | Progress::Receiving => {}
            Progress::Done => {
                if self.got.count() == plan.records() {
                    self.done_at = Some(now);
                    self.end = Some(Progress::Done);
                }
            }
            other => {
                self.end = Some(other);
                if let Progress::Dismissed(reason) = other {
                    sent.push(receiver.leave(reason));
                }
            }
        }
        sent
    }
}
