//! Runs that are killed or stopped in the middle.
//!
//! Owns: what they leave behind, and that the next run succeeds. Does not own: streams
//! that end (`order`).
//!
//! "In the middle" is made certain by pipes: the program cannot be past what the pipe
//! holds, and cannot end before the test lets it.

use crate::compare::assert_same;
use crate::disks::{self, copy, folder, garbage};
use crate::imager;
use crate::import_clonezilla::{mbr, save};
use crate::order::{assert_not_bootable, start};
use crate::run::{FAILED, Run, command};
use imager::import;
use imager::progress::ProgressSink;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use testkit::loopdev::LoopDevice;
use wire::{Code, Step};

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), signal).expect("the child is there");
}

/// A backup whose half-made file is a pipe that the test holds: it waits for the test.
pub struct SlowBackup {
    child: Child,
    image: PathBuf,
    pipe: File,
}

impl SlowBackup {
    /// Starts it and lets it write a little.
    pub fn start(dir: &Path, disk: &Path, more: &[&str]) -> SlowBackup {
        Self::start_verb("backup", dir, disk, more)
    }

    /// The same, of another command that makes an image.
    fn start_verb(verb: &str, dir: &Path, disk: &Path, more: &[&str]) -> SlowBackup {
        let image = dir.join("image");
        let partial = dir.join("image.partial");
        nix::unistd::mkfifo(&partial, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        // Open for both: neither side waits for the other to open it.
        let mut pipe = File::options()
            .read(true)
            .write(true)
            .open(&partial)
            .unwrap();
        let mut backup = command([verb.as_ref(), disk.as_os_str(), image.as_os_str()]);
        let child = backup.args(more).spawn().expect("imager starts");
        let mut begin = [0; 8];
        pipe.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"DEPLOYIM");
        assert!(!image.exists(), "the image has its name already");
        SlowBackup { child, image, pipe }
    }

    /// Lets it write as much as it likes, and waits for its end.
    pub fn finish(mut self) -> Run {
        let mut drain = self.pipe.try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut piece = vec![0; 1 << 16];
            loop {
                let count = drain.read(&mut piece).unwrap();
                if piece[..count].ends_with(b"the end") {
                    return;
                }
            }
        });
        let status = self.child.wait().unwrap();
        self.pipe.write_all(b"the end").unwrap();
        reader.join().unwrap();
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        self.child
            .stdout
            .take()
            .unwrap()
            .read_to_end(&mut stdout)
            .unwrap();
        if let Some(mut pipe) = self.child.stderr.take() {
            pipe.read_to_end(&mut stderr).unwrap();
        }
        std::process::Output {
            status,
            stdout,
            stderr,
        }
        .into()
    }
}

/// Waits for the line that says that the signal was heard. A program that never hears it
/// would wait for the test for ever, so there is an end to this.
fn wait_until_heard(child: &mut Child) {
    let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    let (heard, waiting) = mpsc::channel();
    // It reads on to the end: what comes after may be written.
    std::thread::spawn(move || {
        for line in stderr.lines().map_while(Result::ok) {
            if line.contains("stopping") {
                let _ = heard.send(());
            }
        }
    });
    if waiting.recv_timeout(Duration::from_secs(120)).is_err() {
        let _ = child.kill();
        panic!("the signal was not heard");
    }
}

#[test]
fn a_killed_backup_leaves_no_image() {
    let dir = folder();
    let mut backup = SlowBackup::start(dir.path(), &disks::noise().disk.path, &[]);
    backup.child.kill().unwrap();
    backup.child.wait().unwrap();
    assert!(!backup.image.exists());
    // What it left of a half-made file is in nobody's way.
    fs::remove_file(dir.path().join("image.partial")).unwrap();
    garbage(dir.path().join("image.partial"), 64 << 20);
    imager!["backup", "-q", disks::noise().disk.path, backup.image].ok();
    imager!["verify", "-q", backup.image].ok();
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

#[test]
fn a_stopped_backup_leaves_nothing() {
    for stop in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = folder();
        let mut backup = SlowBackup::start(dir.path(), &disks::noise().disk.path, &["--json"]);
        signal(&backup.child, stop);
        wait_until_heard(&mut backup.child);
        let run = backup.finish();
        assert_eq!(run.exit, Some(FAILED));
        assert_eq!(run.json()["code"], "interrupted");
        assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something stays");
    }
}

#[test]
fn a_quiet_backup_is_stopped_as_well() {
    let dir = folder();
    let mut backup = SlowBackup::start(
        dir.path(),
        &disks::noise().disk.path,
        &["--json", "--quiet"],
    );
    signal(&backup.child, Signal::SIGINT);
    wait_until_heard(&mut backup.child);
    assert_eq!(backup.finish().json()["code"], "interrupted");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something stays");
}

