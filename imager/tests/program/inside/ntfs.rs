//! NTFS, held against NTFS-3G.

use super::{Made, assert_same_contents, noise, tool};
use crate::disks::{MIB, folder};
use crate::imager;
use crate::run::FAILED;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use testkit::loopdev::Mounted;

fn files(root: &Path) {
    for n in 0..400 {
        let folder = root.join(format!("many {}", n % 3));
        fs::create_dir_all(&folder).unwrap();
        // From empty over resident to a few clusters.
        let name = format!("{n:04} {}", "name ".repeat(n % 40));
        fs::write(folder.join(name), noise(n as u64, n * n / 8)).unwrap();
    }
    for name in [
        "Größe ✓ 日本語",
        "𝄞 clef",
        "UPPER",
        "lower",
        "x.y.z",
        &"l".repeat(255),
    ] {
        fs::write(root.join(name), name).unwrap();
    }
    fs::create_dir_all(root.join("a/b/c/d/e/f")).unwrap();
    fs::write(root.join("a/b/c/d/e/f/bottom"), b"deep").unwrap();
    fs::write(root.join("first name"), noise(1, 50_000)).unwrap();
    fs::hard_link(root.join("first name"), root.join("a/other name")).unwrap();

    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(&noise(5, 5000), 5 * MIB + 17).unwrap();
    sparse.set_len(100 * MIB).unwrap();
    fs::write(root.join("with a stream"), b"the file").unwrap();
    tool(
        &["touch", "-d", "@1000000000.1234567"],
        &[&root.join("UPPER")],
    );
}

/// Pieces and holes by turns, so many that the list of clusters needs records of its own.
fn fragments(root: &Path) {
    let file = File::create(root.join("fragments")).unwrap();
    for part in 0..1500u64 {
        let piece = noise(part, 4096);
        file.write_all_at(&piece, part * 65_536 + 8192).unwrap();
    }
}

#[test]
fn everything_comes_out_as_ntfs_3g_sees_it() {
    for mkfs in [
        &["mkntfs", "-Q", "-F"][..],
        &["mkntfs", "-Q", "-F", "-c", "1024"],
        &["mkntfs", "-Q", "-F", "-s", "4096", "-c", "8192"],
    ] {
        let made = Made::new(128 * MIB, mkfs, |root| {
            files(root);
            fragments(root);
        });
        let out = made.path("out");
        imager!["extract", "-q", made.image, "/", out].ok();
        let mounted = Mounted::new(&made.disk, "loop,ro");
        assert_same_contents(mounted.path(), &out, true);
        assert_eq!(fs::read(out.join("with a stream")).unwrap(), b"the file");
        // Names are found in other letter cases, as in Windows.
        assert_eq!(imager!["cat", made.image, "upper"].ok().stdout, b"UPPER");
        imager!["cat", made.image, "MANY 1/missing"].refused("file-not-found");
    }
}

/// Behind what was written of a stream stands what somebody else had there.
#[test]
fn what_was_never_written_reads_as_zeros() {
    let made = Made::new(32 * MIB, &["mkntfs", "-Q", "-F"], |root| {
        fs::write(root.join("stream"), b"SECRET! ".repeat(100_000)).unwrap();
    });
    let Made { dir, disk, image } = made;
    fs::remove_file(image).unwrap();
    // Its initialised size, in its record.
    let len = 800_000u64.to_le_bytes();
    let bytes = fs::read(&disk).unwrap();
    let sizes = [len, len].concat();
    let places: Vec<usize> = (0..bytes.len() - 16)
        .step_by(8)
        .filter(|&at| bytes[at..at + 16] == sizes[..])
        .collect();
    assert!(!places.is_empty());
    let file = File::options().write(true).open(&disk).unwrap();
    for at in places {
        file.write_all_at(&5000u64.to_le_bytes(), at as u64 + 8)
            .unwrap();
    }
    let made = Made::of(dir, disk);
    let read = imager!["cat", made.image, "stream"].ok().stdout;
    let mut wanted = b"SECRET! ".repeat(100_000);
    wanted[5000..].fill(0);
    assert!(read == wanted, "{} bytes", read.len());
}

/// Compressed clusters are not the file's bytes.
#[test]
fn compressed_files_are_refused_by_name() {
    let dir = folder();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(32 * MIB).unwrap();
    tool(&["mkntfs", "-Q", "-F"], &[&disk]);
    let mounted = Mounted::new(&disk, "loop,compression");
    let packed = mounted.path().join("packed");
    fs::create_dir(&packed).unwrap();
    let script =
        "import os, sys; os.setxattr(sys.argv[1], 'system.ntfs_attrib_be', bytes([0, 0, 8, 0x10]))";
    let set = Command::new("python3")
        .args(["-c", script])
        .arg(&packed)
        .output();
    let set = set.expect("python3 is missing: apt-get install python3");
    assert!(set.status.success(), "{set:?}");
    fs::write(packed.join("text"), b"again and again ".repeat(20_000)).unwrap();
    fs::write(packed.join("tiny"), b"resident").unwrap();
    drop(mounted);
    let made = Made::of(dir, disk);
    let run = imager!["cat", made.image, "packed/text"].fails("file-unreadable", FAILED);
    assert!(run.stderr.contains("compressed by NTFS"), "{}", run.stderr);
    assert!(run.stdout.is_empty());
    let out = made.path("out");
    imager!["extract", "-q", made.image, "packed", out].fails("files-incomplete", FAILED);
    assert!(!out.join("packed/text").exists());
    assert_eq!(fs::read(out.join("packed/tiny")).unwrap(), b"resident");
}

#[test]
fn damage_anywhere_is_told_and_ends() {
    let made = Made::new(8 * MIB, &["mkntfs", "-Q", "-F"], |root| {
        for n in 0..60 {
            fs::write(root.join(format!("file {n}")), vec![n as u8; n * 100]).unwrap();
        }
        fs::create_dir_all(root.join("a/b/c")).unwrap();
    });
    let bytes = fs::read(&made.disk).unwrap();
    let records: Vec<usize> = (0..bytes.len())
        .step_by(512)
        .filter(|&at| bytes[at..].starts_with(b"FILE") || bytes[at..].starts_with(b"INDX"))
        .collect();
    let mut random = testkit::build::Random::new(11);
    for round in 0..10 {
        let mut bytes = bytes.clone();
        for _ in 0..1 + round % 8 {
            let record = records[random.below(records.len() as u64) as usize];
            bytes[record + random.below(500) as usize] = random.below(256) as u8;
        }
        let (disk, image) = (made.path("changed"), made.path("changed image"));
        fs::write(&disk, &bytes).unwrap();
        imager!["backup", "-q", "--overwrite", disk, image].ok();
        let out = made.path("out");
        for run in [
            imager!["ls", "-lR", image],
            imager!["extract", "-q", image, "/", out],
        ] {
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
