//! One network card: a thread that brings it up, waits for its cable, gets an address
//! and keeps it.
//!
//! Owns: the thread's loop. Does not own: which card is used ([`super::connect`]).

use super::configure::{self, Configured};
use super::dhcp::{Event, Identity, Lease, Machine, Proxy, machine::Transmit, socket::Socket};
use super::netlink::{Request, vlan_name};
use super::nics::{Nic, Sysfs};
use super::rtnl::Rtnl;
use nix::errno::Errno;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longest wait for a packet before the stop flag is looked at again.
const PIECE: Duration = Duration::from_millis(500);
const CARRIER_POLL: Duration = Duration::from_millis(20);

/// What a card's thread is to do.
#[derive(Clone, Debug)]
pub struct Task {
    /// The machine's UUID.
    pub uuid: Option<[u8; 16]>,
    /// The address to use; without it DHCP is asked.
    pub fixed: Option<Lease>,
    /// Number of the VLAN.
    pub vlan: Option<u16>,
    /// Only asks what DHCP offers; nothing of this machine is changed.
    pub only_asks: bool,
    /// Where name servers are written.
    pub etc: PathBuf,
}

/// What a card tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Its cable is connected; this interface is used (the card's own, or its VLAN's).
    Link(Nic),
    /// It has an address; nothing is configured yet.
    Lease(Lease),
    /// Somebody beside the DHCP server offers something.
    Proxy(Proxy),
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
pub fn run(nic: &Nic, task: &Task, shared: &Shared, tell: &dyn Fn(Word)) {
    let up = |index| Rtnl::open().and_then(|mut k| k.request(Request::LinkUp { index }));
    if !task.only_asks
        && let Err(error) = up(nic.index)
    {
        tell(Word::Note(format!("{}: bringing it up: {error}", nic.name)));
        return;
    }
    let sysfs = Sysfs::default();
    while !sysfs.carrier(&nic.name) {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(CARRIER_POLL);
    }
    let used = match task.vlan {
        None => nic.clone(),
        Some(id) => match vlan(nic, id, task, &sysfs) {
            Ok(used) => used,
            Err(error) => {
                tell(Word::Note(format!("{}: VLAN {id}: {error}", nic.name)));
                return;
            }
        },
    };
    tell(Word::Link(used.clone()));
    if let Some(lease) = &task.fixed {
        return tell(Word::Lease(lease.clone()));
    }
    let identity = Identity {
        mac: nic.mac,
        uuid: task.uuid,
    };
    let result = Socket::open(&used.name)
        .and_then(|socket| keep(&used, task, identity, &socket, shared, tell));
    if let Err(error) = result {
        tell(Word::Note(format!("{}: DHCP: {error}", used.name)));
    }
}

/// The interface of a VLAN on a card, up; one that is there is used.
fn vlan(nic: &Nic, id: u16, task: &Task, sysfs: &Sysfs) -> io::Result<Nic> {
    let mut kernel = Rtnl::open()?;
    let index = nic.index;
    if !task.only_asks {
        match kernel.request(Request::AddVlan { index, id }) {
            Err(error) if error.raw_os_error() != Some(Errno::EEXIST as i32) => return Err(error),
            _ => {}
        }
    }
    let name = vlan_name(index, id);
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("{name} is not there"));
    let used = sysfs.interface(&name).ok_or_else(missing)?;
    if !task.only_asks {
        kernel.request(Request::LinkUp { index: used.index })?;
    }
    Ok(used)
}

fn keep(
    nic: &Nic,
    task: &Task,
    identity: Identity,
    socket: &Socket,
    shared: &Shared,
    say: &dyn Fn(Word),
) -> io::Result<()> {
    let origin = Instant::now();
    let random = getrandom::u32().map_err(|error| io::Error::other(error.to_string()))?;
    let mut machine = if task.only_asks {
        Machine::asking(identity, random, Duration::ZERO)
    } else {
        Machine::new(identity, random, Duration::ZERO)
    };
    let mut buffer = vec![0; 9216];
    let mut heard = 0;
    while !shared.stop.load(Ordering::Relaxed) {
        let (packet, event) = machine.poll(origin.elapsed());
        act(nic, task, event, shared, say);
        if let Some(packet) = packet {
            send(nic, socket, &packet, say);
        }
        let wait = machine.due().saturating_sub(origin.elapsed()).min(PIECE);
        if let Some(bytes) = socket.receive(&mut buffer, wait)? {
            let event = machine.receive(origin.elapsed(), bytes);
            act(nic, task, event, shared, say);
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

fn act(nic: &Nic, task: &Task, event: Option<Event>, shared: &Shared, say: &dyn Fn(Word)) {
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
                *configured = replace(nic, task, old, &lease, say);
            }
            say(Word::Lease(lease));
        }
        Some(Event::Lost(lease)) => {
            say(Word::Note(format!(
                "{}: lease of {} has ended",
                nic.name, lease.address
            )));
        }
        Some(Event::Proxy(proxy)) => say(Word::Proxy(proxy)),
    }
}

/// The server gave another address than before: connections break, but new ones work.
fn replace(
    nic: &Nic,
    task: &Task,
    old: Configured,
    lease: &Lease,
    say: &dyn Fn(Word),
) -> Option<Configured> {
    let changed = configure::undo(old)
        .and_then(|()| configure::apply(nic.index, lease))
        .and_then(|new| configure::name_servers(lease, &task.etc).map(|()| new));
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

/// Starts the thread. It tells with the number of its card.
pub fn spawn<T: From<Word> + Send + 'static>(
    nic: Nic,
    task: Task,
    tell: Sender<(u32, T)>,
) -> Arc<Shared> {
    let shared = Arc::new(Shared::default());
    let thread = Arc::clone(&shared);
    std::thread::spawn(move || {
        let say = |word: Word| {
            // Nobody listens any more once a card has been chosen.
            let _ = tell.send((nic.index, word.into()));
        };
        run(&nic, &task, &thread, &say);
    });
    shared
}