#[test]
fn a_stopped_import_leaves_nothing() {
    let dir = folder();
    let disk = &disks::noise().disk.path;
    let mut import = SlowBackup::start_verb("import", dir.path(), disk, &["--json"]);
    signal(&import.child, Signal::SIGINT);
    wait_until_heard(&mut import.child);
    assert_eq!(import.finish().json()["code"], "interrupted");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0, "something stays");
}

/// Wants the job to stop as soon as something is done.
#[derive(Default)]
struct Stopping(AtomicBool);

impl ProgressSink for Stopping {
    fn step(&self, _step: Step, _total_bytes: u64) {}
    fn advance(&self, _plain_bytes: u64, _wire_bytes: u64) {
        self.0.store(true, Ordering::Relaxed);
    }
    fn note(&self, _text: &str) {}
    fn interrupted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[test]
fn a_stopped_import_does_not_blame_its_source() {
    let dir = folder();
    for packer in ["none", "gzip", "zstd"] {
        let saved = save(&mbr(dir.path()), dir.path(), packer);
        let image = dir.path().join("image");
        let pieces = format!("cat {}/sda1.*-img.* > {}", saved.display(), image.display());
        crate::import_partclone::run("bash", &["-c", &pieces]);
        for source in [&image, &saved] {
            let options = import::Options {
                scratch: dir.path().to_owned(),
                ..import::Options::default()
            };
            let report = import::open(source, &options, &Stopping::default()).err();
            let report = report.expect("the import was stopped");
            assert_eq!(report.code, Code::Interrupted, "{}", report.found);
        }
    }
}

#[test]
fn an_existing_image_outlives_a_stopped_replacement() {
    let dir = folder();
    let image = copy(&disks::bare().image, dir.path().join("kept"));
    let before = disks::hash(&image);
    fs::rename(&image, dir.path().join("image.old")).unwrap();
    let image = dir.path().join("image.old");
    let partial = dir.path().join("image.old.partial");
    nix::unistd::mkfifo(&partial, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut pipe = File::options()
        .read(true)
        .write(true)
        .open(&partial)
        .unwrap();
    let disk = &disks::noise().disk.path;
    let mut backup = command(["backup".as_ref(), disk.as_os_str(), image.as_os_str()]);
    let mut child = backup.arg("--overwrite").spawn().unwrap();
    pipe.read_exact(&mut [0; 4096]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(disks::hash(&image), before);
}

/// Feeds a restore half of an image. More is read by then than any buffer on the way
/// holds, so the restore is in its middle.
pub fn half_restored(target: &Path, more: &[&str]) -> (Child, std::process::ChildStdin, Vec<u8>) {
    let image = fs::read(&disks::noise().image).unwrap();
    let half = image.len() / 2;
    assert!(half > 4 << 20, "the image is too small for this test");
    let (child, mut stdin) = start(target, more);
    stdin.write_all(&image[..half]).unwrap();
    (child, stdin, image[half..].to_vec())
}

#[test]
fn a_killed_restore_leaves_nothing_that_boots() {
    let dir = folder();
    // The target holds the same disk: what is not zeroed would be a valid table.
    let built = &disks::noise().disk;
    let target = copy(&built.path, dir.path().join("target.img"));
    let (mut child, _stdin, _) = half_restored(&target, &[]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_not_bootable(&target, built);
    imager!["restore", "-q", disks::noise().image, target].ok();
    assert_same(&built.path, &target, 512);
}

#[test]
fn a_restore_killed_on_a_device_leaves_nothing_that_boots() {
    let dir = folder();
    let built = &disks::noise().disk;
    let backing = copy(&built.path, dir.path().join("target.img"));
    let device = LoopDevice::attach(&backing, 512);
    let more = ["--yes", "--save-tables", "none"];
    let (mut child, _stdin, _) = half_restored(device.path(), &more);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_not_bootable(device.path(), built);
    imager![
        "restore",
        "-q",
        "--yes",
        "--save-tables",
        "none",
        disks::noise().image,
        device.path()
    ]
    .ok();
    assert_same(&built.path, device.path(), 512);
}

#[test]
fn a_stopped_restore_says_what_the_disk_is_now() {
    let dir = folder();
    let built = &disks::noise().disk;
    let target = copy(&built.path, dir.path().join("target.img"));
    let (mut child, mut stdin, rest) = half_restored(&target, &["--json"]);
    signal(&child, Signal::SIGINT);
    wait_until_heard(&mut child);
    // It stops between records, whatever still comes.
    let _ = stdin.write_all(&rest);
    drop(stdin);
    let run: Run = child.wait_with_output().unwrap().into();
    assert_eq!(run.exit, Some(FAILED));
    assert_eq!(run.json()["code"], "interrupted");
    assert_eq!(run.json()["disk"], "incomplete");
    assert_not_bootable(&target, built);
}
