//! The search for a disk's users.
//!
//! Owns: following devices, partitions, stacks and loop devices upwards, and matching
//! mounts and swap areas against them. Does not own: how users are named (`holders`).

use super::Holder;
use crate::ioctl;
use crate::multipath;
use crate::proc_tables::{self, Mount};
use crate::sysfs::{self, DevNum, Roots};
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Block(DevNum),
    File { device: u64, inode: u64 },
}

/// The search: a growing set of device numbers that all sit on the subject.
struct Search<'a> {
    roots: &'a Roots,
    subject: Subject,
    /// Only what shares bytes with these counts; all of the subject if `None`.
    ranges: Option<&'a [Range<u64>]>,
    /// The subject by each path to it, if it is a device.
    whole: Vec<DevNum>,
    devices: BTreeSet<DevNum>,
    found: Vec<Holder>,
}

/// Everything found on the subject (or on some ranges of its bytes), each once.
pub(super) fn find(roots: &Roots, subject: Subject, ranges: Option<&[Range<u64>]>) -> Vec<Holder> {
    let mut search = Search {
        roots,
        subject,
        ranges,
        whole: Vec::new(),
        devices: BTreeSet::new(),
        found: Vec::new(),
    };
    if let Subject::Block(number) = subject {
        search.whole = multipath::siblings(roots, number);
        search.whole.push(number);
        for way in search.whole.clone() {
            search.add(way);
        }
    }
    let loops = attached_loops(roots);
    // Each round either finds a loop device on what is known, or ends.
    while let Some(device) = loops
        .iter()
        .find(|l| !search.devices.contains(&l.number) && search.is_under(l))
    {
        search.found.push(Holder::Loop {
            device: device.node.clone(),
            read_only: device.read_only,
        });
        search.add(device.number);
    }
    search.mounts();
    search.swaps();
    let mut seen = HashSet::new();
    search.found.retain(|holder| seen.insert(holder.clone()));
    search.found
}

impl Search<'_> {
    /// Adds a device, its partitions and everything that the kernel says is stacked
    /// on any of them.
    fn add(&mut self, number: DevNum) {
        let mut todo = vec![number];
        while let Some(number) = todo.pop() {
            if !self.devices.insert(number) {
                continue;
            }
            let Some(dir) = self.roots.dir_of(number) else {
                continue;
            };
            let root = self.whole.contains(&number);
            todo.extend(
                sysfs::partition_dirs(&dir)
                    .iter()
                    .filter(|dir| !root || self.counts(sysfs::partition_range(dir)))
                    .filter_map(|dir| sysfs::dev_num(dir)),
            );
            for name in sysfs::names(&dir.join("holders")).unwrap_or_default() {
                let holder = self.roots.disk_dir(&name);
                todo.extend(sysfs::dev_num(&holder));
                self.found.push(stacked(&name, &holder));
            }
        }
    }

    /// Whether these bytes of the subject are asked about; unknown ones are.
    fn counts(&self, range: Option<Range<u64>>) -> bool {
        let (Some(ranges), Some(range)) = (self.ranges, range) else {
            return true;
        };
        ranges
            .iter()
            .any(|asked| asked.start < range.end && range.start < asked.end)
    }

    fn is_under(&self, device: &LoopDevice) -> bool {
        let on_subject = match self.subject {
            Subject::Block(number) => device.backing_device == Some(number),
            Subject::File {
                device: d,
                inode: i,
            } => device.backing_file == Some((d, i)),
        };
        if on_subject {
            return self.counts(device.range.clone());
        }
        device
            .backing_device
            .is_some_and(|number| self.devices.contains(&number))
    }

    fn mounts(&mut self) {
        let btrfs = btrfs_sets(self.roots);
        for mount in all_mounts(self.roots) {
            if self.holds(&mount, &btrfs) {
                self.found.push(Holder::Mount {
                    source: mount.source,
                    target: mount.target,
                    read_write: mount.read_write,
                });
            }
        }
    }

    fn holds(&self, mount: &Mount, btrfs: &[BTreeSet<DevNum>]) -> bool {
        if self.devices.contains(&mount.device) {
            return true;
        }
        // The number of a Btrfs is no disk's, and it may span several disks of which
        // the table names one. A FUSE file system may name a plain file.
        match resolve(self.roots, &mount.source) {
            Some(Subject::Block(source)) => {
                self.devices.contains(&source)
                    || btrfs
                        .iter()
                        .any(|set| set.contains(&source) && !set.is_disjoint(&self.devices))
            }
            source => source == Some(self.subject),
        }
    }

    fn swaps(&mut self) {
        for source in proc_tables::swaps(&self.roots.table("swaps")) {
            let used = match resolve(self.roots, &source) {
                Some(Subject::Block(number)) => self.devices.contains(&number),
                file => file == Some(self.subject),
            };
            if used {
                self.found.push(Holder::Swap { source });
            }
        }
    }
}

