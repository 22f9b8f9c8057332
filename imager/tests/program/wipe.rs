//! Wiping real block devices: what is proved, and disks that do not do what they say.
//!
//! Owns: the command on loop devices and faulty disks, its codes and words. Does not own: the
//! order of writes, drives that erase themselves (unit tests), jobs (`tests/tests/wipe.rs`).

use crate::disks::{self, MIB, copy, folder, garbage, hash};
use crate::imager;
use crate::run::{FAILED, REFUSED, Run, USAGE};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::faulty_file::{FaultyFile, FileFault};
use testkit::loopdev::{LoopDevice, Mounted};

const SIZE: u64 = 24 * MIB;

fn wipe(disk: &Path, method: &str) -> Run {
    imager!["wipe", disk, "--method", method, "--yes", "--json", "-q"]
}

/// The first byte of a file that is not 0.
fn not_zero(path: &Path) -> Option<usize> {
    fs::read(path).unwrap().iter().position(|&byte| byte != 0)
}

/// A file of noise, which may misbehave, as a device. Fields go in this order.
struct Faulty {
    device: LoopDevice,
    file: FaultyFile,
    backing: PathBuf,
}

impl Faulty {
    fn new(folder: &Path) -> Faulty {
        let backing = garbage(folder.join("disk.img"), SIZE);
        let file = FaultyFile::new(&backing, &[]);
        let device = LoopDevice::attach(&file.path(), 512);
        Faulty {
            device,
            file,
            backing,
        }
    }

    fn path(&self) -> &Path {
        self.device.path()
    }
}

#[test]
fn an_overwritten_device_holds_nothing_and_the_result_tells_how_that_is_known() {
    for sector_size in [512, 4096] {
        let dir = folder();
        let backing = garbage(dir.path().join("disk.img"), SIZE);
        let device = LoopDevice::attach(&backing, sector_size);
        let json = wipe(device.path(), "overwrite").ok().json();
        assert_eq!(not_zero(&backing), None);
        for (field, value) in [
            ("result", "done"),
            ("method", "overwrite"),
            ("ordered", "overwrite"),
        ] {
            assert_eq!(json[field], value);
        }
        assert_eq!(json["proof"]["seen"], "zeros");
        for field in ["bytes", "read_back_bytes"] {
            assert_eq!(json[field], SIZE, "{field}");
        }
        assert_eq!(json["disk"]["path"], device.path().to_str().unwrap());
        assert!(json["proved"].as_str().unwrap().contains("are zeros"));
        let said = imager!["wipe", device.path(), "--yes", "-q", "--passes", "2"].ok();
        assert!(said.said().contains("noise, then zeros"), "{}", said.said());
        assert_eq!(not_zero(&backing), None);
    }
}

#[test]
fn a_discard_gives_the_blocks_back_and_is_read_back() {
    let memory = Mounted::tmpfs();
    let backing = garbage(memory.path().join("disk.img"), SIZE);
    {
        let device = LoopDevice::attach(&backing, 512);
        let json = wipe(device.path(), "discard").ok().json();
        assert_eq!(json["method"], "discard");
        assert_eq!(json["proof"]["seen"], "zeros");
        assert_eq!(json["read_back_bytes"], SIZE);
        assert_eq!(not_zero(&backing), None);
        // The ends were written; everything else is gone.
        let held = fs::metadata(&backing).unwrap().blocks() * 512;
        assert!(held <= 3 * MIB, "{held} bytes are held");
    }
}

#[test]
fn a_disk_that_cannot_discard_says_so_untouched_and_auto_overwrites_it() {
    let memory = Mounted::ramfs();
    let backing = garbage(memory.path().join("disk.img"), SIZE);
    let before = hash(&backing);
    let device = LoopDevice::attach(&backing, 512);
    for method in ["discard", "nvme-format", "nvme-sanitize"] {
        wipe(device.path(), method)
            .refused("wipe-unsupported")
            .disk("untouched");
        assert_eq!(hash(&backing), before, "{method}");
    }
    let json = wipe(device.path(), "auto").ok().json();
    assert_eq!(json["method"], "overwrite");
    assert_eq!(not_zero(&backing), None);
    drop(device);
}

