//! What an image for a smaller disk takes over from the one that it is made of, and what it
//! must not be made of.
//!
//! Oracle: the bytes that were written on the disk.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const MIB: u64 = 1 << 20;

fn run(tool: &str, args: &[&str]) -> Output {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap());
    let output = Command::new(tool).env("PATH", path).args(args).output();
    output.unwrap_or_else(|e| panic!("{tool}: {e}; ./build.sh test installs it"))
}

fn ok(tool: &str, args: &[&str]) -> String {
    let output = run(tool, args);
    assert!(output.status.success(), "{tool} {args:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn imager(args: &[&str]) -> Output {
    run(env!("CARGO_BIN_EXE_imager"), args)
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A disk of 200 MiB: ext4 or swap at 1 MiB, and ext4 from 17 MiB on, which ends 20 MiB
/// before the disk does.
struct Disk {
    dir: tempfile::TempDir,
    raw: PathBuf,
}

impl Disk {
    fn new(first: &str) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk");
        File::create(&raw).unwrap().set_len(200 * MIB).unwrap();
        let script = dir.path().join("script");
        std::fs::write(
            &script,
            "label: dos\nstart=2048, size=32768, type=83\nstart=34816, size=333824, type=83\n",
        )
        .unwrap();
        ok(
            "sh",
            &["-c", &format!("sfdisk -q {} < {}", s(&raw), s(&script))],
        );
        let disk = Disk { dir, raw };
        let part = disk.path("part");
        File::create(&part).unwrap().set_len(16 * MIB).unwrap();
        match first {
            "swap" => ok("mkswap", &["-q", s(&part)]),
            _ => ok("mkfs.ext4", &["-q", "-F", s(&part)]),
        };
        disk.write(MIB, &std::fs::read(&part).unwrap());
        ok(
            "mkfs.ext4",
            &["-q", "-F", "-E", "offset=17825792", s(&disk.raw), "163M"],
        );
        disk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(&self.raw).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    fn backup(&self, more: &[&str]) -> PathBuf {
        let image = self.path("image");
        let made = imager(&[&["backup", "-q", s(&self.raw), s(&image)], more].concat());
        assert!(made.status.success(), "{made:?}");
        image
    }

    fn shrink(&self, image: &Path) -> (Output, PathBuf) {
        let small = self.path("small");
        let args = ["shrink", "-q", "--json", "--scratch", s(self.dir.path())];
        let done = imager(&[&args[..], &[s(image), s(&small)]].concat());
        (done, small)
    }

    /// Refused, with all of these words, and without a trace.
    fn is_refused(&self, image: &Path, says: &[&str]) {
        let (done, small) = self.shrink(image);
        assert_eq!(done.status.code(), Some(3), "{done:?}");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(says.iter().all(|word| text.contains(word)), "{text}");
        assert!(!small.exists());
    }
}

/// Free blocks that were asked for are no less wanted on a smaller disk.
#[test]
fn a_partition_in_front_of_which_all_is_held_stays_whole() {
    let disk = Disk::new("ext4");
    // No file's, and in the middle of the free blocks.
    disk.write(12 * MIB, &[0xa5; 65_536]);
    let image = disk.backup(&["--full=1"]);
    let (done, small) = disk.shrink(&image);
    assert!(done.status.success(), "{done:?}");
    let target = disk.path("target");
    File::create(&target).unwrap().set_len(200 * MIB).unwrap();
    let restored = imager(&["restore", "-q", s(&small), s(&target)]);
    assert!(restored.status.success(), "{restored:?}");
    let part = |path: &Path| {
        let mut bytes = vec![0; 16 << 20];
        File::open(path)
            .unwrap()
            .read_exact_at(&mut bytes, MIB)
            .unwrap();
        bytes
    };
    assert!(part(&disk.raw) == part(&target));
    let info = imager(&["info", "--json", s(&small)]);
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    let text = info.to_string();
    assert!(text.contains("as was asked for"), "{text}");
}

/// What its own account does not know of would be gone.
#[test]
fn a_file_system_of_which_all_is_held_is_not_made_smaller() {
    let disk = Disk::new("ext4");
    let image = disk.backup(&["--full=2"]);
    disk.is_refused(
        &image,
        &["disk-too-small", "every sector of partition 2", "asked for"],
    );
}

/// Its memory knows the file systems as they were.
#[test]
fn a_suspended_system_is_not_changed() {
    let disk = Disk::new("swap");
    disk.write(MIB + 4096 - 10, b"S1SUSPEND\0");
    let image = disk.backup(&[]);
    disk.is_refused(
        &image,
        &["suspended to partition 1", "start a suspended system"],
    );
}

/// It is told, now and whenever the new image is looked at.
#[test]
fn data_behind_the_last_partition_is_no_silent_loss() {
    let disk = Disk::new("ext4");
    let (done, small) = disk.shrink(&disk.backup(&[]));
    assert!(done.status.success(), "{done:?}");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(!text.contains("behind the last"), "{text}");
    std::fs::remove_file(&small).unwrap();
    std::fs::remove_file(disk.path("image")).unwrap();

    disk.write(180 * MIB + 8192, b"something of a boot manager");
    let (done, small) = disk.shrink(&disk.backup(&[]));
    assert!(done.status.success(), "{done:?}");
    let says = "behind the last partition the image holds 512 bytes of data, from byte 188751872";
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(text.contains(says), "{text}");
    let info = imager(&["info", "--json", s(&small)]);
    let text = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(text.contains(says), "{text}");
}
