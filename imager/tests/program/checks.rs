//! Every check of a backup or a restore, triggered on a real disk: its code, its exit code,
//! and that nothing was written.
//!
//! Owns: the table of checks, and that no code is without a test. Does not own: the fine
//! points of a check (the other modules, which are named for what is not triggered here).

use crate::disks::{self, MIB, copy, flip, folder, garbage, hash, poke};
use crate::run::{FAILED, REFUSED, Run, command, finish};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use testkit::faulty_file::{FaultyFile, FileFault};
use testkit::loopdev::{LoopDevice, Mounted};
use wire::Code;

/// What a check is tried on: files in a folder of its own, and what has to stay while the
/// program runs. Dropped in this order.
#[derive(Default)]
struct Scene {
    args: Vec<OsString>,
    /// Files of which no byte may change.
    unchanged: Vec<PathBuf>,
    /// Files that must not appear.
    absent: Vec<PathBuf>,
    _mounts: Vec<Mounted>,
    _loops: Vec<LoopDevice>,
    _faulty: Vec<FaultyFile>,
}

impl Scene {
    /// A backup of `disk`, whose bytes are those of `backing`.
    fn backup(folder: &Path, disk: &Path, backing: &Path, options: &[&str]) -> Scene {
        let image = folder.join("image");
        Scene {
            args: args("backup", [disk, &image], options),
            unchanged: vec![backing.to_owned()],
            absent: vec![image, folder.join("image.partial")],
            ..Scene::default()
        }
    }

    /// A restore to `target`, whose bytes are those of `backing`.
    fn restore(image: &Path, target: &Path, backing: &Path, options: &[&str]) -> Scene {
        Scene {
            args: args("restore", [image, target], options),
            unchanged: vec![backing.to_owned()],
            ..Scene::default()
        }
    }

    fn run(&self, folder: &Path) -> Run {
        let mut command = command(&self.args);
        command.current_dir(folder);
        finish(command)
    }
}

fn args(verb: &str, paths: [&Path; 2], options: &[&str]) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec![verb.into(), "-q".into(), "--json".into()];
    args.extend(paths.iter().map(|path| path.as_os_str().to_owned()));
    args.extend(options.iter().map(OsString::from));
    args
}

/// A check, how it ends the job, and what sets it off.
struct Check {
    name: &'static str,
    code: Code,
    exit: i32,
    scene: fn(&Path) -> Scene,
}

const fn refused(name: &'static str, code: Code, scene: fn(&Path) -> Scene) -> Check {
    Check {
        name,
        code,
        exit: REFUSED,
        scene,
    }
}

/// A backup of a copy of a disk that `change` was done to.
fn changed(folder: &Path, of: &Path, change: impl FnOnce(&Path), options: &[&str]) -> Scene {
    let disk = copy(of, folder.join("disk.img"));
    change(&disk);
    Scene::backup(folder, &disk, &disk, options)
}

fn gpt() -> &'static Path {
    &disks::gpt().disk.path
}

/// A restore of the GPT disk's image to a device with old contents.
fn onto_device(folder: &Path, size: u64, options: &[&str]) -> Scene {
    let backing = garbage(folder.join("target.img"), size);
    let device = LoopDevice::attach(&backing, 512);
    let image = &disks::gpt().image;
    let mut scene = Scene::restore(image, device.path(), &backing, options);
    scene._loops.push(device);
    scene
}

const YES: &[&str] = &["--yes", "--save-tables", "none"];

