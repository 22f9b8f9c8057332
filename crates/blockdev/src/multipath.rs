//! Several paths to one disk.
//!
//! Owns: which devices of the kernel are one disk of a SAN, and the device-mapper or NVMe
//! device that stands for all its paths. Does not own: the names of a single device
//! (`identity`).
//!
//! Two devices are one disk if a multipath device stands over both, or if they have the
//! same world wide name and size and hang on a bus on which a disk can have several
//! ports. Names that vendors copy (`t10.`, serial numbers of USB bridges) make nobody one:
//! two disks that are taken for one would be worse than one disk that is shown twice.

use crate::identity::{DiskInfo, describe};
use crate::sysfs::{self, DevNum, Roots};
use crate::text::clean;
use std::path::{Path, PathBuf};

/// One of the paths to a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskPath {
    /// Device node; for NVMe the controller, which has none for its path.
    pub path: String,
    /// Address on its bus, as `2:0:1:3`; empty if unknown.
    pub address: String,
    /// As [`DiskInfo::bus`].
    pub bus: String,
    /// As [`DiskInfo::controller`].
    pub controller: String,
}

/// A device-mapper device over paths.
struct Mapper {
    dir: PathBuf,
    /// Names of the devices below, as `sda`.
    members: Vec<String>,
}

/// Joins what is one disk; each stands at the place of its first path.
pub(crate) fn merge(roots: &Roots, disks: Vec<DiskInfo>) -> Vec<DiskInfo> {
    let mappers = mappers(roots);
    let mut merged: Vec<DiskInfo> = Vec::new();
    let mut taken = vec![false; disks.len()];
    for (at, disk) in disks.iter().enumerate() {
        if std::mem::replace(&mut taken[at], true) {
            continue;
        }
        let mapper = mappers.iter().find(|mapper| mapper.is_over(disk));
        let mut ways = vec![way_to(roots, disk)];
        for (other, taken) in disks.iter().zip(&mut taken) {
            let same = match mapper {
                Some(mapper) => mapper.is_over(other) || is_same(disk, other),
                None => is_same(disk, other),
            };
            if same && !*taken {
                *taken = true;
                ways.push(way_to(roots, other));
            }
        }
        let mut disk = disk.clone();
        if let Some(mapper) = mapper {
            let over = describe(&mapper.dir);
            disk.path = over.path;
            disk.read_only = over.read_only;
            disk.size_bytes = over.size_bytes;
        } else if ways.len() == 1 {
            ways = nvme_ways(&roots.disk_dir(name_of(&disk.path)));
        }
        disk.paths = ways;
        merged.push(disk);
    }
    merged
}

/// The other devices that are paths to the same disk as this whole disk or partition;
/// none for a multipath device, below which they are.
pub(crate) fn siblings(roots: &Roots, number: DevNum) -> Vec<DevNum> {
    let Some(dir) = roots.dir_of(number) else {
        return Vec::new();
    };
    let partition: Option<u32> = sysfs::number(&dir, "partition");
    let disk = match partition {
        Some(_) => dir.parent().unwrap_or(&dir),
        None => &dir,
    };
    let path = sysfs::node(&sysfs::name_of(disk));
    let listed = crate::identity::list_disks_in(roots).unwrap_or_default();
    let ways = listed
        .into_iter()
        .find(|listed| listed.paths.iter().any(|way| way.path == path))
        .map(|listed| listed.paths)
        .unwrap_or_default();
    ways.iter()
        .filter(|way| way.path != path)
        .filter_map(|way| {
            let dir = roots.disk_dir(name_of(&way.path));
            let Some(partition) = partition else {
                return sysfs::dev_num(&dir);
            };
            let mut dirs = sysfs::partition_dirs(&dir).into_iter();
            dirs.find(|dir| sysfs::number(dir, "partition") == Some(partition))
                .and_then(|dir| sysfs::dev_num(&dir))
        })
        .collect()
}

/// Whether a device-mapper device stands for all paths to a disk.
pub(crate) fn is_multipath(dir: &Path) -> bool {
    sysfs::bytes(dir, "dm/uuid").starts_with(b"mpath-")
}

