//! Rooms: an image to many machines at once, without a server.
//!
//! Owns: the control connections, and how sending and receiving
//! programs use the engines of `crates/multicast`. Does not own: the engines, the restore
//! (`crate::restore`), the command line.
//!
//! A receiver finds the sender by its announcements on the group, connects by TCP to the
//! port of the same number, and proves that it knows the room's code ([`code`]). Over that
//! connection ([`channel`]) it gets the manifest, the keys of the session, and in the end
//! whatever multicast did not bring.

pub mod channel;
pub mod code;
mod enter;
mod listing;
mod message;
pub mod receive;
pub mod send;
mod serve;

pub use enter::find;
pub use listing::Listing;
