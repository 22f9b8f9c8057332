//! The order of writes in a restore: wherever the stream ends, the disk does not boot;
//! what the disk gives back is compared before it may.
//!
//! Owns: cutting streams between records, and changing what was written behind the
//! program's back. Does not own: signals (`interrupted`).

use crate::compare::assert_same;
use crate::disks::{self, MIB, copy, flip, folder, peek};
use crate::imager;
use crate::run::{FAILED, Run, command};
use image::container::{ContainerReader, Event};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};
use testkit::build::BuiltDisk;

/// Asserts that no table stands on the disk and no partition begins with anything, so
/// that nothing on it boots or is mounted.
#[track_caller]
pub fn assert_not_bootable(target: &Path, built: &BuiltDisk) {
    let zero = |start: u64, len: u64| peek(target, start, len as usize).iter().all(|&b| b == 0);
    let gpt = peek(&built.path, 512, 8) == b"EFI PART";
    // Behind an MBR there may be a boot loader's second stage, which nothing starts.
    let (front, back) = if gpt { (34 * 512, 33 * 512) } else { (512, 0) };
    assert!(zero(0, front), "there is something where the table begins");
    assert!(
        zero(built.size - back, back),
        "there is something where the backup table stands"
    );
    for part in &built.partitions {
        let head = part.size.min(MIB);
        assert!(
            zero(part.start, head),
            "partition {} has a head",
            part.number
        );
    }
}

/// Starts a restore from standard input.
pub fn start(target: &Path, more: &[&str]) -> (Child, ChildStdin) {
    let mut restore = command(["restore".as_ref(), "-".as_ref(), target.as_os_str()]);
    let mut child = restore
        .args(more)
        .stdin(Stdio::piped())
        .spawn()
        .expect("imager starts");
    let stdin = child.stdin.take().expect("a pipe");
    (child, stdin)
}

/// Feeds it these bytes and nothing more. It may stop reading before their end.
fn feed(target: &Path, bytes: &[u8]) -> Run {
    let (child, mut stdin) = start(target, &["--json"]);
    let _ = stdin.write_all(bytes);
    drop(stdin);
    child.wait_with_output().expect("imager ends").into()
}

/// Offsets at which records stand, and of the end of the last one.
fn places(image: &[u8]) -> Vec<usize> {
    let mut reader = ContainerReader::open(image).unwrap();
    let mut payload = Vec::new();
    let mut places = Vec::new();
    loop {
        match reader.next_event(&mut payload).unwrap() {
            Event::End(_) => return places,
            Event::Page(_) => places.push(reader.position() as usize),
            Event::Record { .. } => places.push(reader.position() as usize),
        }
    }
}

#[test]
fn a_stream_cut_between_records_leaves_no_table() {
    let dir = folder();
    for imaged in [disks::mbr(), disks::gpt(), disks::bare()] {
        let image = fs::read(&imaged.image).unwrap();
        let places = places(&image);
        // Every n-th record, the last one, everything but the footer's last byte.
        let every = places.iter().copied().step_by(1 + places.len() / 6);
        let ends = [*places.last().unwrap(), image.len() - 32, image.len() - 1];
        let target = copy(&imaged.disk.path, dir.path().join("target.img"));
        for cut in every.chain(ends) {
            feed(&target, &image[..cut])
                .fails("image-damaged", FAILED)
                .disk("incomplete");
            assert_not_bootable(&target, &imaged.disk);
        }
        feed(&target, &image).ok();
        assert_same(&imaged.disk.path, &target, 512);
    }
}

#[test]
fn bytes_after_the_end_of_a_stream_are_damage() {
    let dir = folder();
    let mut image = fs::read(&disks::bare().image).unwrap();
    image.push(0);
    let target = copy(&disks::bare().disk.path, dir.path().join("target.img"));
    feed(&target, &image)
        .fails("image-damaged", FAILED)
        .disk("incomplete");
    assert_not_bootable(&target, &disks::bare().disk);
}

#[test]
fn records_in_another_order_are_damage() {
    let dir = folder();
    let image = fs::read(&disks::noise().image).unwrap();
    let places = places(&image);
    // Records 5 and 6 of the noise change places: each is whole, and right by itself.
    let (a, b, c) = (places[5], places[6], places[7]);
    let swapped = [&image[..a], &image[b..c], &image[a..b], &image[c..]].concat();
    let target = dir.path().join("target.img");
    feed(&target, &swapped)
        .fails("image-damaged", FAILED)
        .disk("incomplete");
    assert!(!target.exists());
}

/// Feeds a restore everything but the end of the stream, changes a byte of the target
/// after it was written, and lets the restore go on.
fn changed_meanwhile(more: &[&str]) -> (Run, tempfile::TempDir) {
    let dir = folder();
    let built = &disks::noise().disk;
    let target = disks::garbage(dir.path().join("target.img"), built.size);
    let image = fs::read(&disks::noise().image).unwrap();
    let (child, mut stdin) = start(&target, more);
    stdin.write_all(&image[..image.len() - 1]).unwrap();
    // Every record is on its way now; wait until the one in question is on the disk.
    let place = built.partitions[0].start + 5 * MIB;
    let expected = peek(&built.path, place, MIB as usize);
    let give_up = Instant::now() + Duration::from_secs(120);
    while peek(&target, place, MIB as usize) != expected {
        assert!(
            Instant::now() < give_up,
            "the record never came to the disk"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    flip(&target, place + 4711);
    stdin.write_all(&image[image.len() - 1..]).unwrap();
    drop(stdin);
    (child.wait_with_output().expect("imager ends").into(), dir)
}

#[test]
fn the_read_back_notices_what_changed_behind_its_back() {
    let (run, dir) = changed_meanwhile(&["--json"]);
    let run = run.fails("verify-mismatch", FAILED).disk("incomplete");
    let target = dir.path().join("target.img");
    assert_not_bootable(&target, &disks::noise().disk);
    // The place is named: the cell in which the byte is.
    let cell = disks::noise().disk.partitions[0].start + 5 * MIB;
    let found = run.json()["found"].to_string();
    assert!(
        found.contains(&format!("bytes {cell} to {}", cell + MIB)),
        "{found}"
    );
}

#[test]
fn without_the_read_back_it_is_said_that_there_was_none() {
    let (run, dir) = changed_meanwhile(&["--no-verify", "--json"]);
    assert_eq!(run.ok().json()["verified"], false);
    let target = dir.path().join("target.img");
    let built = &disks::noise().disk;
    assert!(crate::compare::difference(&built.path, &target, 512).is_some());
    let run = imager!["restore", "--no-verify", disks::noise().image, target];
    let said = String::from_utf8(run.ok().stdout).unwrap();
    assert!(said.contains("NOT read back"), "{said}");
}