/// Driver of the controller that a disk hangs on; empty if unknown.
pub(crate) fn controller_of(disk: &Path) -> String {
    let host = disk.ancestors().find(|dir| {
        let name = sysfs::name_of(dir);
        name.strip_prefix("host")
            .is_some_and(|rest| rest.parse::<u32>().is_ok())
    });
    if let Some(host) = host {
        let attribute = format!("scsi_host/{}/proc_name", sysfs::name_of(host));
        let name = clean(&sysfs::bytes(host, &attribute));
        if !name.is_empty() && name != "(null)" && name != "<NULL>" {
            return name;
        }
    }
    let above = host.unwrap_or(disk);
    above
        .ancestors()
        .skip(1)
        .filter_map(|dir| std::fs::canonicalize(dir.join("driver")).ok())
        .map(|driver| clean(sysfs::name_of(&driver).as_bytes()))
        .next()
        .unwrap_or_default()
}

/// How the controllers of an NVMe disk are reached (`pcie`, `tcp`, ...); of several ones
/// the first.
pub(crate) fn nvme_transport(disk: &Path) -> String {
    let own = clean(&sysfs::bytes(disk, "device/transport"));
    if !own.is_empty() {
        return own;
    }
    let ways = nvme_controllers(disk);
    let first = ways.first().map(|dir| sysfs::bytes(dir, "transport"));
    clean(&first.unwrap_or_default())
}

/// Controllers of the subsystem that a native multipath NVMe disk belongs to; empty for
/// one that hangs on its controller.
fn nvme_controllers(disk: &Path) -> Vec<PathBuf> {
    let subsystem = disk.join("device");
    let names = sysfs::names(&subsystem).unwrap_or_default();
    names
        .iter()
        .filter(|name| {
            name.strip_prefix("nvme")
                .is_some_and(|rest| rest.parse::<u32>().is_ok())
        })
        .map(|name| subsystem.join(name))
        .filter(|dir| dir.join("transport").exists())
        .collect()
}

fn nvme_ways(disk: &Path) -> Vec<DiskPath> {
    let controllers = nvme_controllers(disk);
    if controllers.len() < 2 {
        return Vec::new();
    }
    controllers
        .iter()
        .map(|dir| DiskPath {
            path: sysfs::node(&sysfs::name_of(dir)),
            address: clean(&sysfs::bytes(dir, "address")),
            bus: match clean(&sysfs::bytes(dir, "transport")).as_str() {
                "pcie" => "nvme".to_owned(),
                other => format!("nvme-{other}"),
            },
            controller: "nvme".to_owned(),
        })
        .collect()
}

fn mappers(roots: &Roots) -> Vec<Mapper> {
    let names = roots.disk_names().unwrap_or_default();
    names
        .iter()
        .filter(|name| name.starts_with("dm-"))
        .map(|name| roots.disk_dir(name))
        .filter(|dir| is_multipath(dir))
        .map(|dir| Mapper {
            members: sysfs::names(&dir.join("slaves")).unwrap_or_default(),
            dir,
        })
        .collect()
}

impl Mapper {
    fn is_over(&self, disk: &DiskInfo) -> bool {
        self.members.iter().any(|name| name == name_of(&disk.path))
    }
}

fn is_same(a: &DiskInfo, b: &DiskInfo) -> bool {
    let many_ports = |disk: &DiskInfo| matches!(disk.bus.as_str(), "fc" | "iscsi" | "sas" | "scsi");
    let network = |disk: &DiskInfo| matches!(disk.bus.as_str(), "fc" | "iscsi" | "sas");
    let world_wide = ["naa.", "eui.", "uuid."]
        .iter()
        .any(|prefix| a.wwn.starts_with(prefix));
    let by_wwn = world_wide && a.wwn == b.wwn && many_ports(a) && many_ports(b);
    // Old arrays tell a serial number and nothing better.
    let by_serial = a.wwn.is_empty()
        && b.wwn.is_empty()
        && !a.serial.is_empty()
        && (&a.serial, &a.model) == (&b.serial, &b.model)
        && network(a)
        && network(b);
    (by_wwn || by_serial) && a.size_bytes == b.size_bytes && a.sector_size == b.sector_size
}

fn way_to(roots: &Roots, disk: &DiskInfo) -> DiskPath {
    let device = roots.disk_dir(name_of(&disk.path)).join("device");
    let address = std::fs::canonicalize(device)
        .map(|dir| sysfs::name_of(&dir))
        .ok()
        .filter(|name| name.split(':').count() == 4);
    DiskPath {
        path: disk.path.clone(),
        address: clean(address.unwrap_or_default().as_bytes()),
        bus: disk.bus.clone(),
        controller: disk.controller.clone(),
    }
}

/// Name in sysfs of a node under `/dev`, as far as disks of several paths have one.
fn name_of(path: &str) -> &str {
    path.strip_prefix("/dev/").unwrap_or(path)
}

#[cfg(test)]
mod tests;
