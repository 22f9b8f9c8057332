//! Commands that cannot be understood, and outputs that take nothing.
//!
//! Owns: exit code 2 and what is printed then. Does not own: the checks on disks.

use crate::disks::{self, folder};
use crate::imager;
use crate::run::{DONE, FAILED, USAGE, command, finish};
use std::fs::File;
use std::process::Command;

#[test]
fn wrong_usage_is_exit_code_2() {
    let disk = disks::bare().disk.path.to_str().unwrap();
    for args in [
        &[][..],
        &["frobnicate"],
        &["map"],
        &["map", disk, "--no-such-option"],
        &["map", disk, "--sector-size", "many"],
        &["backup", disk],
        &["backup", disk, "-", "--codec", "lzma"],
        &["backup", disk, "-", "--level", "20"],
        &["backup", disk, "-", "--level", "12", "--codec", "deflate"],
        &["restore", disk],
        &["verify"],
        &["info", "a", "b"],
    ] {
        let run = finish(command(args));
        assert_eq!(run.exit, Some(USAGE), "{args:?}: {}", run.stderr);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty());
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [&["--help"][..], &["--version"], &["restore", "--help"]] {
        let run = finish(command(args));
        assert_eq!(run.exit, Some(DONE));
        assert!(!run.stdout.is_empty() && run.stderr.is_empty());
    }
}

#[test]
fn disks_are_listed() {
    let list = imager!["disks", "--json"].ok().json();
    assert!(list.is_array() || list["disks"].is_array(), "{list}");
    imager!["disks"].ok();
}

#[test]
fn an_output_that_is_full() {
    let mut full = command([
        "backup",
        "-q",
        disks::bare().disk.path.to_str().unwrap(),
        "-",
    ]);
    full.stdout(File::options().write(true).open("/dev/full").unwrap());
    let run = finish(full);
    assert_eq!(run.exit, Some(FAILED));
    assert!(run.stderr.contains("imager: no-space: "), "{}", run.stderr);
}

#[test]
fn a_folder_that_is_full_keeps_nothing_half_made() {
    let dir = folder();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
        .arg(dir.path())
        .status();
    assert!(mounted.expect("mount").success(), "root is needed to mount");
    let run = imager![
        "backup",
        "-q",
        "--json",
        disks::noise().disk.path,
        dir.path().join("image")
    ];
    let left = dir.path().read_dir().unwrap().count();
    let unmounted = Command::new("umount").arg(dir.path()).status();
    assert!(unmounted.expect("umount").success());
    run.fails("no-space", FAILED);
    assert_eq!(left, 0, "something half-made stays");
}

#[test]
fn a_folder_that_is_not_there() {
    let dir = folder();
    let image = dir.path().join("no/such/folder/image");
    let run = imager!["backup", "-q", "--json", disks::bare().disk.path, image];
    run.fails("output-failed", FAILED);
}
