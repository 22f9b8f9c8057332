//! F2FS made by mkfs.f2fs and filled by sload.f2fs, against what f2fs-tools and
//! partclone say of it.

#[path = "../common/mod.rs"]
mod common;
mod states;

use common::{fill, ok, partclone, restore_onto_garbage, run, s, scan_file, sparse};
use diskmap::{Extent, Extents, Method, Region};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const BLOCK: u64 = 4096;
const SEGMENT: u64 = 512 * BLOCK;
const UUID: &str = "11111111-2222-3333-4444-555555555555";

struct Image {
    dir: TempDir,
    path: PathBuf,
    tree: PathBuf,
}

fn empty(mib: u64, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let tree = dir.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut all = vec!["-q", "-l", "My label", "-U", UUID];
    all.extend(args);
    all.push(s(&path));
    ok("mkfs.f2fs", &all);
    Image { dir, path, tree }
}

/// With files, of which a few are small enough to live in their inodes.
fn image(mib: u64, args: &[&str]) -> Image {
    let image = empty(mib, args);
    fill(&image.tree, 24, 150_000);
    for i in 0..6 {
        std::fs::write(image.tree.join(format!("small{i}")), [i; 900]).unwrap();
    }
    for (i, name) in ["a", "b"].iter().enumerate() {
        let bytes = vec![i as u8 + 1; 5_000_000];
        std::fs::write(image.tree.join(name), bytes).unwrap();
    }
    // It ends with a check, which mends what it leaves undone for some features.
    run("sload.f2fs", &["-f", s(&image.tree), s(&image.path)]);
    assert!(is_clean(&image.path));
    image
}

/// Runs dump.f2fs in a folder, where it leaves its files.
fn dump_in(folder: &Path, args: &[&str]) -> String {
    // Through a shell: it takes no name for what it writes.
    let script = "cd \"$1\" && shift && echo y | dump.f2fs \"$@\"";
    let mut all = vec!["-c", script, "sh", s(folder)];
    all.extend(args);
    let output = run("sh", &all);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "dump.f2fs: {text}");
    text
}

/// What dump.f2fs tells of superblock and checkpoint.
struct Told(String);

impl Told {
    fn of(image: &Path) -> Told {
        Told(ok("dump.f2fs", &["-d", "1", s(image)]))
    }
    fn number(&self, name: &str) -> u64 {
        let line = self.0.lines().find_map(|line| line.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("{name}: {}", self.0));
        let value = line.rsplit(':').next().unwrap().trim_end_matches(']');
        value.trim().parse().unwrap()
    }
    /// Byte at which an area starts.
    fn area(&self, name: &str) -> u64 {
        self.number(name) * BLOCK
    }
}

/// Valid bytes of the main area, and its segments that have some.
fn valid(image: &Path, told: &Told) -> (Extents, Vec<u64>) {
    let folder = tempfile::tempdir().unwrap();
    // Very many segments take long to tell; the tests have nothing in later ones.
    let all = told.number("segment_count_main") < 10_000;
    let range = if all { "0~-1" } else { "0~9999" };
    dump_in(folder.path(), &["-s", range, s(image)]);
    let text = std::fs::read_to_string(folder.path().join("dump_sit")).unwrap();
    let main = told.area("main_blkaddr");
    let (mut blocks, mut segments) = (Vec::new(), Vec::new());
    let mut at = 0;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("segno:") {
            let mut words = rest.split_whitespace();
            let segment: u64 = words.next().unwrap().parse().unwrap();
            at = main + segment * SEGMENT;
            if rest
                .split("vblocks:")
                .nth(1)
                .unwrap()
                .split_whitespace()
                .next()
                != Some("0")
            {
                segments.push(segment);
            }
        } else if line.starts_with("  ") {
            for byte in line.split_whitespace() {
                let byte = u8::from_str_radix(byte, 16).unwrap();
                for bit in 0..8 {
                    if byte & 0x80 >> bit != 0 {
                        blocks.push(Extent {
                            start: at + bit * BLOCK,
                            len: BLOCK,
                        });
                    }
                }
                at += 8 * BLOCK;
            }
        }
    }
    assert_eq!(blocks.len() as u64, told.number("valid_block_count"));
    (blocks.into_iter().collect(), segments)
}

/// Current segments: of nodes, then of data.
fn current(told: &Told) -> Vec<u64> {
    let of = |kind: &str| [0, 1, 2].map(|i| told.number(&format!("cur_{kind}_segno[{i}]")));
    [of("node"), of("data")].concat()
}

