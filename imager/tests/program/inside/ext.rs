//! ext2, ext3 and ext4, held against the kernel.

use super::{Made, assert_same, noise, tool};
use crate::disks::{self, MIB, folder};
use crate::imager;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::{Statvfs, statvfs};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::build::{Tree, hashes_of};
use testkit::loopdev::Mounted;

/// Files of every kind that a reader can get wrong.
fn odd_files(root: &Path) {
    for n in 0..600 {
        let name = format!("many/{n:04} {}", "n".repeat(n % 200));
        fs::create_dir_all(root.join("many")).unwrap();
        fs::write(root.join(name), noise(n as u64, n * 37)).unwrap();
    }
    fs::write(root.join("n".repeat(255)), b"the longest name").unwrap();
    for name in [
        "Größe ✓ 日本語",
        " leading",
        "new\nline",
        "-rf",
        "back\\slash",
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"not \xff\xfe UTF-8")), b"x").unwrap();
    let deep: String = (0..60).map(|n| format!("d{n}/")).collect();
    fs::create_dir_all(root.join(&deep)).unwrap();
    fs::write(root.join(&deep).join("bottom"), b"deep").unwrap();

    symlink("many", root.join("fast")).unwrap();
    symlink("/".repeat(59), root.join("inode's last byte")).unwrap();
    symlink("s".repeat(60), root.join("first in a block")).unwrap();
    symlink("t".repeat(1000), root.join("slow")).unwrap();
    symlink("/etc/../absolute", root.join("absolute")).unwrap();
    fs::write(root.join("a first name"), noise(9, 70_000)).unwrap();
    fs::hard_link(root.join("a first name"), root.join("many/another name")).unwrap();

    // Larger than cells, in pieces that lie apart.
    let large = File::create(root.join("large")).unwrap();
    let other = File::create(root.join("other")).unwrap();
    for part in 0..40u64 {
        large
            .write_all_at(&noise(part, 150_000), part * 150_000)
            .unwrap();
        large.sync_all().unwrap();
        other
            .write_all_at(&noise(part + 100, 50_000), part * 50_000)
            .unwrap();
        other.sync_all().unwrap();
    }
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(&noise(5, 5000), 5 * MIB + 17).unwrap();
    sparse.set_len(200 * MIB).unwrap();
    fs::write(root.join("empty"), b"").unwrap();

    for (number, mode) in [0o600, 0o755, 0o4755, 0o2711, 0o1777, 0]
        .into_iter()
        .enumerate()
    {
        let path = root.join(format!("mode {mode:o}"));
        fs::write(&path, b"m").unwrap();
        std::os::unix::fs::chown(&path, Some(1000 + number as u32), Some(70_000)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    // Before 1970, behind 2038, and with nanoseconds.
    for (name, time) in [
        ("1965", "@-150000000.25"),
        ("2096", "@3976000000.123456789"),
    ] {
        fs::write(root.join(name), name).unwrap();
        tool(&["touch", "-d", time], &[&root.join(name)]);
    }
    tool(&["touch", "-h", "-d", "@1000000000"], &[&root.join("slow")]);
    tool(&["mkfifo"], &[&root.join("pipe")]);
}

#[test]
fn everything_comes_out_as_the_kernel_sees_it() {
    for mkfs in [
        &["mkfs.ext4", "-q"][..],
        &[
            "mkfs.ext4",
            "-q",
            "-b",
            "1024",
            "-O",
            "^64bit,^metadata_csum",
        ],
        &[
            "mkfs.ext4",
            "-q",
            "-b",
            "1024",
            "-O",
            "meta_bg,^resize_inode,bigalloc",
            "-C",
            "16384",
        ],
        &["mkfs.ext3", "-q", "-b", "2048"],
        &["mkfs.ext2", "-q", "-b", "1024", "-I", "128"],
    ] {
        let old = mkfs.contains(&"128");
        let made = Made::new(64 * MIB, mkfs, |root| {
            odd_files(root);
            if old {
                // Inodes of 128 bytes have whole seconds of 31 bits.
                fs::remove_file(root.join("2096")).unwrap();
            }
        });
        made.assert_extracts();
        let sparse = fs::metadata(made.path("out/sparse")).unwrap();
        assert!(sparse.blocks() * 512 < MIB, "{} blocks", sparse.blocks());
    }
}

/// What stands in reserved blocks belonged to somebody else.
#[test]
fn reserved_space_reads_as_zeros() {
    let made = Made::new(64 * MIB, &["mkfs.ext4", "-q"], |root| {
        let secret = root.join("secret");
        // Nearly all of the space: whatever is reserved then was part of it.
        fs::write(&secret, b"SECRET! ".repeat(6 << 20)).unwrap();
        File::open(&secret).unwrap().sync_all().unwrap();
        fs::remove_file(&secret).unwrap();
        // A program that is being started elsewhere may hold it for a moment.
        let end = Instant::now() + Duration::from_secs(60);
        let free = |stat: Statvfs| stat.blocks_available() * stat.fragment_size();
        while free(statvfs(root).unwrap()) < 30 * MIB {
            assert!(Instant::now() < end, "the space does not become free");
            nix::unistd::sync();
        }
        let file = File::create(root.join("reserved")).unwrap();
        fallocate(&file, FallocateFlags::empty(), 0, 20 << 20).unwrap();
        file.write_all_at(b"in the middle", 9 << 20).unwrap();
        file.set_len((20 << 20) + 5).unwrap();
        let kept = File::create(root.join("kept")).unwrap();
        fallocate(&kept, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1 << 20).unwrap();
        kept.write_all_at(b"short", 0).unwrap();
    });
    made.assert_extracts();
    let out = imager!["cat", made.image, "reserved"].ok();
    assert_eq!(out.stdout.len(), (20 << 20) + 5);
    assert!(!out.stdout.windows(7).any(|bytes| bytes == b"SECRET!"));
    assert_eq!(imager!["cat", made.image, "/kept"].ok().stdout, b"short");
}

/// A disk that was pulled out: what counts is what its journal says.
#[test]
fn a_journal_that_was_not_replayed_counts() {
    for mkfs in [&["mkfs.ext4", "-q"][..], &["mkfs.ext3", "-q", "-b", "1024"]] {
        let dir = folder();
        let (disk, pulled) = (dir.path().join("live"), dir.path().join("disk"));
        File::create(&disk).unwrap().set_len(48 * MIB).unwrap();
        tool(mkfs, &[&disk]);
        let mounted = Mounted::new(&disk, "loop,data=journal,commit=1");
        for n in 0..300 {
            fs::write(mounted.path().join(format!("old {n}")), noise(n, 3000)).unwrap();
        }
        nix::unistd::sync();
        for n in 0..200 {
            fs::remove_file(mounted.path().join(format!("old {n}"))).unwrap();
            fs::write(mounted.path().join(format!("new {n}")), noise(n, 2000)).unwrap();
        }
        let last = File::create(mounted.path().join("the last one")).unwrap();
        last.write_all_at(b"committed", 0).unwrap();
        last.sync_all().unwrap();
        fs::copy(&disk, &pulled).unwrap();
        drop(last);
        drop(mounted);

        let features = tool(&["dumpe2fs", "-h"], &[&pulled]);
        assert!(
            features.contains("needs_recovery"),
            "the journal is to be replayed"
        );
        let image = dir.path().join("image");
        imager!["backup", "-q", pulled, image].ok();
        let out = dir.path().join("out");
        let run = imager!["extract", "-q", image, "/", out].ok();
        assert!(run.stderr.contains("warning: fs-dirty: "), "{}", run.stderr);
        // The kernel replays it now.
        let mounted = Mounted::new(&pulled, "loop");
        assert_same(mounted.path(), &out);
    }
}

#[test]
fn partitions_of_disks_with_either_sector_size() {
    for (imaged, number, seed, largest) in [
        (disks::gpt(), 2, 1, 150_000),
        (disks::gpt_4k(), 2, 2, 150_000),
        (disks::mbr(), 1, 3, 100_000),
        (disks::mbr(), 5, 3, 100_000),
    ] {
        let dir = folder();
        let out = dir.path().join("out");
        let number = number.to_string();
        imager![
            "extract",
            "-q",
            imaged.image,
            "--partition",
            number,
            "/",
            out
        ]
        .ok();
        let tree = Tree::new(seed, 24, largest);
        assert_eq!(hashes_of(&out), tree.hashes());
        for (path, contents) in tree.files() {
            let run = imager!["cat", imaged.image, "--partition", number, path].ok();
            assert!(run.stdout == contents, "{path}");
        }
    }
}

#[test]
fn lists_are_sorted_and_tell_what_there_is() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/fstab"), b"/dev/x / ext4\n").unwrap();
        symlink("fstab", root.join("etc/mtab")).unwrap();
        fs::write(root.join("zebra"), b"z").unwrap();
        fs::write(root.join("bell\x07"), b"").unwrap();
        symlink("/etc", root.join("config")).unwrap();
        for name in ["etc/fstab", "zebra"] {
            let path = root.join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            tool(&["touch", "-d", "@1000000000"], &[&path]);
        }
    });
    let said = imager!["ls", made.image].ok().said();
    assert_eq!(said, "bell?\nconfig\netc\nlost+found\nzebra\n");
    // A link on the way is followed, inside of the image.
    assert_eq!(
        imager!["ls", made.image, "config/fstab"].ok().said(),
        "etc/fstab\n"
    );
    let said = imager!["ls", "-lR", made.image, "/etc"].ok().said();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        [
            "-rw-r-----",
            "0",
            "0",
            "14",
            "2001-09-09T01:46:40Z",
            "etc/fstab"
        ]
    );
    assert!(lines[1].starts_with("lrwxrwxrwx") && lines[1].ends_with("etc/mtab -> fstab"));

    let json = imager!["ls", "--json", "-R", made.image].ok().json();
    assert_eq!(json["file_system"], "ext4");
    assert_eq!(json["complete"], true);
    let entries = json["entries"].as_array().unwrap();
    let paths: Vec<_> = entries
        .iter()
        .map(|entry| entry["path"].as_str().unwrap())
        .collect();
    let all = [
        "/bell\x07",
        "/config",
        "/etc",
        "/etc/fstab",
        "/etc/mtab",
        "/lost+found",
        "/zebra",
    ];
    assert_eq!(paths, all);
    assert_eq!(entries[3]["size_bytes"], 14);
    assert_eq!(entries[3]["mode"], "0640");
    assert_eq!(entries[4]["target"], "fstab");
    assert_eq!(
        imager!["cat", made.image, "/config/mtab"].ok().said(),
        "/dev/x / ext4\n"
    );
}

