//! The kernel's tables of mounts and swap areas.
//!
//! Owns: reading `/proc/PID/mountinfo` and `/proc/swaps`, total on any bytes (both
//! carry names that users choose). Does not own: what follows from them.

use crate::sysfs::DevNum;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// One line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Number of the device; an anonymous one for Btrfs and virtual file systems.
    pub device: DevNum,
    /// Mount point.
    pub target: PathBuf,
    /// File system type.
    pub fs_type: String,
    /// Source as the mounter gave it.
    pub source: PathBuf,
    /// Whether the file system (not just this mount of it) may be written.
    pub read_write: bool,
}

/// All lines that can be read; others are passed over.
pub(crate) fn mounts(table: &[u8]) -> Vec<Mount> {
    table.split(|&b| b == b'\n').filter_map(mount).collect()
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = DevNum::parse(std::str::from_utf8(fields.nth(2)?).ok()?)?;
    let target = path(fields.nth(1)?);
    // Optional fields end with a single dash.
    fields.find(|field| *field == b"-")?;
    let fs_type = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = path(fields.next()?);
    let read_write = fields
        .next()
        .unwrap_or_default()
        .split(|&b| b == b',')
        .any(|option| option == b"rw");
    Some(Mount {
        device,
        target,
        fs_type,
        source,
        read_write,
    })
}

/// Paths of the swap areas in use: devices or files.
pub(crate) fn swaps(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|&b| b == b'\n').skip(1);
    lines
        .filter_map(|line| line.split(|&b| b == b' ' || b == b'\t').next())
        .filter(|f| !f.is_empty())
        .map(path)
        .collect()
}

/// Undoes the kernel's octal escapes (`\040` for a space).
fn path(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), tail)
            }
            _ => (first, after),
        };
        bytes.push(byte);
        rest = after;
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::{mounts, swaps};
    use crate::sysfs::DevNum;
    use std::path::Path;

    const TABLE: &[u8] = b"\
36 35 98:0 /mnt1 /mnt/with\\040space rw,noatime master:1 - ext3 /dev/root rw,errors=continue
37 35 8:17 / /srv/back\\134slash ro,relatime shared:4 master:2 - xfs /dev/sdb1 rw,attr2
38 35 0:45 / /data rw - btrfs /dev/sdc ro,ssd
garbage
39 35 x:1 / /bad rw - ext4 /dev/sdd rw
40 35 8:1 / /short rw
";

    #[test]
    fn mount_lines() {
        let mounts = mounts(TABLE);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[0].target, Path::new("/mnt/with space"));
        assert_eq!(
            mounts[0].device,
            DevNum {
                major: 98,
                minor: 0
            }
        );
        assert_eq!(mounts[1].target, Path::new("/srv/back\\slash"));
        assert!(
            mounts[1].read_write,
            "a read-only mount of a writable file system"
        );
        assert_eq!(
            (mounts[2].fs_type.as_str(), mounts[2].read_write),
            ("btrfs", false)
        );
    }

    #[test]
    fn swap_lines() {
        let table = b"Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda2    partition\t1048572\t\t0\t\t-2\n/a\\040b file\t1\t0\t-3\n";
        assert_eq!(swaps(table), [Path::new("/dev/sda2"), Path::new("/a b")]);
        assert!(swaps(b"").is_empty());
    }

    #[test]
    fn any_bytes_are_survived() {
        for end in 0..TABLE.len() {
            mounts(&TABLE[..end]);
            swaps(&TABLE[end..]);
        }
        mounts(b"1 2 3:4 / \\9\\04\\777 - \\ - \\1");
    }
}
