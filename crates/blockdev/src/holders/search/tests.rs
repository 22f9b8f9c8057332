use super::{Subject, find};
use crate::Holder;
use crate::sysfs::{DevNum, Roots};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A sysfs and a procfs in a directory. Disk names are ones that no machine has, so
/// that nothing real answers.
struct Fake {
    dir: tempfile::TempDir,
    roots: Roots,
}

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
        fs::create_dir_all(roots.proc.join("self")).unwrap();
        Fake { dir, roots }
    }

    fn device(&self, dir: PathBuf, number: &str) -> PathBuf {
        fs::create_dir_all(dir.join("holders")).unwrap();
        fs::write(dir.join("dev"), number).unwrap();
        symlink(&dir, self.roots.sys.join("dev/block").join(number)).unwrap();
        symlink(
            &dir,
            self.roots
                .sys
                .join("class/block")
                .join(dir.file_name().unwrap()),
        )
        .unwrap();
        dir
    }

    fn disk(&self, name: &str, number: &str) -> PathBuf {
        let dir = self.device(self.dir.path().join("devices").join(name), number);
        symlink(&dir, self.roots.sys.join("block").join(name)).unwrap();
        dir
    }

    fn partition(&self, disk: &Path, name: &str, number: &str) -> PathBuf {
        let dir = self.device(disk.join(name), number);
        fs::write(dir.join("partition"), "1").unwrap();
        dir
    }

    fn hold(&self, below: &Path, holder: &Path) {
        symlink(
            holder,
            below.join("holders").join(holder.file_name().unwrap()),
        )
        .unwrap();
    }

    fn table(&self, name: &str, text: &str) {
        let path = self.roots.proc.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn holders(&self, number: &str) -> Vec<String> {
        let subject = Subject::Block(DevNum::parse(number).unwrap());
        find(&self.roots, subject, None)
            .iter()
            .map(ToString::to_string)
            .collect()
    }
}

#[test]
fn stacks_are_followed_to_the_mount_on_top() {
    let fake = Fake::new();
    let (sda, sdb) = (fake.disk("tstda", "8:0"), fake.disk("tstdb", "8:16"));
    let (a1, b1) = (
        fake.partition(&sda, "tstda1", "8:1"),
        fake.partition(&sdb, "tstdb1", "8:17"),
    );
    let raid = fake.disk("md127", "9:127");
    fs::create_dir(raid.join("md")).unwrap();
    let raid_partition = fake.partition(&raid, "md127p1", "259:0");
    let volume = fake.disk("dm-0", "253:0");
    fs::create_dir(volume.join("dm")).unwrap();
    fs::write(volume.join("dm/name"), "vg-root\n").unwrap();
    fake.hold(&a1, &raid);
    fake.hold(&b1, &raid);
    fake.hold(&raid_partition, &volume);
    fake.table(
        "self/mountinfo",
        "1 0 253:0 / /deep rw - ext4 /dev/mapper/vg-root rw\n",
    );
    let expected = [
        "RAID array md127",
        "device mapper volume vg-root",
        "/dev/mapper/vg-root is mounted read-write at /deep",
    ];
    assert_eq!(fake.holders("8:0"), expected);
    assert_eq!(fake.holders("8:17"), expected, "a partition alone");
}

#[test]
fn other_disks_are_not_ours() {
    let fake = Fake::new();
    let sda = fake.disk("tstda", "8:0");
    fake.partition(&sda, "tstda1", "8:1");
    fake.disk("tstdb", "8:16");
    fake.table(
        "self/mountinfo",
        "1 0 8:1 / /one rw - ext4 /dev/tstda1 ro\n2 0 8:16 / /two rw - ext4 /dev/tstdb rw\n",
    );
    fake.table("swaps", "Filename Type\n/dev/tstdb partition 1 0 -2\n");
    assert_eq!(
        fake.holders("8:0"),
        ["/dev/tstda1 is mounted read-only at /one"]
    );
    assert_eq!(
        fake.holders("8:16"),
        [
            "/dev/tstdb is mounted read-write at /two",
            "/dev/tstdb is swap space in use"
        ]
    );
    assert_eq!(fake.holders("8:1"), fake.holders("8:0"));
    assert!(fake.holders("8:99").is_empty());
}

#[test]
fn every_disk_of_a_btrfs_is_held_by_its_mount() {
    let fake = Fake::new();
    for (name, number) in [("tstda", "8:0"), ("tstdb", "8:16"), ("tstdc", "8:32")] {
        fake.disk(name, number);
    }
    let devices = fake.roots.sys.join("fs/btrfs/5eed/devices");
    fs::create_dir_all(devices.join("tstda")).unwrap();
    fs::create_dir(devices.join("tstdb")).unwrap();
    fs::create_dir_all(fake.roots.sys.join("fs/btrfs/features")).unwrap();
    fake.table(
        "self/mountinfo",
        "1 0 0:45 / /data rw - btrfs /dev/tstda rw\n",
    );
    let expected = ["/dev/tstda is mounted read-write at /data"];
    assert_eq!(fake.holders("8:0"), expected);
    assert_eq!(
        fake.holders("8:16"),
        expected,
        "the disk that the table does not name"
    );
    assert!(fake.holders("8:32").is_empty());
}

