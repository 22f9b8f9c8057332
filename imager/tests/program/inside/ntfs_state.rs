//! NTFS in states that its log would have put right, or that no driver leaves behind.

use super::{Made, noise, tool};
use crate::disks::{MIB, folder, poke};
use crate::imager;
use crate::run::FAILED;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use testkit::loopdev::Mounted;

/// Bytes of a file record and of a cluster of small volumes.
const RECORD: usize = 1024;
const DATA: u32 = 0x80;
const ATTRIBUTE_LIST: u32 = 0x20;

fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    let bytes = bytes[at..at + len].iter().rev();
    bytes.fold(0, |all, &byte| all << 8 | u64::from(byte))
}

/// Where the file records stand.
fn records(disk: &[u8]) -> impl Iterator<Item = usize> + '_ {
    (0..disk.len())
        .step_by(RECORD)
        .filter(|&at| disk[at..].starts_with(b"FILE"))
}

/// Kinds of a record's attributes and where they stand.
fn attributes(disk: &[u8], record: usize) -> Vec<(u32, usize)> {
    let mut all = Vec::new();
    let mut at = record + number(disk, record + 0x14, 2) as usize;
    while at < record + RECORD - 8 && number(disk, at, 4) != 0xffff_ffff {
        all.push((number(disk, at, 4) as u32, at));
        at += (number(disk, at + 4, 4) as usize).max(8);
    }
    all
}

fn changed(made: Made, change: impl FnOnce(&[u8], &Path)) -> Made {
    let Made { dir, disk, image } = made;
    fs::remove_file(image).unwrap();
    change(&fs::read(&disk).unwrap(), &disk);
    Made::of(dir, disk)
}

/// A name that leads to a record which another file has by now. The names come in order, and
/// the record was read for the other one just before.
#[test]
fn a_stale_name_is_not_another_file() {
    let made = Made::new(8 * MIB, &["mkntfs", "-Q", "-F"], |root| {
        fs::create_dir(root.join("folder")).unwrap();
        for name in ["a stays", "b stays", "c stale"] {
            fs::write(root.join("folder").join(name), name).unwrap();
        }
    });
    let made = changed(made, |disk, path| {
        let reference = |name: &str| {
            let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
            let key = 0x42 + name.len() as u64;
            let entries = (0x52..disk.len() - name.len()).filter(|&at| {
                disk[at..].starts_with(&name) && number(disk, at - 0x52 + 10, 2) == key
            });
            let entries: Vec<usize> = entries.map(|at| at - 0x52).collect();
            assert_eq!(entries.len(), 1, "entries of an index");
            entries[0]
        };
        let (fresh, stale) = (reference("b stays"), reference("c stale"));
        let mut old = disk[fresh..fresh + 8].to_vec();
        old[6] += 1;
        poke(path, stale as u64, &old);
    });
    let out = made.path("out");
    imager!["extract", "-q", made.image, "/", out].fails("files-incomplete", FAILED);
    assert!(!out.join("folder/c stale").exists());
    assert_eq!(fs::read(out.join("folder/b stays")).unwrap(), b"b stays");
    imager!["cat", made.image, "folder/c stale"].fails("file-unreadable", FAILED);
    let run = imager!["ls", "-l", made.image, "folder"].fails("file-unreadable", FAILED);
    assert!(
        run.stderr.contains("another file has now"),
        "{}",
        run.stderr
    );
}

/// Pieces and holes by turns, so many that the list of clusters needs records of its own.
fn fragments(root: &Path, name: &str) {
    let file = File::create(root.join(name)).unwrap();
    for part in 0..1500u64 {
        let piece = noise(part, 4096);
        file.write_all_at(&piece, part * 65_536 + 8192).unwrap();
    }
}

/// What a file's list of attributes names has to be there: a file without its content is
/// not an empty one.
#[test]
fn attributes_that_are_gone() {
    for gone_everywhere in [true, false] {
        let made = Made::new(128 * MIB, &["mkntfs", "-Q", "-F"], |root| {
            fragments(root, "fragments");
            fs::write(root.join("other"), b"other").unwrap();
        });
        let made = changed(made, |disk, path| {
            // Records that belong to another one.
            let parts = records(disk).filter(|&at| number(disk, at + 0x20, 6) != 0);
            let places: Vec<usize> = parts
                .chain(records(disk).filter(|&at| {
                    let kinds = attributes(disk, at);
                    kinds.iter().any(|(kind, _)| *kind == ATTRIBUTE_LIST)
                }))
                .flat_map(|at| attributes(disk, at))
                .filter(|(kind, _)| *kind == DATA)
                .map(|(_, at)| at)
                .collect();
            assert!(places.len() > 2, "{} parts", places.len());
            let count = if gone_everywhere { places.len() } else { 1 };
            for at in places.into_iter().rev().take(count) {
                // A kind that means nothing to a reader.
                poke(path, at as u64, &0x100u32.to_le_bytes());
            }
        });
        let run = imager!["cat", made.image, "fragments"].fails("file-unreadable", FAILED);
        assert!(run.stdout.is_empty(), "{} bytes", run.stdout.len());
        let out = made.path("out");
        imager!["extract", "-q", made.image, "/", out].fails("files-incomplete", FAILED);
        assert!(!out.join("fragments").exists());
        assert_eq!(fs::read(out.join("other")).unwrap(), b"other");
    }
}

/// Every file has a content, be it empty.
#[test]
fn a_file_without_any_content_is_damaged() {
    let made = Made::new(8 * MIB, &["mkntfs", "-Q", "-F"], |root| {
        fs::write(root.join("file"), b"the only content").unwrap();
        fs::write(root.join("empty"), b"").unwrap();
    });
    let made = changed(made, |disk, path| {
        let at = disk
            .windows(16)
            .position(|bytes| bytes == b"the only content");
        let at = at.unwrap() - 24;
        assert_eq!(number(disk, at, 4), 0x80);
        poke(path, at as u64, &0x100u32.to_le_bytes());
    });
    imager!["cat", made.image, "file"].fails("file-unreadable", FAILED);
    assert_eq!(imager!["cat", made.image, "empty"].ok().stdout, b"");
}

#[test]
fn other_streams_are_told() {
    let dir = folder();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(16 * MIB).unwrap();
    tool(&["mkntfs", "-Q", "-F"], &[&disk]);
    let mounted = Mounted::new(&disk, "loop,streams_interface=windows");
    let root = mounted.path();
    fs::write(root.join("file"), b"content").unwrap();
    fs::write(root.join("file:Zone.Identifier"), b"[ZoneTransfer]").unwrap();
    fs::write(root.join("file:large"), noise(1, 100_000)).unwrap();
    fs::write(root.join("plain"), b"plain").unwrap();
    drop(mounted);
    let made = Made::of(dir, disk);
    let out = made.path("out");
    let run = imager!["extract", "-q", "--json", made.image, "/", out].warns("files-incomplete");
    assert_eq!(run.json()["streams_left_out"], 2, "{}", run.stderr);
    assert!(run.stderr.contains("2 streams beside"), "{}", run.stderr);
    assert_eq!(fs::read(out.join("file")).unwrap(), b"content");
    let run = imager![
        "extract",
        "-q",
        "--json",
        made.image,
        "plain",
        made.path("other")
    ]
    .ok();
    assert_eq!(
        (&run.json()["streams_left_out"], &run.stderr[..]),
        (&0.into(), "")
    );
}