const BACKUP: &[Check] = &[
    refused("no such disk", Code::DiskNotFound, |folder| {
        Scene::backup(folder, &folder.join("none"), gpt(), &[])
    }),
    refused("no disk of that serial number", Code::DiskNotFound, |f| {
        Scene::backup(f, Path::new("serial=NONE"), gpt(), &[])
    }),
    refused("no such partition", Code::PartitionNotFound, |folder| {
        Scene::backup(folder, gpt(), gpt(), &["--partition", "9"])
    }),
    refused("another partition", Code::PartitionIdentity, |folder| {
        Scene::backup(folder, gpt(), gpt(), &["--partition", "2,start=512"])
    }),
    refused("both copies of a GPT damaged", Code::GptDamaged, |folder| {
        let damage = |disk: &Path| {
            flip(disk, 512 + 16);
            flip(disk, disks::gpt().disk.size - 512 + 16);
        };
        changed(folder, gpt(), damage, &[])
    }),
    refused("MBR entries that overlap", Code::MbrDamaged, |folder| {
        // The first partition reaches over the next one.
        let damage = |disk: &Path| poke(disk, 446 + 12, &100_000u32.to_le_bytes());
        changed(folder, &disks::mbr().disk.path, damage, &[])
    }),
    refused("a damaged file system", Code::FsDamaged, |folder| {
        let damage = |disk: &Path| flip(disk, disks::gpt().disk.partitions[1].start + 1024 + 4);
        changed(folder, gpt(), damage, &["--strict"])
    }),
    refused("an unclean file system", Code::FsDirty, |folder| {
        // The flag of the FAT32 that says that it was unmounted.
        let damage = |disk: &Path| {
            let boot = disks::gpt().disk.partitions[0].start;
            let field = |at: u64, len: usize| -> u64 {
                let bytes = disks::peek(disk, boot + at, len).into_iter().rev();
                bytes.fold(0, |number, byte| number << 8 | u64::from(byte))
            };
            let (reserved, copies, size) = (field(14, 2), field(16, 1), field(36, 4));
            for copy in 0..copies {
                let flags = (reserved + copy * size) * 512 + 7;
                poke(disk, boot + flags, &[field(flags, 1) as u8 & !0x08]);
            }
        };
        changed(folder, gpt(), damage, &["--strict"])
    }),
    refused("a disk cut short", Code::DiskSmallerThanLayout, |folder| {
        let cut = |disk: &Path| {
            let file = std::fs::File::options().write(true).open(disk).unwrap();
            file.set_len(30 * MIB).unwrap();
        };
        changed(folder, &disks::mbr().disk.path, cut, &[])
    }),
    refused("odd sectors", Code::SectorSizeUnsupported, |folder| {
        Scene::backup(folder, gpt(), gpt(), &["--sector-size", "520"])
    }),
    Check {
        name: "unreadable sectors",
        code: Code::ReadError,
        exit: FAILED,
        scene: |folder| {
            let backing = copy(gpt(), folder.join("disk.img"));
            let start = disks::gpt().disk.partitions[3].start + 2 * MIB;
            let faulty = FaultyFile::new(&backing, &[(start..start + 512, FileFault::Read)]);
            let mut scene = Scene::backup(folder, &faulty.path(), &backing, &[]);
            scene._faulty.push(faulty);
            scene
        },
    },
    refused("a mounted disk", Code::DiskInUse, |folder| {
        let backing = copy(&disks::bare().disk.path, folder.join("disk.img"));
        let device = LoopDevice::attach(&backing, 512);
        let mounted = Mounted::new(device.path(), "rw");
        let mut scene = Scene::backup(folder, device.path(), &backing, &[]);
        scene.unchanged.clear(); // the mount itself writes
        scene._mounts.push(mounted);
        scene._loops.push(device);
        scene
    }),
    refused("an image of that name", Code::ImageExists, |folder| {
        let mut scene = Scene::backup(folder, gpt(), gpt(), &[]);
        scene.absent.clear();
        scene.unchanged.push(garbage(folder.join("image"), 100));
        scene
    }),
];

const RESTORE: &[Check] = &[
    refused("a damaged image", Code::ImageDamaged, |folder| {
        let image = copy(&disks::gpt().image, folder.join("image"));
        flip(&image, 100);
        let target = garbage(folder.join("target"), 80 * MIB);
        Scene::restore(&image, &target, &target, &[])
    }),
    refused(
        "an image of a newer version",
        Code::ImageVersion,
        |folder| {
            let image = copy(&disks::gpt().image, folder.join("image"));
            poke(&image, 8, &9_u16.to_le_bytes());
            let target = garbage(folder.join("target"), 80 * MIB);
            Scene::restore(&image, &target, &target, &[])
        },
    ),
    refused("no image", Code::ImageNotFound, |folder| {
        let target = garbage(folder.join("target"), MIB);
        Scene::restore(&folder.join("none"), &target, &target, &[])
    }),
    refused("a partial image", Code::ImagePartial, |folder| {
        let image = folder.join("image");
        crate::imager!["backup", "-q", gpt(), image, "--partition", "1"].ok();
        let target = garbage(folder.join("target"), 80 * MIB);
        Scene::restore(&image, &target, &target, &[])
    }),
    refused("other sectors", Code::SectorSizeMismatch, |folder| {
        let backing = garbage(folder.join("target.img"), 80 * MIB);
        let device = LoopDevice::attach(&backing, 4096);
        let image = &disks::gpt().image;
        let mut scene = Scene::restore(image, device.path(), &backing, YES);
        scene._loops.push(device);
        scene
    }),
    refused("a disk too small", Code::DiskTooSmall, |folder| {
        onto_device(folder, 40 * MIB, YES)
    }),
    refused("no such disk", Code::DiskNotFound, |_| {
        let target = Path::new("/dev/no-such-disk");
        Scene::restore(&disks::gpt().image, target, gpt(), YES)
    }),
    refused("a disk in use", Code::DiskInUse, |folder| {
        let backing = copy(&disks::bare().disk.path, folder.join("disk.img"));
        let device = LoopDevice::attach(&backing, 512);
        let mounted = Mounted::new(device.path(), "ro,noload");
        let image = &disks::bare().image;
        let mut scene = Scene::restore(image, device.path(), &backing, YES);
        scene._mounts.push(mounted);
        scene._loops.push(device);
        scene
    }),
    refused("a write-protected disk", Code::DiskInUse, |folder| {
        let backing = garbage(folder.join("disk.img"), 80 * MIB);
        let device = LoopDevice::attach_read_only(&backing, 512);
        let mut scene = Scene::restore(&disks::gpt().image, device.path(), &backing, YES);
        scene._loops.push(device);
        scene
    }),
    refused("nobody said yes", Code::NotConfirmed, |folder| {
        onto_device(folder, 80 * MIB, &[])
    }),
];

