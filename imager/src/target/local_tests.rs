//! Restores from media in folders to raw files, without a person.

use super::Local;
use crate::backup::{self, container};
use crate::progress::Silent;
use crate::target::cmdline::CommandLine;
use crate::target::console::Console;
use crate::target::journal::Journal;
use crate::target::medium::Medium;
use crate::target::shelf::tests::{Changed, medium};
use blockdev::Device;
use image::layout::Machine;
use std::path::Path;
use std::sync::Arc;
use wire::{After, Code, DiskInfo, DiskSelector, DiskState, Report};

const MIB: usize = 1 << 20;
const SIZE: usize = 8 * MIB;

/// The image of a disk without a table: all of it is copied.
fn image_of(folder: &Path, bytes: &[u8]) -> Vec<u8> {
    let path = folder.join("source");
    std::fs::write(&path, bytes).unwrap();
    let device = Device::open_read(&path).unwrap();
    let options = backup::Options::default();
    let info = DiskInfo::default();
    let plan = backup::Plan::make(&device, &info, Machine::default(), &options, &Silent).unwrap();
    let (image, _) = container::write(&device, &plan, &options, Vec::new(), &Silent).unwrap();
    image
}

fn disk_and_image(folder: &Path) -> (Vec<u8>, Vec<u8>) {
    let bytes: Vec<u8> = (0..SIZE)
        .map(|n| (n / 4096) as u8 ^ (n as u8).wrapping_mul(31))
        .collect();
    let image = image_of(folder, &bytes);
    (bytes, image)
}

struct Run {
    result: Result<After, Report>,
    target: Vec<u8>,
    log: String,
}

/// Restores from drives with these contents to one of the files in `disks`.
fn run(folder: &Path, states: Vec<Vec<Medium>>, disks: &[&str]) -> Run {
    let target = folder.join("target");
    for name in disks {
        std::fs::write(folder.join(name), vec![0xEE; SIZE]).unwrap();
    }
    let list = || {
        let disk = |(number, name): (u32, &&str)| DiskInfo {
            number,
            path: folder.join(name).to_str().unwrap().to_owned(),
            size_bytes: SIZE as u64,
            sector_size: 512,
            serial: name.to_uppercase(),
            bus: "sata".into(),
            ..DiskInfo::default()
        };
        Ok((0..).zip(disks).map(disk).collect())
    };
    let journal = Arc::new(Journal::default());
    let console = Console::on(Arc::clone(&journal), Vec::new());
    let local = Local {
        console: &console,
        line: &CommandLine::default(),
        drives: &Changed::new(states),
        list: &list,
    };
    Run {
        result: local.run(),
        target: std::fs::read(target).unwrap(),
        log: journal.text(),
    }
}

fn on_one_medium(folder: &Path, image: &[u8]) -> Medium {
    let (first, second) = image.split_at(image.len() / 3);
    let size = image.len() as u64;
    medium(folder, (1, 1), (0, size), &[first, second])
}

#[test]
fn the_only_disk_becomes_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, image) = disk_and_image(dir.path());
    let medium = on_one_medium(dir.path(), &image);
    let done = run(dir.path(), vec![vec![medium]], &["target"]);
    assert_eq!(done.result.unwrap(), After::PowerOff, "{}", done.log);
    assert!(done.target == bytes, "{}", done.log);
    assert!(done.log.contains("] done\n"), "{}", done.log);
}

#[test]
fn two_media_are_asked_for_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, image) = disk_and_image(dir.path());
    let (first, second) = image.split_at(image.len() / 2);
    let size = image.len() as u64;
    let one = medium(dir.path(), (1, 2), (0, size), &[first]);
    let two = medium(dir.path(), (2, 2), (first.len() as u64, size), &[second]);
    // Found and opened; then somebody changes it, each time too late for the first look.
    let states = vec![
        vec![one.clone()],
        vec![one.clone()],
        vec![one.clone()],
        vec![],
        vec![two.clone()],
        vec![two.clone()], // the look before disks are chosen
        vec![two.clone()],
        vec![one.clone()],
        vec![one.clone()], // the look for a place for the old tables
        vec![one],
        vec![two],
    ];
    let done = run(dir.path(), states, &["target"]);
    assert_eq!(done.result.unwrap(), After::PowerOff, "{}", done.log);
    assert!(done.target == bytes);
    let count = |words: &str| done.log.matches(words).count();
    assert_eq!(count("waiting medium-wrong"), 3, "{}", done.log);
    assert_eq!(count("waiting medium-not-found"), 1, "{}", done.log);
}

fn untouched(run: &Run, code: Code) {
    let report = run.result.as_ref().unwrap_err();
    assert_eq!(report.code, code, "{}", report.found);
    assert_eq!(report.disk, DiskState::Untouched);
    assert!(run.target == [0xEE; SIZE], "the disk was written");
    assert!(!run.log.contains("] done"), "{}", run.log);
}

#[test]
fn a_damaged_image_leaves_the_disk_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (_, image) = disk_and_image(dir.path());
    for at in [40, image.len() / 2, image.len() - 9] {
        let mut image = image.clone();
        image[at] ^= 1;
        let medium = on_one_medium(dir.path(), &image);
        let done = run(dir.path(), vec![vec![medium]], &["target"]);
        untouched(&done, Code::ImageDamaged);
    }
}

#[test]
fn without_a_person_the_disk_has_to_be_the_only_one() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, image) = disk_and_image(dir.path());
    let mut medium = on_one_medium(dir.path(), &image);
    let state = |medium: &Medium| vec![vec![medium.clone()]];
    let done = run(dir.path(), state(&medium), &["target", "other"]);
    untouched(&done, Code::TargetAmbiguous);
    let done = run(dir.path(), state(&medium), &["target"]);
    assert!(done.target == bytes);
    // Nobody is there to answer: nothing is written.
    if let Some(restore) = &mut medium.about.restore {
        restore.disk = Some(DiskSelector {
            serial: Some("NOT THERE".into()),
            ..DiskSelector::default()
        });
    }
    let done = run(dir.path(), state(&medium), &["target"]);
    untouched(&done, Code::DiskNotFound);
    if let Some(restore) = &mut medium.about.restore {
        restore.disk = Some(DiskSelector {
            serial: Some("OTHER".into()),
            ..DiskSelector::default()
        });
    }
    let done = run(dir.path(), state(&medium), &["target", "other"]);
    assert_eq!(done.result.unwrap(), After::PowerOff);
    assert!(done.target == [0xEE; SIZE]);
    assert!(std::fs::read(dir.path().join("other")).unwrap() == bytes);
}

#[test]
fn another_image_after_the_check_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (_, image) = disk_and_image(dir.path());
    let good = on_one_medium(dir.path(), &image);
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let image = image_of(&other, &vec![3; SIZE / 2]);
    let bad = on_one_medium(&other, &image);
    let states = vec![
        vec![good.clone()],
        vec![good.clone()],
        vec![good],
        vec![bad],
    ];
    let done = run(dir.path(), states, &["target"]);
    untouched(&done, Code::ImageDamaged);
}
