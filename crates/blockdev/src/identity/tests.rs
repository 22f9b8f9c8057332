use super::{DiskInfo, identify, list_disks_in, rank};
use crate::sysfs::Roots;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A sysfs in a directory.
struct Fake {
    dir: tempfile::TempDir,
}

impl Fake {
    fn new() -> Fake {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("block")).unwrap();
        Fake { dir }
    }

    /// A disk under a bus path, with attributes.
    fn disk(&self, bus_path: &str, name: &str, attributes: &[(&str, &[u8])]) -> PathBuf {
        let disk = self
            .dir
            .path()
            .join("devices")
            .join(bus_path)
            .join("block")
            .join(name);
        fs::create_dir_all(&disk).unwrap();
        write(&disk, "size", b"2097152\n");
        for (attribute, value) in attributes {
            write(&disk, attribute, value);
        }
        symlink(&disk, self.dir.path().join("block").join(name)).unwrap();
        disk
    }

    fn list(&self) -> Vec<DiskInfo> {
        list_disks_in(&Roots {
            sys: self.dir.path().to_owned(),
            proc: "/nonexistent".into(),
        })
        .unwrap()
    }
}

fn write(dir: &Path, name: &str, value: &[u8]) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, value).unwrap();
}

fn only(fake: &Fake) -> DiskInfo {
    let list = fake.list();
    assert_eq!(list.len(), 1, "{list:?}");
    list.into_iter().next().unwrap()
}

#[test]
fn a_sata_disk() {
    let fake = Fake::new();
    let naa = [
        &[0, 0x83, 0, 12, 1, 3, 0, 8][..],
        &[0x50, 2, 0x53, 0x8f, 0, 0, 0, 1][..],
    ]
    .concat();
    fake.disk(
        "pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0",
        "sda",
        &[
            ("queue/logical_block_size", b"512\n"),
            ("queue/physical_block_size", b"4096\n"),
            ("device/vendor", b"ATA     \n"),
            ("device/model", b"Samsung SSD 870 \n"),
            ("device/vpd_pg80", b"\0\x80\0\x10S5Y2NX0R       \0"),
            ("device/vpd_pg83", &naa),
            ("removable", b"0\n"),
            ("ro", b"1\n"),
        ],
    );
    let expected = DiskInfo {
        number: 0,
        path: "/dev/sda".into(),
        size_bytes: 1 << 30,
        sector_size: 512,
        physical_sector_size: 4096,
        model: "Samsung SSD 870".into(),
        serial: "S5Y2NX0R".into(),
        wwn: "naa.5002538f00000001".into(),
        bus: "sata".into(),
        controller: String::new(),
        names: Vec::new(),
        paths: Vec::new(),
        removable: false,
        read_only: true,
    };
    assert_eq!(only(&fake), expected);
}

#[test]
fn a_usb_stick_has_the_serial_number_of_its_usb_device() {
    let fake = Fake::new();
    let usb = "pci0000:00/0000:00:14.0/usb2/2-1";
    fake.disk(
        &format!("{usb}/2-1:1.0/host3/target3:0:0/3:0:0:0"),
        "sdb",
        &[
            ("device/vendor", b"SanDisk "),
            ("device/model", b"Ultra\x1b[31m"),
            ("removable", b"1\n"),
        ],
    );
    let device = fake.dir.path().join("devices").join(usb);
    write(&device, "idVendor", b"0781\n");
    write(&device, "serial", b"4C5300\n");
    let info = only(&fake);
    assert_eq!(
        (info.bus.as_str(), info.serial.as_str(), info.removable),
        ("usb", "4C5300", true)
    );
    assert_eq!(info.model, "SanDisk Ultra\\x1b[31m");
}

