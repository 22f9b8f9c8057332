//! ext4 whose metadata is not as it was written: checksums tell, and nothing is believed.

use super::{Made, noise, tool};
use crate::disks::{MIB, flip, peek};
use crate::imager;
use crate::run::FAILED;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use testkit::loopdev::Mounted;

const BLOCK: u64 = 1024;
/// Names in the folder with a hash tree of two levels.
const MANY: usize = 3000;

fn fill(root: &Path) {
    fs::create_dir(root.join("folder")).unwrap();
    fs::write(root.join("folder/file"), b"content of the file").unwrap();
    fs::create_dir(root.join("many")).unwrap();
    for n in 0..MANY {
        let name = format!("many/{n:04}{}", "m".repeat(200));
        fs::write(root.join(name), b"").unwrap();
    }
    let pieces = File::create(root.join("pieces")).unwrap();
    let other = File::create(root.join("other")).unwrap();
    for part in 0..20u64 {
        for file in [&pieces, &other] {
            let at = part * 20_000;
            file.write_all_at(&noise(part, 9000), at).unwrap();
            file.sync_all().unwrap();
        }
    }
    fs::write(root.join("untouched"), b"as it was").unwrap();
}

/// Where a file's inode stands.
fn inode(disk: &Path, path: &str) -> u64 {
    let said = tool(&["debugfs", "-R", &format!("imap {path}")], &[disk]);
    let (_, place) = said.split_once("located at block ").expect("a place");
    let line = place.lines().next().expect("a line").trim();
    let (block, offset) = line.split_once(", offset 0x").expect("an offset");
    block.parse::<u64>().unwrap() * BLOCK + u64::from_str_radix(offset, 16).unwrap()
}

/// Where a block of a file stands.
fn block(disk: &Path, path: &str, number: u64) -> u64 {
    let command = format!("bmap {path} {number}");
    let said = tool(&["debugfs", "-R", &command], &[disk]);
    let line = said.lines().next().expect("a block");
    line.trim().parse::<u64>().unwrap() * BLOCK
}

/// The block of a file's tree of extents.
fn tree(disk: &Path, path: &str) -> u64 {
    let root = peek(disk, inode(disk, path) + 0x28, 60);
    assert_eq!(
        (root[0], root[1], root[6]),
        (0x0a, 0xf3, 1),
        "a tree of two levels"
    );
    let number = u32::from_le_bytes(root[16..20].try_into().unwrap());
    u64::from(number) * BLOCK
}

#[test]
fn what_is_not_as_it_was_written_is_not_read() {
    let made = Made::new(32 * MIB, &["mkfs.ext4", "-q", "-b", "1024"], fill);
    let good = made.image.clone();
    let names = imager!["ls", good, "many"].ok().said();
    assert_eq!(names.lines().count(), MANY);
    imager!["cat", good, "pieces"].ok();

    let many = format!("many/0000{}", "m".repeat(200));
    let disk = &made.disk;
    // What is changed by one bit, and what cannot be read then.
    let changes = [
        ("size", inode(disk, "/folder/file") + 4, "folder/file"),
        (
            "place",
            inode(disk, "/folder/file") + 0x28 + 12 + 8,
            "folder/file",
        ),
        ("owner", inode(disk, "/folder/file") + 2, "folder/file"),
        ("extents", tree(disk, "/pieces") + 12 + 8, "pieces"),
        ("number", block(disk, "/folder", 0) + 24, "folder/file"),
        ("name", block(disk, "/folder", 0) + 24 + 9, "folder/file"),
        ("root of hashes", block(disk, "/many", 0) + 0x28 + 4, &many),
        ("hash in a node", block(disk, "/many", 0) + 0x28, &many),
    ];
    for (what, at, path) in changes {
        let changed = made.path("changed");
        fs::copy(disk, &changed).unwrap();
        flip(&changed, at);
        let image = made.path("changed image");
        let run = imager!["backup", "-q", "--overwrite", changed, image].ok();
        assert_eq!(run.stderr, "", "{what} is looked at when the image is made");
        let run = imager!["cat", image, path].fails("file-unreadable", FAILED);
        assert!(run.stdout.is_empty(), "{what}: {} bytes", run.stdout.len());
        assert!(run.stderr.contains("checksum of"), "{what}: {}", run.stderr);
        let kept = imager!["cat", image, "untouched"].ok().stdout;
        assert_eq!(kept, b"as it was", "{what}");
        let out = made.path("out");
        imager!["extract", "-q", image, "/", out].fails("files-incomplete", FAILED);
        assert!(!out.join(path).exists(), "{what}");
        fs::remove_dir_all(&out).unwrap();
        // The kernel says the same.
        let mounted = Mounted::new(&changed, "loop,ro,noload");
        assert!(fs::read(mounted.path().join(path)).is_err(), "{what}");
    }
}

/// Groups whose descriptor is wrong: their inodes may be anywhere.
#[test]
fn descriptors_are_held_against_their_checksums() {
    for features in ["metadata_csum", "^metadata_csum,uninit_bg"] {
        let mkfs = ["mkfs.ext4", "-q", "-b", "1024", "-O", features];
        let made = Made::new(16 * MIB, &mkfs, |root| {
            fs::write(root.join("file"), b"content").unwrap();
        });
        assert_eq!(imager!["cat", made.image, "file"].ok().stdout, b"content");
        // The inode table of the first group is somewhere else.
        flip(&made.disk, 2 * BLOCK + 8);
        let image = made.path("changed image");
        imager!["backup", "-q", made.disk, image].warns("fs-damaged");
        let run = imager!["cat", image, "file"].fails("file-unreadable", FAILED);
        assert!(
            run.stderr.contains("descriptor of group 0"),
            "{}",
            run.stderr
        );
    }
}

/// Flags that the file system keeps and does not heed.
#[test]
fn what_is_marked_to_be_compressed_is_not() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        fs::create_dir(root.join("folder")).unwrap();
        tool(&["chattr", "+c"], &[&root.join("folder")]);
        fs::write(root.join("folder/file"), noise(1, 50_000)).unwrap();
    });
    made.assert_extracts();
}
