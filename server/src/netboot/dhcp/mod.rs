//! DHCP as far as proxyDHCP needs it, without sockets.
//!
//! Owns: the packet codec ([`packet`]) and the rules by which a request is answered
//! ([`answer`]). Does not own: sockets and interfaces (`netboot::proxy`). It never
//! gives out an address.

pub mod answer;
pub mod client;
pub mod conflict;
pub mod option;
pub mod packet;
#[cfg(test)]
pub(crate) mod testing;

pub use answer::{Answer, Destination, Ignored, Port, ProxyConfig, answer};
pub use client::{Client, Program};
pub use packet::{Malformed, MessageType, Packet};
