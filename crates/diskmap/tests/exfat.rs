//! exFAT made by mkfs.exfat and filled through FUSE, against what exfatprogs and
//! partclone say of it.

mod common;

use common::{
    FileDisk, Numbers, assert_same_tree, fill, ok, partclone, peek, poke, restore_onto_garbage,
    run, s, scan_file, sparse, whole, whole_used,
};
use diskmap::{DiskRead, Extent, Extents, Method, Region, WarningKind};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A file on a loop device.
struct Loop {
    device: PathBuf,
    file: PathBuf,
}

impl Loop {
    fn attach(file: &Path, sector_size: u32) -> Loop {
        let size = sector_size.to_string();
        let device = ok("losetup", &["-f", "--show", "-b", &size, s(file)]);
        Loop {
            device: device.trim().into(),
            file: file.to_path_buf(),
        }
    }
}

impl Drop for Loop {
    /// Detached while it is in use, a device stays until its last user is gone, and
    /// only then its last bytes are in the file.
    fn drop(&mut self) {
        run("losetup", &["-d", s(&self.device)]);
        let end = Instant::now() + Duration::from_secs(60);
        while !run("losetup", &["-j", s(&self.file)]).stdout.is_empty() {
            assert!(Instant::now() < end, "{:?} stays in use", self.file);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A file mounted through FUSE.
struct Mounted {
    folder: TempDir,
    device: Loop,
}

impl Mounted {
    fn new(file: &Path, sector_size: u32) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        let device = Loop::attach(file, sector_size);
        ok("mount.exfat-fuse", &[s(&device.device), s(folder.path())]);
        Mounted { folder, device }
    }
    fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mounted {
    /// A process that another test is just starting may hold our files for a moment: so
    /// the mount is taken out of sight, and the device is waited for.
    fn drop(&mut self) {
        run("umount", &["-l", s(self.folder.path())]);
    }
}

struct Image {
    dir: TempDir,
    path: PathBuf,
    tree: PathBuf,
    sector: u32,
}

/// An empty file system.
fn empty(mib: u64, sector: u32, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let tree = dir.path().join("tree");
    let device = Loop::attach(&path, sector);
    let mut all = vec!["-L", "My label"];
    all.extend(args);
    all.push(s(&device.device));
    ok("mkfs.exfat", &all);
    ok("tune.exfat", &["-I", "0x1234abcd", s(&device.device)]);
    Image {
        dir,
        path,
        tree,
        sector,
    }
}

/// With files, a third of them deleted again, and two that grew in turns.
fn image(mib: u64, sector: u32, args: &[&str]) -> Image {
    let image = empty(mib, sector, args);
    fill(&image.tree, 60, (mib << 20) / 200);
    let mounted = Mounted::new(&image.path, sector);
    ok(
        "cp",
        &["-r", &format!("{}/.", s(&image.tree)), s(mounted.path())],
    );
    for i in (0..60).step_by(3) {
        let name = format!("d{}/file{i}", i % 5);
        std::fs::remove_file(mounted.path().join(&name)).unwrap();
        std::fs::remove_file(image.tree.join(&name)).unwrap();
    }
    let mut numbers = Numbers(77);
    for _ in 0..20 {
        for name in ["left", "right"] {
            let piece = numbers.next().to_le_bytes().repeat(2000);
            for folder in [mounted.path(), &image.tree] {
                let mut options = OpenOptions::new();
                let mut file = options
                    .append(true)
                    .create(true)
                    .open(folder.join(name))
                    .unwrap();
                file.write_all(&piece).unwrap();
            }
        }
    }
    drop(mounted);
    image
}

/// What dump.exfat tells: start of the clusters, bytes in one, how many, how many in use.
fn dump(path: &Path) -> (u64, u64, u64, u64) {
    let text = ok("dump.exfat", &[s(path)]);
    let after = |words: &str| -> u64 {
        let line = text.lines().find_map(|l| l.strip_prefix(words));
        let value = line.unwrap_or_else(|| panic!("{words}: {text}"));
        value.trim().parse().unwrap()
    };
    let sector = 1 << after("Sector Size Bits:");
    let clusters = after("Total Clusters:");
    (
        after("Cluster Heap Offset (sector offset):") * sector,
        after("Cluster size:"),
        clusters,
        clusters - after("Free Clusters:"),
    )
}

fn is_clean(path: &Path) -> bool {
    let output = run("fsck.exfat", &["-n", s(path)]);
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains(": clean")
}

fn region(image: &Image) -> Region {
    let mut map = scan_file(&image.path, image.sector);
    assert_eq!(map.warnings, []);
    map.regions.remove(0)
}

/// Restores onto garbage; whether file system and files came through.
fn comes_back(image: &Image, used: &Extents) -> bool {
    let target = image.dir.path().join("restored");
    restore_onto_garbage(&image.path, used, &target);
    if !is_clean(&target) {
        return false;
    }
    let mounted = Mounted::new(&target, image.sector);
    let args = ["-rq", s(&image.tree), s(mounted.path())];
    run("diff", &args).status.success()
}

fn verify(image: &Image) {
    let region = region(image);
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert_eq!(
        [&region.file_system, &region.label, &region.uuid],
        ["exfat", "My label", "1234-ABCD"]
    );
    let (heap, cluster, clusters, in_use) = dump(&image.path);
    let end = heap + clusters * cluster;
    assert!(region.used.contains_all(Extent::between(0, heap)));
    let inside = region.used.intersect(heap..end);
    assert_eq!(inside.total(), in_use * cluster, "clusters in use");
    // The same clusters as partclone's, which leaves out what is behind the last one.
    let behind = Extents::from_iter([Extent::between(end, region.size)]);
    if image.sector == 512 {
        let theirs = partclone::used("partclone.exfat", &image.path, image.dir.path());
        assert_eq!(region.used.subtract(&behind), theirs.subtract(&behind));
    }
    assert!(behind.subtract(&region.used).is_empty());
    assert!(comes_back(image, &region.used));
}

#[test]
fn small_clusters() {
    verify(&image(64, 512, &["-c", "512"]));
}

#[test]
fn usual_clusters_and_an_odd_size() {
    let image = image(301, 512, &[]);
    verify(&image);
}

#[test]
fn bitmap_in_front_of_the_aligned_clusters() {
    verify(&image(64, 512, &["-c", "4K", "--pack-bitmap"]));
}

#[test]
fn sectors_of_4096_bytes() {
    verify(&image(96, 4096, &["-c", "8K"]));
}

#[test]
fn the_largest_clusters() {
    let image = empty(513, 512, &["-c", "32M"]);
    std::fs::create_dir(&image.tree).unwrap();
    std::fs::write(image.tree.join("one"), b"content").unwrap();
    let mounted = Mounted::new(&image.path, 512);
    ok("cp", &[s(&image.tree.join("one")), s(mounted.path())]);
    drop(mounted);
    let (heap, cluster, clusters, in_use) = dump(&image.path);
    let used = region(&image).used;
    assert_eq!((cluster, in_use), (32 << 20, 4));
    let inside = used.intersect(heap..heap + clusters * cluster);
    assert_eq!(inside.total(), in_use * cluster);
}

/// One cluster of a file that the map leaves out is one that the comparison misses.
#[test]
fn one_missing_cluster_is_noticed() {
    let image = image(64, 512, &["-c", "4K"]);
    let used = region(&image).used;
    let (heap, cluster, clusters, in_use) = dump(&image.path);
    let last = used.intersect(heap..heap + clusters * cluster);
    let last = last.iter().last().unwrap();
    let missing = Extent::between(last.end() - cluster, last.end());
    let less = used.subtract(&Extents::from_iter([missing]));
    assert!(!comes_back(&image, &less));
    let inside = less.intersect(heap..heap + clusters * cluster);
    assert_ne!(inside.total(), in_use * cluster);
    assert!(comes_back(&image, &used));
}

/// The device is copied while files are written: nothing may be left out.
#[test]
fn a_mounted_one_is_copied_in_full() {
    let image = image(16, 512, &["-c", "4K"]);
    let mounted = Mounted::new(&image.path, 512);
    std::fs::write(mounted.path().join("new"), vec![7; 300_000]).unwrap();
    ok("sync", &["-f", s(mounted.path())]);
    let copy = image.dir.path().join("copy");
    ok("cp", &[s(&mounted.device.device), s(&copy)]);
    drop(mounted);
    assert_full(&copy, Some(WarningKind::FsDirty), "not cleanly unmounted");
    assert_eq!(region(&image).method, Method::Used);
    let target = image.dir.path().join("restored");
    restore_onto_garbage(&copy, &whole(&copy).0.used, &target);
    ok("cmp", &[s(&copy), s(&target)]);
    // Its check repairs what was open; the files from before are all there.
    run("fsck.exfat", &["-y", s(&target)]);
    let mounted = Mounted::new(&target, 512);
    for entry in std::fs::read_dir(&image.tree).unwrap() {
        let entry = entry.unwrap();
        let restored = mounted.path().join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            assert_same_tree(&entry.path(), &restored);
        } else {
            ok("cmp", &[s(&entry.path()), s(&restored)]);
        }
    }
}

fn assert_full(path: &Path, kind: Option<WarningKind>, words: &str) {
    let (region, map) = whole(path);
    assert_eq!(
        (region.method, &region.used),
        (Method::Full, &Extents::whole(region.size)),
        "{words}"
    );
    let kinds: Vec<_> = map.warnings.iter().map(|w| w.kind).collect();
    assert_eq!(kinds, Vec::from_iter(kind), "{}", region.reason);
    assert!(region.reason.contains(words), "{}", region.reason);
}

/// The checksum over a boot region of 512-byte sectors, written to its last sector.
fn seal(path: &Path, region: u64) {
    let mut bytes = vec![0u8; 11 * 512];
    FileDisk::open(path)
        .read_exact_at(region, &mut bytes)
        .unwrap();
    let sum = bytes
        .iter()
        .enumerate()
        .filter(|(at, _)| ![106, 107, 112].contains(at))
        .fold(0u32, |sum, (_, &byte)| {
            sum.rotate_right(1).wrapping_add(byte.into())
        });
    poke(path, region + 11 * 512, &sum.to_le_bytes().repeat(128));
}

#[test]
fn what_does_not_fit_is_copied_in_full() {
    use WarningKind::{FsDamaged, FsDirty};
    let image = image(16, 512, &["-c", "4K"]);
    let path = &image.path;
    let (damaged, dirty) = (Some(FsDamaged), Some(FsDirty));
    let with = |offset: u64, bytes: &[u8], kind, words: &str| {
        let mut old = vec![0; bytes.len()];
        FileDisk::open(path)
            .read_exact_at(offset, &mut old)
            .unwrap();
        assert_ne!(old, bytes, "{words}");
        poke(path, offset, bytes);
        // Fields of the boot regions are checked behind the checksum.
        let sealed = offset < 12288 && !words.contains("checksum");
        let regions = if sealed { &[0, 6144][..] } else { &[] };
        if sealed && words != "two boot regions differ" && ![106, 112].contains(&offset) {
            poke(path, offset + 6144, bytes);
        }
        regions.iter().for_each(|&at| seal(path, at));
        assert_full(path, kind, words);
        poke(path, offset, &old);
        if sealed {
            poke(path, (offset + 6144) % 12288, &old);
        }
        regions.iter().for_each(|&at| seal(path, at));
        assert_eq!(whole_used(path).file_system, "exfat", "{words}");
    };
    let word = |offset: u64| u64::from(u32::from_le_bytes(peek(path, offset)));
    let (table, heap, root) = (word(80) * 512, word(88) * 512, word(96));
    let root_at = heap + (root - 2) * 4096;
    // Entries as mkfs.exfat orders them: label, bitmap, up-case table.
    let (bitmap, upcase) = (root_at + 32, root_at + 64);
    assert_eq!(peek::<1>(path, bitmap), [0x81]);

    with(106, &[2], dirty, "not cleanly unmounted");
    with(106, &[4], dirty, "disk errors");
    with(106, &[0x10], None, "not all known");
    with(150, &[1], damaged, "checksum of its boot region");
    with(
        6144 + 150,
        &[1],
        damaged,
        "checksum of its backup boot region",
    );
    with(6144 + 96, &[9], damaged, "two boot regions differ");
    with(105, &[2], None, "revision 2.00 is not known");
    with(110, &[2], None, "TexFAT");
    with(84, &[1, 0], damaged, "allocation table does not fit");
    with(88, &[129, 0], damaged, "do not fit its length");
    with(72, &[0xff, 0xff, 0xff], damaged, "says it has");
    with(72, &[0, 0x10], damaged, "do not fit its length");

    with(
        table + root * 4,
        &[root as u8, 0, 0, 0],
        damaged,
        "chain of the root directory",
    );
    with(
        table + 2 * 4,
        &[0, 0, 0, 0],
        damaged,
        "chain of the allocation bitmap leads",
    );
    with(
        table + 2 * 4,
        &[9, 0, 0, 0],
        damaged,
        "chain of the allocation bitmap",
    );
    with(root_at + 32, &[0x01], damaged, "no allocation bitmap");
    with(root_at + 33, &[1], None, "TexFAT");
    with(root_at, &[0x81], damaged, "two allocation bitmaps");
    with(root_at, &[0x86], None, "unknown type 0x86");
    with(bitmap + 24, &[1], damaged, "has 257 bytes for");
    with(upcase, &[0x02], damaged, "no up-case table");
    with(
        upcase + 4,
        &[0, 0],
        damaged,
        "checksum of its up-case table",
    );
    with(upcase + 24, &[0; 8], damaged, "up-case table has 0 bytes");
    let bits = heap + (word(bitmap + 20) - 2) * 4096;
    let [first] = peek::<1>(path, bits);
    for (bit, words) in [
        (0, "bitmap lies"),
        (1, "table lies"),
        (root - 2, "directory lies"),
    ] {
        with(bits, &[first & !(1 << bit)], damaged, words);
    }
}

/// Bits behind the last cluster mean nothing.
#[test]
fn bits_behind_the_last_cluster_are_not_looked_at() {
    let image = image(16, 512, &["-c", "4K", "--pack-bitmap"]);
    let before = region(&image).used;
    let (heap, _, clusters, _) = dump(&image.path);
    assert!(clusters % 8 > 0, "{clusters}");
    let at = heap + clusters / 8;
    let [last] = peek::<1>(&image.path, at);
    poke(&image.path, at, &[last | 0x80]);
    assert_eq!(region(&image).used, before);
}
