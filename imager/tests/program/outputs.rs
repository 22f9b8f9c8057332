//! Destinations that take nothing more, and sources that shrink: found out in the middle.
//!
//! Owns: that these end as failures with their code, and what is left behind. Does not
//! own: destinations that are refused at once (`refusals`).

use crate::disks::{self, MIB, folder, garbage};
use crate::imager;
use crate::interrupted::SlowBackup;
use crate::run::{FAILED, command, finish};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use testkit::loopdev::{LoopDevice, Mounted};

/// A folder of so many bytes, in memory.
struct SmallFolder(tempfile::TempDir);

impl SmallFolder {
    fn new(bytes: u64) -> SmallFolder {
        let dir = folder();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mounted.expect("mount").success(), "root is needed to mount");
        SmallFolder(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn entries(&self) -> usize {
        self.path().read_dir().expect("the folder").count()
    }
}

impl Drop for SmallFolder {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.path()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.path().display());
        }
    }
}

#[test]
fn standard_output_that_is_full() {
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
fn a_backup_into_a_full_folder_keeps_nothing_half_made() {
    let small = SmallFolder::new(MIB);
    let image = small.path().join("image");
    let run = imager!["backup", "-q", "--json", disks::noise().disk.path, image];
    run.fails("no-space", FAILED);
    assert_eq!(small.entries(), 0, "something half-made stays");
}

#[test]
fn an_export_into_a_full_folder_keeps_nothing_half_made() {
    for format in ["raw", "qcow2", "vhdx"] {
        for bytes in [64 << 10, 4 * MIB] {
            let small = SmallFolder::new(bytes);
            let disk = small.path().join("disk");
            let image = &disks::noise().image;
            imager!["export", "-q", "--json", "--format", format, image, disk]
                .fails("no-space", FAILED)
                .disk("not-involved");
            assert_eq!(small.entries(), 0, "something of a {format} stays");
        }
    }
}

/// What was whole before the folder was full stays; there is no other file.
#[test]
fn an_extraction_into_a_full_folder_keeps_no_half_file() {
    let dir = folder();
    let (disk, image) = (dir.path().join("disk"), dir.path().join("image"));
    File::create(&disk).unwrap().set_len(32 * MIB).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&disk).status();
    assert!(made.expect("mkfs.ext4 (package e2fsprogs)").success());
    let mounted = Mounted::new(&disk, "loop");
    std::fs::create_dir(mounted.path().join("folder")).unwrap();
    for (name, len) in [
        ("a", 1000),
        ("folder/large", 9 * MIB),
        ("folder/x", 1000),
        ("z", 9 * MIB),
    ] {
        garbage(mounted.path().join(name), len);
    }
    drop(mounted);
    imager!["backup", "-q", disk, image].ok();
    let small = SmallFolder::new(4 * MIB);
    imager!["extract", "-q", "--json", image, "/", small.path()]
        .fails("no-space", FAILED)
        .disk("not-involved");
    let names = |path: &Path| -> Vec<String> {
        let entries = path.read_dir().unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "lost+found").collect()
    };
    let mut top = names(small.path());
    top.sort();
    assert_eq!(top, ["a", "folder"]);
    assert_eq!(small.path().join("a").metadata().unwrap().len(), 1000);
    assert_eq!(names(&small.path().join("folder")), [""; 0]);
}

#[test]
fn a_restore_into_a_full_folder_keeps_nothing_half_made() {
    let small = SmallFolder::new(8 * MIB);
    let target = small.path().join("disk.img");
    imager!["restore", "-q", "--json", disks::noise().image, target]
        .fails("no-space", FAILED)
        .disk("incomplete");
    assert_eq!(small.entries(), 0, "half a disk stays");
}

#[test]
fn a_device_that_loses_writes_is_no_success() {
    // The kernel takes the writes; only the flush says that they went nowhere.
    let small = SmallFolder::new(8 * MIB);
    let backing = small.path().join("disk.img");
    File::create(&backing)
        .unwrap()
        .set_len(disks::noise().disk.size)
        .unwrap();
    let device = LoopDevice::attach(&backing, 512);
    let more = ["--yes", "--save-tables", "none", "--json", "-q"];
    for verify in [&[][..], &["--no-verify"]] {
        let mut restore = command([
            "restore".as_ref(),
            disks::noise().image.as_os_str(),
            device.path().as_os_str(),
        ]);
        restore.args(more).args(verify);
        let run = finish(restore).disk("incomplete");
        let code = run.json()["code"].as_str().unwrap().to_owned();
        assert!(
            ["write-error", "no-space"].contains(&code.as_str()),
            "{code}"
        );
        assert_eq!(run.exit, Some(FAILED));
    }
}

#[test]
fn a_source_that_shrinks_is_a_read_error() {
    let dir = folder();
    let disk = disks::copy(&disks::noise().disk.path, dir.path().join("disk.img"));
    let backup = SlowBackup::start(dir.path(), &disk, &["--json", "-q"]);
    File::options()
        .write(true)
        .open(&disk)
        .unwrap()
        .set_len(24 * MIB)
        .unwrap();
    let run = backup.finish();
    run.fails("read-error", FAILED);
    assert!(!dir.path().join("image").exists());
}

#[test]
fn pipes_and_null_devices_are_written_and_stay_what_they_are() {
    use std::os::unix::fs::FileTypeExt;
    let dir = folder();
    // A device of this test alone: the system's own must outlive a mistake.
    let null = dir.path().join("null");
    let made = Command::new("mknod")
        .arg(&null)
        .args(["c", "1", "3"])
        .status();
    assert!(
        made.expect("mknod").success(),
        "root is needed to make a device"
    );
    for more in [&[][..], &["--overwrite"]] {
        let mut backup = command([
            "backup".as_ref(),
            disks::bare().disk.path.as_os_str(),
            null.as_os_str(),
        ]);
        finish({
            backup.args(more).arg("-q");
            backup
        })
        .ok();
        assert!(null.metadata().unwrap().file_type().is_char_device());
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 1);
}

#[test]
fn image_and_disk_are_never_one_file() {
    let dir = folder();
    let disk = disks::copy(&disks::bare().disk.path, dir.path().join("disk.img"));
    let before = disks::hash(&disk);
    imager!["backup", "--overwrite", "--json", disk, disk].refused("image-exists");
    imager!["backup", "--overwrite", disk, dir.path()].refused("image-exists");
    assert_eq!(disks::hash(&disk), before);

    // An image that is large enough to be taken for the disk.
    let full = dir.path().join("full.dpl");
    let noise = garbage(dir.path().join("noise.img"), 2 * MIB);
    imager!["backup", "-q", "--codec", "none", noise, full].ok();
    let before = disks::hash(&full);
    imager!["restore", "-q", "--json", full, full]
        .refused("disk-in-use")
        .disk("untouched");
    assert_eq!(disks::hash(&full), before);
}

#[test]
fn a_file_in_shared_memory_is_a_file() {
    let name = format!("/dev/shm/imager-test-{}", std::process::id());
    let run = imager!["restore", "-q", disks::bare().image, name];
    let same = crate::compare::difference(&disks::bare().disk.path, Path::new(&name), 512);
    std::fs::remove_file(&name).unwrap();
    run.ok();
    assert_eq!(same, None);
}
