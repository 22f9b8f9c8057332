//! Readers of file systems on damaged ones: whatever stands in the metadata, they end, in
//! bounded time and memory, without a panic.
//!
//! Owns: thousands of changed file systems, in this process. Does not own: that what is read
//! is right (`program/inside`).

use image::layout::Region;
use imager::files::path::find;
use imager::files::walk::{Visitor, walk};
use imager::files::{self, Fail, Kind, Node, Part, Tree, part::Bytes};
use imager::progress::Silent;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use testkit::build::Random;

/// A disk in memory that holds all of itself.
struct Memory(Vec<u8>);

impl Bytes for Memory {
    fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, image::Error> {
        let from = offset as usize;
        buf.copy_from_slice(&self.0[from..from + buf.len()]);
        Ok(buf.len() as u64)
    }
}

/// Reads everything, but of every file only so much.
struct Reader<'a> {
    tree: &'a dyn Tree,
    entries: u32,
}

impl Visitor for Reader<'_> {
    fn entry(&mut self, _: &[u8], _: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail> {
        self.entries += 1;
        let Ok(node) = node else { return Ok(false) };
        match node.kind {
            Kind::File => {
                let mut pieces = 0;
                let _ = files::read(self.tree, &node, &mut |_| {
                    pieces += 1;
                    if pieces > 1000 {
                        Err(Fail::Interrupted)
                    } else {
                        Ok(())
                    }
                });
            }
            Kind::Symlink => drop(self.tree.target(&node)),
            _ => {}
        }
        // A loop is found; a maze of many folders would be read for long.
        Ok(self.entries < 5000)
    }

    fn leave(&mut self, _: &[u8], _: &Node, _: Option<Fail>) -> Result<(), Fail> {
        Ok(())
    }
}

fn read_all(file_system: &str, disk: &Memory) -> u32 {
    let region = Region {
        kind: "whole".into(),
        size: disk.0.len() as u64,
        file_system: file_system.into(),
        method: "full".into(),
        ..Region::default()
    };
    let part = Part::over(disk, &region, Vec::new(), &Silent);
    let Ok(tree) = files::open(&part) else {
        return 0;
    };
    let _ = find(&*tree, b"folder/deeper/../link", true);
    let Ok(root) = tree.root() else { return 0 };
    let mut reader = Reader {
        tree: &*tree,
        entries: 0,
    };
    let _ = walk(&*tree, &root, b"", &mut reader);
    reader.entries
}

#[track_caller]
fn tool(command: &[&str], files: &[&Path]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .args(files)
        .output();
    let output = output.unwrap_or_else(|e| panic!("{}: {e}", command[0]));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn tree(root: &Path) {
    fs::create_dir_all(root.join("folder/deeper")).unwrap();
    for n in 0..40 {
        fs::write(
            root.join(format!("folder/a file of number {n}")),
            vec![n as u8; n * 400],
        )
        .unwrap();
    }
    fs::write(root.join("folder/deeper/one"), b"x").unwrap();
}

/// Changes some bytes where `hot` says that metadata stands, and reads everything.
fn run(file_system: &str, bytes: &[u8], hot: &[std::ops::Range<usize>], rounds: u64) {
    let whole = read_all(file_system, &Memory(bytes.to_vec()));
    assert!(whole >= 40, "{whole} entries of a good one");
    let mut random = Random::new(rounds);
    for round in 0..rounds {
        let mut changed = Memory(bytes.to_vec());
        for _ in 0..1 + round % 12 {
            let range = &hot[random.below(hot.len() as u64) as usize];
            let at = range.start + random.below(range.len() as u64) as usize;
            let odd = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8];
            changed.0[at] = odd[random.below(6) as usize];
        }
        read_all(file_system, &changed);
    }
}

#[test]
fn ext_of_any_kind() {
    let dir = tempfile::tempdir().unwrap();
    let (root, disk) = (dir.path().join("root"), dir.path().join("disk"));
    tree(&root);
    std::os::unix::fs::symlink("x".repeat(90), root.join("folder/link")).unwrap();
    for options in [
        "extent",
        "extent,^metadata_csum",
        "^extent,^64bit,^metadata_csum",
        "meta_bg,^resize_inode,^has_journal,^metadata_csum",
    ] {
        let _ = fs::remove_file(&disk);
        File::create(&disk).unwrap().set_len(2 << 20).unwrap();
        let from = root.to_str().unwrap();
        tool(
            &[
                "mke2fs", "-q", "-t", "ext4", "-b", "1024", "-N", "64", "-d", from, "-O", options,
            ],
            &[&disk],
        );
        let bytes = fs::read(&disk).unwrap();
        // Superblock, descriptors, inodes; then blocks that begin as trees or folders do.
        let mut hot = vec![1024..2048, 2048..4096];
        hot.extend(
            (0..bytes.len())
                .step_by(1024)
                .map(|at| at..at + 64)
                .filter(|range| {
                    let block = &bytes[range.clone()];
                    block.iter().any(|&byte| byte != 0) && block[..8] != block[8..16]
                }),
        );
        run("ext4", &bytes, &hot, 300);
    }
}

#[test]
fn ntfs() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(4 << 20).unwrap();
    tool(&["mkntfs", "-q", "-Q", "-F"], &[&disk]);
    let mounted = testkit::loopdev::Mounted::new(&disk, "loop");
    tree(mounted.path());
    drop(mounted);
    let bytes = fs::read(&disk).unwrap();
    let mut hot: Vec<_> = std::iter::once(0..96).collect();
    hot.extend(
        (0..bytes.len())
            .step_by(1024)
            .filter(|&at| bytes[at..].starts_with(b"FILE") || bytes[at..].starts_with(b"INDX"))
            .map(|at| at..at + 480),
    );
    run("ntfs", &bytes, &hot, 600);
}

#[test]
fn fat() {
    let dir = tempfile::tempdir().unwrap();
    let (root, disk) = (dir.path().join("root"), dir.path().join("disk"));
    tree(&root);
    for (bits, mib) in [("12", 2), ("16", 9), ("32", 34)] {
        let _ = fs::remove_file(&disk);
        File::create(&disk).unwrap().set_len(mib << 20).unwrap();
        tool(&["mkfs.vfat", "-F", bits, "-s", "1"], &[&disk]);
        tool(
            &["mcopy", "-s", "-i"],
            &[&disk, &root.join("folder"), Path::new("::")],
        );
        let bytes = fs::read(&disk).unwrap();
        // Tables and folders: entries in use.
        let used = |at: &usize| bytes[*at..*at + 32].iter().any(|&byte| byte != 0);
        let mut hot: Vec<_> = std::iter::once(0..64).collect();
        hot.extend(
            (512..600 << 10)
                .step_by(32)
                .filter(used)
                .map(|at| at..at + 32),
        );
        run(&format!("fat{bits}"), &bytes, &hot, 300 / mib * 2 + 20);
    }
}
