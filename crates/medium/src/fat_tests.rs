//! FAT volumes as dosfstools and mtools see them.

use super::{Volume, cluster_bytes, free_bytes, lay_out};
use crate::piece::Pieces;
use crate::testing::{run, text, write};
use crate::{Content, Entry, Error};
use proptest::prelude::*;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn volume(size_bytes: u64) -> Volume {
    Volume {
        start: 0,
        size_bytes,
        serial: 0x1234_ABCD,
    }
}

fn make(path: &Path, size_bytes: u64, entries: &[Entry], files: &[&[u8]]) {
    let mut pieces = Pieces::default();
    let used = lay_out(&volume(size_bytes), entries, &mut pieces).unwrap();
    assert!(used <= size_bytes);
    write(path, size_bytes, &pieces.finish(used), files);
}

fn many() -> (Vec<Entry>, Vec<u8>) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7 % 253) as u8).collect();
    let mut entries = vec![
        Entry::of_file("deploy-os/initramfs.img", 0, 5, 2_999_990),
        Entry::of_bytes("deploy-os/medium.json", *b"{}\n"),
        Entry::of_bytes("deploy-os/empty", Vec::new()),
        Entry::of_bytes("EFI/BOOT/BOOTX64.EFI", vec![7; 513]),
        Entry::of_bytes("EFI/BOOT/a-rather-long-name.config", *b"x"),
    ];
    // More than a cluster of slots, and short names that are alike.
    entries.extend((0..60).map(|n| {
        let name = format!("deploy-os/image-part.{n:04}");
        Entry::of_bytes(&name, name.clone())
    }));
    (entries, large)
}

#[test]
fn others_read_what_was_put_in() {
    let dir = tempfile::tempdir().unwrap();
    let (entries, large) = many();
    for (size, kind) in [
        (8 * MIB, "fat16"),
        (34 * MIB, "fat32"),
        (300 * MIB, "fat32"),
    ] {
        let path = dir.path().join("volume");
        make(&path, size, &entries, &[&large]);
        let at = path.to_str().unwrap();
        let said = text("fsck.fat", &["-n", "-v", at]);
        assert!(
            !said.contains("differ") && !said.contains("wrong"),
            "{said}"
        );
        let shown = text("minfo", &["-i", at, "::"]).to_lowercase();
        assert!(
            shown.contains(kind) && shown.contains("1234abcd"),
            "{shown}"
        );
        let label = text("mlabel", &["-s", "-i", at, "::"]);
        assert!(label.contains("DEPLOY-OS"), "{label}");
        let list = text("mdir", &["-/", "-b", "-i", at, "::"]);
        for entry in &entries {
            let name = format!("::/{}", entry.path);
            assert!(list.lines().any(|line| line == name), "{name} in {list}");
            let content = run("mtype", &["-i", at, &name]);
            match &entry.content {
                Content::Bytes(bytes) => assert_eq!(&content, bytes, "{name}"),
                _ => assert!(content == large[5..2_999_995], "{name}"),
            }
        }
    }
}

#[test]
fn a_volume_in_the_middle_of_a_medium() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("medium");
    let place = Volume {
        start: MIB,
        ..volume(40 * MIB)
    };
    let mut pieces = Pieces::default();
    let used = lay_out(&place, &[Entry::of_bytes("a", *b"hello")], &mut pieces).unwrap();
    write(&path, 41 * MIB, &pieces.finish(used), &[]);
    let at = format!("{}@@1M", path.display());
    assert_eq!(run("mtype", &["-i", &at, "::a"]), b"hello");
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(
        bytes[(1 << 20) + 28..(1 << 20) + 32],
        2048_u32.to_le_bytes()
    );
}

#[test]
fn what_is_free_can_be_filled_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let size = 34 * MIB;
    let first = Entry::of_bytes("first", *b"x");
    let free = free_bytes(&volume(size), std::slice::from_ref(&first)).unwrap();
    let with = |bytes| {
        let rest = Entry {
            path: "rest".into(),
            size_bytes: bytes,
            content: Content::Zeros,
        };
        [first.clone(), rest]
    };
    assert_eq!(free_bytes(&volume(size), &with(free)), Ok(0));
    let path = dir.path().join("volume");
    make(&path, size, &with(free), &[]);
    text("fsck.fat", &["-n", path.to_str().unwrap()]);
    assert!(matches!(
        free_bytes(&volume(size), &with(free + 1)),
        Err(Error::Full { .. })
    ));
}

#[test]
fn sizes_at_which_there_is_no_such_volume() {
    let bad = |size| matches!(free_bytes(&volume(size), &[]), Err(Error::Size { .. }));
    for size in [0, 511, MIB, 2 * MIB, 33 * MIB, 3 << 40, u64::MAX] {
        assert!(bad(size), "{size}");
    }
    for size in [
        3 * MIB,
        32 * MIB,
        34 * MIB,
        261 * MIB,
        9 << 30,
        17 << 30,
        (2 << 40) - MIB,
    ] {
        assert!(!bad(size), "{size}");
    }
    assert_eq!(cluster_bytes(64 * MIB), 512);
    assert_eq!(cluster_bytes(64 << 30), 32 << 10);
    let roots: Vec<Entry> = (0..600)
        .map(|n| Entry::of_bytes(&format!("F{n}"), *b""))
        .collect();
    let full = free_bytes(&volume(8 * MIB), &roots);
    assert!(matches!(full, Err(Error::Full { .. })), "FAT16's root");
    assert!(free_bytes(&volume(34 * MIB), &roots).is_ok());
}

proptest! {
    #[test]
    fn pieces_never_overlap(
        size in (3_u64..200).prop_map(|n| n * MIB + 77),
        sizes in proptest::collection::vec(0_u64..2 * MIB, 0..12),
    ) {
        let entries: Vec<Entry> = sizes.iter().enumerate().map(|(n, &size_bytes)| Entry {
            path: format!("d{}/file-number-{n}", n % 3),
            size_bytes,
            content: Content::File { index: 0, offset: 0 },
        }).collect();
        let mut pieces = Pieces::default();
        if let Ok(used) = lay_out(&volume(size), &entries, &mut pieces) {
            let mut end = 0;
            for piece in pieces.finish(used) {
                prop_assert_eq!(piece.at, end);
                end += piece.len;
            }
            prop_assert!(end <= size);
        }
    }
}
