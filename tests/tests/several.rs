//! Several disks in one job: one image each, published and restored together.
//!
//! Owns: jobs of a real server on raw files. Does not own: the sum of their progress, the
//! words about each disk (the imager's own tests).

use std::fs;
use std::path::{Path, PathBuf};

use e2e::fleet::{End, Fleet, Machine, Target};
use e2e::wire_tap::WireTap;
use testkit::build::DiskBuilder;

const MIB: u64 = 1 << 20;

/// A machine with three disks of different sizes, and a copy of each.
struct Stage {
    fleet: Fleet,
    machine: Machine,
    name: String,
    tap: WireTap,
    copies: Vec<PathBuf>,
}

impl Stage {
    fn new() -> Stage {
        Stage::of(&[24, 40, 32])
    }

    /// With disks of so many MiB.
    fn of(sizes: &[u64]) -> Stage {
        let fleet = Fleet::new(&[]).unwrap();
        let disks: Vec<PathBuf> = sizes
            .iter()
            .enumerate()
            .map(|(n, mib)| {
                let path = fleet.dir().join(format!("disk-{n}.img"));
                let plan = DiskBuilder::gpt(mib * MIB, 512).raw((mib - 4) * MIB, n as u64 + 31);
                plan.build(&path).path
            })
            .collect();
        let paths: Vec<&Path> = disks.iter().map(PathBuf::as_path).collect();
        let machine = Machine::new(1, &paths);
        let copies = disks
            .iter()
            .map(|disk| {
                let copy = disk.with_extension("copy");
                fs::copy(disk, &copy).unwrap();
                copy
            })
            .collect();
        let name = fleet.register(&machine).unwrap();
        let tap = WireTap::to(fleet.data_port()).unwrap();
        Stage {
            fleet,
            machine,
            name,
            tap,
            copies,
        }
    }

    fn ctl(&self, arguments: &[&str]) -> String {
        self.fleet.ctl(arguments).unwrap()
    }

    fn boot(&self) -> Target {
        self.fleet.boot(&self.machine, &self.tap.url()).unwrap()
    }

    fn done(&self) -> End {
        let end = self.boot().finish().unwrap();
        assert_eq!(end.json["result"], "done", "{end:?}");
        end
    }

    fn disk(&self, at: usize) -> &str {
        self.machine.disks[at].to_str().unwrap()
    }

    fn wipe(&self) {
        for disk in &self.machine.disks {
            let size = disk.metadata().unwrap().len();
            fs::write(disk, vec![0x33; size as usize]).unwrap();
        }
    }

    /// The used bytes of the disk are those of its copy.
    fn assert_same(&self, at: usize) {
        let (was, is) = (&self.copies[at], &self.machine.disks[at]);
        let (was, is) = (fs::read(was).unwrap(), fs::read(is).unwrap());
        assert_eq!(was.len(), is.len());
        // Free space is not copied; the noise and both tables are.
        let end = was.len() - 2 * MIB as usize;
        assert!(was[..17 << 10] == is[..17 << 10], "the table of disk {at}");
        assert!(
            was[MIB as usize..end] == is[MIB as usize..end],
            "the data of disk {at}"
        );
        let tail = was.len() - (17 << 10);
        assert!(was[tail..] == is[tail..], "the second table of disk {at}");
    }

    fn names(&self) -> Vec<String> {
        self.fleet.status().unwrap().images()
    }
}

#[test]
fn all_disks_there_and_back() {
    let stage = Stage::new();
    stage.ctl(&["backup", &stage.name, "--image", "gold", "--all-disks"]);
    let end = stage.done();
    let used = end.json["used_bytes"].as_u64().unwrap();
    assert!(used > 80 * MIB, "{end:?}");
    assert_eq!(stage.names(), ["gold", "gold", "gold"]);
    stage.wipe();
    // Files have no serial number: the disks are named, in the order of the set.
    let error = stage
        .fleet
        .ctl(&["restore", &stage.name, "--image", "gold", "--yes"])
        .unwrap_err()
        .to_string();
    assert!(error.contains("cannot be told"), "{error}");
    let disks = [
        "--disk", "number=0", "--disk", "number=1", "--disk", "number=2",
    ];
    let order = [
        &["restore", &stage.name, "--image", "gold", "--yes"][..],
        &disks,
    ]
    .concat();
    stage.ctl(&order);
    let end = stage.done();
    assert_eq!(end.json["used_bytes"].as_u64(), Some(used), "{end:?}");
    (0..3).for_each(|at| stage.assert_same(at));
    // They are deleted together, as they came.
    stage.ctl(&["images", "delete", "gold"]);
    assert!(stage.names().is_empty());
}

#[test]
fn a_disk_that_cannot_be_read_keeps_all_images_from_appearing() {
    let stage = Stage::new();
    let order = ["backup", &stage.name, "--image", "gold"];
    let disks = ["--disk", "number=0", "--disk", "number=2"];
    stage.ctl(&[&order[..], &disks].concat());
    let gone = stage.machine.disks[2].with_extension("gone");
    let mut machine = stage.machine.clone();
    fs::rename(&machine.disks[2], &gone).unwrap();
    machine.disks.pop();
    let end = stage
        .fleet
        .boot(&machine, &stage.tap.url())
        .unwrap()
        .finish()
        .unwrap();
    assert_eq!(end.json["code"], "disk-not-found", "{end:?}");
    assert!(stage.names().is_empty());
    fs::rename(&gone, &stage.machine.disks[2]).unwrap();
    stage.ctl(&["clear", &stage.name]);
    // Numbers are those of the last check-in, which had one disk less.
    stage.fleet.register(&stage.machine).unwrap();
    stage.ctl(&[&order[..], &disks].concat());
    stage.done();
    assert_eq!(stage.names(), ["gold", "gold"]);
}

