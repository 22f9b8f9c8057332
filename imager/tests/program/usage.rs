//! Commands that cannot be understood, and outputs that take nothing.
//!
//! Owns: exit code 2 and what is printed then. Does not own: the checks on disks.

use crate::disks::{self, folder};
use crate::imager;
use crate::run::{DONE, FAILED, USAGE, command, finish};

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
fn a_folder_that_is_not_there() {
    let dir = folder();
    let image = dir.path().join("no/such/folder/image");
    let run = imager!["backup", "-q", "--json", disks::bare().disk.path, image];
    run.fails("output-failed", FAILED);
}
