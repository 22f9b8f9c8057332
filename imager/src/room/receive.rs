//! A room, seen from a receiver: a source for a restore.
//!
//! Owns: the course of receiving: multicast first,
//! and over the control connection what it did not bring. Does not own: how it got there
//! (`enter`), the restore, or the writing (`write`).

use super::awake::Awake;
use super::channel::Channel;
use super::enter::{ANSWER, broken};
use super::group::{self, Group};
use super::message::{self, Reply, Request};
use super::places::Places;
use super::write::{Answer, Heads, Work, write_all};
use crate::backup::container::worker_count;
use crate::report;
use crate::restore::stream::WAITING;
use crate::restore::{CellWriter, Delivered, HeldOnDisk, Source};
use crossbeam_channel::{Receiver as Answers, Sender as Tasks, TrySendError, bounded, unbounded};
use image::manifest::PackedPage;
use image::{BadRange, ImageKey, Layout, Root};
use multicast::{
    Bits, Membership, PacketKey, Plan, Progress, Reason, Receiver, ReceiverConfig, Record,
};
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Code, DiskState, Report};

/// Bytes and records that are asked for at once.
const FETCH_BYTES: u64 = 8 << 20;
const FETCH_RECORDS: usize = 256;
/// How long one look at the socket waits, and how many packets it takes.
const WAIT: Duration = Duration::from_millis(4);
const PACKETS: usize = 256;

/// An image in a room.
pub struct RoomSource {
    pub(super) channel: Rc<RefCell<Channel>>,
    pub(super) group: Group,
    pub(super) layout: Layout,
    pub(super) root: Root,
    pub(super) bad: Vec<BadRange>,
    pub(super) key: Option<Arc<ImageKey>>,
    pub(super) pages: Arc<[PackedPage]>,
    pub(super) places: Places,
    pub(super) plan: Plan,
    pub(super) config: ReceiverConfig,
    /// Cells that have to be written.
    pub(super) todo: Bits,
    pub(super) heads: Heads,
    pub(super) counts: (u32, u32),
    pub(super) why: Option<Report>,
    /// Name of the image file at the sender.
    pub name: String,
}

impl RoomSource {
    /// Why not everything came by multicast, once the restore is over.
    pub fn warning(&self) -> Option<&Report> {
        self.why.as_ref()
    }

    /// Records that came by multicast, and those over the control connection.
    pub fn counts(&self) -> (u32, u32) {
        self.counts
    }

    /// Tells the sender how it ended.
    pub fn finish(&self, failure: Option<&Report>) {
        let (multicast, unicast) = self.counts;
        let message = match failure {
            None => Request::Done {
                multicast,
                unicast,
                why: self.why.as_ref().map(|why| why.found.clone()),
            },
            Some(report) => Request::Failed {
                found: format!("{}: {}", report.code, report.found),
            },
        };
        // A sender that is gone need not know.
        let _ = message::send(&mut self.channel.borrow_mut(), &message);
    }
}

impl Source for RoomSource {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.key.clone()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        let wanted = self.choose(writer)?;
        let workers = worker_count() + WAITING;
        let (work_tx, work_rx) = bounded::<Work>(workers * 2);
        let (answer_tx, answers) = unbounded::<Answer>();
        std::thread::scope(|scope| {
            for _ in 0..workers {
                let (work_rx, answer_tx) = (work_rx.clone(), answer_tx.clone());
                scope.spawn(move || write_all(writer, &work_rx, &answer_tx));
            }
            drop((work_rx, answer_tx));
            let mut desk = Desk {
                work: work_tx,
                answers,
                out: 0,
                spoiled: Vec::new(),
            };
            let lacking = self.by_multicast(writer, &mut desk, wanted)?;
            self.by_unicast(writer, &mut desk, lacking)
        })?;
        Ok(Delivered {
            pages: Arc::clone(&self.pages),
            root: self.root,
            bad: self.bad.clone(),
        })
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        self.heads.write(writer)
    }
}

/// Work that is given out, and what comes back of it.
struct Desk {
    work: Tasks<Work>,
    answers: Answers<Answer>,
    /// Given out and not answered.
    out: usize,
    /// Records whose bytes were not the chunk.
    spoiled: Vec<u32>,
}

impl RoomSource {
    /// Goes through the cells: what has no place or is held already is counted, the rest is
    /// wanted. Gives the records.
    fn choose(&mut self, writer: &CellWriter<'_>) -> Result<Bits, Report> {
        let mut wanted = Bits::none(self.places.records());
        let mut held = HeldOnDisk::new(writer);
        let (places, todo) = (&self.places, &mut self.todo);
        places.each(
            |(number, cell, chunk)| {
                writer.stop_if_asked()?;
                if !writer.wants(&cell) {
                    writer.leave_out(&cell);
                } else if writer.is_head(&cell) {
                    writer.keep_back(&cell);
                    todo.insert(number);
                } else if !held.skips(&cell, chunk.name) {
                    todo.insert(number);
                }
                Ok(())
            },
            |e| report::image(&e, DiskState::Incomplete),
        )?;
        for cell in todo.iter() {
            wanted.insert(places.record_of(cell));
        }
        Ok(wanted)
    }

