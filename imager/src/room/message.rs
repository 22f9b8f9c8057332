//! What sender and receivers of a room say to each other over the control connection.
//!
//! Owns: the messages. Does not own: how they travel (`channel`), bytes of manifest and
//! records, which are frames of their own.

use super::channel::Channel;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Duration;

/// Most records that are asked for at once.
pub const MAX_FETCH: usize = 4096;

/// From the sender, at once after the handshake; the manifest follows, and the lengths.
#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// Name of the image file, for people.
    pub name: String,
    /// Root of the image, as hex digits.
    pub root: String,
    /// Bytes of the manifest, which follows in frames.
    pub manifest_len: u64,
    /// Records: chunks by their first place in the manifest, each once. Their lengths with
    /// header follow in frames, 4 bytes each, little endian.
    pub records: u32,
    /// Bytes of a symbol.
    pub symbol_len: u16,
}

/// From a receiver.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Request {
    /// All checks have passed, and the person agreed. Answered by [`Reply::Start`] when the
    /// room starts.
    Ready,
    /// It listens to the group. Answered by [`Reply::Member`].
    Join,
    /// It wants these records; each is a frame of its own.
    Fetch {
        /// Their numbers, at most [`MAX_FETCH`].
        records: Vec<u32>,
    },
    /// It is finished, with proof.
    Done {
        /// Records that came by multicast, and over this connection.
        multicast: u32,
        /// The same, over this connection.
        unicast: u32,
        /// Why multicast did not bring everything, if it did not.
        why: Option<String>,
    },
    /// It failed.
    Failed {
        /// What it shows to its own person.
        found: String,
    },
}

/// From the sender.
#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Reply {
    /// The room starts.
    Start,
    /// What a receiver needs to take part.
    Member {
        /// Number of the session.
        session: u32,
        /// Number of the receiver.
        receiver: u16,
        /// Key of the sender's packets, as hex digits.
        down: String,
        /// Key of the receiver's packets, as hex digits.
        up: String,
    },
    /// There are as many receivers as there can be; records can still be fetched.
    Full,
}

/// Sends a message.
pub fn send(channel: &mut Channel, message: &impl Serialize) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?)
}

/// Receives a message.
pub fn receive<T: DeserializeOwned>(
    channel: &mut Channel,
    patience: Duration,
    stop: &dyn Fn() -> bool,
) -> io::Result<T> {
    let frame = channel.receive(patience, stop)?;
    serde_json::from_slice(&frame)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}
