//! Btrfs images: making, ageing, restoring.
//!
//! Owns: the recipes that the tests share. Does not own: what is expected of a map.

use crate::common::{fill, ok, restore_onto_garbage, run, s, sparse};
use diskmap::Extents;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::loopdev::{LoopDevice, Mounted};

/// A file with a file system.
pub struct Image {
    _dir: TempDir,
    pub path: PathBuf,
    pub work: PathBuf,
}

impl Image {
    /// Makes one of `mib` MiB with files.
    pub fn new(mib: u64, args: &[&str]) -> Image {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse(&dir.path().join("fs"), mib << 20);
        let tree = dir.path().join("tree");
        fill(&tree, 60, 100_000);
        let mut all = vec!["-q", "-L", "mylabel", "--rootdir", s(&tree)];
        all.extend(args);
        all.push(s(&path));
        ok("mkfs.btrfs", &all);
        let work = dir.path().to_path_buf();
        Image {
            _dir: dir,
            path,
            work,
        }
    }

    /// Lets the kernel use it; what is true of the mounted one is the answer.
    pub fn mounted<T>(&self, options: &str, then: impl FnOnce(&Path) -> T) -> T {
        mounted(&self.path, options, then)
    }

    /// Subvolumes, snapshots, shared, compressed, sparse, tiny and deleted files.
    pub fn age(&self) -> String {
        self.mounted("rw", |at| {
            ok("sh", &["-ec", AGE, "sh", s(at)]);
            files(at)
        })
    }

    /// Restores by the map onto garbage; the tools and the kernel find it whole.
    pub fn assert_restores(&self, used: &Extents, expected: &str) -> PathBuf {
        let target = self.work.join("restored");
        restore_onto_garbage(&self.path, used, &target);
        assert_whole(&target, expected);
        target
    }
}

/// `btrfs check` finds nothing, and all files are the expected ones.
pub fn assert_whole(path: &Path, expected: &str) {
    check(path);
    assert_eq!(mounted(path, "ro", files), expected);
}

/// `btrfs check`, with the checksums of all data, finds nothing.
pub fn check(path: &Path) {
    ok(
        "btrfs",
        &["check", "--readonly", "--check-data-csum", s(path)],
    );
}

/// What the kernel says after it has read every copy of everything.
pub fn scrub(path: &Path) -> String {
    // The kernel mends nothing on what is mounted read-only.
    mounted(path, "ro", |at| {
        let output = run("btrfs", &["scrub", "start", "-Br", s(at)]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let summary = text.lines().find_map(|l| l.strip_prefix("Error summary:"));
        summary
            .unwrap_or_else(|| panic!("{output:?}"))
            .trim()
            .to_string()
    })
}

/// Lets the kernel use a file system in a file.
pub fn mounted<T>(path: &Path, options: &str, then: impl FnOnce(&Path) -> T) -> T {
    let device = LoopDevice::attach(path, 512);
    let mount = Mounted::new(device.path(), options);
    then(mount.path())
}

/// Names, kinds, modes and hashes of all files below a folder.
pub fn files(at: &Path) -> String {
    let list = "cd \"$1\" && find . -printf '%P %y %m %s %l\\n' | LC_ALL=C sort && \
                find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    ok("sh", &["-ec", list, "sh", s(at)])
}

const AGE: &str = r#"
cd "$1"
btrfs -q subvolume create sub
cp -r d0 d1 sub/
btrfs -q subvolume snapshot sub snap
btrfs -q subvolume snapshot -r sub frozen
cp --reflink=always d2/file2 sub/shared
btrfs property set d3 compression zstd
yes compressible | head -c 3000000 >d3/packed
truncate -s 9M d4/holes
printf tail | dd of=d4/holes bs=1 seek=7000000 conv=notrunc status=none
fallocate -l 2M d4/reserved
for i in $(seq 300); do printf 'tiny %s' "$i" >"d1/tiny$i"; done
ln -s ../d0 d1/link
sync
for i in $(seq 0 3 59); do rm -f "d$((i % 5))/file$i"; done
rm -r sub/d0
for i in $(seq 1 2 300); do rm "d1/tiny$i"; done
btrfs -q subvolume delete --commit-after snap
sync
"#;
