//! Journals of ext3 and ext4 written by debugfs.
//!
//! Owns: the list of parts; see there.

#[path = "../common/mod.rs"]
mod common;
mod hostile;
#[path = "../ext/image.rs"]
mod image;
mod logged;
mod variants;
