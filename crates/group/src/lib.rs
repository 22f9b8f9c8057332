//! How the engines of `crates/multicast` reach a network.
//!
//! Owns: sockets of a group (interface, TTL, buffers, the sender's port), and a clock that
//! leaves out what the program slept. Does not own: what packets say, threads, control
//! connections.

mod awake;
mod group;
mod outlet;

pub use awake::Awake;
pub use group::{BUFFER, Group, Listener, interface_of, receive, send};
pub use outlet::Outlet;
