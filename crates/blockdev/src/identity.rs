//! Which disks there are, and what they are called.
//!
//! Owns: [`DiskInfo`], the list of whole disks, their stable names. Does not own:
//! several paths to one disk (`multipath`), choosing among disks, or who uses them
//! (`holders`).

use crate::device::{Device, Kind};
use crate::error::{Error, Operation};
use crate::multipath::{self, DiskPath};
use crate::sysfs::{self, DevNum, Roots};
use crate::text::clean;
use crate::vpd;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A disk and its stable names. Same fields as the message that carries it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct DiskInfo {
    /// Position in the list, from 0. For display only.
    pub number: u32,
    /// Device node, as `/dev/sda`, or path of a raw file.
    pub path: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Logical sector size in bytes; 512 for files.
    pub sector_size: u32,
    /// Physical sector size in bytes.
    pub physical_sector_size: u32,
    /// Vendor and model; for loop devices the backing file.
    pub model: String,
    /// Serial number; empty if the disk has none.
    pub serial: String,
    /// World wide name (naa., eui., uuid. or t10. form); empty if none.
    pub wwn: String,
    /// How it is attached: `virtio`, `sata`, `nvme`, `scsi`, `usb`, `mmc`, `loop`, `file`,
    /// `other`; over a network of disks `fc`, `iscsi`, `nvme-tcp`, `nvme-rdma`, `nvme-fc`;
    /// `sas`, which may be one.
    pub bus: String,
    /// Kernel driver of the controller; empty if unknown.
    pub controller: String,
    /// Links under `/dev/disk` that lead to it.
    pub names: Vec<String>,
    /// The paths to a disk that has several, or over which a multipath device stands.
    pub paths: Vec<DiskPath>,
    /// Removable medium.
    pub removable: bool,
    /// Write-protected.
    pub read_only: bool,
}

/// All whole disks, numbered in a stable order: by kind of device, then by name as
/// people count (`sdz` before `sdaa`), loop devices last. Without virtual devices
/// (RAM disks, device mapper, RAID), optical drives, drives without a medium and
/// loop devices without a file.
///
/// # Errors
/// Only if sysfs cannot be read.
pub fn list_disks() -> io::Result<Vec<DiskInfo>> {
    let mut disks = list_disks_in(&Roots::live())?;
    let names = stable_names(Path::new("/dev/disk"));
    for disk in &mut disks {
        disk.names = names_of(&names, disk);
    }
    Ok(disks)
}

/// Identity of any path to a disk: links are followed; a partition has its own path
/// and size and its disk's names; a raw file has bus `file`.
///
/// # Errors
/// An [`Error`] inside: `NotFound`, `NotADisk`, `PermissionDenied`.
pub fn identify(path: &Path) -> io::Result<DiskInfo> {
    let metadata = fs::metadata(path).map_err(|e| Error::new(Operation::Inspect, path, e))?;
    let real = fs::canonicalize(path).map_err(|e| Error::new(Operation::Inspect, path, e))?;
    if metadata.file_type().is_block_device() {
        let roots = Roots::live();
        if let Some(dir) = roots.dir_of(DevNum::from_raw(metadata.rdev())) {
            let mut info = describe(&dir);
            info.path = real.to_string_lossy().into_owned();
            let listed = list_disks_in(&roots).unwrap_or_default();
            if let Some(disk) = listed.into_iter().find(|disk| disk.is_at(&info.path)) {
                info.number = disk.number;
                info.paths = disk.paths;
            }
            info.names = names_of(&stable_names(Path::new("/dev/disk")), &info);
            return Ok(info);
        }
    }
    // A raw file, or a device on a system without sysfs: what opening it tells.
    let device = Device::open_read(path)?;
    Ok(DiskInfo {
        path: real.to_string_lossy().into_owned(),
        size_bytes: device.size_bytes(),
        sector_size: device.sector_size(),
        physical_sector_size: device.physical_sector_size(),
        bus: if device.kind() == Kind::File {
            "file"
        } else {
            "other"
        }
        .to_owned(),
        read_only: device.read_only(),
        ..DiskInfo::default()
    })
}

impl DiskInfo {
    /// Whether `path` is the disk's device or one of the paths to it.
    pub fn is_at(&self, path: &str) -> bool {
        self.path == path || self.paths.iter().any(|way| way.path == path)
    }
}

