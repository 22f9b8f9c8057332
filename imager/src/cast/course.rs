//! An image that comes by multicast: a source for a restore.
//!
//! Owns: the course of receiving: multicast first, and over the control connection what it
//! did not bring. Does not own: how a session is found and joined ([`Control`]), the
//! restore, or the writing (`write`).

use super::desk::{Desk, work};
use super::places::Places;
use super::write::{Answer, Heads, Work, write_all};
use crate::backup::container::worker_count;
use crate::report;
use crate::restore::stream::WAITING;
use crate::restore::{CellWriter, Delivered, HeldOnDisk, Source};
use crossbeam_channel::{TrySendError, bounded, unbounded};
use group::{Awake, Group};
use image::manifest::PackedPage;
use image::{BadRange, Hash, ImageKey, Layout, Root};
use multicast::{Bits, Membership, Plan, Progress, Reason, Receiver, ReceiverConfig, Record};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::{Code, DiskState, Report, size};

/// Plain bytes and records that are asked for at once.
const FETCH_BYTES: u64 = 8 << 20;
const FETCH_RECORDS: usize = 256;
/// How long one look at the socket waits, and how many packets it takes.
const WAIT: Duration = Duration::from_millis(4);
const PACKETS: usize = 256;
/// Between two words on how the session goes.
const TOLD_EVERY: Duration = Duration::from_secs(30);
/// How long packets gather while they come, if few came at the last look or many: to be woken
/// by each costs a machine more than to take it, and the socket holds far more.
const GATHER: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(1)];
const MANY: usize = 16;
/// How often leaving is told, should a packet be lost.
const LEAVES: u32 = 3;

/// The connection beside the packets: it gives what is needed to take part, and records that
/// multicast did not bring. All its failures leave the disk half made.
pub(crate) trait Control {
    /// Takes part in the session, wanting these records.
    ///
    /// # Errors
    /// The connection broke for good, or an operator wants to stop.
    fn join(&mut self, writer: &CellWriter<'_>, wanted: &Bits) -> Result<Joined, Report>;

    /// Gives these records, in this order, as they come.
    ///
    /// # Errors
    /// As [`Control::join`]; what `each` returns.
    fn fetch(
        &mut self,
        writer: &CellWriter<'_>,
        wanted: &[Wanted],
        each: &mut dyn FnMut(Record) -> Result<(), Report>,
    ) -> Result<(), Report>;

    /// The report on a record that came over this connection and is not the chunk that it
    /// should be.
    fn spoiled(&self, wanted: &Wanted) -> Report;
}

/// What became of joining.
pub(crate) enum Joined {
    /// It takes part.
    Member(Box<(Plan, Membership)>),
    /// There is no session, or no place in it: why.
    Unicast(String),
}

/// A record that is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Wanted {
    /// Its number.
    pub record: u32,
    /// The chunk that it has to be.
    pub name: Hash,
}

/// What a source by multicast is made of, beside its connection.
pub(crate) struct Image {
    pub layout: Layout,
    pub root: Root,
    pub bad: Vec<BadRange>,
    pub key: Option<Arc<ImageKey>>,
    pub pages: Arc<[PackedPage]>,
    pub places: Places,
}

/// An image that comes by multicast.
pub(crate) struct Course<C> {
    pub control: C,
    group: Group,
    image: Image,
    config: ReceiverConfig,
    /// Cells that have to be written.
    todo: Bits,
    heads: Heads,
    counts: (u32, u32),
    why: Option<Report>,
}

impl<C: Control> Course<C> {
    /// An image that is sent to that group.
    pub fn new(control: C, group: Group, image: Image) -> Self {
        Course {
            control,
            group,
            config: ReceiverConfig::default(),
            todo: Bits::none(image.places.cells()),
            image,
            heads: Heads::default(),
            counts: (0, 0),
            why: None,
        }
    }

    /// Why not everything came by multicast, once the restore is over.
    pub fn warning(&self) -> Option<Report> {
        // What it says of the disk was said while it was being written.
        self.why.as_ref().map(|why| Report {
            disk: DiskState::Complete,
            ..why.clone()
        })
    }

