//! Disk images that other programs made: qcow2, partclone and Clonezilla's.
//!
//! Owns: reading them, as a disk at any offset or as a stream of blocks, and telling what
//! of them cannot be read. Does not own: what is done with the bytes, names and folders of
//! files, options, or what a user is told.
//!
//! Every byte that is read is foreign: the parsers are total (no panic, overflow, unbounded
//! loop or allocation). What is not understood completely is refused, never guessed.

#![forbid(unsafe_code)]

mod bytes;
pub mod clonezilla;
mod error;
mod file;
mod kind;
mod lz4;
pub mod partclone;
pub mod qcow2;
mod unpack;

pub use error::Error;
pub use file::FileDisk;
pub use kind::{HEAD, Kind, TAIL, kind};
pub use unpack::{Packing, unpack};
