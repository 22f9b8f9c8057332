//! Journals that must not be believed, or only in part.

use crate::common::{ok, peek, poke, restore_onto_garbage, run, s};
use crate::image::{assert_full, dumpe2fs, number};
use crate::logged::{Logged, journal, journal_blocks, logged, place, unclean_map};
use diskmap::{Extents, WarningKind};
use std::os::unix::fs::FileExt;

/// Journals without checksums, which are easy to change.
const PLAIN: &[&str] = &["-t", "ext3", "-b", "4096"];

#[test]
fn wrong_checksums_are_seen() {
    for (open, args) in [
        ("-c -v 3", &["-t", "ext4"][..]),
        ("-c -v 2", &["-t", "ext4"]),
        ("-c -v 1", PLAIN),
    ] {
        let logged = logged(24, args, open);
        let path = &logged.image.path;
        let descriptors = journal_blocks(path, "(descriptor block)");
        let commits = journal_blocks(path, "(commit block)");
        assert_eq!(commits.len(), 2);
        for (block, at) in [
            (descriptors[1], 14),
            (descriptors[0] + 1, 40),
            (commits[0] - 1, 900),
            (commits[1], 17),
        ] {
            let place = place(&logged, block) + at;
            let [byte] = peek::<1>(path, place);
            poke(path, place, &[byte ^ 0x10]);
            assert_full(path, WarningKind::FsDamaged, "of its journal");
            poke(path, place, &[byte]);
        }
        unclean_map(path);
    }
    // The superblock of the journal has one of its own.
    let logged = logged(24, &["-t", "ext4"], "-c -v 3");
    let place = place(&logged, 0);
    poke(&logged.image.path, place + 0x1b, &[9]);
    let words = "checksum of its journal's superblock";
    assert_full(&logged.image.path, WarningKind::FsDamaged, words);
}

/// What was never committed is never replayed; it is copied all the same.
#[test]
fn a_transaction_without_its_end() {
    let logged = logged(24, PLAIN, "");
    let path = &logged.image.path;
    let full = unclean_map(path).used;
    let commit = place(&logged, journal_blocks(path, "(commit block)")[1]);
    poke(path, commit, &[0; 12]);
    assert_eq!(unclean_map(path).used, full);
    verify_files_of_the_first_state(&logged, &full);
}

