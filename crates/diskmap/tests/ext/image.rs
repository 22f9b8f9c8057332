//! Recipes of ext file systems, and what e2fsprogs says of them.
//!
//! Owns: making them, reading dumpe2fs, comparing. Does not own: any case.

#![allow(dead_code)] // each test program uses a part

use crate::common::{
    assert_same_tree, fill, ok, ok_with_input, restore_onto_garbage, run, s, sparse, whole,
    whole_used,
};
use diskmap::{Extent, Extents, Method, WarningKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub struct Image {
    _dir: TempDir,
    pub path: PathBuf,
    pub tree: PathBuf,
    pub work: PathBuf,
}

/// Makes a file system of `mib` MiB with files, some of them deleted again.
pub fn image(mib: u64, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let tree = dir.path().join("tree");
    fill(&tree, 60, (mib << 20) / 200);
    let mut all = vec![
        "-q",
        "-F",
        "-U",
        "01234567-89ab-cdef-0123-456789abcdef",
        "-L",
        "mylabel",
    ];
    all.extend(args);
    all.extend(["-d", s(&tree), s(&path)]);
    ok("mke2fs", &all);
    let mut commands = String::new();
    for i in (0..60).step_by(3) {
        let name = format!("d{}/file{i}", i % 5);
        commands += &format!("rm /{name}\n");
        std::fs::remove_file(tree.join(name)).unwrap();
    }
    ok_with_input("debugfs", &["-w", "-f", "-", s(&path)], &commands);
    let work = dir.path().to_path_buf();
    Image {
        _dir: dir,
        path,
        tree,
        work,
    }
}

/// What dumpe2fs tells, in bytes.
pub struct Dump {
    pub used: Extents,
    /// Inode table parts that need not be there.
    pub skippable: Extents,
    pub block: u64,
}

pub fn number(text: &str) -> u64 {
    let digits: String = text
        .trim()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number in {text:?}"))
}

pub fn field(dump: &str, name: &str) -> Option<u64> {
    dump.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(number)
}

pub fn dumpe2fs(path: &Path) -> Dump {
    let dump = ok("dumpe2fs", &[s(path)]);
    let block = field(&dump, "Block size:").unwrap();
    let blocks = field(&dump, "Block count:").unwrap();
    let ratio = field(&dump, "Cluster size:").map_or(1, |cluster| cluster / block);
    let inode = field(&dump, "Inode size:").unwrap_or(128);
    let per_group = field(&dump, "Inodes per group:").unwrap();
    let checksums = dump.lines().any(|l| {
        l.starts_with("Filesystem features:")
            && (l.contains("metadata_csum") || l.contains("uninit_bg"))
    });
    let bytes = |from: u64, to: u64| Extent::between(from * block, to * block);
    let mut free = Vec::new();
    let mut skippable = Vec::new();
    let (mut zeroed, mut uninit, mut table) = (false, false, 0);
    for line in dump.lines() {
        let trimmed = line.trim();
        if line.starts_with("Group ") {
            zeroed = line.contains("ITABLE_ZEROED");
            uninit = line.contains("INODE_UNINIT");
        } else if let Some(rest) = trimmed.strip_prefix("Inode table at ") {
            table = number(rest);
        } else if let Some((_, rest)) = trimmed.split_once("directories") {
            if checksums && !zeroed {
                let unused = if rest.contains("unused inodes") {
                    number(rest.trim_start_matches([',', ' ']))
                } else {
                    0
                };
                let unused = if uninit { per_group } else { unused };
                let first = ((per_group - unused) * inode).div_ceil(block);
                skippable.push(bytes(
                    table + first,
                    table + (per_group * inode).div_ceil(block),
                ));
            }
        } else if let Some(list) = line.strip_prefix("  Free blocks: ") {
            for part in list.split(", ").filter(|part| !part.trim().is_empty()) {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                free.push(bytes(number(from), number(to) + ratio));
            }
        }
    }
    let free: Extents = free.into_iter().collect();
    Dump {
        used: Extents::whole(blocks * block).subtract(&free),
        skippable: skippable.into_iter().collect(),
        block,
    }
}

/// The map must be what dumpe2fs says, to the block; the boot block belongs to it.
pub fn assert_matches(used: &Extents, dump: &Dump) {
    let wanted = dump.used.subtract(&dump.skippable);
    let missing = wanted.subtract(used);
    assert!(missing.is_empty(), "not in the map: {missing:?}");
    let extra = used.subtract(&wanted);
    assert!(extra.is_empty(), "in the map for no reason: {extra:?}");
}

pub fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn verify(image: &Image) {
    let region = whole_used(&image.path);
    assert_eq!(region.label, "mylabel");
    assert_eq!(region.uuid, "01234567-89ab-cdef-0123-456789abcdef");
    assert_matches(&region.used, &dumpe2fs(&image.path));
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, &region.used, &target);
    // Some recipes leave quota figures that e2fsck does not like; not a byte more.
    let check = |path: &Path| run("e2fsck", &["-fn", s(path)]);
    let (before, after) = (check(&image.path), check(&target));
    assert_eq!(
        text(&before).replace(s(&image.path), ""),
        text(&after).replace(s(&target), "")
    );
    assert_eq!(before.status, after.status);
    let files = image.work.join("files");
    std::fs::create_dir(&files).unwrap();
    ok(
        "debugfs",
        &["-R", &format!("rdump / {}", s(&files)), s(&target)],
    );
    let _ = std::fs::remove_dir(files.join("lost+found"));
    assert_same_tree(&image.tree, &files);
}

/// Copied in full with a warning of that kind that contains the words.
pub fn assert_full(path: &Path, kind: WarningKind, words: &str) {
    let (region, map) = whole(path);
    assert_eq!(region.method, Method::Full, "{}", region.reason);
    assert_eq!(region.used, Extents::whole(region.size));
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    let warning = &map.warnings[0];
    assert_eq!((warning.kind, warning.partition), (kind, Some(0)));
    assert!(warning.detail.contains(words), "{}", warning.detail);
    assert!(
        region.file_system.starts_with("ext"),
        "{}",
        region.file_system
    );
}
