//! File systems that grow into their partition, against their own tools.

use imager::grow::{Outcome, Place, file_system};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::build::{Tree, hashes_of};
use testkit::loopdev::{LoopDevice, Mounted};

const MIB: u64 = 1 << 20;
const START: u64 = 3 * MIB;
const LARGE: u64 = 320 * MIB;

fn run(tool: &str, args: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(tool).env("PATH", path).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{tool}: {e}; ./build.sh test installs it"));
    assert!(output.status.success(), "{tool} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

struct Disk {
    _dir: tempfile::TempDir,
    path: PathBuf,
    sector: u32,
}

impl Disk {
    /// A disk with a file system of `mib` MiB in a place that has room for more.
    fn new(sector: u32, mib: u64, mkfs: &[&str]) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path)
            .unwrap()
            .set_len(START + LARGE + MIB)
            .unwrap();
        let part = LoopDevice::attach_at(&path, START, mib * MIB, sector);
        run(mkfs[0], &[&mkfs[1..], &[s(part.path())]].concat());
        Disk {
            _dir: dir,
            path,
            sector,
        }
    }

    fn grow(&self, name: &str) -> Outcome {
        let place = Place {
            disk: &self.path,
            start: START,
            size: LARGE,
            sector_size: self.sector,
        };
        file_system(place, name)
    }

    fn part(&self) -> LoopDevice {
        LoopDevice::attach_at(&self.path, START, LARGE, self.sector)
    }
}

/// Fills by mounting, grows, and checks size and every file.
fn grows(disk: &Disk, name: &str, mount_options: &str, check: &[&str]) {
    let tree = Tree::new(5, 20, 400_000);
    {
        let part = disk.part();
        let mounted = Mounted::new(part.path(), mount_options);
        tree.write_to(mounted.path());
    }
    assert_eq!(disk.grow(name), Outcome::Grown, "{name}");
    let part = disk.part();
    run(check[0], &[&check[1..], &[s(part.path())]].concat());
    let mounted = Mounted::new(part.path(), mount_options);
    assert_eq!(hashes_of(mounted.path()), tree.hashes());
    let size = run("df", &["-B1", "--output=size", s(mounted.path())]);
    let size: u64 = size.lines().last().unwrap().trim().parse().unwrap();
    assert!(size > LARGE * 85 / 100, "{name}: {size} bytes of {LARGE}");
}

#[test]
fn ext_grows() {
    for (kind, sector) in [("ext2", 512), ("ext3", 512), ("ext4", 512), ("ext4", 4096)] {
        let disk = Disk::new(sector, 40, &["mke2fs", "-q", "-F", "-t", kind]);
        grows(&disk, kind, "noatime", &["e2fsck", "-f", "-n"]);
    }
}

#[test]
fn xfs_grows() {
    for sector in [512, 4096] {
        let disk = Disk::new(sector, 64, &["mkfs.xfs", "--unsupported", "-q", "-f"]);
        grows(&disk, "xfs", "nouuid", &["xfs_repair", "-n"]);
    }
}

#[test]
fn btrfs_grows() {
    let disk = Disk::new(512, 160, &["mkfs.btrfs", "-q", "-f"]);
    grows(&disk, "btrfs", "noatime", &["btrfs", "check", "--readonly"]);
}

#[test]
fn ntfs_grows_by_its_tool() {
    let disk = Disk::new(512, 40, &["mkntfs", "-q", "-Q", "-F"]);
    assert_eq!(disk.grow("ntfs"), Outcome::Grown);
    let part = disk.part();
    let text = run("ntfsresize", &["--info", "--force", s(part.path())]);
    let line = text
        .lines()
        .find(|l| l.contains("Current volume size"))
        .unwrap();
    let size: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(size > LARGE - MIB, "{line}");
}

/// What cannot be grown is told, and not a byte of it is changed.
#[test]
fn what_does_not_grow_is_left_alone() {
    let disk = Disk::new(512, 40, &["mkfs.fat", "-F", "16"]);
    let before = std::fs::read(&disk.path).unwrap();
    for (name, says) in [
        ("fat16", "keeps its size"),
        ("", "not known"),
        ("xfs", "does not mount"),
    ] {
        let Outcome::AsBefore(why) = disk.grow(name) else {
            panic!("{name} grew");
        };
        assert!(why.contains(says), "{why}");
    }
    let Outcome::AsBefore(why) = disk.grow("ext4") else {
        panic!("grew");
    };
    assert!(why.contains("resize2fs"), "{why}");
    assert!(std::fs::read(&disk.path).unwrap() == before);
}
