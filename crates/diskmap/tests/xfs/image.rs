//! XFS with files, some of them deleted again.

use crate::common::{fill, ok, s, sparse};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use testkit::loopdev::Mounted;

/// Files that the recipes write.
const FILES: u64 = 300;

pub struct Image {
    pub path: PathBuf,
    /// The same files in a folder.
    pub tree: PathBuf,
    pub dir: TempDir,
}

/// An empty file system of `mib` MiB.
pub fn empty(mib: u64, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    make(&path, args);
    Image { path, tree, dir }
}

/// Runs mkfs.xfs; it thinks little of small file systems and of version 4.
pub fn make(path: &Path, args: &[&str]) {
    let mut all = vec!["-q", "-f", "--unsupported", "-L", "mylabel"];
    all.extend(args);
    all.push(s(path));
    ok("mkfs.xfs", &all);
}

/// Mounts a file. Copies have the UUID of what they are copies of.
pub fn mount(path: &Path) -> Mounted {
    Mounted::new(path, "loop,nouuid")
}

/// The names of every second file, as [`fill`] gives them.
fn every_second() -> impl Iterator<Item = String> {
    (0..FILES).step_by(2).map(|i| format!("d{}/file{i}", i % 5))
}

/// As [`empty`], filled by the kernel: every second file is deleted, one is a reflink.
pub fn filled(mib: u64, args: &[&str]) -> Image {
    let image = empty(mib, args);
    let mean = (mib << 20) / FILES / 4;
    fill(&image.tree, FILES, mean);
    let mounted = mount(&image.path);
    fill(mounted.path(), FILES, mean);
    // Only then there are holes between what stays.
    ok("sync", &["-f", s(mounted.path())]);
    for name in every_second() {
        std::fs::remove_file(mounted.path().join(&name)).unwrap();
        std::fs::remove_file(image.tree.join(&name)).unwrap();
    }
    for folder in [mounted.path(), &image.tree] {
        let (from, to) = (folder.join("d1/file1"), folder.join("shared"));
        ok("cp", &["--reflink=auto", s(&from), s(&to)]);
    }
    drop(mounted);
    image
}

/// As [`filled`] for version 4, which the kernel here does not mount: mkfs.xfs writes the
/// files, xfs_db strikes out every second inode, xfs_repair frees what they held.
pub fn filled_without_kernel(mib: u64, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let tree = dir.path().join("tree");
    fill(&tree, FILES, (mib << 20) / FILES / 4);
    let mut recipe = String::from("/dev/null\n0 0\nd--755 0 0\n");
    for folder in 0..5 {
        writeln!(recipe, "d{folder} d--755 0 0").unwrap();
        for i in (folder..FILES).step_by(5) {
            let source = tree.join(format!("d{folder}/file{i}"));
            writeln!(recipe, "file{i} ---644 0 0 {}", s(&source)).unwrap();
        }
        recipe += "$\n";
    }
    recipe += "$\n";
    let file = dir.path().join("recipe");
    std::fs::write(&file, recipe).unwrap();
    let mut all = vec!["-p", s(&file)];
    all.extend(args);
    make(&path, &all);
    let mut commands = Vec::new();
    for name in every_second() {
        std::fs::remove_file(tree.join(&name)).unwrap();
        commands.push(format!("path /{name}"));
        commands.push("write core.mode 0".into());
    }
    let mut args = vec!["-x"];
    args.extend(commands.iter().flat_map(|command| ["-c", command]));
    args.push(s(&path));
    ok("xfs_db", &args);
    ok("xfs_repair", &["-f", s(&path)]);
    Image { path, tree, dir }
}
