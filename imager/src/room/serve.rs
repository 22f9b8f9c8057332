//! The sender's side of control connections: a thread for each.
//!
//! Owns: the handshake, counting wrong codes, and answering one receiver. Does not own: the
//! session, which is another thread's; it is told by [`Told`].

use super::Listing;
use super::channel::{Channel, Refused};
use super::code::RoomCode;
use super::message::{self, MAX_FETCH, Reply, Request, Welcome};
use crossbeam_channel::{Receiver, Sender, bounded};
use multicast::{Membership, Plan, Reason};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Wrong codes after which nobody is taken in any more: one guess in ten billion was right.
const WRONG_CODES: u32 = 100;
/// Connections at once, those that have not shown the code among them.
const CONNECTIONS: u32 = 4096;
/// How often a thread that waits looks whether it should go on.
const TICK: Duration = Duration::from_millis(200);
/// A receiver may be silent for long while it writes and reads back.
const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What all connections share.
pub(super) struct Room {
    pub listing: Arc<Listing>,
    pub name: String,
    pub plan: Plan,
    pub code: RoomCode,
    pub told: Sender<Told>,
    /// Set when the room starts.
    pub started: AtomicBool,
    /// Set when nobody is waited for any more.
    pub over: AtomicBool,
    pub wrong: AtomicU32,
    pub connections: AtomicU32,
}

/// What a connection tells the session.
pub(super) enum Told {
    /// A receiver is ready.
    Ready(SocketAddr),
    /// A receiver takes part; the answer is for it.
    Join(Sender<Option<Membership>>),
    /// A connection is over: who, its number if it took part, whether it was ready, and
    /// how it ended.
    Gone(SocketAddr, Option<u16>, bool, Outcome),
    /// Something that a person should see.
    Note(String),
}

/// How a receiver ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With proof.
    Done {
        /// Records by multicast.
        multicast: u32,
        /// Records over the control connection.
        unicast: u32,
        /// Why not all by multicast.
        why: Option<String>,
    },
    /// It said why.
    Failed(String),
    /// The connection broke.
    Lost(String),
}

/// Takes connections until the room is over.
pub(super) fn listen(room: &Arc<Room>, listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    while !room.over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                if room.connections.load(Ordering::Relaxed) >= CONNECTIONS
                    || room.wrong.load(Ordering::Relaxed) >= WRONG_CODES
                {
                    continue;
                }
                let shared = Arc::clone(room);
                let taken = stream.set_nonblocking(false).and_then(|()| {
                    std::thread::Builder::new()
                        .name("receiver".into())
                        .spawn(move || one(&shared, stream, from))
                });
                // The next one may find room.
                if let Err(error) = taken {
                    let text = format!("{from} could not be taken in: {error}");
                    let _ = room.told.send(Told::Note(text));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::sleep(TICK / 4);
            }
            // What is wrong with one connection is not wrong with the next.
            Err(_) => std::thread::sleep(TICK),
        }
    }
    Ok(())
}

fn one(room: &Room, stream: TcpStream, from: SocketAddr) {
    room.connections.fetch_add(1, Ordering::Relaxed);
    let told = &room.told;
    match Channel::accept(stream, &room.code) {
        Ok(mut channel) => {
            let mut state = State::default();
            let outcome = answer(room, &mut channel, from, &mut state)
                .unwrap_or_else(|error| Outcome::Lost(error.to_string()));
            let _ = told.send(Told::Gone(from, state.receiver, state.ready, outcome));
        }
        Err(Refused::Code) => {
            let wrong = room.wrong.fetch_add(1, Ordering::Relaxed) + 1;
            let more = if wrong >= WRONG_CODES {
                "; too many were wrong, nobody else is taken in"
            } else {
                ""
            };
            let _ = told.send(Told::Note(format!("{from} has a wrong code{more}")));
        }
        Err(Refused::Foreign | Refused::Io(_)) => {}
    }
    room.connections.fetch_sub(1, Ordering::Relaxed);
}

#[derive(Default)]
struct State {
    ready: bool,
    receiver: Option<u16>,
}

fn answer(
    room: &Room,
    channel: &mut Channel,
    from: SocketAddr,
    state: &mut State,
) -> io::Result<Outcome> {
    let lost = || io::Error::other("the session is over");
    let stop = || room.over.load(Ordering::Relaxed);
    greet(room, channel)?;
    loop {
        match message::receive(channel, PATIENCE, &stop)? {
            Request::Ready => {
                if !state.ready {
                    state.ready = true;
                    room.told.send(Told::Ready(from)).map_err(|_| lost())?;
                }
                while !room.started.load(Ordering::Relaxed) {
                    if channel.is_closed() {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    if stop() {
                        return Err(lost());
                    }
                    std::thread::sleep(TICK / 4);
                }
                message::send(channel, &Reply::Start)?;
            }
            Request::Join => {
                let (tx, rx): (_, Receiver<Option<Membership>>) = bounded(1);
                room.told.send(Told::Join(tx)).map_err(|_| lost())?;
                let reply = match rx.recv().map_err(|_| lost())? {
                    None => Reply::Full,
                    Some(member) => {
                        state.receiver = Some(member.receiver);
                        Reply::Member {
                            session: member.session,
                            receiver: member.receiver,
                            down: hex::encode(member.down.to_bytes()),
                            up: hex::encode(member.up.to_bytes()),
                        }
                    }
                };
                message::send(channel, &reply)?;
            }
            Request::Fetch { records } => {
                for record in records.into_iter().take(MAX_FETCH) {
                    let bytes = room.listing.record(record)?;
                    channel.send(&bytes.unwrap_or_default())?;
                }
            }
            Request::Done {
                multicast,
                unicast,
                why,
            } => {
                return Ok(Outcome::Done {
                    multicast,
                    unicast,
                    why,
                });
            }
            Request::Failed { found } => return Ok(Outcome::Failed(found)),
        }
    }
}

fn greet(room: &Room, channel: &mut Channel) -> io::Result<()> {
    let listing = &room.listing;
    let welcome = Welcome {
        name: room.name.clone(),
        root: listing.root.root.to_hex(),
        manifest_len: listing.manifest_len(),
        records: room.plan.records(),
        symbol_len: room.plan.symbol_len() as u16,
    };
    message::send(channel, &welcome)?;
    listing.manifest(|piece| channel.send(piece))?;
    let lengths: Vec<u8> = listing.lengths().flat_map(u32::to_le_bytes).collect();
    lengths
        .chunks(1 << 20)
        .try_for_each(|piece| channel.send(piece))
}

/// Why a receiver is no longer of the session.
pub(super) fn reason(outcome: &Outcome) -> Reason {
    match outcome {
        Outcome::Done { .. } => Reason::Done,
        Outcome::Failed(_) => Reason::Stopped,
        Outcome::Lost(_) => Reason::Vanished,
    }
}
