//! `imager import` of partclone images, made by partclone itself of file systems of many
//! kinds.
//!
//! Owns: that the restored partition holds what the original held, by its own tools, and that
//! damage is noticed. Does not own: formats that partclone writes no more (`crates/foreign`),
//! whole Clonezilla folders (`import_clonezilla`).

use crate::disks::{MIB, copy, flip, folder, peek};
use crate::import::{fails, imported};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program to its end.
#[track_caller]
pub fn run(name: &str, args: &[&str]) -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .args(args);
    let output = command.output();
    let output = output.unwrap_or_else(|e| panic!("{name} (see TEST_PACKAGES in build.sh): {e}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {text}");
    text
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a name in UTF-8")
}

/// A file system in a file: its kind, what makes it, what checks it.
pub struct Kind {
    name: &'static str,
    size: u64,
    make: &'static [&'static str],
    check: &'static [&'static str],
}

pub const KINDS: &[Kind] = &[
    Kind {
        name: "ext4",
        size: 48,
        make: &["mke2fs", "-q", "-t", "ext4", "-d", "TREE"],
        check: &["e2fsck", "-fn"],
    },
    Kind {
        name: "ext2",
        size: 24,
        make: &["mke2fs", "-q", "-t", "ext2", "-b", "1024", "-d", "TREE"],
        check: &["e2fsck", "-fn"],
    },
    Kind {
        name: "vfat",
        size: 40,
        make: &["mkfs.fat", "-F", "32", "-s", "1"],
        check: &["fsck.fat", "-n"],
    },
    Kind {
        name: "ntfs",
        size: 32,
        make: &["mkntfs", "-qF"],
        check: &["ntfsinfo", "-mf"],
    },
    Kind {
        name: "xfs",
        size: 320,
        make: &["mkfs.xfs", "-qf"],
        check: &["xfs_repair", "-n", "-f"],
    },
    Kind {
        name: "btrfs",
        size: 160,
        make: &["mkfs.btrfs", "-q", "-m", "single", "-r", "TREE"],
        check: &["btrfs", "check", "--readonly"],
    },
    Kind {
        name: "exfat",
        size: 40,
        make: &["mkfs.exfat"],
        check: &["fsck.exfat", "-n"],
    },
];

/// Makes the file system, with files in it where its tools can do that.
pub fn make(kind: &Kind, dir: &Path) -> PathBuf {
    let tree = dir.join("tree");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for n in 0..20u32 {
        let bytes: Vec<u8> = (0..n * 9000).map(|i| (i * 7 + n) as u8).collect();
        fs::write(tree.join(format!("a/b/{n}")), bytes).unwrap();
    }
    let part = dir.join(kind.name);
    fs::File::create(&part)
        .unwrap()
        .set_len(kind.size * MIB)
        .unwrap();
    let args: Vec<&str> = kind.make[1..]
        .iter()
        .map(|arg| if *arg == "TREE" { text(&tree) } else { arg })
        .chain([text(&part)])
        .collect();
    run(kind.make[0], &args);
    if kind.name == "vfat" {
        run("mcopy", &["-i", text(&part), "-s", text(&tree), "::/"]);
    }
    part
}

pub fn clone(kind: &str, part: &Path, to: &Path, more: &[&str]) {
    let log = to.with_extension("log");
    let start = [
        "-c",
        "-q",
        "-s",
        text(part),
        "-o",
        text(to),
        "-L",
        text(&log),
    ];
    let _ = fs::remove_file(to);
    run(&format!("partclone.{kind}"), &[&start, more].concat());
}

/// The partition as partclone itself restores it, over zeros.
fn by_partclone(image: &Path, size: u64, dir: &Path) -> PathBuf {
    let (out, log) = (dir.join("by-partclone"), dir.join("restore.log"));
    let file = fs::File::create(&out).unwrap();
    file.set_len(size).unwrap();
    run(
        "partclone.restore",
        &[
            "-q",
            "-C",
            "-s",
            text(image),
            "-O",
            text(&out),
            "-L",
            text(&log),
        ],
    );
    file.set_len(size).unwrap();
    out
}

#[test]
fn every_file_system_comes_back() {
    for kind in KINDS {
        let dir = folder();
        let part = make(kind, dir.path());
        let image = dir.path().join("image.ptcl");
        clone(kind.name, &part, &image, &[]);
        let (run_of, restored) = imported(&image, dir.path(), &[]);
        let said = run_of.json();
        assert_eq!(said["format"], "partclone");
        assert_eq!(said["disk_bytes"], kind.size * MIB, "{}", kind.name);
        // The copy of the boot sector; space for boot loaders in front.
        let lacks = run_of.stderr.contains("import-incomplete");
        assert_eq!(
            lacks,
            matches!(kind.name, "ntfs" | "btrfs"),
            "{}: {}",
            kind.name,
            run_of.stderr
        );
        // Not one byte other than what partclone restores.
        let other = by_partclone(&image, kind.size * MIB, dir.path());
        assert!(
            fs::read(&other).unwrap() == fs::read(&restored).unwrap(),
            "{}",
            kind.name
        );
        run(
            kind.check[0],
            &[&kind.check[1..], &[text(&restored)]].concat(),
        );
    }
}

