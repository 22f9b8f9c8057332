//! Whether the log has to be replayed: real logs of file systems that were stopped without
//! unmounting, and all kinds of clean ones.

use crate::common::{
    Numbers, assert_same_tree, fill, ok, peek, poke, restore_onto_garbage, run, s, sparse, whole,
    whole_used,
};
use crate::image::{Image, empty, filled, filled_without_kernel, mount};
use crate::oracle::{assert_matches, assert_sound, db, fields, inspect, log_state};
use diskmap::{Extents, Method, WarningKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use testkit::loopdev::Mounted;

/// Copied in full, with one warning of that kind that contains the words.
pub fn assert_full(path: &Path, kind: WarningKind, words: &str) {
    let (region, map) = whole(path);
    assert_eq!(region.file_system, "xfs");
    assert_eq!(region.method, Method::Full, "{}", region.reason);
    assert_eq!(region.used, Extents::whole(region.size));
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    let warning = &map.warnings[0];
    assert_eq!((warning.kind, warning.partition), (kind, Some(0)));
    assert!(warning.detail.contains(words), "{}", warning.detail);
}

/// Copies the file behind a file system that does not change.
pub fn copy(from: &Path, name: &str) -> PathBuf {
    let to = from.with_file_name(name);
    ok("cp", &["--sparse=always", s(from), s(&to)]);
    to
}

/// Stops a file system at once, whatever it is doing, and copies what is on the disk then:
/// what a power failure leaves. (A copy of a mounted one that goes on would be no state
/// that the disk ever had.)
pub fn crash(image: &Image, mounted: Mounted) -> PathBuf {
    ok("xfs_io", &["-x", "-c", "shutdown", s(mounted.path())]);
    drop(mounted);
    copy(&image.path, "crashed")
}

/// Byte offset and length of the internal log.
fn log_place(path: &Path) -> (u64, u64) {
    let text = db(path, &["sb 0", "p logstart logblocks blocksize"]);
    let sb = fields(&text);
    let number = |name: &str| sb[name].parse::<u64>().unwrap();
    let text = db(path, &[&format!("convert fsb {} byte", number("logstart"))]);
    let place = text.rsplit_once('(').unwrap().1;
    let place = place.trim().trim_end_matches(')').parse().unwrap();
    (place, number("logblocks") * number("blocksize"))
}

#[test]
fn files_that_were_synced_survive_without_unmounting() {
    let image = empty(64, &[]);
    let mounted = mount(&image.path);
    for folder in [&image.tree, mounted.path()] {
        fill(folder, 100, 20_000);
    }
    ok("sync", &["-f", s(mounted.path())]);
    let crashed = crash(&image, mounted);
    assert!(!log_state(&crashed).1);
    assert_full(&crashed, WarningKind::FsDirty, "changes the free space");
    let target = image.dir.path().join("restored");
    restore_onto_garbage(&crashed, &whole(&crashed).0.used, &target);
    assert_same_tree(&image.tree, mount(&target).path());
    // Replayed and unmounted, it is clean again.
    assert_matches(&whole_used(&target).used, &inspect(&target));
}

/// A log written round several times, in records of all lengths, is judged right wherever
/// it ends.
fn judged_wherever_it_ends(args: &[&str]) {
    let image = empty(64, args);
    let (place, len) = log_place(&image.path);
    let mut numbers = Numbers(0x51a7_e0f5_77aa_1234);
    for round in 0..10 {
        let mounted = mount(&image.path);
        for step in 0..4 {
            // Long names make much of directories, and so of log.
            let folder = mounted.path().join(format!("{}", step % 2));
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir(&folder).unwrap();
            for i in 0..numbers.below(1200) {
                let name = format!("{i}-{round}-{}", "x".repeat(200));
                std::fs::write(folder.join(name), b"x").unwrap();
            }
            ok("sync", &["-f", s(mounted.path())]);
        }
        let crashed = crash(&image, mounted);
        let (_, clean) = log_state(&crashed);
        assert!(!clean, "round {round}");
        let (_, map) = whole(&crashed);
        assert_eq!(map.warnings.len(), 1, "round {round}: {:?}", map.warnings);
        assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
        // Replayed and unmounted.
        drop(mount(&image.path));
        assert!(log_state(&image.path).1, "round {round}");
        assert_matches(&whole_used(&image.path).used, &inspect(&image.path));
    }
    // A record that begins there has the cycle behind its magic number.
    let word = |offset| u32::from_be_bytes(peek(&image.path, place + offset));
    let cycle = if word(0) == 0xfeed_babe {
        word(4)
    } else {
        word(0)
    };
    assert!(
        cycle > 2,
        "{len} bytes of log were written in round {cycle} only"
    );
}

#[test]
fn logs_are_judged_right_wherever_they_end() {
    judged_wherever_it_ends(&["-l", "size=6m"]);
}

#[test]
fn logs_with_stripes_are_judged_right_wherever_they_end() {
    judged_wherever_it_ends(&["-l", "size=8m,su=64k"]);
}

/// Whether the file system stops in the middle of a record, of a file or of a directory.
#[test]
fn crashes_in_the_middle_of_writes() {
    let image = empty(64, &["-l", "size=6m"]);
    fill(&image.tree, 40, 20_000);
    for round in 0..4 {
        let mounted = mount(&image.path);
        let safe = mounted.path().join("safe");
        if round == 0 {
            std::fs::create_dir(&safe).unwrap();
            fill(&safe, 40, 20_000);
            ok("sync", &["-f", s(&safe)]);
        }
        let busy = mounted.path().join("busy");
        std::fs::create_dir_all(&busy).unwrap();
        let written = AtomicU32::new(0);
        let (folder, count) = (busy.as_path(), &written);
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || write_until_it_fails(folder, count));
            while written.load(Ordering::Relaxed) < 300 + 200 * round && !writer.is_finished() {
                std::thread::yield_now();
            }
            ok("xfs_io", &["-x", "-c", "shutdown", s(mounted.path())]);
        });
        drop(mounted);
        let crashed = copy(&image.path, "crashed");
        let (region, map) = whole(&crashed);
        assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
        assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
        let target = image.dir.path().join("restored");
        restore_onto_garbage(&crashed, &region.used, &target);
        assert_same_tree(&image.tree, &mount(&target).path().join("safe"));
        assert_sound(&target);
    }
}

