//! ext2, ext3 and ext4 made by mke2fs, against e2fsprogs.
//!
//! Owns: the list of parts; see there.

#[path = "../common/mod.rs"]
mod common;

mod damage;
mod features;
mod image;
