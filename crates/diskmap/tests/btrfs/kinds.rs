//! Btrfs of less usual origin: converted, with another UUID, left over of two devices,
//! very large, with a tree of block groups.
//!
//! Owns: making them. Does not own: the recipes of mkfs.btrfs.

use crate::common::{fill, ok, s, scan_file, sparse, whole, whole_used};
use crate::image::{self, Image};
use crate::oracle::{assert_matches, oracle};
use diskmap::{Extent, Method};
use testkit::loopdev::{LoopDevice, Mounted};

/// Made from an ext4 whose blocks stay where they were.
#[test]
fn converted_from_ext4() {
    let image = Image::new(160, &[]);
    let tree = image.work.join("ext");
    fill(&tree, 40, 100_000);
    sparse(&image.path, 160 << 20);
    ok(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-b",
            "4096",
            "-t",
            "ext4",
            "-d",
            s(&tree),
            s(&image.path),
        ],
    );
    ok("btrfs-convert", &["--no-progress", s(&image.path)]);
    let used = whole_used(&image.path).used;
    assert_matches(&used, &oracle(&image.path));
    let files = image.mounted("ro", image::files);
    image.assert_restores(&used, &files);
}

/// The UUID that tools show is no longer that of the tree nodes.
#[test]
fn another_uuid() {
    let image = Image::new(128, &["-O", "^no-holes"]);
    let uuid = "01234567-89ab-cdef-0123-456789abcdef";
    ok("btrfstune", &["-M", uuid, s(&image.path)]);
    let region = whole_used(&image.path);
    assert_eq!(region.uuid, uuid);
    assert_matches(&region.used, &oracle(&image.path));
}

#[test]
fn a_seed_is_copied_in_full() {
    let image = Image::new(128, &[]);
    ok("btrfstune", &["-f", "-S", "1", s(&image.path)]);
    let (region, map) = whole(&image.path);
    assert_eq!((region.method, map.warnings.len()), (Method::Full, 0));
    assert!(
        region.reason.contains("it is the seed of other"),
        "{}",
        region.reason
    );
}

/// Of two devices the first is removed: what is left has another number, and its chunks
/// have moved.
#[test]
fn the_second_of_two_devices_is_left() {
    let mut image = Image::new(128, &[]);
    let second = sparse(&image.work.join("second"), 400 << 20);
    let recipe = ["-q", "-f", "-d", "single", "-m", "single"];
    ok(
        "mkfs.btrfs",
        &[&recipe[..], &[s(&image.path), s(&second)]].concat(),
    );
    let devices = [&image.path, &second].map(|path| LoopDevice::attach(path, 512));
    let names = devices
        .each_ref()
        .map(|device| s(device.path()).to_string());
    ok("btrfs", &["device", "scan", &names[0], &names[1]]);
    let mount = Mounted::new(devices[1].path(), "rw");
    fill(mount.path(), 40, 100_000);
    ok("btrfs", &["device", "remove", &names[0], s(mount.path())]);
    ok("sync", &[]);
    let files = image::files(mount.path());
    drop(mount);
    drop(devices);
    image.path = second;
    let used = whole_used(&image.path).used;
    let dump = ok("btrfs", &["inspect-internal", "dump-super", s(&image.path)]);
    assert!(dump.contains("dev_item.devid\t\t2"), "{dump}");
    assert_matches(&used, &oracle(&image.path));
    image.assert_restores(&used, &files);
}

/// Large enough for the second mirror of the superblock; on sectors of 4096 bytes.
#[test]
fn all_mirrors_of_the_superblock() {
    let image = Image::new(257 << 10, &[]);
    let used = whole_used(&image.path).used;
    assert_matches(&used, &oracle(&image.path));
    let mirror = Extent {
        start: 256 << 30,
        len: 4096,
    };
    assert!(used.contains_all(mirror));
    assert!(used.total() < 64 << 20, "{}", used.total());
    assert_eq!(scan_file(&image.path, 4096).regions[0].used, used);
}
