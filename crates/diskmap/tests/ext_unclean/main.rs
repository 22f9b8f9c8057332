//! ext3 and ext4 that were not cleanly unmounted.
//!
//! Owns: the list of parts; see there. The tests mount loop devices and have to run as
//! root.

#[path = "../common/mod.rs"]
mod common;
mod crash;
#[path = "../ext/image.rs"]
mod image;
mod kernel;