    /// Takes part in the session; what is lacking after it.
    fn by_multicast(
        &mut self,
        writer: &CellWriter<'_>,
        desk: &mut Desk,
        wanted: Bits,
    ) -> Result<Bits, Report> {
        if wanted.count() == 0 {
            return Ok(wanted);
        }
        let address = self.group.address;
        let socket_failed = |error: io::Error| {
            let found = format!("the group {address}: {error}");
            Report::new(Code::PortInUse, found, DiskState::Incomplete)
        };
        let mut listener = self.group.listener().map_err(socket_failed)?;
        let reporter = self.group.reporter().map_err(socket_failed)?;
        let Some(member) = self.join(writer)? else {
            self.why = Some(warn(
                "the session has as many receivers as it can have".into(),
            ));
            return Ok(wanted);
        };
        let mut clock = Awake::new(Instant::now());
        let (plan, config) = (self.plan.clone(), self.config.clone());
        let mut receiver = Receiver::new(plan, member, wanted, config, Duration::ZERO);
        let mut sender = None;
        let mut waiting: Option<Work> = None;
        let mut packet = Vec::new();
        let why = loop {
            writer.stop_if_asked()?;
            let mut wait = WAIT;
            for _ in 0..PACKETS {
                let Some((bytes, from)) = listener.receive(wait).map_err(socket_failed)? else {
                    break;
                };
                wait = Duration::ZERO;
                let now = clock.at(Instant::now());
                if receiver.handle(now, bytes) {
                    sender = Some(from);
                }
            }
            self.look(desk)?;
            while let Some(work) = match waiting.take() {
                Some(work) => Some(work),
                None => self.next_work(&mut receiver)?,
            } {
                match desk.work.try_send(work) {
                    Ok(()) => desk.out += 1,
                    Err(TrySendError::Full(work)) => {
                        waiting = Some(work);
                        break;
                    }
                    Err(TrySendError::Disconnected(_)) => {
                        return Err(report::thread_lost(DiskState::Incomplete));
                    }
                }
            }
            let now = clock.at(Instant::now());
            packet.clear();
            if let Some(to) = sender.filter(|_| receiver.transmit(now, &mut packet)) {
                group::send(&reporter, &packet, to).map_err(socket_failed)?;
            }
            match receiver.standing(now) {
                Progress::Waiting | Progress::Receiving => {}
                Progress::Done if waiting.is_none() => break None,
                Progress::Done => {}
                other => break Some(other),
            }
        };
        if let Some(why) = why {
            self.give_up(writer, &mut receiver, why, sender, &reporter);
        }
        // What came whole is not fetched again.
        while let Some(work) = match waiting.take() {
            Some(work) => Some(work),
            None => self.next_work(&mut receiver)?,
        } {
            desk.give(work)?;
        }
        Ok(receiver.lacking().clone())
    }