/// The disk answers that it discarded, and kept everything.
#[test]
fn a_discard_that_was_not_done_is_caught_and_auto_goes_on() {
    let dir = folder();
    let disk = Faulty::new(dir.path());
    disk.file.add(0..SIZE, FileFault::LostDiscard);
    let run = wipe(disk.path(), "discard")
        .fails("verify-mismatch", FAILED)
        .disk("incomplete");
    let found = run.json()["found"].as_str().unwrap().to_owned();
    assert!(found.contains("proves nothing"), "{found}");
    assert!(not_zero(&disk.backing) >= Some(MIB as usize), "it boots");
    let json = wipe(disk.path(), "auto").ok().json();
    assert_eq!(json["method"], "overwrite");
    let before = json["before"].as_array().unwrap();
    assert_eq!(before.len(), 1, "{before:?}");
    let first = before[0].as_str().unwrap();
    assert!(first.starts_with("discard: verify-mismatch: "), "{first}");
    assert_eq!(not_zero(&disk.backing), None);
}

/// The disk answers that it wrote, and did not.
#[test]
fn writes_that_change_nothing_are_caught() {
    for method in ["overwrite", "auto"] {
        let dir = folder();
        let disk = Faulty::new(dir.path());
        let place = 9 * MIB + 4096;
        disk.file.add(place..place + 512, FileFault::LostWrite);
        let run = wipe(disk.path(), method)
            .fails("verify-mismatch", FAILED)
            .disk("incomplete");
        let found = run.json()["found"].as_str().unwrap().to_owned();
        // The request that touches it is lost as a whole; it is at most 128 KiB.
        let number = found.split("from byte ").nth(1).unwrap_or(&found);
        let end = number.find(|c: char| !c.is_ascii_digit());
        let named: u64 = number[..end.unwrap_or(number.len())].parse().unwrap();
        assert!((place - 128 * 1024..=place).contains(&named), "{found}");
        assert!(
            fs::read(&disk.backing).unwrap()[..MIB as usize]
                .iter()
                .all(|&b| b == 0)
        );
    }
}

#[test]
fn sectors_that_take_nothing_are_named_and_all_others_are_wiped() {
    let dir = folder();
    let disk = Faulty::new(dir.path());
    let bad = [5 * MIB + 8192, 17 * MIB + 512];
    for at in bad {
        disk.file.add(at..at + 512, FileFault::Write);
    }
    let run = wipe(disk.path(), "overwrite")
        .fails("write-error", FAILED)
        .disk("incomplete");
    let found = run.json()["found"].as_str().unwrap().to_owned();
    for at in bad {
        let unit = at / 4096 * 4096;
        let named = format!("{unit} to {}", unit + 4096);
        assert!(found.contains(&named), "{named} in {found}");
    }
    assert!(found.contains("everything else was overwritten"), "{found}");
    let now = fs::read(&disk.backing).unwrap();
    let left = now
        .chunks(4096)
        .filter(|b| b.iter().any(|&b| b != 0))
        .count();
    assert!(left <= 2, "{left} blocks are not wiped");
}

#[test]
fn what_cannot_be_read_back_is_not_proved() {
    let dir = folder();
    let disk = Faulty::new(dir.path());
    let at = 7 * MIB;
    disk.file.add(at..at + 512, FileFault::Read);
    let run = wipe(disk.path(), "overwrite")
        .fails("read-error", FAILED)
        .disk("incomplete");
    let found = run.json()["found"].as_str().unwrap().to_owned();
    assert!(found.contains(&format!("{at} to {}", at + 4096)), "{found}");
}

