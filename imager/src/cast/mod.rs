//! Images that come by multicast.
//!
//! Owns: how a restore uses the engine of `crates/multicast`: which records it wants, the
//! way from packets to the disk, and going on by unicast; and the session of a server. Does
//! not own: the engine, sockets (`crates/group`), rooms without a server (`crate::room`).

mod course;
mod desk;
mod places;
pub mod server;
mod write;

pub(crate) use course::{Control, Course, Image, Joined, Wanted};
pub(crate) use places::Places;
