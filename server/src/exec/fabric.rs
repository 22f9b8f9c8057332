//! Disks of a storage network: whether a machine still sees those of its last disk check.
//!
//! Owns: which disks count, and what is a change. Does not own: when they are compared
//! ([`super::run`]).
//!
//! A zone or a LUN mask that somebody changes far away gives a machine other disks, or the
//! same one by fewer paths, without anybody having touched it: a job would take the wrong
//! disk, or one half of a broken pair. So the set is compared before every job. Local
//! disks are not: they change by people's hands in that machine, and jobs name them by
//! serial number.

use serde::{Deserialize, Serialize};
use wire::{DiskInfo, size};

/// What is remembered of a disk of a storage network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SanDisk {
    /// World wide name, else serial number, else the path.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Number of paths.
    pub paths: usize,
    /// Kinds of controllers and networks, as `fc by lpfc`: each once, sorted.
    pub controllers: Vec<String>,
}

/// The disks of a list that count, by name.
pub fn of(disks: &[DiskInfo]) -> Vec<SanDisk> {
    let mut found: Vec<SanDisk> = disks
        .iter()
        .filter(|disk| disk.is_of_san())
        .map(san_disk)
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn san_disk(disk: &DiskInfo) -> SanDisk {
    let name = [&disk.wwn, &disk.serial, &disk.path]
        .into_iter()
        .find(|name| !name.is_empty());
    let kind = |bus: &str, controller: &str| match controller {
        "" => bus.to_owned(),
        controller => format!("{bus} by {controller}"),
    };
    let mut controllers: Vec<String> = if disk.paths.is_empty() {
        vec![kind(&disk.bus, &disk.controller)]
    } else {
        let ways = disk.paths.iter();
        ways.map(|way| kind(&way.bus, &way.controller)).collect()
    };
    controllers.sort();
    controllers.dedup();
    SanDisk {
        name: name.cloned().unwrap_or_default(),
        size_bytes: disk.size_bytes,
        paths: disk.paths.len().max(1),
        controllers,
    }
}

/// What changed between two lists of [`of`], a sentence each; empty if nothing did.
pub fn changes(before: &[SanDisk], now: &[SanDisk]) -> Vec<String> {
    let find = |list: &[SanDisk], name: &str| list.iter().find(|d| d.name == name).cloned();
    let mut found = Vec::new();
    for old in before {
        match find(now, &old.name) {
            None => found.push(format!("disk {} is gone", describe(old))),
            Some(new) => found.extend(change(old, &new)),
        }
    }
    for new in now {
        if find(before, &new.name).is_none() {
            found.push(format!("disk {} is new", describe(new)));
        }
    }
    found
}

fn describe(disk: &SanDisk) -> String {
    format!(
        "{} ({}, {}, {})",
        disk.name,
        size::bytes(disk.size_bytes),
        paths(disk.paths),
        disk.controllers.join(", ")
    )
}

fn paths(count: usize) -> String {
    match count {
        1 => "1 path".to_owned(),
        count => format!("{count} paths"),
    }
}

fn change(old: &SanDisk, new: &SanDisk) -> Option<String> {
    let mut parts = Vec::new();
    if old.size_bytes != new.size_bytes {
        parts.push(format!(
            "had {} bytes and has {}",
            old.size_bytes, new.size_bytes
        ));
    }
    if old.paths != new.paths {
        parts.push(format!(
            "had {} and has {}",
            paths(old.paths),
            paths(new.paths)
        ));
    }
    if old.controllers != new.controllers {
        parts.push(format!(
            "was reached over {} and is over {}",
            old.controllers.join(", "),
            new.controllers.join(", ")
        ));
    }
    (!parts.is_empty()).then(|| format!("disk {} {}", old.name, parts.join(", ")))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{changes, of};
    use wire::{DiskInfo, DiskPath};

    /// A LUN with so many paths.
    pub(crate) fn lun(wwn: &str, count: usize, controller: &str) -> DiskInfo {
        let way = |number: usize| DiskPath {
            path: format!("/dev/sd{number}"),
            address: format!("{number}:0:0:1"),
            bus: "fc".into(),
            controller: controller.into(),
        };
        DiskInfo {
            path: "/dev/dm-0".into(),
            wwn: wwn.into(),
            bus: "fc".into(),
            controller: controller.into(),
            size_bytes: 1 << 40,
            paths: (0..count).map(way).collect(),
            ..DiskInfo::default()
        }
    }

    fn local(serial: &str) -> DiskInfo {
        DiskInfo {
            serial: serial.into(),
            bus: "sata".into(),
            ..DiskInfo::default()
        }
    }

    #[test]
    fn local_disks_do_not_count() {
        let before = of(&[local("A"), lun("naa.1", 2, "lpfc")]);
        let now = of(&[lun("naa.1", 2, "lpfc"), local("B"), local("C")]);
        assert!(changes(&before, &now).is_empty());
        // A shared disk with two ports does, whatever it hangs on.
        let sas = DiskInfo {
            bus: "sas".into(),
            ..lun("naa.2", 2, "mpt3sas")
        };
        assert_eq!(of(&[local("A"), sas]).len(), 1);
    }

    #[test]
    fn paths_and_nodes_may_be_renamed() {
        let mut other = lun("naa.1", 2, "lpfc");
        other.path = "/dev/dm-9".into();
        other.paths.reverse();
        let (before, now) = (of(&[lun("naa.1", 2, "lpfc")]), of(&[other]));
        assert!(changes(&before, &now).is_empty());
    }

    #[test]
    fn every_change_is_told() {
        let before = of(&[lun("naa.1", 4, "lpfc"), lun("naa.2", 2, "lpfc")]);
        let now = of(&[lun("naa.3", 1, "lpfc"), lun("naa.1", 2, "qla2xxx")]);
        assert_eq!(
            changes(&before, &now),
            [
                "disk naa.1 had 4 paths and has 2 paths, was reached over fc by lpfc and is \
                 over fc by qla2xxx",
                "disk naa.2 (1.00 TiB, 2 paths, fc by lpfc) is gone",
                "disk naa.3 (1.00 TiB, 1 path, fc by lpfc) is new",
            ]
        );
        let mut larger = lun("naa.1", 4, "lpfc");
        larger.size_bytes += 512;
        let found = changes(&of(&[lun("naa.1", 4, "lpfc")]), &of(&[larger]));
        assert_eq!(
            found,
            ["disk naa.1 had 1099511627776 bytes and has 1099511628288"]
        );
    }
}