#[test]
fn a_disk_in_use_is_not_wiped() {
    let dir = folder();
    let backing = copy(&disks::bare().disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    {
        let _mounted = Mounted::new(device.path(), "ro,noload");
        for more in [&["--yes"][..], &["--plan"]] {
            let mut command = crate::run::command(["wipe", "-q", "--json"]);
            command.arg(device.path()).args(more);
            let run = crate::run::finish(command).refused("disk-in-use");
            run.disk("untouched");
        }
        // Nor the file that somebody's disk is.
        wipe(&backing, "overwrite").refused("disk-in-use");
    }
    assert_eq!(hash(&backing), before);
    drop(device);
    let device = LoopDevice::attach_read_only(&backing, 512);
    wipe(device.path(), "overwrite").refused("disk-in-use");
    assert_eq!(hash(&backing), before);
}

#[test]
fn odd_orders_are_usage() {
    let dir = folder();
    let disk = garbage(dir.path().join("disk.img"), MIB);
    let before = hash(&disk);
    for options in [
        &["--passes", "0"][..],
        &["--passes", "17"],
        &["--passes", "2", "--method", "discard"],
        &["--method", "shred"],
    ] {
        let mut command = crate::run::command(["wipe", "-q", "--yes"]);
        command.arg(&disk).args(options);
        let run = crate::run::finish(command);
        assert_eq!(run.exit, Some(USAGE), "{options:?}: {}", run.stderr);
    }
    assert_eq!(hash(&disk), before);
}

#[test]
fn a_plan_shows_what_would_go_and_how_and_does_nothing() {
    let dir = folder();
    let backing = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    let said = imager!["wipe", device.path(), "--plan"].ok().said();
    for shown in [
        "EVERYTHING",
        device.path().to_str().unwrap(),
        "GPT",
        "ext4",
        "DESTROYED",
        "it can: ",
        "overwrite: every sector is written with zeros",
    ] {
        assert!(said.contains(shown), "no {shown} in {said}");
    }
    let json = imager![
        "wipe",
        device.path(),
        "--plan",
        "--json",
        "--method",
        "overwrite"
    ]
    .ok()
    .json();
    assert_eq!(json["result"], "plan");
    assert_eq!(json["ways"][0]["method"], "overwrite");
    assert_eq!(json["ways"].as_array().unwrap().len(), 1);
    assert!(json["now"].as_array().unwrap().len() >= 4);
    assert_eq!(hash(&backing), before);
}

/// Wipes on a terminal of its own, on which this is typed; exit code and screen.
fn typed(answer: &str, disk: &Path) -> (Option<i32>, String) {
    let line = format!("{} wipe {}", env!("CARGO_BIN_EXE_imager"), disk.display());
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script is missing: apt-get install bsdutils");
    let mut keyboard = child.stdin.take().expect("a pipe");
    keyboard.write_all(answer.as_bytes()).expect("it is typed");
    let output = child.wait_with_output().expect("script ends");
    drop(keyboard);
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), screen)
}

/// A file, too: nobody gets back what it held.
#[test]
fn only_yes_wipes_a_disk_or_a_file() {
    let dir = folder();
    let backing = copy(&disks::mbr().disk.path, dir.path().join("disk.img"));
    let before = hash(&backing);
    imager!["wipe", backing, "-q", "--json"].fails("not-confirmed", REFUSED);
    let device = LoopDevice::attach(&backing, 512);
    imager!["wipe", device.path(), "-q", "--json"].fails("not-confirmed", REFUSED);
    for answer in ["no\n", "y\n", "\n"] {
        let (exit, screen) = typed(answer, device.path());
        assert_eq!(exit, Some(REFUSED), "{screen}");
        assert_eq!(hash(&backing), before, "{answer:?} wiped it");
    }
    let (exit, screen) = typed("yes\n", device.path());
    assert_eq!(exit, Some(0), "{screen}");
    let question = screen.find("Type yes").expect("a question");
    for shown in [
        device.path().to_str().unwrap(),
        "EVERYTHING",
        "MBR",
        "DESTROYED",
    ] {
        let place = screen
            .find(shown)
            .unwrap_or_else(|| panic!("no {shown} in {screen}"));
        assert!(place < question, "{shown} is shown too late");
    }
    assert_eq!(not_zero(&backing), None);
}
