//! DHCP for a target: an own, small client (RFC 2131) without I/O of its own.
//!
//! Owns: packets, the state machine, and the socket that drives it. Does not own: what
//! is configured with a lease ([`super`]).

pub mod announced;
pub mod machine;
pub mod packet;
pub mod socket;

pub use announced::Announced;
pub use machine::{Event, Machine};
pub use packet::{Identity, Lease, Proxy};