    fn join(&self, writer: &CellWriter<'_>) -> Result<Option<Membership>, Report> {
        let lost = |error: io::Error| broken("the sender", &error);
        let key = |text: &str| {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).map_err(io::Error::other)?;
            Ok(PacketKey::from_bytes(bytes))
        };
        let mut channel = self.channel.borrow_mut();
        message::send(&mut channel, &Request::Join).map_err(lost)?;
        let stop = || writer.stop_if_asked().is_err();
        match message::receive(&mut channel, ANSWER, &stop).map_err(lost)? {
            Reply::Member {
                session,
                receiver,
                down,
                up,
            } => Ok(Some(Membership {
                session,
                receiver,
                down: key(&down).map_err(lost)?,
                up: key(&up).map_err(lost)?,
            })),
            Reply::Start | Reply::Full => Ok(None),
        }
    }

    /// Says why multicast is over, here and to the session.
    fn give_up(
        &mut self,
        writer: &CellWriter<'_>,
        receiver: &mut Receiver,
        why: Progress,
        sender: Option<SocketAddr>,
        reporter: &std::net::UdpSocket,
    ) {
        let (reason, report) = match why {
            Progress::Dismissed(Reason::Lossy) => {
                let loss = receiver.status().loss * 100.0;
                let text =
                    format!("{loss:.0} % of the packets were lost, far more than the others lose");
                (Reason::Lossy, warn(text))
            }
            Progress::Dismissed(Reason::Vanished) => {
                let text = "the sender heard nothing of this machine: a firewall at the sender?";
                (Reason::Vanished, warn(text.into()))
            }
            Progress::Dismissed(reason) => {
                let text = "the disk is slower than those of the others, who would wait for it";
                (reason, warn(text.into()))
            }
            Progress::Ended => (Reason::Stopped, warn("the session ended before".into())),
            _ => {
                let seconds = self.config.silence.as_secs();
                let when = if receiver.has_heard() {
                    "no multicast came any more"
                } else {
                    "joined, but no multicast came"
                };
                let found = format!("{when} for {seconds} s while the sender sends");
                let report = Report::new(Code::MulticastSilent, found, DiskState::Incomplete)
                    .with_advice(
                        "Check IGMP snooping without a querier, the interface (--interface), the \
                         packets' TTL (--ttl at the sender) and firewalls; the transfer went on \
                         by unicast.",
                    );
                (Reason::Silent, report)
            }
        };
        writer.note(&format!("going on by unicast: {}", report.found));
        self.why = Some(report);
        if let Some(to) = sender {
            for _ in 0..3 {
                // The control connection tells as much in the end.
                let _ = group::send(reporter, &receiver.leave(reason), to);
            }
        }
    }

    fn next_work(&mut self, receiver: &mut Receiver) -> Result<Option<Work>, Report> {
        let Some(record) = receiver.next_record() else {
            return Ok(None);
        };
        self.counts.0 += 1;
        self.work(record).map(Some)
    }

    fn work(&mut self, record: Record) -> Result<Work, Report> {
        let todo = &self.todo;
        let cells = self
            .places
            .of_record(record.record, |cell| todo.has(cell))
            .map_err(|e| report::image(&e, DiskState::Incomplete))?;
        Ok(Work {
            record: record.record,
            bytes: record.bytes,
            cells,
        })
    }

    /// Takes what the workers say.
    fn look(&mut self, desk: &mut Desk) -> Result<(), Report> {
        while let Ok(answer) = desk.answers.try_recv() {
            self.take(desk, answer)?;
        }
        Ok(())
    }

    fn take(&mut self, desk: &mut Desk, answer: Answer) -> Result<(), Report> {
        desk.out -= 1;
        match answer {
            Answer::Written { heads } => self.heads.keep(heads),
            Answer::Spoiled(record) => {
                desk.spoiled.push(record);
                Ok(())
            }
            Answer::Failed(report) => Err(report),
        }
    }

    /// Waits for all that was given out.
    fn settle(&mut self, desk: &mut Desk) -> Result<(), Report> {
        while desk.out > 0 {
            let answer = desk
                .answers
                .recv()
                .map_err(|_| report::thread_lost(DiskState::Incomplete))?;
            self.take(desk, answer)?;
        }
        Ok(())
    }

    /// Gets the rest over the control connection.
    fn by_unicast(
        &mut self,
        writer: &CellWriter<'_>,
        desk: &mut Desk,
        lacking: Bits,
    ) -> Result<(), Report> {
        self.settle(desk)?;
        let mut left: Vec<u32> = lacking.iter().collect();
        if !desk.spoiled.is_empty() {
            let text = format!("{} chunks came forged by multicast", desk.spoiled.len());
            writer.note(&text);
            self.why.get_or_insert(warn(text));
            self.counts.0 -= desk.spoiled.len() as u32;
            left.append(&mut desk.spoiled);
        }
        let mut left = &left[..];
        while !left.is_empty() {
            let mut bytes = 0;
            let count = left
                .iter()
                .take(FETCH_RECORDS)
                .take_while(|&&record| {
                    let fits = bytes < FETCH_BYTES;
                    let range = self.plan.record_range(record);
                    bytes += range.end - range.start;
                    fits
                })
                .count();
            let (now, after) = left.split_at(count.max(1).min(left.len()));
            left = after;
            self.fetch(writer, desk, now)?;
        }
        self.settle(desk)?;
        match desk.spoiled.first() {
            None => Ok(()),
            Some(record) => {
                let found = format!(
                    "record {record} of the sender is not the chunk that the manifest names"
                );
                Err(Report::new(
                    Code::ImageDamaged,
                    found,
                    DiskState::Incomplete,
                ))
            }
        }
    }

    fn fetch(
        &mut self,
        writer: &CellWriter<'_>,
        desk: &mut Desk,
        records: &[u32],
    ) -> Result<(), Report> {
        let incomplete = |error: io::Error| {
            let report = broken("the sender", &error);
            Report {
                disk: DiskState::Incomplete,
                ..report
            }
        };
        let request = Request::Fetch {
            records: records.to_vec(),
        };
        let channel = Rc::clone(&self.channel);
        let mut channel = channel.borrow_mut();
        message::send(&mut channel, &request).map_err(incomplete)?;
        let stop = || writer.stop_if_asked().is_err();
        for &record in records {
            let received = channel.receive(ANSWER, &stop);
            writer.stop_if_asked()?;
            let bytes = received.map_err(incomplete)?;
            self.counts.1 += 1;
            let work = self.work(Record { record, bytes })?;
            desk.give(work)?;
            self.look(desk)?;
        }
        Ok(())
    }
}

impl Desk {
    fn give(&mut self, work: Work) -> Result<(), Report> {
        self.out += 1;
        self.work
            .send(work)
            .map_err(|_| report::thread_lost(DiskState::Incomplete))
    }
}

fn warn(found: String) -> Report {
    Report::new(Code::MulticastIncomplete, found, DiskState::Incomplete)
}
