//! Logs that have to be replayed, but whose replay leaves the free space as it is.

use crate::common::{Numbers, assert_same_tree, fill, ok, restore_onto_garbage, s, whole};
use crate::image::{Image, empty, mount};
use crate::log::{assert_full, copy, crash};
use crate::oracle::{assert_sound, db, fields, inspect, log_state};
use diskmap::{Method, Region, WarningKind};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use testkit::loopdev::Mounted;

/// Writes everything to its place; what remains in the log concerns the superblock.
fn settle(mounted: &Mounted) {
    ok("xfs_freeze", &["-f", s(mounted.path())]);
    ok("xfs_freeze", &["-u", s(mounted.path())]);
}

/// A used map in spite of a log that has to be replayed, and the warning that says so.
fn assert_used(path: &Path) -> Region {
    let (region, map) = whole(path);
    assert!(!log_state(path).1);
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
    let detail = &map.warnings[0].detail;
    assert!(
        detail.contains("leaves the free space as it is"),
        "{detail}"
    );
    region
}

/// Restores onto garbage, lets the kernel replay, and compares all files.
fn verify(image: &Image, crashed: &Path, region: &Region) {
    let target = image.dir.path().join("restored");
    restore_onto_garbage(crashed, &region.used, &target);
    let mounted = mount(&target);
    assert_same_tree(&image.tree, mounted.path());
    drop(mounted);
    assert_sound(&target);
}

#[test]
fn a_frozen_file_system() {
    let image = empty(64, &[]);
    let mounted = mount(&image.path);
    for folder in [&image.tree, mounted.path()] {
        fill(folder, 100, 20_000);
    }
    ok("xfs_freeze", &["-f", s(mounted.path())]);
    let crashed = copy(&image.path, "crashed");
    ok("xfs_freeze", &["-u", s(mounted.path())]);
    drop(mounted);
    let region = assert_used(&crashed);
    crate::oracle::assert_matches(&region.used, &inspect(&crashed));
    verify(&image, &crashed, &region);
}

/// Names, modes and times are in inodes and in directories that have their blocks.
#[test]
fn changes_that_take_no_space() {
    let image = empty(64, &["-m", "rmapbt=1"]);
    let mounted = mount(&image.path);
    for folder in [&image.tree, mounted.path()] {
        fill(folder, 100, 20_000);
    }
    settle(&mounted);
    for folder in [&image.tree, mounted.path()] {
        for i in 0..50 {
            let file = folder.join(format!("d{}/file{i}", i % 5));
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            fs::rename(&file, file.with_file_name(format!("renamed{i}"))).unwrap();
        }
    }
    ok("sync", &["-f", s(mounted.path())]);
    let crashed = crash(&image, mounted);
    let region = assert_used(&crashed);
    verify(&image, &crashed, &region);
    // One block more, and it is another case.
    let mounted = mount(&image.path);
    fs::write(mounted.path().join("new"), [1; 5000]).unwrap();
    ok("sync", &["-f", s(mounted.path())]);
    let crashed = crash(&image, mounted);
    assert_full(&crashed, WarningKind::FsDirty, "changes the free space");
}

/// Changes of all kinds in random order: whatever the answer, the copy is whole.
#[test]
fn random_changes() {
    let image = empty(64, &["-l", "size=6m"]);
    let mounted = mount(&image.path);
    for folder in [&image.tree, mounted.path()] {
        fill(folder, 60, 20_000);
    }
    let mut numbers = Numbers(0x0dd0_5eed_1234_5678);
    let (mut used, mut full) = (0, 0);
    drop(mounted);
    for round in 0..10 {
        let mounted = mount(&image.path);
        if round % 3 != 2 {
            settle(&mounted);
        }
        let kinds = if round % 2 == 0 { 3 } else { 6 };
        for step in 0..numbers.below(60) {
            let (kind, number) = (numbers.below(kinds), numbers.below(60));
            let name = format!("d{}/file{number}", number % 5);
            for folder in [&image.tree, mounted.path()] {
                change(&folder.join(&name), kind, step);
            }
        }
        ok("sync", &["-f", s(mounted.path())]);
        let crashed = crash(&image, mounted);
        let region = whole(&crashed).0;
        if region.method == Method::Used {
            used += 1;
            assert_used(&crashed);
        } else {
            full += 1;
        }
        verify(&image, &crashed, &region);
    }
    assert!(used > 2 && full > 2, "{used} used maps, {full} full copies");
}

/// Changes a file, or makes it.
fn change(path: &Path, kind: u64, step: u64) {
    let mode = |mode| fs::Permissions::from_mode(mode);
    match kind {
        0 if path.exists() => {
            fs::set_permissions(path, mode(0o600 + (step as u32 & 0o77))).unwrap()
        }
        1 if path.exists() => {
            let other = path.with_extension("other");
            fs::rename(path, &other).unwrap();
            fs::rename(&other, path).unwrap();
        }
        2 if path.exists() => {
            let file = File::options().write(true).open(path).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(step))
                .unwrap();
        }
        3 => {
            let _ = fs::remove_file(path);
        }
        4 | 5 => fs::write(path, vec![step as u8; 700 * step as usize]).unwrap(),
        _ => {}
    }
}

/// Whole groups more: only the superblock says so, and that stands in the log.
#[test]
fn growth_that_only_the_log_knows() {
    let image = empty(96, &["-d", "size=64m,agsize=16m"]);
    let mounted = mount(&image.path);
    fill(mounted.path(), 20, 20_000);
    settle(&mounted);
    ok("xfs_growfs", &[s(mounted.path())]);
    let crashed = crash(&image, mounted);
    let text = db(&crashed, &["sb 0", "p agcount"]);
    assert_eq!(fields(&text)["agcount"], "4", "it is in its place already");
    assert_full(&crashed, WarningKind::FsDirty, "changes the free space");
}