/// The map as it must be by what dump.f2fs tells.
fn wanted(image: &Path, size: u64) -> Extents {
    let told = Told::of(image);
    let (valid, mut segments) = valid(image, &told);
    segments.extend(current(&told));
    let (summaries, main) = (told.area("ssa_blkaddr"), told.area("main_blkaddr"));
    let count = told.number("segment_count_main");
    let log = main + told.number("cur_node_segno[1]") * SEGMENT;
    let mut more = vec![
        Extent::between(0, summaries),
        // What is left of the summaries' area.
        Extent::between(summaries + count * BLOCK, main),
        // The log in which recovery looks for nodes.
        Extent::between(log, log + SEGMENT),
        Extent::between(main + count * SEGMENT, size),
    ];
    more.extend(segments.into_iter().map(|segment| Extent {
        start: summaries + segment * BLOCK,
        len: BLOCK,
    }));
    valid.union(&more.into_iter().collect())
}

fn is_clean(path: &Path) -> bool {
    let output = run("fsck.f2fs", &["--dry-run", "-f", s(path)]);
    let text = String::from_utf8_lossy(&output.stdout);
    output.status.success() && text.contains("[Ok..]") && !text.contains("[Fail]")
}

/// Whether every file of the tree is in the image, by its inode.
fn has_files(image: &Path, tree: &Path) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let nodes = Told::of(image).number("valid_node_count");
    for inode in 4..nodes + 3 {
        dump_in(folder.path(), &["-i", &inode.to_string(), s(image)]);
    }
    let found = folder.path().join("lost_found");
    let mut count = 0;
    let mut places = vec![tree.to_path_buf()];
    while let Some(place) = places.pop() {
        for entry in std::fs::read_dir(place).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                places.push(path);
                continue;
            }
            let copy = found.join(path.file_name().unwrap());
            if std::fs::read(&path).unwrap() != std::fs::read(copy).unwrap_or_default() {
                return false;
            }
            count += 1;
        }
    }
    count > 0
}

fn region(image: &Image, sector: u32) -> Region {
    let mut map = scan_file(&image.path, sector);
    assert_eq!(map.warnings, []);
    map.regions.remove(0)
}

fn verify(image: &Image, sector: u32) {
    let region = region(image, sector);
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert_eq!(
        [&region.file_system, &region.label, &region.uuid],
        ["f2fs", "My label", UUID]
    );
    assert_eq!(region.used, wanted(&image.path, region.size));
    let target = image.dir.path().join("restored");
    restore_onto_garbage(&image.path, &region.used, &target);
    assert!(is_clean(&target));
}

#[test]
fn as_made() {
    verify(&empty(100, &[]), 512);
}

#[test]
fn with_files() {
    let image = image(128, &[]);
    verify(&image, 512);
    let restored = image.dir.path().join("restored");
    assert!(has_files(&restored, &image.tree));
    // partclone takes whole segments, and everything in front of them.
    let used = region(&image, 512).used;
    let told = Told::of(&image.path);
    let theirs = partclone::used("partclone.f2fs", &image.path, image.dir.path());
    let log = told.area("main_blkaddr") + told.number("cur_node_segno[1]") * SEGMENT;
    let end = told.area("main_blkaddr") + told.number("segment_count_main") * SEGMENT;
    let ours = Extents::from_iter([
        Extent::between(log, log + SEGMENT),
        Extent::between(end, 128 << 20),
    ]);
    assert!(used.subtract(&theirs).subtract(&ours).is_empty());
}

#[test]
fn every_feature_that_the_tools_make() {
    let features = "encrypt,extra_attr,project_quota,inode_checksum,flexible_inline_xattr,quota,\
                    inode_crtime,lost_found,verity,sb_checksum,casefold,compression";
    verify(&image(128, &["-O", features, "-C", "utf8"]), 512);
}

#[test]
fn large_sections_and_large_bitmaps() {
    verify(&image(512, &["-s", "4", "-z", "2", "-i"]), 512);
}

#[test]
fn sectors_of_4096_bytes() {
    verify(&image(128, &["-w", "4096"]), 4096);
}

/// A file system so large that its bitmaps do not fit into the checkpoint's block.
#[test]
fn bitmaps_in_blocks_of_their_own() {
    let image = empty(4 << 20, &["-t", "0"]);
    let told = Told::of(&image.path);
    assert!(told.number("cp_payload") > 0);
    let region = region(&image, 512);
    assert_eq!(region.used, wanted(&image.path, region.size));
    // All summaries together would be this much.
    assert!(region.used.total() < told.number("segment_count_main") * BLOCK);
}

#[test]
fn one_missing_block_is_noticed() {
    let image = image(128, &[]);
    let used = region(&image, 512).used;
    let target = image.dir.path().join("restored");
    let (valid, _) = valid(&image.path, &Told::of(&image.path));
    let last = valid.end() - BLOCK;
    let less = used.subtract(&Extents::from_iter([Extent::between(last, last + BLOCK)]));
    assert_ne!(less, wanted(&image.path, 128 << 20));
    restore_onto_garbage(&image.path, &less, &target);
    assert!(!is_clean(&target) || !has_files(&target, &image.tree));
    restore_onto_garbage(&image.path, &used, &target);
    assert!(is_clean(&target) && has_files(&target, &image.tree));
}
