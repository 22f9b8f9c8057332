//! `imager import` of sources that something writes to while they are read, and of those that
//! are imported with `--force` although something may.
//!
//! Owns: that no such source becomes an image that does not say so. Does not own: what is
//! refused before anything is read (`import`).

use crate::disks::{self, MIB, copy, folder};
use crate::import::{convert, imported, tool};
use crate::import_clonezilla::{mbr, save};
use crate::import_partclone::run;
use imager::import::{self, Options};
use imager::progress::{ProgressSink, Silent};
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use testkit::loopdev::LoopDevice;
use wire::{Code, Report, Step};

/// Does something when a step of the job begins.
struct Meddler<'a> {
    at: Step,
    act: Mutex<Option<Box<dyn FnOnce() + Send + 'a>>>,
}

impl ProgressSink for Meddler<'_> {
    fn step(&self, step: Step, _total_bytes: u64) {
        if step == self.at
            && let Some(act) = self.act.lock().unwrap().take()
        {
            act();
        }
    }
    fn advance(&self, _plain_bytes: u64, _wire_bytes: u64) {}
    fn note(&self, _text: &str) {}
    fn interrupted(&self) -> bool {
        false
    }
}

fn options(dir: &Path) -> Options {
    Options {
        backing: true,
        scratch: dir.to_owned(),
        ..Options::default()
    }
}

/// Imports in this process; `act` is done when the step begins.
fn with(source: &Path, dir: &Path, at: Step, act: impl FnOnce() + Send) -> Result<(), Report> {
    let sink = Meddler {
        at,
        act: Mutex::new(Some(Box::new(act))),
    };
    let options = options(dir);
    let open = import::open(source, &options, &sink)?;
    let (plan, _) = import::plan(&open, source, &options, &sink)?;
    let written = import::write(&open, &plan, &options, Vec::new(), &sink);
    assert!(sink.act.lock().unwrap().is_none(), "nothing was done");
    written.map(|_| ())
}

/// Lets the file be old, so that every change gives it another time.
fn old(file: &Path) {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 30);
    let times = FileTimes::new().set_modified(then);
    let file = File::options().write(true).open(file).unwrap();
    file.set_times(times).unwrap();
}

fn open(file: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).open(file).unwrap()
}

/// The same byte once more: nothing but the time tells.
fn rewrite(file: &Path) {
    let file = open(file);
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096).unwrap();
    file.write_all_at(&byte, 4096).unwrap();
}

/// A byte, and then the time of before, until the time of the change is another one.
fn rewrite_in_the_past(file: &Path) {
    let (file, before) = (open(file), fs::metadata(file).unwrap());
    let times = FileTimes::new().set_modified(before.modified().unwrap());
    let changed = |m: &fs::Metadata| (m.ctime(), m.ctime_nsec());
    while changed(&file.metadata().unwrap()) == changed(&before) {
        file.write_all_at(b"x", 4096).unwrap();
        file.set_times(times).unwrap();
    }
}

fn lengthen(file: &Path) {
    let file = open(file);
    let end = file.metadata().unwrap().len();
    file.write_all_at(b"x", end).unwrap();
}

fn replace(file: &Path) {
    let other = copy(file, file.with_extension("other"));
    fs::rename(other, file).unwrap();
}

#[test]
fn a_file_that_changes_while_it_is_read_becomes_no_image() {
    let dir = folder();
    let disk = &disks::bare().disk.path;
    let raw = copy(disk, dir.path().join("raw"));
    let qcow2 = convert(&[], disk, dir.path().join("disk.qcow2"));
    let top = dir.path().join("top.qcow2");
    let create = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        "disk.qcow2",
    ];
    tool("qemu-img", &create, &[&top]);
    let kinds: [fn(&Path); 4] = [rewrite, rewrite_in_the_past, lengthen, replace];
    // The file that is imported, and the one that changes.
    for (source, changing) in [(&raw, &raw), (&qcow2, &qcow2), (&top, &top), (&top, &qcow2)] {
        for (n, change) in kinds.iter().enumerate() {
            let aside = copy(changing, dir.path().join("aside"));
            old(changing);
            let result = with(source, dir.path(), Step::Running, || change(changing));
            let what = format!("{} {n}", changing.display());
            let report = result.expect_err(&what);
            assert_eq!(report.code, Code::DiskInUse, "{what}: {}", report.found);
            assert!(report.found.contains("changed"), "{}", report.found);
            fs::rename(aside, changing).unwrap();
        }
        with(source, dir.path(), Step::Running, || {
            fs::read(changing).unwrap();
        })
        .unwrap();
    }
}

