//! The thread of a session.
//!
//! Owns: the course from the first target that is ready to the last that is done. Does not
//! own: what goes out when (`multicast`), when it starts (`gather`).

use super::session::{Command, Session, unicast};
use crate::store::ImageRun;
use group::{Awake, BUFFER, Group, Outlet};
use multicast::{
    Batch, Bits, HEADERS, HEADERS_V4, Rate, Reason, Sender, SenderConfig, SenderEvent,
    SessionSecret, SessionState,
};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};
use wire::{Code, DiskState, JoinReply, Report, Session as Settings};

/// Longest sleep while packets go out.
const NAP: Duration = Duration::from_micros(500);
/// Longest sleep otherwise.
const IDLE: Duration = Duration::from_millis(20);
/// Packets between two looks at what came.
const BATCH: usize = 64;
/// Packets of targets, or of whoever sends some, that are looked at before the next ones go
/// out.
const REPORTS: usize = 128;
/// Between two looks that are shown.
const SHOWN_EVERY: Duration = Duration::from_millis(250);
/// A session of which no target was heard for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Time for which a network that takes nothing is put up with.
const UNSENT: Duration = Duration::from_secs(8);
/// How often an execution may join: each time it is another receiver.
const JOINS: usize = 8;
/// The first ports that a session's own packets come from.
const PORTS: u16 = 16;

/// What a session is made of.
pub(super) struct Parts {
    pub settings: Settings,
    pub image: String,
    pub image_name: String,
    pub run: ImageRun,
    pub socket: UdpSocket,
    pub group: SocketAddr,
    pub number: u32,
    pub secret: [u8; 32],
}

/// Begins a session; its thread ends by itself.
///
/// # Errors
/// The system has no thread for it.
pub(super) fn begin(parts: Parts) -> io::Result<Arc<Session>> {
    let plan = parts.run.plan().clone();
    let (commands, told) = std::sync::mpsc::channel();
    let mut config = SenderConfig::new(parts.number);
    config.headers = match parts.group {
        SocketAddr::V4(_) => HEADERS_V4,
        SocketAddr::V6(_) => HEADERS,
    };
    if let Some(rate) = parts.settings.rate {
        config.rate = Rate::Fixed(rate as f64);
    }
    let names = (parts.image, parts.image_name);
    let session = Session::new(parts.settings, names, &plan, commands);
    let session = Arc::new(session);
    let mut course = Course {
        session: Arc::clone(&session),
        clock: Awake::new(Instant::now()),
        wanted: Bits::none(plan.records()),
        sender: Sender::new(
            plan,
            SessionSecret::new(parts.secret),
            config,
            Duration::ZERO,
        ),
        run: parts.run,
        socket: parts.socket,
        outlet: Outlet::new(parts.group),
        batch: Batch::default(),
        sending: false,
        heard: Duration::ZERO,
        shown: Duration::ZERO,
        unsent: None,
    };
    std::thread::Builder::new()
        .name("multicast".into())
        .spawn(move || course.go(&told))?;
    Ok(session)
}

/// A socket for a group, and where it sends to.
///
/// # Errors
/// `usage` for an address or interface that is none, `multicast-address-in-use` if somebody
/// sends to it already, `port-in-use`.
pub(super) fn open(
    settings: &Settings,
    others: Duration,
) -> Result<(UdpSocket, SocketAddr), Report> {
    let report = |code, found: String| Report::new(code, found, DiskState::NotInvolved);
    let named = |error: &dyn std::fmt::Display| format!("the group {}: {error}", settings.group);
    let address: SocketAddr = settings
        .group
        .parse()
        .map_err(|error: std::net::AddrParseError| report(Code::Usage, named(&error)))?;
    let group = Group::new(address, settings.interface.as_deref())
        .map_err(|error| report(Code::Usage, named(&error)))?;
    let failed = |error: io::Error| {
        match error.kind() {
        io::ErrorKind::AddrInUse => report(Code::PortInUse, named(&error)),
        _ => report(Code::Usage, named(&error))
            .with_advice("Name the interface that sends (--interface), or give the server a route for multicast."),
    }
    };
    if let Some((session, from)) = group.hear(others, |_| true, &|| false).map_err(failed)? {
        let found = format!("session {session:08x} of {from} sends to {address} already");
        return Err(report(Code::MulticastAddressInUse, found));
    }
    let first = wire::PORT_MULTICAST;
    let socket = group
        .sender_at_one_of(settings.ttl.into(), first..=first + (PORTS - 1))
        .map_err(failed)?;
    Ok((socket, group.address))
}

/// What the thread has.
struct Course {
    session: Arc<Session>,
    clock: Awake,
    sender: Sender,
    run: ImageRun,
    socket: UdpSocket,
    outlet: Outlet,
    batch: Batch,
    /// What those that joined before the start want.
    wanted: Bits,
    sending: bool,
    /// When a target was there last.
    heard: Duration,
    shown: Duration,
    /// Since when the network takes nothing.
    unsent: Option<Duration>,
}

/// However the thread ends: nobody may wait for it.
impl Drop for Course {
    fn drop(&mut self) {
        self.session.close();
    }
}

impl Course {
    fn go(&mut self, told: &Receiver<Command>) {
        let ended = self.send(told);
        self.session.shared().closing = true;
        let now = self.clock.at(Instant::now());
        self.sender.finish(now);
        while !self.sender.is_over() && self.step().is_ok() {
            std::thread::sleep(IDLE);
        }
        let mut shared = self.session.shared();
        shared.status = Some(self.sender.status());
        if let Err(error) = ended {
            tracing::error!(session = %self.session.settings().session, %error, "a multicast session broke off");
            let found = format!("sending by multicast: {error}");
            shared.problem = Some(Report::new(Code::Internal, found, DiskState::NotInvolved));
        }
    }

