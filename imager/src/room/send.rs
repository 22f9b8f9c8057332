//! A room, seen from its sender.
//!
//! Owns: the course of a room: waiting for receivers, the session, the end. Does not own:
//! single receivers' connections (`serve`), what goes out when (`multicast`).

use super::code::RoomCode;
use super::listing::{Listing, Records};
pub use super::serve::Outcome;
use super::serve::{self, Room, Told};
use crate::progress::ProgressSink;
use crate::report;
use crossbeam_channel::unbounded;
use group::{Awake, BUFFER, Group, Outlet};
use multicast::{
    Batch, HEADERS, HEADERS_V4, MAX_SYMBOL_LEN, Plan, Rate, Reason, Sender, SenderConfig,
    SenderEvent, SenderStatus, SessionSecret, SessionState,
};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wire::{Code, DiskState, Report, Step};

/// Time in which another session on the group would be heard.
const LISTEN_FIRST: Duration = Duration::from_millis(600);
/// Time that receivers have from the start to the first packet: they erase tables.
const TO_JOIN: Duration = Duration::from_secs(20);
/// Longest sleep while packets go out.
const NAP: Duration = Duration::from_micros(500);
/// Longest sleep otherwise.
const IDLE: Duration = Duration::from_millis(5);
/// Packets between two looks at what came.
const BATCH: usize = 64;
/// Packets of receivers, or of whoever sends some, that are looked at before the next ones go
/// out.
const REPORTS: usize = 128;

/// What a room is told.
pub struct Settings {
    /// Where the packets go; control connections come to the same port.
    pub group: Group,
    /// How far packets go.
    pub ttl: u32,
    /// How fast.
    pub rate: Rate,
    /// Bytes of a symbol.
    pub symbol_len: u16,
    /// Receivers that are waited for.
    pub receivers: u32,
    /// Time after which it starts with those that are there, from the first that is ready.
    pub wait: Option<Duration>,
}

impl Settings {
    /// For that group, with defaults.
    #[must_use]
    pub fn new(group: Group) -> Self {
        Settings {
            group,
            ttl: 1,
            rate: SenderConfig::new(0).rate,
            symbol_len: MAX_SYMBOL_LEN,
            receivers: 1,
            wait: None,
        }
    }
}

/// How a room ended.
pub struct Ended {
    /// The receivers that were ready, and how each ended.
    pub receivers: Vec<(SocketAddr, Outcome)>,
    /// Counts of the session.
    pub status: SenderStatus,
    /// Time from the first packet to the last receiver's word.
    pub time: Duration,
}

/// Sends an image to a room; `shown` is given the code once the room is open.
///
/// # Errors
/// `multicast-address-in-use`, `port-in-use`, an image that cannot be sent, interruption.
pub fn run(
    listing: Listing,
    name: &str,
    settings: &Settings,
    progress: &dyn ProgressSink,
    shown: &mut dyn FnMut(&RoomCode),
) -> Result<Ended, Report> {
    let plan = Plan::new(listing.lengths(), settings.symbol_len).map_err(|error| {
        Report::new(
            Code::ImageDamaged,
            error.to_string(),
            DiskState::NotInvolved,
        )
    })?;
    let socket_failed = |error: io::Error| {
        let found = format!("the group {}: {error}", settings.group.address);
        Report::new(Code::PortInUse, found, DiskState::NotInvolved)
            .with_advice("Check address, interface and rights.")
    };
    progress.step(Step::Preparing, 0);
    refuse_if_used(&settings.group, progress).map_err(socket_failed)??;
    let listener = listener(&settings.group).map_err(|error| {
        let found = format!("TCP port {}: {error}", settings.group.address.port());
        Report::new(Code::PortInUse, found, DiskState::NotInvolved)
    })?;
    let socket = settings.group.sender(settings.ttl).map_err(socket_failed)?;
    let listing = Arc::new(listing);
    let (told_tx, told) = unbounded();
    let room = Arc::new(Room {
        listing: Arc::clone(&listing),
        name: name.to_owned(),
        plan: plan.clone(),
        code: RoomCode::new(random()?),
        told: told_tx,
        started: AtomicBool::new(false),
        over: AtomicBool::new(false),
        wrong: AtomicU32::new(0),
        connections: AtomicU32::new(0),
    });
    shown(&room.code);
    let serving = Arc::clone(&room);
    let thread = std::thread::spawn(move || serve::listen(&serving, &listener));
    let config = SenderConfig {
        rate: settings.rate,
        headers: match settings.group.address {
            SocketAddr::V4(_) => HEADERS_V4,
            SocketAddr::V6(_) => HEADERS,
        },
        ..SenderConfig::new(u32::from_le_bytes(random()?))
    };
    let mut course = Course {
        clock: Awake::new(Instant::now()),
        sender: Sender::new(
            plan.clone(),
            SessionSecret::new(random()?),
            config,
            Duration::ZERO,
        ),
        run: Records::new(listing, plan.clone()),
        plan,
        room: &room,
        socket,
        outlet: Outlet::new(settings.group.address),
        progress,
        batch: Batch::default(),
        ready: 0,
        joined: 0,
        gone: Vec::new(),
        first_ready: None,
        go: None,
        sending: None,
        shown_blocks: 0,
    };
    let result = course.go(settings, &told);
    room.over.store(true, Ordering::Relaxed);
    match thread.join() {
        Ok(_) => result,
        Err(_) => Err(report::thread_lost(DiskState::NotInvolved)),
    }
}