    /// Records that came by multicast, and those over the control connection.
    pub fn counts(&self) -> (u32, u32) {
        self.counts
    }
}

impl<C: Control> Source for Course<C> {
    fn layout(&self) -> &Layout {
        &self.image.layout
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.image.key.clone()
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
            pages: Arc::clone(&self.image.pages),
            root: self.image.root,
            bad: self.image.bad.clone(),
        })
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        self.heads.write(writer)
    }
}

impl<C: Control> Course<C> {
    /// Goes through the cells: what has no place or is held already is counted, the rest is
    /// wanted. Gives the records.
    fn choose(&mut self, writer: &CellWriter<'_>) -> Result<Bits, Report> {
        let mut wanted = Bits::none(self.image.places.records());
        let mut held = HeldOnDisk::new(writer);
        let (places, todo) = (&self.image.places, &mut self.todo);
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
        let address = self.group.address;
        let sockets = self
            .group
            .listener()
            .and_then(|listener| Ok((listener, self.group.reporter()?)));
        // Others may wait for this one's word, although there is nothing that it wants.
        let listens = sockets.is_ok() && wanted.count() > 0;
        let joined = match listens {
            true => self.control.join(writer, &wanted)?,
            false => self.control.join(writer, &Bits::none(wanted.len()))?,
        };
        if wanted.count() == 0 {
            return Ok(wanted);
        }
        let ((mut listener, reporter), (plan, member)) = match (sockets, joined) {
            (Ok(sockets), Joined::Member(member)) => (sockets, *member),
            (Ok(_), Joined::Unicast(why)) => {
                writer.note(&format!("going on by unicast: {why}"));
                self.why = Some(warn(why));
                return Ok(wanted);
            }
            (Err(error), _) => {
                let why = format!("listening to the group {address}: {error}");
                writer.note(&format!("going on by unicast: {why}"));
                self.why = Some(warn(why));
                return Ok(wanted);
            }
        };
        let mut clock = Awake::new(Instant::now());
        let config = self.config.clone();
        let mut receiver = Receiver::new(plan, member, wanted, config, Duration::ZERO);
        let mut sender = None;
        let mut waiting: Option<Work> = None;
        let mut packet = Vec::new();
        let mut told = Duration::ZERO;
        let why = 'session: loop {
            writer.stop_if_asked()?;
            let (mut wait, mut came) = (WAIT, 0);
            for _ in 0..PACKETS {
                let (bytes, from) = match listener.receive(wait) {
                    Ok(Some(packet)) => packet,
                    Ok(None) => break,
                    Err(error) => break 'session Some(End::Socket(error)),
                };
                wait = Duration::ZERO;
                let now = clock.at(Instant::now());
                if receiver.handle(now, bytes) {
                    sender = Some(from);
                }
                came += 1;
            }
            if came > 0 && came < PACKETS {
                std::thread::sleep(GATHER[usize::from(came >= MANY)]);
            }
            desk.look(&mut self.heads)?;
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
            if now.saturating_sub(told) >= TOLD_EVERY {
                told = now;
                writer.note(&self.standing(&receiver));
            }
            packet.clear();
            if let Some(to) = sender.filter(|_| receiver.transmit(now, &mut packet)) {
                // A report that cannot be sent is one that is lost.
                let _ = group::send(&reporter, &packet, to);
            }
            match receiver.standing(now) {
                Progress::Waiting | Progress::Receiving => {}
                Progress::Done if waiting.is_none() => break None,
                Progress::Done => {}
                other => break Some(End::Session(other)),
            }
        };
        writer.note(&self.standing(&receiver));
        let reason = match why {
            None => Reason::Done,
            Some(why) => self.give_up(writer, &receiver, why),
        };
        if let Some(to) = sender {
            for _ in 0..LEAVES {
                // The control connection tells as much in the end.
                let _ = group::send(&reporter, &receiver.leave(reason), to);
            }
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

    /// How the session goes, for people.
    fn standing(&self, receiver: &Receiver) -> String {
        let status = receiver.status();
        format!(
            "multicast: {} a second, {:.1} % of the packets lost, pass {}, {} chunks so far",
            size::bytes(status.rate as u64),
            status.loss * 100.0,
            status.pass,
            self.counts.0
        )
    }

    /// Says why multicast is over before everything came; what the session is told.
    fn give_up(&mut self, writer: &CellWriter<'_>, receiver: &Receiver, why: End) -> Reason {
        let why = match why {
            End::Session(why) => why,
            End::Socket(error) => {
                let why = format!("listening to the group {}: {error}", self.group.address);
                writer.note(&format!("going on by unicast: {why}"));
                self.why = Some(warn(why));
                return Reason::Stopped;
            }
        };
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
                        "Check switches (IGMP snooping without a querier), the interfaces that \
                         send and receive, the packets' TTL where routers are between, and \
                         firewalls. The transfer went on by unicast.",
                    );
                (Reason::Silent, report)
            }
        };
        writer.note(&format!("going on by unicast: {}", report.found));
        self.why = Some(report);
        reason
    }

    fn next_work(&mut self, receiver: &mut Receiver) -> Result<Option<Work>, Report> {
        let Some(record) = receiver.next_record() else {
            return Ok(None);
        };
        self.counts.0 += 1;
        work(&self.todo, &mut self.image.places, record).map(Some)
    }

    /// Gets the rest over the control connection.
    fn by_unicast(
        &mut self,
        writer: &CellWriter<'_>,
        desk: &mut Desk,
        lacking: Bits,
    ) -> Result<(), Report> {
        desk.settle(&mut self.heads)?;
        let mut left: Vec<u32> = lacking.iter().collect();
        if !desk.spoiled.is_empty() {
            let text = format!("{} chunks came spoiled by multicast", desk.spoiled.len());
            writer.note(&text);
            self.why.get_or_insert(warn(text));
            self.counts.0 -= desk.spoiled.len() as u32;
            left.append(&mut desk.spoiled);
        }
        let mut bytes = 0;
        let mut portion = Vec::new();
        for record in left {
            let Some((name, len)) = self.chunk(record)? else {
                continue;
            };
            portion.push(Wanted { record, name });
            bytes += u64::from(len);
            if bytes >= FETCH_BYTES || portion.len() >= FETCH_RECORDS {
                self.fetch(writer, desk, &portion)?;
                (bytes, portion) = (0, Vec::new());
            }
        }
        if !portion.is_empty() {
            self.fetch(writer, desk, &portion)?;
        }
        desk.settle(&mut self.heads)?;
        match desk.spoiled.first() {
            None => Ok(()),
            Some(&record) => {
                let chunk = self.chunk(record)?;
                let name = chunk.map_or(Hash([0; 32]), |(name, _)| name);
                Err(self.control.spoiled(&Wanted { record, name }))
            }
        }
    }

    /// Name and plain length of a record's chunk.
    fn chunk(&mut self, record: u32) -> Result<Option<(Hash, u32)>, Report> {
        let cells = self.image.places.of_record(record, |_| true);
        let cells = cells.map_err(|e| report::image(&e, DiskState::Incomplete))?;
        Ok(cells
            .first()
            .map(|(_, _, chunk)| (chunk.name, chunk.plain_len)))
    }

    fn fetch(
        &mut self,
        writer: &CellWriter<'_>,
        desk: &mut Desk,
        wanted: &[Wanted],
    ) -> Result<(), Report> {
        let (todo, places, counts) = (&self.todo, &mut self.image.places, &mut self.counts);
        let heads = &mut self.heads;
        self.control.fetch(writer, wanted, &mut |record| {
            writer.stop_if_asked()?;
            counts.1 += 1;
            desk.give(work(todo, places, record)?)?;
            desk.look(heads)
        })
    }
}

/// Why multicast ends before everything came.
enum End {
    /// What the receiver says.
    Session(Progress),
    /// The system takes nothing more from the network.
    Socket(io::Error),
}

fn warn(found: String) -> Report {
    Report::new(Code::MulticastIncomplete, found, DiskState::Incomplete)
}