/// Makes and deletes files, some of them synced, and counts them.
fn write_until_it_fails(folder: &Path, written: &AtomicU32) {
    for i in 0u32.. {
        let file = folder.join(format!("{}", i % 500));
        let result = match i % 3 {
            0 => std::fs::remove_file(&file).or_else(|_| std::fs::write(&file, [1; 9000])),
            _ => std::fs::write(&file, vec![7; 3000 * (i as usize % 4)]),
        };
        let synced = i % 50 != 0
            || std::fs::File::open(folder).is_ok_and(|folder| folder.sync_all().is_ok());
        if result.is_err() || !synced {
            return;
        }
        written.store(i, Ordering::Relaxed);
    }
}

#[test]
fn a_log_on_another_disk_cannot_be_judged() {
    let dir = tempfile::tempdir().unwrap();
    let (path, log) = (dir.path().join("fs"), dir.path().join("log"));
    sparse(&path, 64 << 20);
    sparse(&log, 16 << 20);
    let option = format!("logdev={},size=16m", s(&log));
    ok(
        "mkfs.xfs",
        &["-q", "-f", "--unsupported", "-l", &option, s(&path)],
    );
    assert_full(&path, WarningKind::FsDirty, "its log is on another disk");
}

#[test]
fn a_log_without_any_record() {
    // Version 4 has no sequence numbers that would contradict it.
    let image = filled_without_kernel(64, &["-m", "crc=0"]);
    let (place, len) = log_place(&image.path);
    poke(&image.path, place, &vec![0; len as usize]);
    assert_matches(&whole_used(&image.path).used, &inspect(&image.path));
    poke(&image.path, place + len - 1, &[1]);
    assert_full(
        &image.path,
        WarningKind::FsDirty,
        "its log starts with zeros",
    );
    // What has been mounted carries them.
    let image = filled(64, &[]);
    let (place, len) = log_place(&image.path);
    poke(&image.path, place, &vec![0; len as usize]);
    assert_full(&image.path, WarningKind::FsDamaged, "newer than its log");
}

#[test]
fn a_log_that_xfs_repair_made_anew() {
    let image = filled(64, &[]);
    let mounted = mount(&image.path);
    fill(mounted.path(), 50, 20_000);
    ok("sync", &["-f", s(mounted.path())]);
    let crashed = crash(&image, mounted);
    run("xfs_repair", &["-L", "-f", s(&crashed)]);
    assert_matches(&whole_used(&crashed).used, &inspect(&crashed));
}

/// Every field of the record of the unmount counts.
#[test]
fn a_damaged_record_is_not_clean() {
    let image = filled(64, &[]);
    let (place, len) = log_place(&image.path);
    let (head, clean) = log_state(&image.path);
    assert!(clean && head > 1 && head * 512 < len);
    // A header and a sector of data.
    let header = place + (head - 2) * 512;
    assert_eq!(peek::<4>(&image.path, header), [0xfe, 0xed, 0xba, 0xbe]);
    for (offset, words) in [
        (0, "its log"),
        (4, "its log"),
        (15, "its log"),
        (23, "makes no sense"),
        (43, "its log"),
        (304, "another file system"),
        (512 + 9, "its log"),
        (512 + 100, "wrong checksum"),
    ] {
        let old: [u8; 1] = peek(&image.path, header + offset);
        poke(&image.path, header + offset, &[old[0] ^ 0x20]);
        assert_full(&image.path, WarningKind::FsDirty, words);
        poke(&image.path, header + offset, &old);
    }
    whole_used(&image.path);
}
