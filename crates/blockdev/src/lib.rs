//! Block devices and raw image files: geometry, identity, holders, and I/O that
//! names its errors.
//!
//! Owns: everything that asks the kernel about a disk, and all `unsafe` code of the
//! project (see [`ioctl`]). Does not own: what the bytes on a disk mean (`diskmap`),
//! in what order they are written (`imager`).
//!
//! # Errors
//! Every failure is an [`Error`]: a stable [`ErrorKind`], the path, what was being
//! done, the byte offset where there is one, and the cause. Functions of
//! `std::io` shape return it inside an [`std::io::Error`]; [`Error::of`] takes it
//! out again.

#![warn(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod abilities;
mod buffer;
mod device;
mod direct;
mod erase;
mod error;
mod flags;
mod health;
mod holders;
mod identity;
mod io;
mod ioctl;
mod multipath;
pub mod nvme;
mod proc_tables;
mod sysfs;
mod text;
mod volume;
mod vpd;

pub use abilities::Abilities;
pub use buffer::AlignedBuf;
pub use device::{Device, Kind};
pub use error::{Error, ErrorKind, Operation};
pub use flags::make_changeable;
pub use health::{Health, health};
pub use holders::{Holder, PartitionNode, holders, holders_within, partition_nodes};
pub use identity::{DiskInfo, identify, list_disks};
pub use multipath::DiskPath;
pub use volume::{PartDevice, grow_btrfs, grow_ext4, grow_xfs};