fn stacked(name: &str, dir: &Path) -> Holder {
    let mapper_name = sysfs::bytes(dir, "dm/name");
    if !mapper_name.is_empty() && multipath::is_multipath(dir) {
        Holder::Multipath {
            name: crate::text::clean(&mapper_name),
            device: PathBuf::from(sysfs::node(name)),
        }
    } else if !mapper_name.is_empty() {
        Holder::DeviceMapper {
            name: crate::text::clean(&mapper_name),
        }
    } else if dir.join("md").exists() {
        Holder::Raid {
            name: name.to_owned(),
        }
    } else {
        Holder::Stacked {
            name: name.to_owned(),
        }
    }
}

/// A loop device with a file.
struct LoopDevice {
    node: PathBuf,
    number: DevNum,
    read_only: bool,
    /// File system's device number and inode of a backing regular file.
    backing_file: Option<(u64, u64)>,
    /// Device number of a backing block device.
    backing_device: Option<DevNum>,
    /// Bytes of what is behind it.
    range: Option<Range<u64>>,
}

fn attached_loops(roots: &Roots) -> Vec<LoopDevice> {
    let names = roots.disk_names().unwrap_or_default();
    names
        .iter()
        .filter(|name| name.starts_with("loop"))
        .filter_map(|name| attached_loop(roots, name))
        .collect()
}

fn attached_loop(roots: &Roots, name: &str) -> Option<LoopDevice> {
    let dir = roots.disk_dir(name);
    let file = sysfs::backing_file(&dir)?;
    let node = PathBuf::from(sysfs::node(name));
    let mut device = LoopDevice {
        number: sysfs::dev_num(&dir)?,
        read_only: sysfs::flag(&dir, "ro"),
        backing_file: None,
        backing_device: None,
        range: sysfs::loop_range(&dir),
        node,
    };
    // The driver's own answer holds for files that were renamed, deleted or belong
    // to another namespace; the name is what is left without the right to ask.
    let status = fs::File::open(&device.node)
        .ok()
        .and_then(|open| ioctl::loop_status(&open).ok());
    match status {
        Some(status) if status.lo_rdevice != 0 => {
            device.backing_device = Some(DevNum::from_raw(status.lo_rdevice))
        }
        Some(status) => device.backing_file = Some((status.lo_device, status.lo_inode)),
        None => match resolve(roots, &file) {
            Some(Subject::Block(number)) => device.backing_device = Some(number),
            Some(Subject::File {
                device: fs_device,
                inode,
            }) => device.backing_file = Some((fs_device, inode)),
            None => {}
        },
    }
    Some(device)
}

/// What a path in a table means: a block device by its name in sysfs (which works
/// without its node), else whatever stands there.
fn resolve(roots: &Roots, path: &Path) -> Option<Subject> {
    if !path.is_absolute() {
        return None;
    }
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(name) = real.strip_prefix("/dev") {
        let name = name.to_string_lossy().replace('/', "!");
        if let Some(number) = sysfs::dev_num(&roots.sys.join("class/block").join(name)) {
            return Some(Subject::Block(number));
        }
    }
    let metadata = fs::metadata(&real).ok()?;
    if metadata.file_type().is_block_device() {
        Some(Subject::Block(DevNum::from_raw(metadata.rdev())))
    } else {
        metadata.is_file().then(|| Subject::File {
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }
}

/// The device numbers of each Btrfs that is mounted or known.
fn btrfs_sets(roots: &Roots) -> Vec<BTreeSet<DevNum>> {
    let base = roots.sys.join("fs/btrfs");
    let file_systems = sysfs::names(&base).unwrap_or_default();
    let numbers = |fs: &String| -> BTreeSet<DevNum> {
        let devices = sysfs::names(&base.join(fs).join("devices")).unwrap_or_default();
        devices
            .iter()
            .filter_map(|name| sysfs::dev_num(&roots.sys.join("class/block").join(name)))
            .collect()
    };
    file_systems
        .iter()
        .map(numbers)
        .filter(|set| !set.is_empty())
        .collect()
}

/// Mounts of this process's namespace first, then of every other one that a process
/// is seen in.
fn all_mounts(roots: &Roots) -> Vec<Mount> {
    let mut mounts = proc_tables::mounts(&roots.table("self/mountinfo"));
    let mut namespaces: HashSet<PathBuf> = fs::read_link(roots.proc.join("self/ns/mnt"))
        .into_iter()
        .collect();
    for pid in sysfs::names(&roots.proc).unwrap_or_default() {
        if !pid.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        if let Ok(namespace) = fs::read_link(roots.proc.join(&pid).join("ns/mnt"))
            && namespaces.insert(namespace)
        {
            mounts.extend(proc_tables::mounts(
                &roots.table(&format!("{pid}/mountinfo")),
            ));
        }
    }
    mounts
}

#[cfg(test)]
mod tests;
