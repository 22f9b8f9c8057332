//! The kernel's tree of block devices.
//!
//! Owns: where things stand in sysfs and procfs, under roots that a test can move.
//! Does not own: what they are used for.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Longest attribute read; a real one fits in a page (VPD pages too).
const MAX_ATTRIBUTE: u64 = 16 << 10;
/// Longest table read from procfs: mount tables of container hosts run to megabytes.
const MAX_TABLE: u64 = 64 << 20;

/// Device number of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct DevNum {
    pub major: u32,
    pub minor: u32,
}

impl DevNum {
    /// Reads `8:1`.
    pub fn parse(text: &str) -> Option<DevNum> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(DevNum {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// From `st_dev` or `st_rdev`.
    #[allow(clippy::cast_possible_truncation)] // both halves have 32 bits
    pub fn from_raw(raw: u64) -> DevNum {
        DevNum {
            major: libc::major(raw) as u32,
            minor: libc::minor(raw) as u32,
        }
    }
}

/// Where sysfs and procfs are.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    pub sys: PathBuf,
    pub proc: PathBuf,
}

impl Roots {
    /// The running kernel's.
    pub fn live() -> Roots {
        Roots {
            sys: "/sys".into(),
            proc: "/proc".into(),
        }
    }

    /// Names of whole disks, as sysfs spells them.
    pub fn disk_names(&self) -> io::Result<Vec<String>> {
        names(&self.sys.join("block"))
    }

    /// Directory of a whole disk with all links resolved, so that its ancestors are
    /// the buses it hangs on.
    pub fn disk_dir(&self, name: &str) -> PathBuf {
        let link = self.sys.join("block").join(name);
        fs::canonicalize(&link).unwrap_or(link)
    }

    /// Directory of any block device, partitions too; none if the kernel has no such
    /// device.
    pub fn dir_of(&self, number: DevNum) -> Option<PathBuf> {
        fs::canonicalize(
            self.sys
                .join(format!("dev/block/{}:{}", number.major, number.minor)),
        )
        .ok()
    }

    /// A table of procfs, cut at a generous limit.
    pub fn table(&self, relative: &str) -> Vec<u8> {
        read_limited(&self.proc.join(relative), MAX_TABLE).unwrap_or_default()
    }
}

/// Names in a directory, as text; names that are no UTF-8 do not occur in sysfs.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Bytes of an attribute; empty if it is not there or cannot be read.
pub(crate) fn bytes(dir: &Path, attribute: &str) -> Vec<u8> {
    read_limited(&dir.join(attribute), MAX_ATTRIBUTE).unwrap_or_default()
}

/// A number in an attribute.
pub(crate) fn number<T: std::str::FromStr>(dir: &Path, attribute: &str) -> Option<T> {
    std::str::from_utf8(&bytes(dir, attribute))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// Whether a flag attribute is set.
pub(crate) fn flag(dir: &Path, attribute: &str) -> bool {
    number::<u64>(dir, attribute).is_some_and(|n| n != 0)
}

/// Device number in an attribute named `dev`.
pub(crate) fn dev_num(dir: &Path) -> Option<DevNum> {
    DevNum::parse(std::str::from_utf8(&bytes(dir, "dev")).ok()?)
}

/// Directories of the partitions of a disk's directory.
pub(crate) fn partition_dirs(disk: &Path) -> Vec<PathBuf> {
    let children = names(disk).unwrap_or_default();
    children
        .into_iter()
        .map(|name| disk.join(name))
        .filter(|dir| dir.join("partition").exists())
        .collect()
}

/// Bytes of its disk that a partition covers; sysfs counts in 512 bytes.
pub(crate) fn partition_range(dir: &Path) -> Option<Range<u64>> {
    let bytes = |attribute| number::<u64>(dir, attribute)?.checked_mul(512);
    let start = bytes("start")?;
    Some(start..start.checked_add(bytes("size")?)?)
}

/// Bytes of its file that a loop device covers.
pub(crate) fn loop_range(dir: &Path) -> Option<Range<u64>> {
    let start: u64 = number(dir, "loop/offset")?;
    let size = number::<u64>(dir, "size")?.checked_mul(512)?;
    Some(start..start.checked_add(size)?)
}

/// Path of the file behind a loop device; none if it is not attached. The kernel
/// marks a deleted file at the end of its name.
pub(crate) fn backing_file(disk: &Path) -> Option<PathBuf> {
    let text = bytes(disk, "loop/backing_file");
    let text = text.strip_suffix(b"\n").unwrap_or(&text);
    (!text.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(text)))
}

/// Node under `/dev` for a sysfs name, in which `!` stands for `/`.
pub(crate) fn node(name: &str) -> String {
    format!("/dev/{}", name.replace('!', "/"))
}

/// Last part of a path, as text.
pub(crate) fn name_of(dir: &Path) -> String {
    dir.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read_limited(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    fs::File::open(path)?.take(limit).read_to_end(&mut data)?;
    Ok(data)
}

#[cfg(test)]
mod tests {
    use super::{DevNum, node};

    #[test]
    fn device_numbers() {
        assert_eq!(
            DevNum::parse("259:7\n"),
            Some(DevNum {
                major: 259,
                minor: 7
            })
        );
        for bad in ["", "8", "8:", ":1", "8:1:2", "-1:0", "99999999999:0"] {
            assert_eq!(DevNum::parse(bad), None, "{bad}");
        }
        assert_eq!(
            DevNum::from_raw(libc::makedev(259, 1_000_000)),
            DevNum {
                major: 259,
                minor: 1_000_000
            }
        );
        assert_eq!(node("cciss!c0d0"), "/dev/cciss/c0d0");
    }
}
