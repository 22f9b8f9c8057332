//! One network card: a thread that brings it up, waits for its cable, gets an address
//! and keeps it.
//!
//! Owns: the thread's loop. Does not own: which card is used ([`super::connect`]).

use super::configure::{self, Configured};
use super::dhcp::{Event, Identity, Lease, Machine, machine::Transmit, socket::Socket};
use super::netlink::Request;
use super::nics::{Nic, Sysfs};
use super::rtnl::Rtnl;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a packet before the stop flag is looked at again.
const PIECE: Duration = Duration::from_millis(500);
const CARRIER_POLL: Duration = Duration::from_millis(20);

/// What a card tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Its cable is connected.
    Link,
    /// It has an address; nothing is configured yet.
    Lease(Lease),
    /// Something for the log.
    Note(String),
}

/// What a card's thread and the one who chooses share.
#[derive(Debug, Default)]
pub struct Shared {
    /// The thread shall end.
    pub stop: AtomicBool,
    /// Set when this card was chosen: changes of its lease are put into force by its
    /// thread.
    pub configured: Mutex<Option<Configured>>,
}

/// The thread's work; ends when it is told to, or at an error that no waiting mends.
pub fn run(nic: &Nic, uuid: Option<[u8; 16]>, shared: &Shared, tell: &Sender<(u32, Word)>) {
    let say = |word| {
        // Nobody listens any more once a card has been chosen.
        let _ = tell.send((nic.index, word));
    };
    if let Err(error) =
        Rtnl::open().and_then(|mut k| k.request(Request::LinkUp { index: nic.index }))
    {
        say(Word::Note(format!("{}: bringing it up: {error}", nic.name)));
        return;
    }
    let sysfs = Sysfs::default();
    while !sysfs.carrier(&nic.name) {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(CARRIER_POLL);
    }
    say(Word::Link);
    let identity = Identity { mac: nic.mac, uuid };
    let result =
        Socket::open(&nic.name).and_then(|socket| keep(nic, identity, &socket, shared, &say));
    if let Err(error) = result {
        say(Word::Note(format!("{}: DHCP: {error}", nic.name)));
    }
}

fn keep(
    nic: &Nic,
    identity: Identity,
    socket: &Socket,
    shared: &Shared,
    say: &dyn Fn(Word),
) -> io::Result<()> {
    let origin = Instant::now();
    let random = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
    let mut machine = Machine::new(identity, random, Duration::ZERO);
    let mut buffer = vec![0; 9216];
    let mut heard = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let (packet, event) = machine.poll(origin.elapsed());
        act(nic, event, shared, say);
        if let Some(packet) = packet {
            send(nic, socket, &packet, say);
        }
        let wait = machine.due().saturating_sub(origin.elapsed()).min(PIECE);
        if let Some(bytes) = socket.receive(&mut buffer, wait)? {
            let event = machine.receive(origin.elapsed(), bytes);
            act(nic, event, shared, say);
        }
        for news in machine.heard().iter().skip(heard) {
            say(Word::Note(format!("{}: {news}", nic.name)));
        }
        heard = machine.heard().len();
    }
    Ok(())
}

fn send(nic: &Nic, socket: &Socket, packet: &Transmit, say: &dyn Fn(Word)) {
    if let Err(error) = socket.send(packet) {
        say(Word::Note(format!(
            "{}: sending to {}: {error}",
            nic.name, packet.to
        )));
    }
}

fn act(nic: &Nic, event: Option<Event>, shared: &Shared, say: &dyn Fn(Word)) {
    let mut configured = shared
        .configured
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match event {
        None => {}
        Some(Event::Renewed(lease)) => {
            say(Word::Note(format!(
                "{}: lease of {} renewed",
                nic.name, lease.address
            )));
        }
        Some(Event::Bound(lease)) => {
            if let Some(old) = configured.take() {
                *configured = replace(nic, old, &lease, say);
            }
            say(Word::Lease(lease));
        }
        Some(Event::Lost(lease)) => {
            say(Word::Note(format!(
                "{}: lease of {} has ended",
                nic.name, lease.address
            )));
        }
    }
}

/// The server gave another address than before: connections break, but new ones work.
fn replace(nic: &Nic, old: Configured, lease: &Lease, say: &dyn Fn(Word)) -> Option<Configured> {
    let changed = configure::undo(old)
        .and_then(|()| configure::apply(nic.index, lease, Path::new(super::ETC)));
    match changed {
        Ok(new) => Some(new),
        Err(error) => {
            say(Word::Note(format!(
                "{}: changing its address: {error}",
                nic.name
            )));
            Some(old)
        }
    }
}

/// Starts the thread.
pub fn spawn(nic: Nic, uuid: Option<[u8; 16]>, tell: Sender<(u32, Word)>) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    let thread = Arc::clone(&shared);
    std::thread::spawn(move || run(&nic, uuid, &thread, &tell));
    shared
}