#[test]
fn one_disk_that_is_too_small_keeps_the_others_untouched_and_is_named() {
    let stage = Stage::new();
    stage.ctl(&["backup", &stage.name, "--image", "gold", "--all-disks"]);
    stage.done();
    stage.wipe();
    // The first two change places: the larger image does not fit the smaller disk.
    let disks = [
        "--disk", "number=1", "--disk", "number=0", "--disk", "number=2",
    ];
    let order = [
        &["restore", &stage.name, "--image", "gold", "--yes"][..],
        &disks,
    ]
    .concat();
    stage.ctl(&order);
    let end = stage.boot().finish().unwrap();
    assert_eq!(end.json["code"], "disk-too-small", "{end:?}");
    assert_eq!(end.json["disk"], "untouched", "{end:?}");
    let found = end.json["found"].as_str().unwrap();
    for at in 0..3 {
        assert!(found.contains(stage.disk(at)), "{found}");
        let now = fs::read(&stage.machine.disks[at]).unwrap();
        assert!(
            now.iter().all(|byte| *byte == 0x33),
            "disk {at} was written"
        );
    }
}

#[test]
fn a_power_cut_in_the_middle_is_gone_on_from_whatever_each_disk_has() {
    let stage = Stage::new();
    stage.ctl(&["backup", &stage.name, "--image", "gold", "--all-disks"]);
    let mut target = stage.boot();
    assert!(target.until(|| stage.tap.up() >= 40 * MIB).unwrap());
    target.kill().unwrap();
    assert!(stage.names().is_empty(), "half of a set is visible");
    stage.done();
    stage.wipe();
    let disks = [
        "--disk", "number=0", "--disk", "number=1", "--disk", "number=2",
    ];
    let order = [
        &["restore", &stage.name, "--image", "gold", "--yes"][..],
        &disks,
    ]
    .concat();
    stage.ctl(&order);
    let before = stage.tap.down();
    let mut target = stage.boot();
    // By then the smallest disk may be whole, another half-made.
    assert!(
        target
            .until(|| stage.tap.down() >= before + 76 * MIB)
            .unwrap()
    );
    target.kill().unwrap();
    let end = stage.done();
    let skipped = end.json["skipped_bytes"].as_u64().unwrap();
    assert!(skipped > 16 * MIB, "{skipped} bytes were found");
    (0..3).for_each(|at| stage.assert_same(at));
}

/// One disk was whole, another half-made when the power went; the images are encrypted.
#[test]
fn what_is_whole_stays_and_the_rest_goes_on_with_keyed_names_too() {
    let mut stage = Stage::of(&[8, 40]);
    let file = |name: &str| stage.fleet.dir().join(name).display().to_string();
    let (key, identity) = (file("key"), file("identity"));
    let imager = |arguments: &[&str]| {
        let mut command = stage.fleet.program("imager");
        let run = command.args(arguments).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let recipient = imager(&["key", "new", "--identity", &identity]);
    imager(&["key", "new", "--recipient", recipient.trim(), &key]);
    stage.machine.options = ["--key", &key, "--identity", &identity]
        .map(str::to_owned)
        .into();
    stage.ctl(&["backup", &stage.name, "--image", "gold", "--all-disks"]);
    stage.done();
    stage.wipe();
    let order = [
        "restore",
        &stage.name,
        "--image",
        "gold",
        "--yes",
        "--rate",
        "8M",
    ];
    let error = stage.fleet.ctl(&order).unwrap_err().to_string();
    assert!(error.contains("serial number is encrypted"), "{error}");
    let disks = ["--disk", "number=0", "--disk", "number=1"];
    stage.ctl(&[&order[..], &disks].concat());
    let mut target = stage.boot();
    // The first disk's tables are there: they are the last that is written to it.
    let whole = || {
        let (was, is) = (&stage.copies[0], &stage.machine.disks[0]);
        let (was, is) = (fs::read(was).unwrap(), fs::read(is).unwrap());
        let tail = was.len() - (17 << 10);
        was[..17 << 10] == is[..17 << 10] && was[tail..] == is[tail..]
    };
    assert!(target.until(whole).unwrap());
    target.kill().unwrap();
    let other = fs::read(stage.disk(1)).unwrap();
    assert!(
        other[..512].iter().all(|byte| *byte == 0),
        "it was finished, too"
    );
    let end = stage.done();
    let held = format!("{} holds the whole image already", stage.disk(0));
    assert!(end.said.contains(&held), "{}", end.said);
    (0..2).for_each(|at| stage.assert_same(at));
}

#[test]
fn one_image_of_a_set_is_restored_by_its_id() {
    let stage = Stage::new();
    stage.ctl(&["backup", &stage.name, "--image", "gold", "--all-disks"]);
    stage.done();
    stage.wipe();
    let refused = [
        "restore",
        &stage.name,
        "--image",
        "gold",
        "--yes",
        "--disk",
        "number=1",
    ];
    let error = stage.fleet.ctl(&refused).unwrap_err().to_string();
    assert!(error.contains("several disks"), "{error}");
    let id = stage.fleet.status().unwrap().image_ids("gold")[1].clone();
    stage.ctl(&[
        "restore",
        &stage.name,
        "--image",
        &id,
        "--yes",
        "--disk",
        "number=1",
    ]);
    stage.done();
    stage.assert_same(1);
    for at in [0, 2] {
        let now = fs::read(&stage.machine.disks[at]).unwrap();
        assert!(
            now.iter().all(|byte| *byte == 0x33),
            "disk {at} was written"
        );
    }
}
