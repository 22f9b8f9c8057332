//! Who uses a disk, found on the running kernel. Needs root.

use blockdev::{Holder, holders};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::build::{DiskBuilder, Tree};
use testkit::loopdev::{LoopDevice, Mounted};

fn ext4_disk(dir: &Path) -> testkit::build::BuiltDisk {
    DiskBuilder::gpt(64 << 20, 512)
        .ext4(32 << 20, &Tree::new(1, 5, 1000))
        .swap(8 << 20)
        .build(&dir.join("disk"))
}

fn targets(path: &Path) -> Vec<(PathBuf, bool)> {
    let mounts = holders(path)
        .unwrap()
        .into_iter()
        .filter_map(|holder| match holder {
            Holder::Mount {
                target, read_write, ..
            } => Some((target, read_write)),
            _ => None,
        });
    mounts.collect()
}

#[test]
fn a_free_disk_has_no_holders() {
    let dir = tempfile::tempdir().unwrap();
    let disk = ext4_disk(dir.path());
    assert_eq!(holders(&disk.path).unwrap(), []);
    let device = LoopDevice::attach(&disk.path, 512);
    assert_eq!(holders(device.path()).unwrap(), []);
    assert_eq!(
        holders(&disk.path).unwrap(),
        [Holder::Loop {
            device: device.path().to_owned(),
            read_only: false
        }]
    );
}

#[test]
fn a_write_protected_loop_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let disk = ext4_disk(dir.path());
    let device = LoopDevice::attach_read_only(&disk.path, 512);
    let found = holders(&disk.path).unwrap();
    assert_eq!(
        found,
        [Holder::Loop {
            device: device.path().to_owned(),
            read_only: true
        }]
    );
}

/// A partition mounted through an offset loop: the raw file knows, by any name, and
/// so does a loop device over the loop device.
#[test]
fn mounts_count_through_loops_of_loops() {
    let dir = tempfile::tempdir().unwrap();
    let disk = ext4_disk(dir.path());
    let root = &disk.partitions[0];
    let whole = LoopDevice::attach(&disk.path, 512);
    let part = LoopDevice::attach_at(whole.path(), root.start, root.size, 512);
    let mounted = Mounted::new(part.path(), "ro");

    let hard_link = dir.path().join("other name");
    fs::hard_link(&disk.path, &hard_link).unwrap();
    for path in [&disk.path, &hard_link, whole.path(), part.path()].map(AsRef::<Path>::as_ref) {
        assert_eq!(
            targets(path),
            [(mounted.path().to_owned(), false)],
            "{}",
            path.display()
        );
    }
    let loops: Vec<Holder> = [&whole, &part]
        .map(|l| Holder::Loop {
            device: l.path().to_owned(),
            read_only: false,
        })
        .into();
    let found = holders(&disk.path).unwrap();
    assert!(loops.iter().all(|l| found.contains(l)), "{found:?}");
    drop(mounted);
    let mounted = Mounted::new(part.path(), "rw");
    assert_eq!(targets(&disk.path), [(mounted.path().to_owned(), true)]);
}

/// Another mount namespace (as a container has) hides nothing. A slave: what other
/// tests mounted meanwhile goes away there, too, when they unmount it.
#[test]
fn mounts_of_other_namespaces_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = ext4_disk(dir.path());
    let root = &disk.partitions[0];
    let device = LoopDevice::attach_at(&disk.path, root.start, root.size, 512);
    let at = dir.path().join("mnt");
    fs::create_dir(&at).unwrap();
    let script = "mount -o ro \"$0\" \"$1\" && echo mounted && read wait";
    let mut hidden = Command::new("unshare")
        .args(["--mount", "--propagation", "slave", "sh", "-c", script])
        .args([device.path(), &at])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(hidden.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert_eq!(line, "mounted\n");
    let found = targets(&disk.path);
    drop(hidden.stdin.take());
    hidden.wait().unwrap();
    assert_eq!(found, [(at, false)]);
}

#[test]
fn swap_counts() {
    let dir = tempfile::tempdir().unwrap();
    let disk = ext4_disk(dir.path());
    let swap = &disk.partitions[1];
    let device = LoopDevice::attach_at(&disk.path, swap.start, swap.size, 512);
    assert!(
        Command::new("swapon")
            .arg(device.path())
            .status()
            .unwrap()
            .success()
    );
    let found = holders(&disk.path);
    assert!(
        Command::new("swapoff")
            .arg(device.path())
            .status()
            .unwrap()
            .success()
    );
    assert!(found.unwrap().contains(&Holder::Swap {
        source: device.path().to_owned()
    }));
}

#[test]
fn an_exclusive_opener_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = ext4_disk(dir.path());
    let device = LoopDevice::attach(&disk.path, 512);
    let opener = blockdev::Device::open_write(device.path()).unwrap();
    assert_eq!(
        holders(device.path()).unwrap(),
        [Holder::Exclusive {
            device: device.path().to_owned()
        }]
    );
    drop(opener);
    assert_eq!(holders(device.path()).unwrap(), []);
}

#[test]
fn the_disk_under_the_root_directory_is_held() {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = table
        .lines()
        .find(|line| line.split(' ').nth(4) == Some("/"))
        .unwrap();
    let source = root.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap();
    if !Path::new(source).exists() {
        // A machine that runs from memory or the network has no such disk.
        assert!(
            !source.starts_with("/dev/"),
            "{source} is mounted but has no node"
        );
        return;
    }
    assert!(targets(source.as_ref()).contains(&(PathBuf::from("/"), true)));
}