#[test]
fn each_namespace_is_read_once_and_equal_mounts_are_told_once() {
    let fake = Fake::new();
    fake.disk("tstda", "8:0");
    let line = "1 0 8:0 / /mnt rw - ext4 /dev/tstda rw\n";
    fake.table("self/mountinfo", line);
    for (pid, namespace, text) in [
        ("10", "mnt:[1]", line.to_owned()),
        ("11", "mnt:[2]", line.replace("/mnt", "/inner")),
        (
            "12",
            "mnt:[2]",
            line.replace("/mnt", "/same namespace, not read"),
        ),
    ] {
        fake.table(&format!("{pid}/mountinfo"), &text);
        fs::create_dir(fake.roots.proc.join(pid).join("ns")).unwrap();
        symlink(namespace, fake.roots.proc.join(pid).join("ns/mnt")).unwrap();
    }
    fs::create_dir(fake.roots.proc.join("self/ns")).unwrap();
    symlink("mnt:[9]", fake.roots.proc.join("self/ns/mnt")).unwrap();
    let found = fake.holders("8:0");
    assert_eq!(
        found,
        [
            "/dev/tstda is mounted read-write at /mnt",
            "/dev/tstda is mounted read-write at /inner"
        ]
    );
}

#[test]
fn a_file_named_as_source_or_swap_is_held() {
    let fake = Fake::new();
    let file = fake.dir.path().join("raw.img");
    fs::write(&file, "x").unwrap();
    let shown = file.display();
    fake.table(
        "self/mountinfo",
        &format!("1 0 0:50 / /fuse rw - fuse.ntfs-3g {shown} rw\n"),
    );
    fake.table("swaps", &format!("Filename Type\n{shown} file 1 0 -2\n"));
    let metadata = fs::metadata(&file).unwrap();
    let subject = Subject::File {
        device: std::os::unix::fs::MetadataExt::dev(&metadata),
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    };
    let found = find(&fake.roots, subject, None);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(matches!(&found[0], Holder::Mount { source, .. } if *source == file));
    assert_eq!(
        found[1],
        Holder::Swap {
            source: file.clone()
        }
    );
}

#[test]
fn who_may_write() {
    let mount = |read_write| Holder::Mount {
        source: "a".into(),
        target: "b".into(),
        read_write,
    };
    assert!(mount(true).may_write() && !mount(false).may_write());
    let attached = |read_only| Holder::Loop {
        device: "a".into(),
        read_only,
    };
    assert!(attached(false).may_write() && !attached(true).may_write());
    assert!(Holder::Swap { source: "a".into() }.may_write());
}

#[test]
fn a_path_of_a_multipath_device_is_not_free_and_neither_is_its_other_path() {
    let fake = Fake::new();
    let wwn = "naa.600144f0c73b4a0000005f2a1b3c0001";
    let (a, b) = (fake.disk("sdqa", "65:0"), fake.disk("sdqb", "65:16"));
    for disk in [&a, &b] {
        fs::create_dir_all(disk.join("device")).unwrap();
        fs::write(disk.join("device/wwid"), wwn).unwrap();
        fs::write(disk.join("size"), "2048").unwrap();
    }
    // Without a multipath device: what is mounted by the other path counts.
    fake.partition(&b, "sdqb1", "65:17");
    fs::write(
        fake.roots.proc.join("self/mountinfo"),
        "36 35 65:17 / /data rw - ext4 /dev/sdqb1 rw\n",
    )
    .unwrap();
    let first = Subject::Block(DevNum {
        major: 65,
        minor: 0,
    });
    let found = find(&fake.roots, first, None);
    assert!(
        matches!(&found[..], [Holder::Mount { target, .. }] if target == Path::new("/data")),
        "{found:?}"
    );

    fs::write(fake.roots.proc.join("self/mountinfo"), "").unwrap();
    let over = fake.disk("dm-7", "253:7");
    fs::create_dir_all(over.join("dm")).unwrap();
    fs::write(over.join("dm/name"), "mpathq").unwrap();
    fs::write(over.join("dm/uuid"), "mpath-3600").unwrap();
    fs::create_dir_all(over.join("slaves")).unwrap();
    for disk in [&a, &b] {
        symlink(disk, over.join("slaves").join(disk.file_name().unwrap())).unwrap();
        fake.hold(disk, &over);
    }
    let held = [Holder::Multipath {
        name: "mpathq".into(),
        device: "/dev/dm-7".into(),
    }];
    assert_eq!(find(&fake.roots, first, None), held);
    let itself = Subject::Block(DevNum {
        major: 253,
        minor: 7,
    });
    assert_eq!(find(&fake.roots, itself, None), []);
}
