//! Btrfs that was not unmounted: after fsync, and in the middle of writing.
//!
//! Owns: making such images with the kernel, and what has to be in them after a
//! restore. Does not own: clean ones.

use crate::common::{Numbers, ok, poke, restore_onto_garbage, run, s, sparse, whole, whole_used};
use crate::damage::{Leaf, NODE, assert_full, lie};
use crate::image::{Image, assert_whole, check, files, mounted};
use crate::oracle::{assert_matches, oracle};
use diskmap::{Method, Region, WarningKind};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testkit::loopdev::{LoopDevice, Mounted};

/// Files that are synchronised before the copy is taken.
const SYNCED: u64 = 12;

/// Moments at which a copy is taken in the middle of writing.
const CLONES: usize = 3;

/// As [`whole_used`], with the warning about a log if there is one.
fn used(path: &Path, log: bool) -> Region {
    if !log {
        return whole_used(path);
    }
    let (region, map) = whole(path);
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
    assert!(map.warnings[0].detail.contains("a log is to be replayed"));
    region
}

fn has_log(path: &Path) -> bool {
    let text = ok("btrfs", &["inspect-internal", "dump-super", s(path)]);
    let line = text.lines().find(|l| l.starts_with("log_root\t")).unwrap();
    !line.ends_with("\t0")
}

/// Writes a file and waits until it is on the device.
fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Bytes that are the same for the same number only.
fn bytes(number: u64, len: usize) -> Vec<u8> {
    let mut numbers = Numbers(number * 2 + 1);
    (0..len).map(|_| numbers.next() as u8).collect()
}

/// An image with a log: of two subvolumes, with data, shared data, and a tree deeper than
/// one node.
fn with_log(args: &[&str]) -> Image {
    let image = Image::new(192, args);
    image.age();
    let device = LoopDevice::attach(&image.path, 512);
    let mount = Mounted::new(device.path(), "rw,commit=300");
    let at = mount.path();
    for number in 0..SYNCED {
        write_synced(
            &at.join(format!("d0/synced{number}")),
            &bytes(number, 70_000),
        )
        .unwrap();
    }
    let name = "n".repeat(200);
    for number in 0..60u64 {
        write_synced(&at.join(format!("d1/{name}{number}")), &bytes(number, 1500)).unwrap();
    }
    write_synced(&at.join("sub/synced"), &bytes(99, 300_000)).unwrap();
    ok(
        "sh",
        &[
            "-ec",
            "cp --reflink=always \"$1/d2/file2\" \"$1/d2/again\"; fsync() { sync \"$@\"; }; \
             fallocate -l 300000 \"$1/d2/reserved\"; fsync \"$1/d2/again\" \"$1/d2/reserved\"",
            "sh",
            s(at),
        ],
    );
    let copy = image.work.join("copy");
    ok("cp", &["--sparse=always", s(&image.path), s(&copy)]);
    drop(mount);
    drop(device);
    fs::rename(copy, &image.path).unwrap();
    image
}

/// What was synchronised is there after the kernel has replayed the log of what was
/// restored.
fn verify_log(args: &[&str]) {
    let image = with_log(args);
    let oracle = oracle(&image.path);
    let outside = oracle.log.subtract(&oracle.used);
    assert!(
        outside.total() > 300_000,
        "the recipe has no log: {}",
        outside.total()
    );
    let region = used(&image.path, true);
    assert_matches(&region.used, &oracle);

    // The log is needed: without its part the kernel refuses the rest.
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, &region.used.subtract(&outside), &target);
    let device = LoopDevice::attach(&target, 512);
    let mount = run("mount", &[s(device.path()), s(&image.work.join("tree"))]);
    assert!(!mount.status.success(), "the log is not looked at");
    drop(device);

    restore_onto_garbage(&image.path, &region.used, &target);
    check(&target);
    let restored = mounted(&target, "rw", |at| {
        for number in 0..SYNCED {
            let found = fs::read(at.join(format!("d0/synced{number}"))).unwrap();
            assert!(found == bytes(number, 70_000), "synced{number}");
        }
        assert_eq!(fs::read(at.join("sub/synced")).unwrap(), bytes(99, 300_000));
        files(at)
    });
    assert_whole(&target, &restored);
    assert_eq!(mounted(&image.path, "rw", files), restored);
}

#[test]
fn a_log() {
    verify_log(&[]);
}

#[test]
fn a_log_in_small_nodes_of_mixed_groups_with_old_features() {
    verify_log(&[
        "-M",
        "-n",
        "4096",
        "-O",
        "^skinny-metadata,^no-holes",
        "-R",
        "^free-space-tree",
    ]);
}

