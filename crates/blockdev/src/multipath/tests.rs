use crate::identity::{DiskInfo, list_disks_in};
use crate::sysfs::{DevNum, Roots};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A sysfs in a directory, as the kernel lays it out for disks of several paths.
struct Fake {
    dir: tempfile::TempDir,
    roots: Roots,
}

const SIZE: &str = "2097152\n";

impl Fake {
    fn new() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            sys: dir.path().join("sys"),
            proc: dir.path().join("proc"),
        };
        for below in ["block", "class/block", "dev/block"] {
            fs::create_dir_all(roots.sys.join(below)).unwrap();
        }
        Fake { dir, roots }
    }

    /// A block device at a place of the tree, with its number.
    fn block(&self, place: &str, name: &str, number: &str) -> PathBuf {
        let dir = self.dir.path().join("sys/devices").join(place).join(name);
        fs::create_dir_all(dir.join("holders")).unwrap();
        write(&dir, "size", SIZE);
        write(&dir, "dev", number);
        symlink(&dir, self.roots.sys.join("dev/block").join(number)).unwrap();
        symlink(&dir, self.roots.sys.join("class/block").join(name)).unwrap();
        dir
    }

    fn disk(&self, place: &str, name: &str, number: &str) -> PathBuf {
        let dir = self.block(place, name, number);
        symlink(&dir, self.roots.sys.join("block").join(name)).unwrap();
        dir
    }

    /// A SCSI disk behind a host: the path between them says how it is attached.
    fn scsi(&self, host: u32, between: &str, driver: &str, name: &str, wwn: &str) -> PathBuf {
        let address = format!("{host}:0:0:1");
        let place = format!("pci0000:00/0000:00:0{host}.0/host{host}/{between}/{address}");
        let minor = name.as_bytes().last().map_or(0, |b| (b - b'a') * 16);
        let disk = self.disk(&format!("{place}/block"), name, &format!("8:{minor}"));
        let devices = self.dir.path().join("sys/devices");
        let host_dir = format!("pci0000:00/0000:00:0{host}.0/host{host}");
        write(
            &devices.join(host_dir),
            &format!("scsi_host/host{host}/proc_name"),
            driver,
        );
        let device = devices.join(place);
        write(&device, "wwid", wwn);
        write(&device, "model", "LUN");
        symlink(device, disk.join("device")).unwrap();
        disk
    }

    /// A device-mapper device over disks.
    fn mapper(&self, minor: u32, name: &str, uuid: &str, below: &[&Path]) -> PathBuf {
        let dir = self.disk(
            "virtual/block",
            &format!("dm-{minor}"),
            &format!("253:{minor}"),
        );
        write(&dir, "dm/name", name);
        write(&dir, "dm/uuid", uuid);
        for member in below {
            let member_name = member.file_name().unwrap();
            fs::create_dir_all(dir.join("slaves")).unwrap();
            symlink(member, dir.join("slaves").join(member_name)).unwrap();
            symlink(&dir, member.join("holders").join(dir.file_name().unwrap())).unwrap();
        }
        dir
    }

    fn list(&self) -> Vec<DiskInfo> {
        list_disks_in(&self.roots).unwrap()
    }
}

fn write(dir: &Path, name: &str, value: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value).unwrap();
}

fn paths(disk: &DiskInfo) -> Vec<&str> {
    disk.paths.iter().map(|way| way.path.as_str()).collect()
}

const FC: &str = "rport-0:0-1/target0:0:0";
const ISCSI: &str = "session1/target0:0:0";
const SAS: &str = "port-0:0/end_device-0:0/target0:0:0";
const WWN: &str = "naa.600144f0c73b4a0000005f2a1b3c0001";

#[test]
fn two_paths_to_one_lun_are_one_disk() {
    let fake = Fake::new();
    fake.scsi(2, FC, "qla2xxx", "sda", WWN);
    fake.scsi(3, "target3:0:0", "ahci", "sdb", "naa.5000c500aaaaaaaa");
    fake.scsi(4, FC, "qla2xxx", "sdc", WWN);
    let list = fake.list();
    assert_eq!(list.len(), 2, "{list:#?}");
    assert_eq!(paths(&list[0]), ["/dev/sda", "/dev/sdc"]);
    assert_eq!(
        (list[0].path.as_str(), list[0].bus.as_str(), list[0].number),
        ("/dev/sda", "fc", 0)
    );
    assert_eq!(list[0].controller, "qla2xxx");
    assert_eq!(list[0].paths[1].address, "4:0:0:1");
    assert!(list[0].is_at("/dev/sdc") && !list[0].is_at("/dev/sdb"));
    assert_eq!((list[1].number, list[1].controller.as_str()), (1, "ahci"));
    assert!(list[1].paths.is_empty());
}