fn try_all(checks: &[Check]) {
    for check in checks {
        let dir = folder();
        let scene = (check.scene)(dir.path());
        let before: Vec<_> = scene.unchanged.iter().map(|file| hash(file)).collect();
        eprintln!("{}: {}", check.code, check.name);
        let run = scene.run(dir.path()).fails(check.code.as_str(), check.exit);
        let report = run.json();
        let state = report["disk"].as_str().expect("the disk's state");
        assert!(["untouched", "not-involved"].contains(&state), "{state}");
        for file in &scene.absent {
            assert!(!file.exists(), "{} is left", file.display());
        }
        for (file, before) in scene.unchanged.iter().zip(before) {
            assert_eq!(hash(file), before, "{} was written", file.display());
        }
    }
}

#[test]
fn every_check_of_a_backup() {
    try_all(BACKUP);
}

#[test]
fn every_check_of_a_restore() {
    try_all(RESTORE);
}

/// Codes about disks and images that are triggered elsewhere, and where.
const ELSEWHERE: &[(Code, &str)] = &[
    (Code::NoSpace, "outputs"),
    (Code::WriteError, "bad_sectors"),
    (Code::VerifyMismatch, "bad_sectors"),
    (Code::OutputFailed, "outputs"),
    (Code::Interrupted, "interrupted"),
    (Code::Usage, "usage"),
    (Code::TargetAmbiguous, "target"),
    (Code::DisksChanged, "server/tests/disks.rs"),
    (Code::ImageNotForMachine, "target"),
    (Code::WipeUnsupported, "wipe"),
    (Code::FsNotGrown, "sizes"),
    (Code::ImageUntrusted, "signatures"),
    (Code::ImageLocked, "encryption"),
    (Code::ImageNotEncrypted, "encryption"),
    (Code::ImportUnsupported, "import_clonezilla"),
    (Code::ImportIncomplete, "import_partclone"),
    (Code::FileNotFound, "inside::choice"),
    (Code::FileExists, "inside::extract"),
    (Code::FileUnreadable, "inside::hostile"),
    (Code::FilesIncomplete, "inside::extract"),
    (
        Code::TableNotReread,
        "tests/tests/guest.rs: a kernel that has partitions",
    ),
    (Code::BootEntryFailed, "imager/src/boot_entries/tests.rs"),
    (Code::TableTypeMismatch, "chosen"),
    (Code::PartitionSizeMismatch, "chosen"),
    (Code::PartitionTypeMismatch, "chosen"),
    (Code::MediumNotFound, "src/target/shelf_tests.rs"),
    (Code::MediumWrong, "src/target/shelf_tests.rs"),
];

#[test]
fn no_check_is_without_a_test() {
    let here = BACKUP
        .iter()
        .chain(RESTORE)
        .map(|check| check.code.as_str());
    let elsewhere = ELSEWHERE.iter().map(|(code, _)| code.as_str());
    let tested: BTreeSet<&str> = here.chain(elsewhere).collect();
    // From the first code to the one before those of networks and servers.
    let ends = Code::ALL
        .iter()
        .position(|code| *code == Code::NoNetworkDevice);
    let about_disks = &Code::ALL[..ends.expect("the code")];
    let missing: Vec<&str> = about_disks
        .iter()
        .map(|code| code.as_str())
        .filter(|code| !tested.contains(code))
        .collect();
    assert_eq!(missing, [""; 0], "codes that nothing triggers");
}