#[test]
fn every_kind_of_checksum_and_compression_is_read() {
    let dir = folder();
    let part = make(&KINDS[0], dir.path());
    let image = dir.path().join("image.ptcl");
    let wanted = {
        clone("ext4", &part, &image, &[]);
        fs::read(by_partclone(&image, KINDS[0].size * MIB, dir.path())).unwrap()
    };
    for options in [
        &["-a", "1", "-k", "1"][..],
        &["-a", "1", "-k", "17", "-K"],
        &["-a", "0"],
    ] {
        clone("ext4", &part, &image, options);
        let (run_of, restored) = imported(&image, dir.path(), &[]);
        assert!(fs::read(restored).unwrap() == wanted, "{options:?}");
        // Nothing would tell of a changed byte.
        let unchecked = run_of.stderr.contains("no checksums");
        assert_eq!(unchecked, options == ["-a", "0"], "{}", run_of.stderr);
        for (packer, name) in [
            ("gzip", "image.ptcl.gz"),
            ("zstd", "image.ptcl.zst"),
            ("xz", "image.ptcl.xz"),
            ("bzip2", "image.ptcl.bz2"),
            ("lz4", "image.ptcl.lz4"),
        ] {
            let packed = dir.path().join(name);
            let _ = fs::remove_file(&packed);
            match packer {
                "lz4" => run(packer, &["-qkf", text(&image), text(&packed)]),
                _ => run(packer, &["-qkf", text(&image)]),
            };
            let (_, restored) = imported(&dir.path().join(name), dir.path(), &[]);
            assert!(
                fs::read(restored).unwrap() == wanted,
                "{options:?} {packer}"
            );
        }
    }
    let lzma = dir.path().join("image.ptcl.lzma");
    run("xz", &["--format=lzma", "-1qkf", text(&image)]);
    fails(&lzma, dir.path(), &[], "import-unsupported");
}

#[test]
fn damaged_and_torn_images_become_no_image() {
    let dir = folder();
    let part = make(&KINDS[1], dir.path());
    let image = dir.path().join("image.ptcl");
    clone("ext2", &part, &image, &["-k", "8"]);
    run("gzip", &["-kf", text(&image)]);
    run("zstd", &["-qkf", "--check", text(&image)]);
    for packer in ["xz", "bzip2"] {
        run(packer, &["-1qkf", text(&image)]);
    }
    let lz4 = dir.path().join("image.ptcl.lz4");
    run("lz4", &["-qkf", text(&image), text(&lz4)]);
    for name in ["", ".gz", ".zst", ".xz", ".bz2", ".lz4"] {
        let name = &format!("image.ptcl{name}");
        let good = dir.path().join(name);
        let len = fs::metadata(&good).unwrap().len();
        let broken = copy(&good, dir.path().join("broken"));
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(&broken)
            .unwrap();
        // A packed image may unpack to anything after its first byte that is wrong, to a
        // header of another version for one.
        let first = if name == "image.ptcl" { 40 } else { 200 };
        for at in [first, 108, 111, 200, len / 3, len / 2, len - 3, len - 1] {
            // The last bits of bzip2 fill up its last byte, and mean nothing.
            let last = if name.ends_with(".bz2") {
                len - 2
            } else {
                len - 1
            };
            let at = at.max(first).min(last);
            flip(&broken, at);
            let result = fails(
                &broken,
                dir.path(),
                &["--format", "partclone"],
                "image-damaged",
            );
            assert_eq!(result.exit, Some(1), "{name} {at}");
            flip(&broken, at);
        }
        for cut in [len - 1, len - 9, len / 2, 100, 3] {
            let rest = peek(&broken, cut, (len - cut) as usize);
            file.set_len(cut).unwrap();
            fails(
                &broken,
                dir.path(),
                &["--format", "partclone"],
                "image-damaged",
            );
            file.write_all_at(&rest, cut).unwrap();
        }
        file.write_all_at(b"more", len).unwrap();
        fails(&broken, dir.path(), &[], "image-damaged");
    }
}

/// partclone keeps what the bitmaps of the file system call free, and nothing else. Where
/// they are wrong, our own scan knows better, and says so.
#[test]
fn blocks_that_partclone_does_not_hold_are_told_and_not_invented() {
    let dir = folder();
    let part = make(&KINDS[3], dir.path());
    let image = dir.path().join("image.ptcl");
    clone("ntfs", &part, &image, &[]);
    // The copy of the boot sector in the last cluster is in no image of partclone.
    let (run_of, restored) = imported(&image, dir.path(), &[]);
    let run_of = run_of.warns("import-incomplete");
    assert!(run_of.stderr.contains("4096 bytes"), "{}", run_of.stderr);
    assert_ne!(peek(&part, KINDS[3].size * MIB - 512, 512), vec![0; 512]);
    assert_eq!(
        peek(&restored, KINDS[3].size * MIB - 512, 512),
        vec![0; 512]
    );
    let info = crate::imager!["info", "--json", dir.path().join("imported")]
        .ok()
        .json();
    assert!(
        info["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("import-incomplete")
    );
    assert!(
        info["regions"][0]["reason"]
            .as_str()
            .unwrap()
            .contains("the source holds")
    );
    fails(&image, dir.path(), &["--strict"], "import-incomplete");
    let nowhere = dir.path().join("nowhere");
    fails(
        &image,
        dir.path(),
        &["--scratch", text(&nowhere)],
        "output-failed",
    );
}
