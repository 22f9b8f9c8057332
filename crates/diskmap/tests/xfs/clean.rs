//! Clean file systems of all shapes.

use crate::common::{
    assert_same_tree, fill, ok, ok_with_input, restore_onto_garbage, run, s, scan_file, sparse,
    whole_used,
};
use crate::hostile::changed;
use crate::image::{Image, empty, filled, filled_without_kernel, make, mount};
use crate::oracle::{assert_matches, assert_sound, inspect};
use diskmap::{Extent, Extents};
use testkit::loopdev::{LoopDevice, Mounted};

/// Compares the map with xfs_db, restores by it and checks the copy.
fn verify(image: &Image, mountable: bool) -> Extents {
    let region = whole_used(&image.path);
    let db = inspect(&image.path);
    assert_eq!(region.file_system, "xfs");
    assert_eq!(region.label, "mylabel");
    assert_eq!(region.uuid, db.uuid);
    // mkfs.xfs leaves a rest that is too short for it; the map keeps it all.
    assert_matches(&region.used.intersect(0..db.size), &db);
    let target = image.dir.path().join("restored");
    restore_onto_garbage(&image.path, &region.used, &target);
    assert_sound(&target);
    if mountable {
        let mounted = mount(&target);
        assert_same_tree(&image.tree, mounted.path());
    }
    region.used
}

macro_rules! variants {
    ($($name:ident: $make:ident, $mib:literal, $fragments:literal, [$($arg:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let image = $make($mib, &[$($arg),*]);
            let found = inspect(&image.path).extents;
            assert!(found >= $fragments, "the recipe leaves only {found} free extents");
            verify(&image, true);
        })*
    };
}

variants! {
    default: filled, 64, 40, [];
    block_1k: filled, 64, 40, ["-b", "size=1024"];
    block_2k: filled, 64, 40, ["-b", "size=2048"];
    block_8k: filled, 64, 40, ["-b", "size=8192"];
    block_16k: filled, 64, 20, ["-b", "size=16384"];
    block_64k: filled, 300, 20, ["-b", "size=65536"];
    sector_4k: filled, 64, 40, ["-s", "size=4096"];
    sector_2k_block_2k: filled, 64, 40, ["-s", "size=2048", "-b", "size=2048"];
    many_groups: filled, 272, 40, ["-d", "agcount=16"];
    groups_no_power_of_two: filled, 80, 40, ["-d", "agsize=17m"];
    reverse_map: filled, 64, 40, ["-m", "rmapbt=1"];
    reverse_map_1k: filled, 64, 40, ["-m", "rmapbt=1", "-b", "size=1024"];
    all_features: filled, 64, 40, ["-m", "rmapbt=1,reflink=1,bigtime=1,inobtcount=1,finobt=1", "-i", "nrext64=1,sparse=1"];
    few_features: filled, 64, 40, ["-m", "rmapbt=0,reflink=0,bigtime=0,inobtcount=0,finobt=0", "-i", "sparse=0"];
    log_in_another_group: filled, 80, 40, ["-d", "agsize=16m", "-l", "agnum=3"];
    log_with_stripes: filled, 64, 40, ["-l", "su=32k"];
    stripes: filled, 64, 40, ["-d", "su=64k,sw=4"];
}

macro_rules! old_variants {
    ($($name:ident: $mib:literal, [$($arg:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let image = filled_without_kernel($mib, &["-m", "crc=0", $($arg),*]);
            let found = inspect(&image.path).extents;
            assert!(found >= 40, "the recipe leaves only {found} free extents");
            verify(&image, false);
        })*
    };
}

old_variants! {
    v4_default: 64, [];
    v4_block_512: 64, ["-b", "size=512"];
    v4_block_1k: 64, ["-b", "size=1024"];
    v4_block_16k: 64, ["-b", "size=16384"];
    v4_sector_4k: 64, ["-s", "size=4096"];
    v4_many_groups: 96, ["-d", "agcount=6"];
    v4_log_version_1: 64, ["-l", "version=1"];
    v4_exact_counters: 64, ["-l", "lazy-count=0"];
    v4_attr_1: 64, ["-i", "attr=1,projid32bit=0", "-n", "ftype=0"];
}

/// Trees of three levels, nearly all of whose records are single blocks.
#[test]
fn thousands_of_pieces() {
    let image = empty(
        64,
        &["-b", "size=1024", "-m", "rmapbt=1", "-d", "agcount=2"],
    );
    let mounted = mount(&image.path);
    let file = mounted.path().join("comb");
    ok("xfs_io", &["-f", "-c", "falloc 0 24m", s(&file)]);
    // A hole in every second block.
    let script: String = (0..12_000).fold(String::new(), |text, i| {
        text + &format!("fpunch {} 1k\n", i * 2048)
    });
    ok_with_input("xfs_io", &[s(&file)], &script);
    drop(mounted);
    let db = inspect(&image.path);
    assert!(db.extents > 11_000, "{} free extents", db.extents);
    let levels = ["agf 0", "p bnolevel", "agf 1", "p bnolevel"];
    let levels = crate::oracle::db(&image.path, &levels);
    assert!(levels.contains("bnolevel = 3"), "{levels}");
    let region = whole_used(&image.path);
    assert_matches(&region.used, &db);
    assert_sound(&image.path);
}

#[test]
fn an_empty_file_system_of_2_tib_is_small() {
    let image = empty(2 << 20, &[]);
    let db = inspect(&image.path);
    let used = whole_used(&image.path).used;
    assert_matches(&used, &db);
    // Nearly all of it is the log.
    assert!(used.total() < 3 << 30, "{} bytes", used.total());
}

#[test]
fn a_file_system_smaller_than_its_partition() {
    let image = empty(100, &["-d", "size=50m"]);
    let used = whole_used(&image.path).used;
    assert_matches(&used.intersect(0..50 << 20), &inspect(&image.path));
    // The last MiB is kept; other layers have their labels there.
    let behind = used.intersect(50 << 20..100 << 20);
    assert_eq!(behind.as_slice(), [Extent::between(99 << 20, 100 << 20)]);
}

/// The checks above must notice a single block that is lost, and one too many.
#[test]
fn the_oracles_notice_one_block() {
    let image = filled(64, &[]);
    let db = inspect(&image.path);
    let used = whole_used(&image.path).used;
    for extent in used.iter().take(20) {
        let one = |start| {
            Extents::from_iter([Extent {
                start,
                len: db.block,
            }])
        };
        let less = used.subtract(&one(extent.start));
        assert!(std::panic::catch_unwind(|| assert_matches(&less, &db)).is_err());
        let more = used.union(&one(extent.end()));
        assert!(std::panic::catch_unwind(|| assert_matches(&more, &db)).is_err());
    }
}

/// Another imaging program's count. It takes the blocks that are kept ready for the trees
/// as free, though the kernel goes on from the list of them.
#[test]
fn no_more_than_partclone_copies() {
    let image = filled(64, &[]);
    let file = image.dir.path().join("image");
    let log = image.dir.path().join("log");
    let (from, to, log) = (s(&image.path), s(&file), s(&log));
    ok(
        "partclone.xfs",
        &["-q", "-c", "-s", from, "-o", to, "-L", log],
    );
    let output = run("partclone.info", &["-s", to]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|l| l.contains("Space in use:")).unwrap();
    let blocks = line.split_once('=').unwrap().1.split_whitespace().next();
    let theirs = blocks.unwrap().parse::<u64>().unwrap();
    let db = inspect(&image.path);
    let ours = whole_used(&image.path).used.total() / db.block;
    assert_eq!(ours, theirs + db.ready.total() / db.block);
}

/// The realtime device is another disk; its bitmap lies in files on this one.
#[test]
fn with_a_realtime_device() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("fs"), dir.path().join("realtime"));
    sparse(&path, 96 << 20);
    sparse(&other, 64 << 20);
    let option = format!("rtdev={}", s(&other));
    make(&path, &["-r", &option]);
    assert_matches(&whole_used(&path).used, &inspect(&path));
}

