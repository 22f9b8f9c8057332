//! XFS made by mkfs.xfs and filled by the kernel, against what xfsprogs says of it.
//!
//! Oracles: the free extents of xfs_db must be matched block by block, a restore by the
//! map onto garbage must pass xfs_repair, and every file in it must be the same.

#[path = "../common/mod.rs"]
mod common;

mod clean;
mod covered;
mod hostile;
mod image;
mod log;
mod oracle;