    fn send(&mut self, told: &Receiver<Command>) -> io::Result<()> {
        let mut buffer = Box::new([0; BUFFER]);
        loop {
            loop {
                match told.try_recv() {
                    Ok(Command::Stop) | Err(TryRecvError::Disconnected) => return Ok(()),
                    Ok(command) => self.take(command),
                    Err(TryRecvError::Empty) => break,
                }
            }
            let now = self.step()?;
            for _ in 0..REPORTS {
                match group::receive(&self.socket, &mut buffer)? {
                    Some((bytes, _)) => self.sender.handle(now, bytes),
                    None => break,
                }
            }
            while let Some(event) = self.sender.next_event() {
                self.log(event);
            }
            if self.look(now) {
                return Ok(());
            }
            let busy = self.sender.state() == SessionState::Sending;
            let nap = self.sender.wake_at();
            let nap = nap.saturating_sub(self.clock.at(Instant::now()));
            std::thread::sleep(nap.min(if busy { NAP } else { IDLE }));
        }
    }

    /// Sends what is due; the time.
    fn step(&mut self) -> io::Result<Duration> {
        let now = self.clock.at(Instant::now());
        self.batch.clear();
        self.sender
            .transmit(now, &mut self.run, &mut self.batch, BATCH)?;
        match self.outlet.put(&self.socket, &self.batch) {
            Ok(()) => self.unsent = None,
            // A cable that is out for a moment is loss, which repair answers.
            Err(error) => {
                let since = *self.unsent.get_or_insert(now);
                if now.saturating_sub(since) > UNSENT {
                    return Err(error);
                }
            }
        }
        Ok(now)
    }

    /// Starts when it is time, and shows how it stands. Whether it is over.
    fn look(&mut self, now: Duration) -> bool {
        let session = Arc::clone(&self.session);
        let time = session.now();
        let mut shared = session.shared();
        let complete = shared.gathering.is_complete(time);
        // Nobody lacked anything, or those that were told to start have gone.
        let for_nobody = complete && shared.members.is_empty();
        if complete && !self.sending && !for_nobody {
            self.sending = true;
            self.sender.only(&self.wanted);
            self.sender.start(now);
            shared.sending_since = Some(crate::db::now());
            tracing::info!(session = %session.settings().session, machines = shared.members.len(),
                records = self.wanted.count(), of = session.records(), "a multicast session begins to send");
        }
        if shared.gathering.here(time) > 0 || shared.gathering.has_started() {
            self.heard = now;
        }
        if now.saturating_sub(self.shown) >= SHOWN_EVERY {
            self.shown = now;
            shared.status = Some(self.sender.status());
            shared.sent_blocks = self.sender.frontier().0;
        }
        let done = for_nobody || (self.sending && self.sender.all_done());
        let done = done && !shared.gathering.awaits_somebody(time);
        let forgotten = now.saturating_sub(self.heard) > FORGOTTEN_AFTER;
        // Nobody is told to start from here on.
        shared.closing = done || forgotten;
        done || forgotten
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Join {
                execution,
                wanted,
                answer,
            } => {
                let reply = self.join(&execution, &wanted);
                self.session.shared().gathering.joined(&execution);
                // Who asked may be gone by now.
                let _ = answer.send(reply);
            }
            Command::Gone(execution) => {
                self.session.shared().gathering.gone(&execution);
                self.leave(&execution);
            }
            Command::Stop => {}
        }
    }

    fn join(&mut self, execution: &str, wanted: &[u8]) -> JoinReply {
        // One that asks again has lost the answer, or was started anew.
        self.leave(execution);
        let Some(wanted) = Bits::from_bytes(wanted, self.session.records()) else {
            return unicast("the session has another list of records");
        };
        if wanted.count() == 0 {
            return unicast("nothing is lacking");
        }
        let is_it = |member: &&String| *member == execution;
        let joins = self.session.shared().members.iter().filter(is_it).count();
        if joins >= JOINS {
            return unicast("this machine has joined too often");
        }
        let now = self.clock.at(Instant::now());
        let Some(member) = self.sender.join(now) else {
            return unicast("the session has as many receivers as it can have");
        };
        if !self.sending {
            wanted.iter().for_each(|record| {
                self.wanted.insert(record);
            });
        }
        self.session.shared().members.push(execution.to_owned());
        JoinReply::Member {
            number: member.session,
            receiver: member.receiver,
            down: hex::encode(member.down.to_bytes()),
            up: hex::encode(member.up.to_bytes()),
        }
    }

    /// Its receivers are not waited for.
    fn leave(&mut self, execution: &str) {
        let receivers: Vec<u16> = (0..)
            .zip(&self.session.shared().members)
            .filter(|(_, member)| *member == execution)
            .map(|(receiver, _)| receiver)
            .collect();
        for receiver in receivers {
            self.sender.leave(receiver, Reason::Stopped);
        }
    }

    fn log(&self, event: SenderEvent) {
        let shared = self.session.shared();
        let machine = |receiver: u16| {
            let execution = shared.members.get(usize::from(receiver));
            execution.map_or("", |execution| shared.gathering.machine(execution))
        };
        let session = &self.session.settings().session;
        match event {
            SenderEvent::Done(receiver) | SenderEvent::Left(receiver, Reason::Done) => {
                tracing::info!(%session, machine = machine(receiver), "has everything");
            }
            SenderEvent::Left(receiver, reason) => {
                tracing::warn!(%session, machine = machine(receiver), ?reason, "goes on by unicast");
            }
        }
    }
}
