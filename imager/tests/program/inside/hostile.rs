//! File systems that were made to do harm.

use super::{Made, seen, tool};
use crate::disks::{MIB, folder};
use crate::imager;
use crate::run::FAILED;
use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Puts other bytes in the place of a name in a directory, wherever it stands.
fn rename_in_place(disk: &Path, old: &[u8], new: &[u8]) {
    assert_eq!(old.len(), new.len());
    let bytes = fs::read(disk).unwrap();
    let places: Vec<usize> = bytes
        .windows(old.len())
        .enumerate()
        .filter(|(_, window)| *window == old)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "no such name");
    let file = fs::File::options().write(true).open(disk).unwrap();
    for at in places {
        file.write_all_at(new, at as u64).unwrap();
    }
}

/// No checksums, no journal: what is written into the disk counts.
fn hostile(fill: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> Made {
    let mkfs = &["mkfs.ext4", "-q", "-O", "^metadata_csum,^has_journal"];
    let made = Made::new(16 * MIB, mkfs, fill);
    let Made { dir, disk, image } = made;
    fs::remove_file(image).unwrap();
    change(&disk);
    Made::of(dir, disk)
}

#[test]
fn names_that_lead_out_of_the_destination() {
    let made = hostile(
        |root| {
            fs::create_dir(root.join("folder-name-1")).unwrap();
            fs::write(root.join("folder-name-1/inner"), b"x").unwrap();
            fs::write(root.join("slashed-name-2"), b"x").unwrap();
            fs::write(root.join("zeroed--name-3"), b"x").unwrap();
            fs::write(root.join("good"), b"good").unwrap();
        },
        |disk| {
            rename_in_place(disk, b"folder-name-1", b"../../outside");
            rename_in_place(disk, b"slashed-name-2", b"/tmp/imager-ev");
            rename_in_place(disk, b"zeroed--name-3", b"zeroed\0-name-3");
        },
    );
    let out = made.path("in/side/out");
    let run = imager!["extract", "-q", made.image, "/", out].fails("files-incomplete", FAILED);
    assert!(
        run.stderr.contains("3 could not be extracted"),
        "{}",
        run.stderr
    );
    let names: Vec<_> = seen(&out).into_keys().collect();
    assert_eq!(names, [Path::new("good"), Path::new("lost+found")]);
    assert!(!made.path("outside").exists() && !made.path("in/outside").exists());
    assert!(!Path::new("/tmp/imager-ev").exists());
}

/// A link first, then a folder of the same name with a file in it: the file must not go
/// where the link leads.
#[test]
fn a_link_and_a_folder_of_one_name() {
    let outside = folder();
    let target = outside.path().to_str().unwrap().to_owned();
    let made = hostile(
        |root| {
            symlink(&target, root.join("twin-a")).unwrap();
            fs::create_dir(root.join("twin-b")).unwrap();
            fs::write(root.join("twin-b/planted"), b"x").unwrap();
        },
        |disk| rename_in_place(disk, b"twin-b", b"twin-a"),
    );
    for overwrite in [&["-q"][..], &["-q", "--overwrite"]] {
        let out = made.path(&format!("out{}", overwrite.len()));
        let mut command = crate::run::command(["extract"]);
        command.args(overwrite).arg(&made.image).arg("/").arg(&out);
        crate::run::finish(command).fails("files-incomplete", FAILED);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}

/// Names that are the same at the destination: the second one does not replace the first.
#[test]
fn two_things_of_one_name() {
    let made = hostile(
        |root| {
            fs::write(root.join("twin-a"), b"first").unwrap();
            fs::write(root.join("twin-b"), b"second").unwrap();
            symlink("twin-a", root.join("link-a")).unwrap();
            symlink("twin-b", root.join("link-b")).unwrap();
            fs::create_dir(root.join("fold-a")).unwrap();
            fs::create_dir(root.join("fold-b")).unwrap();
            fs::write(root.join("fold-b/inner"), b"x").unwrap();
            // A file with two names, one of which is a twin.
            fs::write(root.join("pair-a"), b"pair").unwrap();
            fs::hard_link(root.join("pair-a"), root.join("pair-b")).unwrap();
        },
        |disk| {
            for name in ["twin", "link", "fold", "pair"] {
                let (one, other) = (format!("{name}-a"), format!("{name}-b"));
                rename_in_place(disk, other.as_bytes(), one.as_bytes());
            }
        },
    );
    for there in [false, true] {
        let out = made.path(&format!("out {there}"));
        fs::create_dir(&out).unwrap();
        if there {
            fs::write(out.join("twin-a"), b"mine").unwrap();
            fs::create_dir(out.join("fold-a")).unwrap();
        }
        let run = imager!["extract", "-q", "--overwrite", made.image, "/", out];
        let run = run.fails("files-incomplete", FAILED);
        let four = "4 could not be extracted";
        assert!(run.stderr.contains(four), "{}", run.stderr);
        let twin = fs::read(out.join("twin-a")).unwrap();
        assert!([&b"first"[..], b"second"].contains(&&twin[..]));
        assert!(fs::read_link(out.join("link-a")).is_ok());
        assert_eq!(fs::read(out.join("pair-a")).unwrap(), b"pair");
    }
}

#[test]
fn a_folder_inside_of_itself_ends() {
    let made = hostile(
        |root| {
            fs::create_dir_all(root.join("a/b/c")).unwrap();
            fs::write(root.join("a/file"), b"x").unwrap();
        },
        |disk| {
            tool(&["debugfs", "-w", "-R", "link /a /a/b/loop"], &[disk]);
        },
    );
    let run = imager!["ls", "-R", made.image].fails("file-unreadable", FAILED);
    assert!(run.stderr.contains("more than one place"), "{}", run.stderr);
    let out = made.path("out");
    imager!["extract", "-q", made.image, "/", out].fails("files-incomplete", FAILED);
    assert_eq!(fs::read(out.join("a/file")).unwrap(), b"x");
}

/// Any byte of the metadata may be anything: no panic (which every run asserts), no crash,
/// no endless work.
#[test]
fn damage_anywhere_is_told_and_ends() {
    let dir = folder();
    let mkfs = &["mkfs.ext4", "-q", "-b", "1024", "-O", "^metadata_csum"];
    let made = Made::new(4 * MIB, mkfs, |root| {
        for n in 0..20 {
            fs::write(root.join(format!("file {n}")), vec![n as u8; 3000]).unwrap();
        }
        symlink("x".repeat(80), root.join("slow")).unwrap();
        fs::create_dir_all(root.join("a/b/c")).unwrap();
    });
    let mut random = testkit::build::Random::new(7);
    for round in 0..15 {
        let disk = dir.path().join("disk");
        let mut bytes = fs::read(&made.disk).unwrap();
        // Superblock, descriptors, inodes and directories stand in the first part.
        for _ in 0..1 + round % 8 {
            let at = 1024 + random.below(600 << 10) as usize;
            bytes[at] = random.below(256) as u8;
        }
        fs::write(&disk, &bytes).unwrap();
        let image = dir.path().join("image");
        imager!["backup", "-q", "--overwrite", disk, image].ok();
        let out = dir.path().join(format!("out {round}"));
        let listed = imager!["ls", "-lR", image];
        let run = imager!["extract", "-q", image, "/", out];
        for run in [listed, run] {
            assert!(
                matches!(run.exit, Some(0 | 1 | 3)),
                "{:?} {}",
                run.exit,
                run.stderr
            );
        }
        let _ = fs::remove_dir_all(&out);
    }
}

/// A link whose target cannot be read is told, and ends `ls` as a failure.
#[test]
fn links_without_a_target() {
    let made = hostile(
        |root| {
            fs::write(root.join("file"), b"x").unwrap();
            symlink("t".repeat(80), root.join("link")).unwrap();
        },
        |disk| {
            // Its block is one behind the end.
            let field = "set_inode_field /link block[2] 0x7fffffff";
            let blocks = "set_inode_field /link flags 0";
            tool(&["debugfs", "-w", "-R", blocks], &[disk]);
            tool(&["debugfs", "-w", "-R", field], &[disk]);
            let field = "set_inode_field /link block[0] 0x7fffffff";
            tool(&["debugfs", "-w", "-R", field], &[disk]);
        },
    );
    imager!["ls", made.image].ok();
    let run = imager!["ls", "-l", made.image].fails("file-unreadable", FAILED);
    assert!(run.said().contains("link -> ?\n"), "{}", run.said());
    let run = imager!["ls", "--json", made.image];
    assert_eq!(run.exit, Some(FAILED), "{}", run.stderr);
    assert!(run.said().contains("\"complete\": false"), "{}", run.said());
    assert!(
        run.said().contains("\"code\":\"file-unreadable\""),
        "{}",
        run.said()
    );
}