/// Metadata keeps the UUID that it was made with.
#[test]
fn another_uuid() {
    let image = filled(64, &[]);
    ok("xfs_admin", &["-U", "generate", s(&image.path)]);
    verify(&image, true);
}

/// A feature that the xfsprogs of this test do not know, but the kernel does: the
/// exchange of file ranges.
#[test]
fn a_feature_of_newer_kernels() {
    let image = filled(64, &[]);
    let db = inspect(&image.path);
    let copy = changed(&image, &["sb 0"], "features_incompat", "0x4b");
    let region = whole_used(&copy);
    assert_matches(&region.used, &db);
    let target = image.dir.path().join("restored");
    restore_onto_garbage(&copy, &region.used, &target);
    assert_same_tree(&image.tree, mount(&target).path());
}

/// Its sectors are those of the disk; blocks are no smaller.
#[test]
fn on_a_disk_with_sectors_of_4_kib() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), 64 << 20);
    let device = LoopDevice::attach(&path, 4096);
    make(device.path(), &[]);
    {
        let mounted = Mounted::new(device.path(), "nouuid");
        fill(mounted.path(), 100, 20_000);
    }
    drop(device);
    let db = inspect(&path);
    let map = scan_file(&path, 4096);
    assert_eq!(map.warnings, []);
    assert_matches(&map.regions[0].used, &db);
}
