//! Images through pipes: standard output and input instead of files.
//!
//! Owns: that a pipe carries the same image as a file, and that a broken one is no
//! success. Does not own: where a cut stream leaves the disk (`order`).

use crate::compare::assert_same;
use crate::disks::{self, folder, hash};
use crate::imager;
use crate::run::{DONE, FAILED, Run, command, finish};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

/// `imager backup DISK - | imager ARGS`.
fn piped(disk: &Path, args: &[&str]) -> (Run, Run) {
    let mut backup = command(["backup".as_ref(), disk.as_os_str(), "-".as_ref()]);
    let mut backup = backup.spawn().expect("imager starts");
    let mut second = command(args);
    second.stdin(backup.stdout.take().expect("a pipe"));
    let second = finish(second);
    let output = backup.wait_with_output().expect("imager ends");
    (output.into(), second)
}

#[test]
fn backup_to_verify() {
    for imaged in [disks::gpt(), disks::bare()] {
        let (backup, verify) = piped(&imaged.disk.path, &["verify", "-", "--json"]);
        // Standard output carries the image; the result is told beside it.
        assert!(backup.ok().stderr.contains("Backup done"));
        let root = verify.ok().json()["root"].as_str().unwrap().to_owned();
        assert_eq!(root.len(), 64);
    }
}

#[test]
fn backup_to_restore() {
    let dir = folder();
    for imaged in [disks::gpt(), disks::mbr()] {
        let target = dir.path().join("target.img");
        let (backup, restore) = piped(
            &imaged.disk.path,
            &["restore", "-", target.to_str().unwrap()],
        );
        backup.ok();
        restore.ok();
        assert_same(&imaged.disk.path, &target, 512);
        imaged.disk.verify(&target);
    }
}

#[test]
fn a_file_is_read_as_a_stream() {
    let dir = folder();
    let target = dir.path().join("target.img");
    let mut restore = command(["restore", "-", target.to_str().unwrap(), "--json"]);
    restore.stdin(File::open(&disks::gpt_4k().image).unwrap());
    let streamed = finish(restore).ok().json();
    assert_same(&disks::gpt_4k().disk.path, &target, 4096);
    let file = imager!["verify", "--json", disks::gpt_4k().image]
        .ok()
        .json();
    assert_eq!(streamed["root"], file["root"]);
    let info = imager!["info", "--json", disks::gpt_4k().image].ok().json();
    assert_eq!(info["root"], file["root"]);
}

#[test]
fn a_reader_that_goes_away_is_a_failure() {
    let disk = disks::noise().disk.path.to_str().unwrap();
    let mut backup = command(["backup", "-q", disk, "-"]).spawn().unwrap();
    let mut stdout = backup.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 4096]).unwrap();
    drop(stdout);
    let run: Run = backup.wait_with_output().unwrap().into();
    assert_eq!(run.exit, Some(FAILED));
    assert!(
        run.stderr.contains("imager: output-failed: "),
        "{}",
        run.stderr
    );
}

#[test]
fn a_reader_of_text_that_goes_away_is_none() {
    let mut map = command([
        "map",
        disks::gpt().disk.path.to_str().unwrap(),
        "--json",
        "--extents",
    ]);
    let mut child = map.spawn().unwrap();
    drop(child.stdout.take());
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.exit, Some(DONE), "{}", run.stderr);
}

#[test]
fn nothing_at_all_on_standard_input() {
    let dir = folder();
    let target = dir.path().join("target.img");
    imager!["verify", "-", "--json"].fails("image-damaged", FAILED);
    imager!["restore", "-", target, "--json"]
        .refused("image-damaged")
        .disk("untouched");
    assert!(!target.exists());
}

#[test]
fn two_backups_of_one_disk_have_the_same_chunks() {
    let root_and_chunks = |image: &Path| {
        let json = imager!["verify", "-q", "--json", image].ok().json();
        (json["used_bytes"].clone(), json["chunks"].clone())
    };
    let dir = folder();
    let again = dir.path().join("again.dpl");
    let before = hash(&disks::mbr().disk.path);
    let mut backup = command([
        "backup",
        disks::mbr().disk.path.to_str().unwrap(),
        "-",
        "-q",
    ]);
    backup.stdout(Stdio::from(File::create(&again).unwrap()));
    finish(backup).ok();
    assert_eq!(
        root_and_chunks(&again),
        root_and_chunks(&disks::mbr().image)
    );
    assert_eq!(hash(&disks::mbr().disk.path), before);
}