/// The same entry has the same path, however it is listed.
#[test]
fn paths_in_json() {
    let made = Made::new(16 * MIB, &["mkfs.ext4", "-q"], |root| {
        fs::create_dir(root.join("etc")).unwrap();
        fs::write(root.join("etc/fstab"), b"/dev/x / ext4\n").unwrap();
        fs::write(root.join(OsStr::from_bytes(b"\xff")), b"x").unwrap();
    });
    let entry = |args: &[&str], wanted: &str| {
        let mut command = crate::run::command(["ls", "--json"]);
        command.arg(&made.image).args(args);
        let json = crate::run::finish(command).ok().json();
        let entries = json["entries"].as_array().unwrap().clone();
        let found = entries.into_iter().find(|entry| entry["path"] == wanted);
        found.unwrap_or_else(|| panic!("no {wanted} in {json}"))
    };
    for (args, path, name) in [
        (&["/"][..], "/etc", "etc"),
        (&["-R"], "/etc", "etc"),
        (&["etc"], "/etc/fstab", "fstab"),
        (&["etc/fstab"], "/etc/fstab", "fstab"),
        (&["-R", "/"], "/etc/fstab", "fstab"),
    ] {
        assert_eq!(entry(args, path)["name"], name, "{args:?}");
    }
    assert_eq!(entry(&["/"], "/\u{fffd}")["path_hex"], "2fff");
    // What stands behind a file is nothing, whatever it is.
    for path in [
        "etc/fstab/",
        "etc/fstab/.",
        "etc/fstab/..",
        "etc/fstab/../fstab",
    ] {
        imager!["cat", made.image, path].refused("file-not-found");
    }
    for path in ["etc/", "etc/.", "./etc/../etc//", "..", "/."] {
        imager!["ls", made.image, path].ok();
    }
}