#[test]
fn virtio_nvme_scsi_and_mmc() {
    let fake = Fake::new();
    fake.disk(
        "pci0000:00/0000:00:05.0/virtio1",
        "vda",
        &[("serial", b"vm-disk-1"), ("device/vendor", b"0x1af4\n")],
    );
    let nvme: &[(&str, &[u8])] = &[
        ("device/model", b"QEMU NVMe Ctrl   \n"),
        ("device/serial", b"NV01 \n"),
        ("wwid", b"eui.0025385b01234567\n"),
        ("queue/logical_block_size", b"4096\n"),
    ];
    fake.disk("pci0000:00/0000:00:06.0/nvme/nvme0", "nvme0n1", nvme);
    let made_up: &[(&str, &[u8])] = &[("wwid", b"nvme.1b36-4e5630-51454d55-00000001\n")];
    fake.disk("pci0000:00/0000:00:07.0/nvme/nvme1", "nvme1n1", made_up);
    fake.disk(
        "pci0000:00/0000:00:08.0/virtio2/host4/target4:0:0/4:0:0:0",
        "sdc",
        &[
            ("device/vendor", b"QEMU"),
            ("device/model", b"QEMU HARDDISK"),
            ("device/wwid", b"naa.5000c500a1b2c3d4"),
        ],
    );
    fake.disk(
        "platform/mmc_host/mmc0/mmc0:0001",
        "mmcblk0",
        &[("device/name", b"SC64G"), ("device/serial", b"0x1234")],
    );
    let list = fake.list();
    let seen: Vec<_> = list
        .iter()
        .map(|d| {
            (
                d.path.as_str(),
                d.bus.as_str(),
                d.serial.as_str(),
                d.wwn.as_str(),
                d.model.as_str(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            (
                "/dev/nvme0n1",
                "nvme",
                "NV01",
                "eui.0025385b01234567",
                "QEMU NVMe Ctrl"
            ),
            ("/dev/nvme1n1", "nvme", "", "", ""),
            (
                "/dev/sdc",
                "scsi",
                "",
                "naa.5000c500a1b2c3d4",
                "QEMU HARDDISK"
            ),
            ("/dev/vda", "virtio", "vm-disk-1", "", ""),
            ("/dev/mmcblk0", "mmc", "0x1234", "", "SC64G"),
        ]
    );
    assert_eq!(
        (list[0].sector_size, list[0].physical_sector_size),
        (4096, 4096)
    );
}

#[test]
fn order_is_stable_and_what_is_no_disk_is_left_out() {
    let fake = Fake::new();
    let backed: &[(&str, &[u8])] = &[("loop/backing_file", b"/srv/a b.img\n")];
    fake.disk("virtual", "loop0", backed);
    fake.disk("virtual", "loop1", &[]);
    for name in [
        "sdaa", "sdz", "sdb", "nvme10n1", "nvme2n1", "xvda", "mmcblk1",
    ] {
        fake.disk(&format!("bus/{name}"), name, &[]);
    }
    for name in [
        "sr0",
        "fd0",
        "dm-0",
        "md127",
        "zram0",
        "ram0",
        "nbd0",
        "mmcblk1boot0",
        "nvme0c0n1",
        "sd",
        "loopx",
    ] {
        fake.disk(&format!("bus/{name}"), name, &[]);
    }
    fake.disk("bus/reader", "sdq", &[("size", b"0\n")]);
    fake.disk("bus/path", "nvme3n1", &[("hidden", b"1\n")]);
    let list = fake.list();
    let paths: Vec<_> = list
        .iter()
        .map(|d| d.path.trim_start_matches("/dev/"))
        .collect();
    assert_eq!(
        paths,
        [
            "nvme2n1", "nvme10n1", "sdb", "sdz", "sdaa", "xvda", "mmcblk1", "loop0"
        ]
    );
    assert_eq!(
        list.iter().map(|d| d.number).collect::<Vec<_>>(),
        [0, 1, 2, 3, 4, 5, 6, 7]
    );
    assert_eq!(list[7].model, "/srv/a b.img");
}

#[test]
fn damaged_attributes_are_survived() {
    let fake = Fake::new();
    fake.disk(
        "ata1",
        "sda",
        &[
            ("size", b"18446744073709551615\n"),
            ("queue/logical_block_size", b"-1\n"),
            ("device/vpd_pg83", b"\0\x83\xff"),
        ],
    );
    let info = only(&fake);
    assert_eq!(
        (info.size_bytes, info.sector_size, info.wwn.as_str()),
        (u64::MAX, 512, "")
    );
    assert!(rank("nvme99999999999999999999n1").is_none());
}

#[test]
fn a_raw_file_is_identified_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk.img");
    fs::write(&file, [0; 1536]).unwrap();
    let link = dir.path().join("link");
    symlink(&file, &link).unwrap();
    let info = identify(&link).unwrap();
    assert_eq!(
        (info.size_bytes, info.sector_size, info.bus.as_str()),
        (1536, 512, "file")
    );
    assert_eq!(info.path, file.canonicalize().unwrap().to_str().unwrap());
    assert!(identify(dir.path()).is_err());
    assert!(identify(Path::new("/dev/null")).is_err());
    assert!(identify(&dir.path().join("none")).is_err());
}
