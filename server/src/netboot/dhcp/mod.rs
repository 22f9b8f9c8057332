//! DHCP without sockets, files or clocks: what a boot server says beside an address
//! server, and what an address server says.
//!
//! Owns: the packet codec ([`packet`]), the rules by which a boot server answers
//! ([`answer`]), which never names an address, and those by which addresses are leased
//! ([`lease`], [`table`], [`pool`]) or not ([`standing`]). Does not own: sockets and
//! interfaces (`netboot::proxy`, `netboot::lessor`).

pub mod answer;
pub mod client;
pub mod conflict;
pub mod lease;
pub mod option;
pub mod packet;
pub mod pool;
pub mod standing;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;

pub use answer::{Answer, Destination, Ignored, Port, ProxyConfig, answer};
pub use client::{Client, Program};
pub use packet::{Malformed, MessageType, Packet};