/// Logs that contradict themselves or the rest.
#[test]
fn lies_in_a_log() {
    let image = with_log(&["-m", "single"]);
    let path = &image.path;
    let all = used(path, true).used;
    let top = Leaf::find(path, "TREE_LOG");
    let look = |leaf: &Leaf, offset, value: &[u8], words| {
        leaf.seen(path, offset, value, Some(WarningKind::FsDamaged), words);
    };
    let [(first, one), (_, two)] = [0, 1].map(|nth| top.item(132, nth));
    look(&top, first + 8, &[131], "holds something else");
    look(&top, two, &top.bytes[one..one + 239], "occurs twice");
    look(&top, two + 160, &[0xff], "is impossible");
    look(&top, 0x50, &[top.bytes[0x50] - 1], "of another generation");
    look(&top, 0x58, &[5], "of another tree");
    poke(path, top.place + 500, &[top.bytes[500] ^ 1]);
    assert_full(path, Some(WarningKind::FsDamaged), "wrong checksum");
    poke(path, top.place, &top.bytes);

    // The log of the subvolume is one leaf.
    let log = Leaf::at(path, top.u64(two + 176));
    let (_, data) = log.item(108, 0);
    let metadata = log.u64(0x30).to_le_bytes();
    look(&log, data + 20, &[9], "impossible file extent");
    look(&log, data + 21, &metadata, "which is no data");
    look(&log, data + 21, &[1], "which is no data");
    look(&log, data + 29, &[0; 8], "impossible file extent");

    // A copy of it in the place of a node that is in use.
    let other = Leaf::find(path, "UUID_TREE");
    let mut moved = log.bytes;
    moved[0x30..0x38].copy_from_slice(&other.bytes[0x30..0x38]);
    lie::<NODE>(path, other.place, 32, &moved[32..]);
    look(
        &top,
        two + 176,
        &other.bytes[0x30..0x38],
        "lies on other data",
    );
    poke(path, other.place, &other.bytes);
    assert_eq!(used(path, true).used, all);
}

/// Clones a file that is the disk of a mounted file system, at one moment of a writer's
/// work that it does not choose. What the writer knew to be on the device before that
/// moment must be in what is restored of the clone. A balance goes on at the same time.
#[test]
fn in_the_middle_of_writing() {
    let image = Image::new(256, &[]);
    let outer = sparse(&image.work.join("outer"), 2 << 30);
    ok("mkfs.btrfs", &["-q", s(&outer)]);
    let outer_device = LoopDevice::attach(&outer, 512);
    let outer_mount = Mounted::new(outer_device.path(), "rw");
    let disk = outer_mount.path().join("disk");
    ok("cp", &[s(&image.path), s(&disk)]);
    let device = LoopDevice::attach(&disk, 512);
    let mount = Mounted::new(device.path(), "rw,commit=1");

    let synced = Mutex::new(BTreeMap::new());
    let stop = AtomicBool::new(false);
    let clones: Vec<_> = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(mount.path(), &synced, &stop));
        // Moves everything about meanwhile; it stops early if there is no room.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                run(
                    "btrfs",
                    &["balance", "start", "--full-balance", s(mount.path())],
                );
            }
        });
        let _stop = StopOnDrop(&stop);
        let mut clones = Vec::new();
        for number in 0..CLONES {
            // More is on the device each time.
            while synced.lock().unwrap().len() < 15 * (number + 1) && !writer.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let clone = outer_mount.path().join(format!("clone{number}"));
            let known = synced.lock().unwrap().clone();
            ok("cp", &["--reflink=always", s(&disk), s(&clone)]);
            clones.push((clone, known));
        }
        clones
    });
    drop(mount);
    drop(device);
    for (clone, known) in clones {
        let region = used(&clone, has_log(&clone));
        assert_matches(&region.used, &oracle(&clone));
        let target = image.work.join("restored");
        restore_onto_garbage(&clone, &region.used, &target);
        // While a balance goes on the tool may find something in the original, too.
        let verdict = |path| run("btrfs", &["check", "--readonly", s(path)]).status;
        assert_eq!(verdict(&target), verdict(&clone));
        assert!(!known.is_empty());
        mounted(&target, "rw,skip_balance", |at| {
            for (&number, &len) in &known {
                let found = fs::read(at.join(format!("synced{number}"))).unwrap();
                assert!(found == bytes(number, len), "synced{number}");
            }
        });
        check(&target);
    }
}

/// Ends the threads whatever happens.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Writes files, some of them synchronised, which are noted then, some of them not, which
/// are written over or removed later.
fn write_until(at: &Path, synced: &Mutex<BTreeMap<u64, usize>>, stop: &AtomicBool) {
    let mut numbers = Numbers(77);
    for number in 0..10_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let len = numbers.below(40_000) as usize;
        let scratch = at.join(format!("scratch{}", numbers.below(30)));
        match numbers.below(4) {
            // A balance may leave no room for a moment.
            0 => drop(fs::write(scratch, bytes(number, 4 * len))),
            1 => drop(fs::remove_file(scratch)),
            _ => {
                if write_synced(&at.join(format!("synced{number}")), &bytes(number, len)).is_ok() {
                    synced.lock().unwrap().insert(number, len);
                }
            }
        }
    }
}