pub(crate) fn list_disks_in(roots: &Roots) -> io::Result<Vec<DiskInfo>> {
    let mut found: Vec<(Rank, DiskInfo)> = Vec::new();
    for name in roots.disk_names()? {
        let Some(rank) = rank(&name) else { continue };
        let dir = roots.disk_dir(&name);
        let detached = rank.0 == Class::Loop && sysfs::backing_file(&dir).is_none();
        // `hidden`: one path of a multipath NVMe drive, which has no node.
        if detached || sysfs::flag(&dir, "hidden") {
            continue;
        }
        let info = describe(&dir);
        if info.size_bytes > 0 {
            found.push((rank, info));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let single = found.into_iter().map(|(_, info)| info).collect();
    Ok(multipath::merge(roots, single)
        .into_iter()
        .zip(0u32..)
        .map(|(info, number)| DiskInfo { number, ..info })
        .collect())
}

/// Links below `dir` (by-id, by-path, ...) by the device that they lead to.
fn stable_names(dir: &Path) -> BTreeMap<PathBuf, Vec<String>> {
    let mut names: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for kind in ["by-id", "by-path"] {
        let dir = dir.join(kind);
        for name in sysfs::names(&dir).unwrap_or_default() {
            let link = dir.join(name);
            if let Ok(device) = fs::canonicalize(&link) {
                let text = clean(link.as_os_str().as_bytes());
                names.entry(device).or_default().push(text);
            }
        }
    }
    names
}

fn names_of(names: &BTreeMap<PathBuf, Vec<String>>, disk: &DiskInfo) -> Vec<String> {
    let ways = disk.paths.iter().map(|way| &way.path);
    let mut all: Vec<String> = std::iter::once(&disk.path)
        .chain(ways)
        .filter_map(|path| names.get(Path::new(path)))
        .flatten()
        .cloned()
        .collect();
    all.sort();
    all.dedup();
    all
}

/// Classes of device names, in the order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Nvme,
    Scsi,
    Virtio,
    Xen,
    Ide,
    Mmc,
    Loop,
}

/// Place in the list: class, then numbers as numbers and letters by length.
type Rank = (Class, Vec<u64>, usize, String);

/// Place of a whole disk of interest; none for everything else.
fn rank(name: &str) -> Option<Rank> {
    let letters = |class, rest: &str| {
        let ok = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_lowercase());
        ok.then(|| (class, Vec::new(), rest.len(), rest.to_owned()))
    };
    let numbers = |class, rest: &[&str]| {
        let numbers: Option<Vec<u64>> = rest
            .iter()
            .map(|n| {
                n.bytes()
                    .all(|b| b.is_ascii_digit())
                    .then(|| n.parse().ok())?
            })
            .collect();
        Some((class, numbers?, 0, String::new()))
    };
    if let Some(rest) = name.strip_prefix("nvme") {
        let (controller, namespace) = rest.split_once('n')?;
        numbers(Class::Nvme, &[controller, namespace])
    } else if let Some(rest) = name.strip_prefix("mmcblk") {
        numbers(Class::Mmc, &[rest])
    } else if let Some(rest) = name.strip_prefix("loop") {
        numbers(Class::Loop, &[rest])
    } else if let Some(rest) = name.strip_prefix("xvd") {
        letters(Class::Xen, rest)
    } else if let Some(rest) = name.strip_prefix("sd") {
        letters(Class::Scsi, rest)
    } else if let Some(rest) = name.strip_prefix("vd") {
        letters(Class::Virtio, rest)
    } else if let Some(rest) = name.strip_prefix("hd") {
        letters(Class::Ide, rest)
    } else {
        None
    }
}

