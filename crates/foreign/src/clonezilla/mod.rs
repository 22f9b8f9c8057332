//! The texts and names in a Clonezilla image folder.
//!
//! Owns: what they say: disks, partitions, sizes, which files belong together. Does not own:
//! opening files, partclone images, putting a disk together.

mod files;
mod table;
mod words;

pub use files::{Content, Parts, contents, partition_name, partition_number, partition_of};
pub use table::{Entry, Table};
pub use words::{DiskSize, Swap, names};