/// Whether somebody sends to the group already.
fn refuse_if_used(group: &Group, progress: &dyn ProgressSink) -> io::Result<Result<(), Report>> {
    let heard = group.hear(LISTEN_FIRST, |_| true, &|| progress.interrupted())?;
    Ok(match heard {
        None => Ok(()),
        Some((session, from)) => {
            let found = format!(
                "session {session:08x} of {from} sends to {} already",
                group.address
            );
            let code = Code::MulticastAddressInUse;
            Err(Report::new(code, found, DiskState::NotInvolved))
        }
    })
}

fn listener(group: &Group) -> io::Result<TcpListener> {
    let port = group.address.port();
    match group.address {
        SocketAddr::V4(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
        SocketAddr::V6(_) => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)),
    }
}

fn random<const N: usize>() -> Result<[u8; N], Report> {
    let mut bytes = [0; N];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => {
            let found = format!("the system's random numbers: {error}");
            Err(Report::new(Code::Internal, found, DiskState::NotInvolved))
        }
    }
}

struct Course<'a> {
    clock: Awake,
    plan: Plan,
    sender: Sender,
    run: Records,
    room: &'a Room,
    socket: UdpSocket,
    outlet: Outlet,
    progress: &'a dyn ProgressSink,
    batch: Batch,
    ready: u32,
    joined: u32,
    gone: Vec<(SocketAddr, Outcome)>,
    first_ready: Option<Duration>,
    /// When the receivers were told to begin.
    go: Option<Duration>,
    /// When the first packet went out.
    sending: Option<Duration>,
    shown_blocks: u32,
}

