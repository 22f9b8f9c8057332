//! Who uses a disk.
//!
//! Owns: finding mounts, swap areas, device mapper, RAID and loop devices on a disk,
//! its partitions, and whatever is stacked on those. Does not own: the decision
//! whether that forbids a job.
//!
//! Mounts in other mount namespaces (containers) are seen as far as `/proc` shows
//! their processes. A last resort asks the kernel for exclusive use, which finds
//! what no table tells.

mod search;

use crate::device::Kind;
use crate::error::{Error, ErrorKind, Operation};
use crate::sysfs::{self, DevNum, Roots};
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use search::{Subject, find};

/// One user of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Holder {
    /// A mounted file system.
    Mount {
        /// Device or file as mounted.
        source: PathBuf,
        /// Mount point.
        target: PathBuf,
        /// Whether the file system may be written.
        read_write: bool,
    },
    /// Swap space in use.
    Swap {
        /// Device or file.
        source: PathBuf,
    },
    /// A device mapper device (LVM, encryption, multipath).
    DeviceMapper {
        /// Its name under `/dev/mapper`.
        name: String,
    },
    /// The multipath device that stands for all paths to the disk.
    Multipath {
        /// Its name under `/dev/mapper`.
        name: String,
        /// Its node.
        device: PathBuf,
    },
    /// A RAID array.
    Raid {
        /// Its name under `/dev`.
        name: String,
    },
    /// A loop device.
    Loop {
        /// Its node.
        device: PathBuf,
        /// Whether it was attached write-protected.
        read_only: bool,
    },
    /// Another stacked driver (bcache, DRBD, ...).
    Stacked {
        /// Its name under `/dev`.
        name: String,
    },
    /// The kernel refuses exclusive use, and no table tells why: a mount that this
    /// process cannot see, or a program that opened the disk exclusively.
    Exclusive {
        /// The disk.
        device: PathBuf,
    },
}

impl Holder {
    /// Whether this holder may change the disk while it is read: all but read-only
    /// mounts and write-protected loop devices.
    pub fn may_write(&self) -> bool {
        let only_reads = matches!(
            self,
            Holder::Mount {
                read_write: false,
                ..
            } | Holder::Loop {
                read_only: true,
                ..
            }
        );
        !only_reads
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Mount {
                source,
                target,
                read_write,
            } => {
                let how = if *read_write {
                    "read-write"
                } else {
                    "read-only"
                };
                write!(
                    f,
                    "{} is mounted {how} at {}",
                    source.display(),
                    target.display()
                )
            }
            Holder::Swap { source } => write!(f, "{} is swap space in use", source.display()),
            Holder::DeviceMapper { name } => write!(f, "device mapper volume {name}"),
            Holder::Multipath { name, device } => write!(
                f,
                "it is a path of multipath device {name}, which is to be used instead: {}",
                device.display()
            ),
            Holder::Raid { name } => write!(f, "RAID array {name}"),
            Holder::Loop { device, read_only } => {
                let how = if *read_only {
                    "read-only loop device"
                } else {
                    "loop device"
                };
                write!(f, "{how} {}", device.display())
            }
            Holder::Stacked { name } => write!(f, "block device {name} on top"),
            Holder::Exclusive { device } => write!(
                f,
                "{} is opened exclusively by something else",
                device.display()
            ),
        }
    }
}

/// Everything that uses the disk (or raw file) at `path`: the disk itself, each of
/// its partitions, and what is stacked on them; by whatever path it is reached. Empty means free. Call it before
/// opening the disk for writing: one's own exclusive handle counts as a holder.
///
/// # Errors
/// An [`Error`] inside: `NotFound`, `NotADisk`.
pub fn holders(path: &Path) -> io::Result<Vec<Holder>> {
    find_on(path, None)
}

/// As [`holders`], but of partitions and loop devices on the disk only those that share
/// bytes with `ranges` count. What uses the disk as a whole counts always.
///
/// # Errors
/// As [`holders`].
pub fn holders_within(path: &Path, ranges: &[Range<u64>]) -> io::Result<Vec<Holder>> {
    let found = find_on(path, Some(ranges))?;
    if !found.is_empty() {
        return Ok(found);
    }
    // A claim that nothing known explains may be about these ranges.
    let unknown = |holder: &Holder| matches!(holder, Holder::Exclusive { .. });
    Ok(find_on(path, None)?.into_iter().filter(unknown).collect())
}

/// A partition that the kernel knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionNode {
    /// Its node, as `/dev/sda2`.
    pub path: PathBuf,
    /// Bytes of the disk.
    pub range: Range<u64>,
}

/// The partitions of a disk that the kernel has nodes for; none of a raw file.
pub fn partition_nodes(disk: &Path) -> Vec<PartitionNode> {
    let roots = Roots::live();
    let Some(dir) = fs::metadata(disk)
        .ok()
        .and_then(|metadata| roots.dir_of(DevNum::from_raw(metadata.rdev())))
    else {
        return Vec::new();
    };
    let node = |dir: &PathBuf| {
        Some(PartitionNode {
            path: sysfs::node(dir.file_name()?.to_str()?).into(),
            range: sysfs::partition_range(dir)?,
        })
    };
    sysfs::partition_dirs(&dir)
        .iter()
        .filter_map(node)
        .collect()
}

fn find_on(path: &Path, ranges: Option<&[Range<u64>]>) -> io::Result<Vec<Holder>> {
    let roots = Roots::live();
    let metadata = fs::metadata(path).map_err(|e| Error::new(Operation::Inspect, path, e))?;
    let kind = crate::device::kind_of(&metadata.file_type(), path)?;
    let subject = match kind {
        Kind::Block => Subject::Block(DevNum::from_raw(metadata.rdev())),
        Kind::File => Subject::File {
            device: metadata.dev(),
            inode: metadata.ino(),
        },
    };
    let mut found = find(&roots, subject, ranges);
    if ranges.is_none() && found.is_empty() && kind == Kind::Block && is_claimed(path) {
        found.push(Holder::Exclusive {
            device: path.to_owned(),
        });
    }
    Ok(found)
}

/// Whether the kernel refuses an exclusive open for reading, which changes nothing.
fn is_claimed(path: &Path) -> bool {
    let opened = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_EXCL)
        .open(path);
    opened.is_err_and(|e| Error::new(Operation::Open, path, e).kind() == ErrorKind::Busy)
}
