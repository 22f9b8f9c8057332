//! Parts of files as devices, and real file systems that grow while mounted.

use blockdev::{PartDevice, grow_btrfs, grow_xfs};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::loopdev::Mounted;

const MIB: u64 = 1 << 20;
const OFFSET: u64 = 3 * MIB;

fn run(tool: &str, args: &[&str]) -> String {
    let output = Command::new(tool).args(args).output();
    let output = output.unwrap_or_else(|e| panic!("{tool}: {e}; ./build.sh test installs it"));
    assert!(output.status.success(), "{tool}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn disk(mib: u64) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    File::create(&path).unwrap().set_len(mib * MIB).unwrap();
    (dir, path)
}

#[test]
fn a_part_of_a_file_is_a_device_of_its_own() {
    let (_dir, path) = disk(16);
    for sector in [512, 4096] {
        let part = PartDevice::attach(&path, OFFSET, 4 * MIB, sector).unwrap();
        let text = run(
            "blockdev",
            &["--getsize64", "--getss", part.path().to_str().unwrap()],
        );
        assert_eq!(text, format!("{}\n{sector}\n", 4 * MIB));
        let device = File::options().write(true).open(part.path()).unwrap();
        device.write_all_at(b"here", 0).unwrap();
        device.sync_all().unwrap();
        let node = part.path().to_path_buf();
        drop((device, part));
        let mut bytes = [0; 4];
        File::open(&path)
            .unwrap()
            .read_exact_at(&mut bytes, OFFSET)
            .unwrap();
        assert_eq!(&bytes, b"here");
        let left = Command::new("losetup").arg(&node).output().unwrap();
        let left = String::from_utf8_lossy(&left.stdout).into_owned();
        assert!(!left.contains(path.to_str().unwrap()), "{left}");
    }
    let none = PartDevice::attach(Path::new("/nonexistent"), 0, MIB, 512).unwrap_err();
    assert_eq!(none.kind(), blockdev::ErrorKind::NotFound);
}

/// Makes a file system of `from` MiB, grows it to `to` MiB, and gives the sizes that
/// `statfs` reports before and after.
fn grown(from: u64, to: u64, mkfs: &[&str], grow: impl Fn(&Path)) -> (u64, u64) {
    let (_dir, path) = disk(to + 8);
    let small = PartDevice::attach(&path, OFFSET, from * MIB, 512).unwrap();
    run(
        mkfs[0],
        &[&mkfs[1..], &[small.path().to_str().unwrap()]].concat(),
    );
    drop(small);
    let large = PartDevice::attach(&path, OFFSET, to * MIB, 512).unwrap();
    let mounted = Mounted::new(large.path(), "noatime");
    std::fs::write(mounted.path().join("file"), vec![7; 3_000_000]).unwrap();
    let blocks = || {
        let at = mounted.path().to_str().unwrap();
        let text = run("stat", &["-f", "-c", "%b %S", at]);
        let (count, size) = text.trim().split_once(' ').unwrap();
        count.parse::<u64>().unwrap() * size.parse::<u64>().unwrap()
    };
    let before = blocks();
    grow(mounted.path());
    let after = blocks();
    assert_eq!(
        std::fs::read(mounted.path().join("file")).unwrap(),
        vec![7; 3_000_000]
    );
    (before, after)
}

/// ext4 asks for a right (CAP_SYS_RESOURCE) that containers lack; it grows in the virtual
/// machine of `tests/`.
#[test]
fn mounted_file_systems_grow() {
    let xfs = ["mkfs.xfs", "--unsupported", "-q", "-f"];
    let (before, after) = grown(64, 400, &xfs, |at| grow_xfs(at, 400 * MIB).unwrap());
    assert!(before < 64 * MIB && after > 350 * MIB, "{before} {after}");
    let btrfs = ["mkfs.btrfs", "-q", "-f"];
    let (before, after) = grown(160, 400, &btrfs, |at| grow_btrfs(at).unwrap());
    assert_eq!((before, after), (160 * MIB, 400 * MIB));
}