fn verify_files_of_the_first_state(logged: &Logged, used: &Extents) {
    let target = logged.image.work.join("first");
    restore_onto_garbage(&logged.image.path, used, &target);
    let output = run("e2fsck", &["-fy", s(&target)]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    let listing = ok("debugfs", &["-R", "ls -p /", s(&target)]);
    assert!(
        listing.contains("/new2/") && !listing.contains("/new3/"),
        "{listing}"
    );
    let state = logged.image.work.join("state0");
    assert_eq!(dumpe2fs(&target).used, dumpe2fs(&state).used);
}

#[test]
fn logs_that_contradict_the_file_system() {
    let logged = logged(24, PLAIN, "");
    let path = &logged.image.path;
    let good = std::fs::read(path).unwrap();
    let one = |name: &str, bytes: &[u8]| {
        let file = logged.image.work.join(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let last = logged.image.work.join("state1");
    let bytes_of = |block: u64| {
        let mut bytes = vec![0; 4096];
        let file = std::fs::File::open(&last).unwrap();
        file.read_exact_at(&mut bytes, block * 4096).unwrap();
        bytes
    };
    let bitmap = u64::from(u32::from_le_bytes(peek(path, 4096)));
    let own = place(&logged, 9) / 4096;
    let changed = |block: u64, at: usize, value: u8| {
        let mut bytes = bytes_of(block);
        bytes[at] ^= value;
        (block, bytes)
    };
    for ((block, bytes), kind, words) in [
        // The superblock: grown, with errors, of another system.
        (
            changed(0, 1024 + 0x04, 1),
            WarningKind::FsDirty,
            "another layout",
        ),
        (changed(0, 1024 + 0x3a, 2), WarningKind::FsDirty, "errors"),
        (
            changed(0, 1024 + 0x60, 0x10),
            WarningKind::FsDirty,
            "another layout",
        ),
        // The descriptors: another place, another count.
        (
            changed(1, 0, 1),
            WarningKind::FsDamaged,
            "moves the metadata",
        ),
        (changed(1, 12, 1), WarningKind::FsDamaged, "free blocks"),
        (
            changed(bitmap, 700, 1),
            WarningKind::FsDamaged,
            "free blocks",
        ),
        (
            changed(own, 0, 0),
            WarningKind::FsDamaged,
            "writes to itself",
        ),
    ] {
        std::fs::write(path, &good).unwrap();
        let file = one("block", &bytes);
        journal(path, "", &[format!("jw -b {block} {}", s(&file))]);
        assert_full(path, kind, words);
    }
    std::fs::write(path, &good).unwrap();
    journal(path, "", &[format!("jw -r {bitmap}")]);
    assert_full(path, WarningKind::FsDamaged, "revokes metadata");
    std::fs::write(path, &good).unwrap();
    journal(path, "", &["jw -r 5000".into()]);
    unclean_map(path);
}

#[test]
fn journals_that_are_not_understood() {
    let logged = logged(24, PLAIN, "");
    let path = &logged.image.path;
    let head = place(&logged, 0);
    let good = peek::<64>(path, head);
    for (at, bytes, kind, words) in [
        (
            0x28,
            &[0, 0, 0, 0x20][..],
            WarningKind::FsDirty,
            "fast commits",
        ),
        (
            0x28,
            &[0, 0, 0, 0x40],
            WarningKind::FsDirty,
            "unknown features",
        ),
        (
            0x2c,
            &[0, 0, 0, 1],
            WarningKind::FsDirty,
            "unknown features",
        ),
        (
            0x20,
            &[0, 0, 0, 5],
            WarningKind::FsDirty,
            "recorded an error",
        ),
        (0x10, &[1, 0, 0, 0], WarningKind::FsDamaged, "impossible"),
        (0x10, &[0, 0, 0x10, 0], WarningKind::FsDamaged, "shorter"),
        (
            0x00,
            &[0, 0, 0, 0],
            WarningKind::FsDamaged,
            "journal superblock",
        ),
    ] {
        poke(path, head + at, bytes);
        assert_full(path, kind, words);
        poke(path, head, &good);
    }
    // The file system says that nothing is to be replayed: systems disagree about that.
    let [incompat] = peek::<1>(path, 1024 + 0x60);
    poke(path, 1024 + 0x60, &[incompat & !4]);
    assert_full(path, WarningKind::FsDirty, "journal is not empty");
    // And the other way round: the bitmaps on the disk are the truth.
    poke(path, 1024 + 0x60, &[incompat]);
    poke(path, head + 0x1c, &[0; 4]);
    let used = unclean_map(path).used;
    assert_eq!(used, dumpe2fs(path).used);
    // The journal may be on another disk, then nothing is known.
    poke(path, 1024 + 0xe4, &[8, 1]);
    assert_full(path, WarningKind::FsDirty, "on another disk");
}

/// The files that hold the journal may be damaged, too.
#[test]
fn the_inode_of_the_journal() {
    let logged = logged(24, &["-t", "ext4"], "-c -v 3");
    let path = &logged.image.path;
    let line = ok("debugfs", &["-c", "-R", "imap <8>", s(path)]);
    let word = |after: &str| line.split_once(after).unwrap().1.to_owned();
    let block = number(&word("located at block "));
    let hex: String = word("offset 0x")
        .chars()
        .take_while(char::is_ascii_hexdigit)
        .collect();
    let place = block * logged.block + u64::from_str_radix(&hex, 16).unwrap();
    for at in [0x04, 0x28, 0x3a, 0x7c, 0x82, 0xf0] {
        let [byte] = peek::<1>(path, place + at);
        poke(path, place + at, &[byte ^ 1]);
        assert_full(
            path,
            WarningKind::FsDamaged,
            "checksum of its journal's inode",
        );
        poke(path, place + at, &[byte]);
    }
    unclean_map(path);
}
