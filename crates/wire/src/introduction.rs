//! What a server says of itself, without TLS too.
//!
//! Owns: the path and the message. Does not own: when it is believed (the target's
//! discovery; docs/explanation/trust.md).

use serde::{Deserialize, Serialize};

/// Where a server says who it is (GET, [`Introduction`]).
pub const INTRODUCTION_PATH: &str = "/v1/server";

/// What a server says of itself to who knows only its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// TCP port of check-in and image data (TLS).
    pub data_port: u16,
    /// SHA-256 of its public key, 64 hex digits.
    pub pin: String,
}