/// What sysfs tells of a disk or partition, by its resolved directory.
pub(crate) fn describe(dir: &Path) -> DiskInfo {
    let name = sysfs::name_of(dir);
    let is_partition = dir.join("partition").exists();
    let disk = if is_partition {
        dir.parent().unwrap_or(dir)
    } else {
        dir
    };
    let bus = bus_of(disk);
    let sector_size = sysfs::number(disk, "queue/logical_block_size").unwrap_or(512);
    DiskInfo {
        number: 0,
        path: sysfs::node(&name),
        // Always in units of 512 bytes, whatever the sector size.
        size_bytes: sysfs::number::<u64>(dir, "size")
            .unwrap_or(0)
            .saturating_mul(512),
        sector_size,
        physical_sector_size: sysfs::number(disk, "queue/physical_block_size")
            .unwrap_or(sector_size),
        model: model_of(disk, &bus),
        serial: serial_of(disk, &bus),
        wwn: wwn_of(disk),
        controller: multipath::controller_of(disk),
        bus,
        names: Vec::new(),
        paths: Vec::new(),
        removable: sysfs::flag(disk, "removable"),
        read_only: sysfs::flag(dir, "ro"),
    }
}

fn bus_of(disk: &Path) -> String {
    let name = sysfs::name_of(disk);
    let behind = |fits: &dyn Fn(&str) -> bool| {
        let mut parts = disk.components();
        parts.any(|part| part.as_os_str().to_str().is_some_and(fits))
    };
    let hangs_on = |prefix: &str| behind(&|part| part.strip_prefix(prefix).is_some_and(is_number));
    match rank(&name).map(|rank| rank.0) {
        Some(Class::Nvme) => match multipath::nvme_transport(disk).as_str() {
            "" | "pcie" => "nvme",
            "tcp" => "nvme-tcp",
            "rdma" => "nvme-rdma",
            "fc" => "nvme-fc",
            _ => "other",
        },
        Some(Class::Virtio) => "virtio",
        Some(Class::Mmc) => "mmc",
        Some(Class::Loop) => "loop",
        Some(Class::Scsi) if hangs_on("usb") => "usb",
        Some(Class::Scsi) if hangs_on("ata") => "sata",
        Some(Class::Scsi) if behind(&|part| part.starts_with("rport-")) => "fc",
        Some(Class::Scsi) if hangs_on("session") => "iscsi",
        Some(Class::Scsi) if behind(&|part| part.starts_with("end_device-")) => "sas",
        Some(Class::Scsi) => "scsi",
        _ => "other",
    }
    .to_owned()
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

fn model_of(disk: &Path, bus: &str) -> String {
    if let Some(file) = sysfs::backing_file(disk) {
        return clean(file.as_os_str().as_bytes());
    }
    let vendor = clean(&sysfs::bytes(disk, "device/vendor"));
    let model = clean(&sysfs::bytes(
        disk,
        if bus == "mmc" {
            "device/name"
        } else {
            "device/model"
        },
    ));
    // "ATA" is what libata puts there, and virtio and NVMe have PCI numbers.
    if vendor.is_empty()
        || vendor == "ATA"
        || vendor.starts_with("0x")
        || model.starts_with(&vendor)
    {
        model
    } else {
        format!("{vendor} {model}").trim().to_owned()
    }
}

/// The first of: unit serial number page, the attributes of virtio, NVMe and MMC,
/// the serial number of the USB device that the disk sits in.
fn serial_of(disk: &Path, bus: &str) -> String {
    let candidates = [
        vpd::unit_serial(&sysfs::bytes(disk, "device/vpd_pg80")),
        clean(&sysfs::bytes(disk, "serial")),
        clean(&sysfs::bytes(disk, "device/serial")),
    ];
    if let Some(serial) = candidates.into_iter().find(|serial| !serial.is_empty()) {
        return serial;
    }
    if bus != "usb" {
        return String::new();
    }
    let usb_device = disk.ancestors().find(|dir| dir.join("idVendor").exists());
    usb_device
        .map(|dir| clean(&sysfs::bytes(dir, "serial")))
        .unwrap_or_default()
}

fn wwn_of(disk: &Path) -> String {
    let from_page = vpd::world_wide_name(&sysfs::bytes(disk, "device/vpd_pg83"));
    if !from_page.is_empty() {
        return from_page;
    }
    // NVMe has it at the namespace; the kernel makes one up from vendor and serial
    // ("nvme.8086-...") where the drive has none: not world wide, so not taken.
    let attributes = ["wwid", "device/wwid"].map(|name| clean(&sysfs::bytes(disk, name)));
    let known = |name: &String| {
        ["naa.", "eui.", "uuid.", "t10."]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    attributes.into_iter().find(known).unwrap_or_default()
}

#[cfg(test)]
mod tests;
