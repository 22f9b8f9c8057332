//! Messages between target and server, the error catalogue and the protocol version.
//!
//! Owns: what is said. Does not own: how it is sent (sockets, TLS, HTTP) or what a
//! disk looks like. Nothing here does I/O.

pub mod cast;
pub mod codec;
pub mod codes;
pub mod finish;
pub mod hardware;
pub mod introduction;
pub mod message;
pub mod report;
pub mod scope;
pub mod script;
pub mod set;
pub mod size;
pub mod wipe;

pub use cast::{JoinReply, PORT_MULTICAST, Session, SessionReply};
pub use codec::Codec;
pub use codes::Code;
pub use hardware::{DiskHealth, Hardware, MemoryModule, PciDevice};
pub use introduction::{INTRODUCTION_PATH, Introduction};
pub use message::*;
pub use report::{DiskState, Report};
pub use scope::{GrowChoice, PartitionPair, RestoreScope};
pub use script::ScriptResult;
pub use set::{BeginWrite, DiskImage};
pub use wipe::{WipeMethod, WipeOrder, WipeProof, Wiped};

/// Version of the conversation between target and server. Both sides send it in
/// [`PROTOCOL_HEADER`]; a server refuses a target whose major number it does not know.
///
/// * 1: check-in, chunks by hash, manifests, final states (first version).
pub const PROTOCOL_VERSION: u32 = 1;

/// HTTP header that carries [`PROTOCOL_VERSION`] in both directions.
pub const PROTOCOL_HEADER: &str = "deploy-protocol";

/// Version of the software, as shown to people.
pub const SOFTWARE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Web console, API and boot scripts (plain HTTP).
pub const PORT_CONSOLE: u16 = 26500;
/// Check-in and image data between target and server (TLS).
pub const PORT_DATA: u16 = 26501;