#[test]
fn the_multipath_device_stands_for_its_paths() {
    let fake = Fake::new();
    let a = fake.scsi(2, ISCSI, "iscsi_tcp", "sda", WWN);
    let b = fake.scsi(3, ISCSI, "iscsi_tcp", "sdb", WWN);
    fake.mapper(0, "mpatha", "mpath-3600144f0", &[&a, &b]);
    // A logical volume on another disk is none.
    let c = fake.scsi(4, SAS, "mpt3sas", "sdc", "naa.5000c500bbbbbbbb");
    fake.mapper(1, "vg-root", "LVM-abcdef", &[&c]);
    let list = fake.list();
    assert_eq!(list.len(), 2, "{list:#?}");
    assert_eq!(list[0].path, "/dev/dm-0");
    assert_eq!((list[0].wwn.as_str(), list[0].bus.as_str()), (WWN, "iscsi"));
    assert_eq!(paths(&list[0]), ["/dev/sda", "/dev/sdb"]);
    assert_eq!(
        (list[1].path.as_str(), list[1].bus.as_str()),
        ("/dev/sdc", "sas")
    );

    // Even over a single path, it is what has to be used.
    let fake = Fake::new();
    let a = fake.scsi(2, FC, "lpfc", "sda", WWN);
    fake.mapper(0, "mpatha", "mpath-3600144f0", &[&a]);
    let list = fake.list();
    assert_eq!((list.len(), list[0].path.as_str()), (1, "/dev/dm-0"));
    assert_eq!(paths(&list[0]), ["/dev/sda"]);
}

#[test]
fn like_names_alone_make_nobody_one() {
    // Bridges and virtual machines give the same name to every disk.
    for (between, wwn) in [
        ("ata1/target0:0:0", WWN),
        ("usb1/1-1/1-1:1.0/target0:0:0", WWN),
        (FC, "t10.ATA"),
        (FC, ""),
    ] {
        let fake = Fake::new();
        fake.scsi(2, between, "x", "sda", wwn);
        fake.scsi(3, between, "x", "sdb", wwn);
        assert_eq!(fake.list().len(), 2, "{between} {wwn}");
    }
    let fake = Fake::new();
    fake.scsi(2, FC, "x", "sda", WWN);
    let other = fake.scsi(3, FC, "x", "sdb", WWN);
    write(&other, "size", "4194304\n");
    assert_eq!(fake.list().len(), 2, "of different sizes");
}

#[test]
fn old_arrays_are_known_by_their_serial_number() {
    for (between, disks) in [(FC, 1), ("target0:0:0", 2)] {
        let fake = Fake::new();
        for (host, name) in [(2, "sda"), (3, "sdb")] {
            let disk = fake.scsi(host, between, "x", name, "");
            write(&disk, "serial", "ARRAY-7");
        }
        assert_eq!(fake.list().len(), disks, "{between}");
    }
}

#[test]
fn nvme_over_a_network_tells_its_paths() {
    let fake = Fake::new();
    let disk = fake.disk("virtual/nvme-subsystem/nvme-subsys0", "nvme0n1", "259:0");
    let subsystem = disk.parent().unwrap();
    for (controller, address) in [("nvme0", "traddr=10.0.0.1"), ("nvme1", "traddr=10.0.1.1")] {
        let dir = subsystem.join(controller);
        write(&dir, "transport", "tcp\n");
        write(&dir, "address", address);
    }
    symlink(subsystem, disk.join("device")).unwrap();
    let local = fake.disk("pci0000:00/0000:00:05.0/nvme/nvme2", "nvme2n1", "259:1");
    write(local.parent().unwrap(), "transport", "pcie\n");
    symlink(local.parent().unwrap(), local.join("device")).unwrap();
    let list = fake.list();
    assert_eq!((list[0].bus.as_str(), list[0].paths.len()), ("nvme-tcp", 2));
    assert_eq!(list[0].paths[1].address, "traddr=10.0.1.1");
    assert_eq!((list[1].bus.as_str(), list[1].paths.len()), ("nvme", 0));
}

#[test]
fn siblings_are_found_for_disks_and_partitions() {
    let fake = Fake::new();
    let a = fake.scsi(2, FC, "x", "sda", WWN);
    let b = fake.scsi(3, FC, "x", "sdb", WWN);
    let part = |disk: &Path, name: &str, number: &str| {
        let place = disk
            .strip_prefix(fake.dir.path().join("sys/devices"))
            .unwrap();
        let dir = fake.block(place.to_str().unwrap(), name, number);
        write(&dir, "partition", "1\n");
    };
    part(&a, "sda1", "8:1");
    part(&b, "sdb1", "8:17");
    let of = |major, minor| super::siblings(&fake.roots, DevNum { major, minor });
    assert_eq!(
        of(8, 0),
        [DevNum {
            major: 8,
            minor: 16
        }]
    );
    assert_eq!(of(8, 17), [DevNum { major: 8, minor: 1 }]);
    assert_eq!(of(9, 9), []);
    // The multipath device is held by nobody because of the paths below it.
    fake.mapper(0, "mpatha", "mpath-36", &[&a, &b]);
    assert_eq!(of(253, 0), []);
    assert_eq!(
        of(8, 0),
        [DevNum {
            major: 8,
            minor: 16
        }]
    );
}
