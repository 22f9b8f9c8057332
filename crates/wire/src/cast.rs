//! What is said of multicast sessions over the control connection.
//!
//! Owns: a session's settings, and the answers that a target gets. Does not own: the packets
//! (`crates/multicast`), when a session starts (the server). Paths under
//! `/v1/executions/{id}`:
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `POST /session` | | [`SessionReply`]: the target is ready, and waits for its session |
//! | `GET /session/plan` | | bytes of a symbol, then the length of each record with its header: 4 bytes each, little endian |
//! | `POST /session/join` | bitmap of the records that it wants | [`JoinReply`] |

use serde::{Deserialize, Serialize};

/// Port of image sessions, as sent to.
pub const PORT_MULTICAST: u16 = 26530;

/// A session that a restore belongs to. The target looks at `session` and `group` only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Id of the session.
    pub session: String,
    /// Group and port, as `239.1.2.3:26530` or `[ff05::1:2]:26530`.
    pub group: String,
    /// Interface of the server that sends; what its routes say if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Bytes a second with all headers; as fast as the network carries if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Targets that are waited for; all that were ordered and are not over if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<u32>,
    /// Seconds from the first target that is ready after which those that are there start;
    /// for ever if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_wait: Option<u32>,
    /// How many routers packets may pass, and one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub ttl: u8,
    /// Bytes of the image in a packet; as many as a packet of 1500 bytes holds if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub symbol: Option<u16>,
}

fn one() -> u8 {
    1
}

fn is_one(value: &u8) -> bool {
    *value == 1
}

/// Answer to a target that is ready and waits for its session, having written nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SessionReply {
    /// Ask again within a second or two.
    Wait {
        /// Targets that are ready.
        ready: u32,
        /// Targets that are waited for.
        targets: u32,
        /// Seconds until those that are there start, if there is a limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seconds: Option<u32>,
    },
    /// Write, then join.
    Start,
}

/// Answer to a target that joins. Its body is a bitmap of the records that it wants: bit i
/// (LSB first) = wants record i. Records are the chunks by their first place in the
/// manifest, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum JoinReply {
    /// What is needed to take part.
    Member {
        /// Number of the session in its packets.
        number: u32,
        /// Number of the receiver.
        receiver: u16,
        /// Key of the sender's packets, hex.
        down: String,
        /// Key of the receiver's packets, hex.
        up: String,
    },
    /// The session is over, has as many receivers as it can have, or has another list of
    /// records than the target: the rest comes by unicast.
    Unicast {
        /// Why, for people.
        why: String,
    },
}
