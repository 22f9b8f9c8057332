//! TFTP, read-only: RFC 1350 with options (2347), block size (2348), transfer size and
//! time-out (2349) and window size (7440).
//!
//! Owns: the packet codec ([`packet`]), the course of one transfer without sockets
//! ([`transfer`]) and the server ([`server`]). Does not own: which files there are
//! (`netboot::files`).

pub mod negotiate;
pub mod packet;
pub mod server;
pub mod transfer;

pub use packet::{ErrorCode, Malformed, Packet, Request};
pub use transfer::{Step, Transfer};
