//! `imager ls`, `cat` and `extract`: files of images held against what the kernel and the
//! file systems' own tools say of the same disks.
//!
//! Owns: comparing trees, and making file systems with odd files. Does not own: the
//! readers' corners (unit tests of `imager::files`).

mod choice;
mod differs;
mod ext;
mod ext_sums;
mod extract;
mod fat;
mod hostile;
mod ntfs;
mod ntfs_state;
mod ntfs_table;
mod volumes;
mod warned;

use crate::disks::folder;
use crate::imager;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use testkit::loopdev::Mounted;

/// What is compared of a file.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    /// Of all but folders, whose size is their file system's own affair.
    size: u64,
    modified: (i64, i64),
    /// Hash, or target of a link.
    content: String,
    /// The first path of the same file.
    first: PathBuf,
}

/// Everything below a folder.
fn seen(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut all = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let there = fs::symlink_metadata(&path).unwrap();
        let kind = there.file_type();
        if kind.is_dir() {
            let below = fs::read_dir(&path)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            left.extend(below);
        }
        let content = if kind.is_file() {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut fs::File::open(&path).unwrap(), &mut hasher).unwrap();
            hasher.finalize().to_string()
        } else if kind.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else {
            String::new()
        };
        let name = path.strip_prefix(root).unwrap().to_path_buf();
        if !kind.is_dir() && !kind.is_file() && !kind.is_symlink() || name == Path::new("") {
            continue;
        }
        all.insert(name.clone(), (there, content));
    }
    // In the order of names, so that the first name of a file is the same on both sides.
    all.into_iter()
        .map(|(name, (there, content))| {
            let first = firsts
                .entry(there.ino())
                .or_insert_with(|| name.clone())
                .clone();
            let seen = Seen {
                mode: there.mode(),
                owner: (there.uid(), there.gid()),
                size: if there.is_dir() { 0 } else { there.len() },
                modified: (there.mtime(), there.mtime_nsec()),
                content,
                first,
            };
            (name, seen)
        })
        .collect()
}

/// Asserts that two folders hold the same.
#[track_caller]
fn assert_same(original: &Path, copy: &Path) {
    let (original, copy) = (seen(original), seen(copy));
    for (name, there) in &original {
        let here = copy.get(name);
        assert_eq!(Some(there), here, "{}", name.display());
    }
    assert_eq!(original.len(), copy.len(), "more was made than was there");
}

/// Asserts that two folders hold the same, but for what not every file system has: modes,
/// owners.
#[track_caller]
fn assert_same_contents(original: &Path, copy: &Path, times: bool) {
    let told = |root: &Path| -> BTreeMap<PathBuf, _> {
        let all = seen(root).into_iter();
        let told = |there: Seen| {
            let modified = if times { there.modified } else { (0, 0) };
            (there.size, there.content, there.first, modified)
        };
        all.map(|(name, there)| (name, told(there))).collect()
    };
    let (original, copy) = (told(original), told(copy));
    for (name, there) in &original {
        assert_eq!(Some(there), copy.get(name), "{}", name.display());
    }
    assert_eq!(original.len(), copy.len(), "more was made than was there");
}

/// A file system in a file, its image, and what the kernel sees in it.
struct Made {
    dir: TempDir,
    disk: PathBuf,
    image: PathBuf,
}

impl Made {
    /// Makes a file of `size` bytes with that tool, and lets `fill` put files into it.
    fn new(size: u64, mkfs: &[&str], fill: impl FnOnce(&Path)) -> Made {
        let dir = folder();
        let disk = dir.path().join("disk");
        fs::File::create(&disk).unwrap().set_len(size).unwrap();
        tool(mkfs, &[&disk]);
        let mounted = Mounted::new(&disk, "loop");
        fill(mounted.path());
        drop(mounted);
        Made::of(dir, disk)
    }

    fn of(dir: TempDir, disk: PathBuf) -> Made {
        let image = dir.path().join("image");
        imager!["backup", "-q", disk, image].ok();
        Made { dir, disk, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Extracts everything, and compares it with what the kernel sees.
    fn assert_extracts(&self) {
        let out = self.path("out");
        imager!["extract", "-q", self.image, "/", out].ok();
        let mounted = Mounted::new(&self.disk, "loop,ro");
        assert_same(mounted.path(), &out);
    }
}

/// Runs a tool to its end.
#[track_caller]
fn tool(command: &[&str], files: &[&Path]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .args(files)
        .output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", command[0]));
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// Bytes that no one else has.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    testkit::build::Random::new(seed).bytes(len)
}
