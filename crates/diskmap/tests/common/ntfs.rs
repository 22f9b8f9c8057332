//! NTFS volumes made by ntfs-3g's tools, and what those tools say of them.
//!
//! Owns: recipes, mounts, and the oracles. Does not own: what our map must be.

#![allow(dead_code)] // each test program uses a part

use super::common::{FileDisk, assert_same_tree, fill, ok, peek, run, s, sparse};
use diskmap::{DiskRead, Extents};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A volume, and the files that must be in it.
pub struct Image {
    _dir: TempDir,
    pub path: PathBuf,
    pub tree: PathBuf,
    pub work: PathBuf,
}

/// Makes an empty volume.
pub fn empty(mib: u64, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let mut all = vec!["-F", "-q", "-Q", "-L", "MyL\u{e4}bel"];
    all.extend(args);
    all.push(s(&path));
    // Without a device it warns of the geometry, and lets that be.
    ok("mkntfs", &all);
    let work = dir.path().to_path_buf();
    let tree = work.join("tree");
    std::fs::create_dir(&tree).unwrap();
    Image {
        _dir: dir,
        path,
        tree,
        work,
    }
}

/// Makes a volume with files, a third of them deleted again.
pub fn filled(mib: u64, args: &[&str]) -> Image {
    let image = empty(mib, args);
    fill(&image.tree, 60, (mib << 20) / 300);
    image.change(|root| {
        ok("cp", &["-r", &format!("{}/.", s(&image.tree)), s(root)]);
        for i in (0..60).step_by(3) {
            let name = format!("d{}/file{i}", i % 5);
            std::fs::remove_file(root.join(&name)).unwrap();
            std::fs::remove_file(image.tree.join(&name)).unwrap();
        }
    });
    image
}

impl Image {
    /// Lets `change` work on the mounted volume.
    pub fn change(&self, change: impl FnOnce(&Path)) {
        let mounted = Mounted::new(&self.path, &self.work.join("mnt"), "rw");
        change(&mounted.at);
    }
}

/// A volume that is mounted through FUSE, until this is dropped.
pub struct Mounted {
    pub at: PathBuf,
    server: Child,
}

impl Mounted {
    pub fn new(path: &Path, at: &Path, options: &str) -> Mounted {
        std::fs::create_dir_all(at).unwrap();
        // In the foreground, so that its end tells that everything is written.
        let server = Command::new("ntfs-3g")
            .args(["-o", "no_detach", "-o", options, s(path), s(at)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot run ntfs-3g: {error}; install it with: apt-get install ntfs-3g")
            });
        let mut mounted = Mounted {
            at: at.canonicalize().unwrap(),
            server,
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !mounted.is_there() {
            let ended = mounted.server.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "ntfs-3g {path:?}: {ended:?}; is there a /dev/fuse, is this root?"
            );
            assert!(Instant::now() < deadline, "ntfs-3g does not mount {path:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        mounted
    }

    fn is_there(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts
            .lines()
            .any(|line| line.split(' ').nth(1) == Some(s(&self.at)))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.at).status();
        if !status.is_ok_and(|status| status.success()) {
            // Nothing may stay behind a test that failed.
            let _ = Command::new("umount").arg("-l").arg(&self.at).status();
            let _ = self.server.kill();
        }
        let _ = self.server.wait();
    }
}

/// Sizes of a volume as its boot sector has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub sector: u64,
    pub cluster: u64,
    pub clusters: u64,
    /// Without the copy of the boot sector.
    pub size: u64,
}

/// Asks ntfsinfo.
pub fn sizes(path: &Path) -> Sizes {
    let text = ok("ntfsinfo", &["-m", "-f", s(path)]);
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|l| l.trim().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in {text}"))
            .trim()
            .parse()
            .unwrap()
    };
    let sector = field("Sector Size:");
    Sizes {
        sector,
        cluster: field("Cluster Size:"),
        clusters: field("Volume Size in Clusters:"),
        size: u64::from_le_bytes(peek(path, 40)) * sector,
    }
}

/// Used clusters as $Bitmap has them, in bytes: the tools read the file, and the walk
/// over its bits is as simple as can be.
pub fn bitmap(path: &Path) -> Extents {
    let sizes = sizes(path);
    let output = run("ntfscat", &["-f", "-i", "6", s(path)]);
    assert!(output.status.success(), "{output:?}");
    let mut used = Extents::new();
    for cluster in 0..sizes.clusters {
        if output.stdout[(cluster / 8) as usize] >> (cluster % 8) & 1 == 1 {
            used.push(diskmap::Extent {
                start: cluster * sizes.cluster,
                len: sizes.cluster,
            });
        }
    }
    used
}

/// The check of ntfsresize: every cluster belongs to one file and is marked as used, and
/// no other is.
pub fn is_consistent(path: &Path) -> Result<(), String> {
    let output = run("ntfsresize", &["-i", "-f", s(path)]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    // Said after all is checked: it could not resize such a volume.
    let in_pieces = text.contains("Highly fragmented $Bitmap isn't supported yet.");
    if output.status.success() || in_pieces {
        Ok(())
    } else {
        Err(text)
    }
}

/// Mounts a volume and compares its files with `tree`.
pub fn assert_holds(path: &Path, tree: &Path, work: &Path) {
    let mounted = Mounted::new(path, &work.join("mnt"), "ro");
    assert_same_tree(tree, &mounted.at);
}

/// Bytes of a file.
pub fn bytes(path: &Path, offset: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    FileDisk::open(path)
        .read_exact_at(offset, &mut bytes)
        .unwrap();
    bytes
}
