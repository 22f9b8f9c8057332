//! Files inside the file systems of the matrix, and reading them again.
//!
//! Owns: running tools, mounting with the host's kernel or FUSE, and hashes of what is
//! there. Does not own: which file system is read how ([`super::formats`]).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use testkit::build::{Hashes, Tree, hashes_of};

/// Runs a tool that must succeed and gives its standard output.
///
/// # Panics
/// If it is missing or fails.
pub fn ok(tool: &str, args: &[&str]) -> String {
    let output = output(tool, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{tool} {args:?} failed, {}:\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs a tool; whether it succeeded, and everything it printed.
///
/// # Panics
/// If it is missing.
pub fn run(tool: &str, args: &[&str]) -> (bool, String) {
    let output = output(tool, args);
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn output(tool: &str, args: &[&str]) -> Output {
    Command::new(tool)
        .args(args)
        .env("LC_ALL", "C")
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("PATH", tool_path())
        .output()
        .unwrap_or_else(|e| panic!("{tool} does not start: {e}; ./build.sh test installs it"))
}

fn tool_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}

/// A path as text.
pub fn s(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

/// The files that every file system gets before it is left, and those that are written
/// and synced last of all.
pub fn trees() -> (Tree, Tree) {
    (Tree::new(11, 30, 300_000), Tree::new(12, 6, 200_000))
}

/// A mounted file system; dropping it unmounts it.
pub struct Mounted {
    path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Mounted {
    /// Mounts a device with a program (`mount`, `ntfs-3g`) and its arguments before the
    /// device.
    ///
    /// # Panics
    /// If it cannot be mounted.
    pub fn new(program: &str, args: &[&str], device: &Path) -> Mounted {
        let dir = tempfile::tempdir().expect("a directory to mount on");
        let path = dir.path().to_path_buf();
        let all: Vec<&str> = args.iter().copied().chain([s(device), s(&path)]).collect();
        ok(program, &all);
        Mounted { path, _dir: dir }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let (done, text) = run("umount", &[s(&self.path)]);
        if !done {
            eprintln!("could not unmount {}: {text}", self.path.display());
        }
    }
}

/// Writes the second tree below `root/last` and flushes each file and directory.
///
/// # Panics
/// If that fails.
pub fn write_and_sync(root: &Path) {
    let last = root.join("last");
    trees().1.write_to(&last);
    let listed = ok("find", &[s(&last)]);
    for path in listed.lines().rev() {
        std::fs::File::open(path)
            .and_then(|file| file.sync_all())
            .expect("a flushed file");
    }
}

/// Hashes of all files that must be in a file system.
pub fn expected(with_last: bool) -> Hashes {
    let (first, last) = trees();
    let mut hashes = first.hashes();
    if with_last {
        hashes.extend(
            last.hashes()
                .into_iter()
                .map(|(path, hash)| (format!("last/{path}"), hash)),
        );
    }
    hashes
}

/// Compares what is below a directory with what must be there.
///
/// # Panics
/// If a file is missing, different, or one too many.
pub fn compare(root: &Path, expected: &Hashes) {
    let found = hashes_of(root);
    for (path, hash) in expected {
        assert!(
            found.get(path) == Some(hash),
            "{path} is missing or differs"
        );
    }
    assert_eq!(
        found.len(),
        expected.len(),
        "there are more files than there were"
    );
}