impl Course<'_> {
    fn go(
        &mut self,
        settings: &Settings,
        told: &crossbeam_channel::Receiver<Told>,
    ) -> Result<Ended, Report> {
        let mut buffer = Box::new([0; BUFFER]);
        let failed = |error: io::Error| {
            let found = format!("sending to {}: {error}", settings.group.address);
            Report::new(Code::ConnectionLost, found, DiskState::NotInvolved)
        };
        loop {
            let now = self.clock.at(Instant::now());
            if self.progress.interrupted() {
                self.end(failed)?;
                let found = "stopped by an operator";
                return Err(Report::new(
                    Code::Interrupted,
                    found,
                    DiskState::NotInvolved,
                ));
            }
            while let Ok(told) = told.try_recv() {
                self.take(now, told);
            }
            self.begin_if_ready(now, settings);
            self.batch.clear();
            self.sender
                .transmit(now, &mut self.run, &mut self.batch, BATCH)
                .map_err(|error| {
                    let found = format!("reading the image: {error}");
                    Report::new(Code::ReadError, found, DiskState::NotInvolved)
                })?;
            self.put_out().map_err(failed)?;
            for _ in 0..REPORTS {
                let Some((bytes, _)) = group::receive(&self.socket, &mut buffer).map_err(failed)?
                else {
                    break;
                };
                self.sender.handle(now, bytes);
            }
            self.tell();
            if self.sending.is_some() && self.ready as usize == self.gone.len() {
                self.end(failed)?;
                return Ok(Ended {
                    receivers: std::mem::take(&mut self.gone),
                    status: self.sender.status(),
                    time: now - self.sending.unwrap_or(now),
                });
            }
            let busy = self.sender.state() == SessionState::Sending;
            let nap = self.sender.wake_at();
            let nap = nap.saturating_sub(self.clock.at(Instant::now()));
            std::thread::sleep(nap.min(if busy { NAP } else { IDLE }));
        }
    }

    fn take(&mut self, now: Duration, told: Told) {
        match told {
            Told::Note(text) => self.progress.note(&text),
            Told::Ready(from) => {
                self.ready += 1;
                self.first_ready = self.first_ready.or(Some(now));
                let text = format!("{from} is ready ({} so far)", self.ready);
                self.progress.note(&text);
            }
            Told::Join(answer) => {
                self.joined += 1;
                // Who asked may be gone by now.
                let _ = answer.send(self.sender.join(now));
            }
            Told::Gone(from, receiver, ready, outcome) => {
                if let Some(receiver) = receiver {
                    self.sender.leave(receiver, serve::reason(&outcome));
                }
                let text = match &outcome {
                    Outcome::Done { why: None, .. } => format!("{from} is done"),
                    Outcome::Done {
                        unicast,
                        why: Some(why),
                        ..
                    } => format!("{from} is done; {unicast} chunks came by unicast: {why}"),
                    Outcome::Failed(found) => format!("{from} failed: {found}"),
                    Outcome::Lost(error) => format!("{from} is gone: {error}"),
                };
                self.progress.note(&text);
                if ready {
                    self.gone.push((from, outcome));
                }
            }
        }
    }

    fn begin_if_ready(&mut self, now: Duration, settings: &Settings) {
        let waited = self.first_ready.is_some_and(|first| {
            settings
                .wait
                .is_some_and(|wait| now.saturating_sub(first) >= wait)
        });
        if self.go.is_none() && self.ready > 0 && (self.ready >= settings.receivers || waited) {
            self.go = Some(now);
            self.room.started.store(true, Ordering::Relaxed);
        }
        let Some(go) = self.go.filter(|_| self.sending.is_none()) else {
            return;
        };
        let here = self.joined as usize + self.gone.len();
        if here >= self.ready as usize || now.saturating_sub(go) >= TO_JOIN {
            self.sending = Some(now);
            self.progress.step(Step::Running, self.plan.total_len());
            let text = format!("sending begins, {} have joined", self.joined);
            self.progress.note(&text);
            self.sender.start(now);
        }
    }

    fn put_out(&mut self) -> io::Result<()> {
        self.outlet.put(&self.socket, &self.batch)
    }

    /// Shows what happened.
    fn tell(&mut self) {
        while let Some(event) = self.sender.next_event() {
            if let SenderEvent::Left(receiver, reason) = event
                && matches!(reason, Reason::Slow | Reason::Lossy)
            {
                let why = if reason == Reason::Slow {
                    "its disk"
                } else {
                    "its network"
                };
                let text =
                    format!("receiver {receiver} goes on by unicast: {why} holds the others");
                self.progress.note(&text);
            }
        }
        let (sent, _) = self.sender.frontier();
        if sent > self.shown_blocks {
            let block = self.plan.block_len() as u64;
            let bytes = u64::from(sent - self.shown_blocks) * block;
            self.shown_blocks = sent;
            self.progress.advance(bytes, bytes);
        }
    }

    fn end(&mut self, failed: impl Fn(io::Error) -> Report + Copy) -> Result<(), Report> {
        let now = self.clock.at(Instant::now());
        self.sender.finish(now);
        while !self.sender.is_over() {
            self.batch.clear();
            let now = self.clock.at(Instant::now());
            self.sender
                .transmit(now, &mut self.run, &mut self.batch, BATCH)
                .map_err(failed)?;
            self.put_out().map_err(failed)?;
            std::thread::sleep(IDLE);
        }
        Ok(())
    }
}