#[test]
fn a_folder_that_changes_while_it_is_read_becomes_no_image() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    let names = [
        "sda-pt.sf",
        "sda-mbr",
        "swappt-sda6.info",
        "sda1.ext2-ptcl-img.aa",
        "sda5.ext4-ptcl-img.ab",
    ];
    for name in names {
        let file = saved.join(name);
        assert!(file.exists(), "{name} in {:?}", fs::read_dir(&saved));
        old(&file);
        // What was read already, and what is yet to be read, as it is.
        let touch = || {
            File::options()
                .append(true)
                .open(&file)
                .map(|f| f.set_times(FileTimes::new().set_modified(SystemTime::now())))
        };
        let result = with(&saved, dir.path(), Step::Preparing, || {
            touch().unwrap().unwrap();
        });
        let report = result.expect_err(name);
        assert_eq!(report.code, Code::DiskInUse, "{name}: {}", report.found);
        assert!(report.found.contains(name), "{}", report.found);
    }
    with(&saved, dir.path(), Step::Preparing, || {}).unwrap();
    // A single image of partclone.
    let image = dir.path().join("image");
    let pieces = format!("cat {}/sda1.*-img.* > {}", saved.display(), image.display());
    run("bash", &["-c", &pieces]);
    old(&image);
    let result = with(&image, dir.path(), Step::Preparing, || replace(&image));
    assert_eq!(result.expect_err("replaced").code, Code::DiskInUse);
    // Once it is unpacked it may go away.
    let remove = || fs::remove_file(&image).unwrap();
    with(&image, dir.path(), Step::Running, remove).unwrap();
}

#[test]
fn no_virtual_machine_gets_a_file_that_is_being_imported() {
    let dir = folder();
    let disk = &disks::bare().disk.path;
    let raw = copy(disk, dir.path().join("raw"));
    let qcow2 = convert(&[], disk, dir.path().join("disk.qcow2"));
    let start = |format: &str, file: &PathBuf| {
        let mut writer = Command::new("qemu-io");
        writer.args(["-f", format, "-c", "write -P 5 1M 4k"]);
        writer
            .arg(file)
            .output()
            .expect("qemu-io (package qemu-utils)")
    };
    for (format, file) in [("raw", raw), ("qcow2", qcow2)] {
        let before = disks::hash(&file);
        with(&file, dir.path(), Step::Running, || {
            let output = start(format, &file);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains("lock"), "{text}");
            // To read it is no harm.
            tool("qemu-img", &["info"], &[&file]);
        })
        .unwrap();
        assert_eq!(before, disks::hash(&file));
        // Two imports do not hinder each other.
        with(&file, dir.path(), Step::Running, || {
            let options = options(dir.path());
            import::open(&file, &options, &Silent).unwrap();
        })
        .unwrap();
        assert!(start(format, &file).status.success());
    }
}

#[test]
fn what_is_imported_by_force_says_that_it_may_be_torn() {
    let dir = folder();
    let raw = copy(&disks::bare().disk.path, dir.path().join("raw"));
    let device = LoopDevice::attach(&raw, 512);
    crate::import::fails(&raw, dir.path(), &[], "disk-in-use");
    let (run, restored) = imported(&raw, dir.path(), &["--force"]);
    let run = run.warns("fs-dirty");
    assert_eq!(run.json()["used_bytes"], 24 * MIB);
    assert!(fs::read(&raw).unwrap() == fs::read(restored).unwrap());
    let image = dir.path().join("imported");
    let info = crate::imager!["info", "--json", image].ok().json();
    let said = info["warnings"][0].as_str().unwrap();
    assert!(said.contains("torn"), "{said}");
    drop(device);
    let (run, _) = imported(&raw, dir.path(), &[]);
    assert!(!run.stderr.contains("torn"), "{}", run.stderr);
}
