//! F2FS made by mkfs.f2fs and filled by sload.f2fs, against what f2fs-tools and
//! partclone say of it.

mod common;

use common::{
    FileDisk, fill, ok, partclone, peek, poke, restore_onto_garbage, run, s, scan_file, sparse,
    whole,
};
use diskmap::{DiskRead, Extent, Extents, Method, Region, WarningKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const BLOCK: u64 = 4096;
const SEGMENT: u64 = 512 * BLOCK;
const UUID: &str = "11111111-2222-3333-4444-555555555555";
const UNMOUNTED: u32 = 1;

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

fn block(path: &Path, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    let disk = FileDisk::open(path);
    disk.read_exact_at(number * BLOCK, &mut bytes).unwrap();
    bytes
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn seal(bytes: &mut [u8]) {
    let sum = checksum(&bytes[..4092]).to_le_bytes();
    bytes[4092..].copy_from_slice(&sum);
}

/// Changes the checkpoint in the first pack: its blocks behind the first, and it.
fn rewrite(path: &Path, change: impl FnOnce(&mut [u8], &mut Vec<Vec<u8>>)) {
    let start = 512;
    let mut head = block(path, start);
    let total = u64::from(word(&head, 136));
    let mut inner: Vec<_> = (start + 1..start + total - 1)
        .map(|number| block(path, number))
        .collect();
    change(&mut head, &mut inner);
    head[136..140].copy_from_slice(&(inner.len() as u32 + 2).to_le_bytes());
    seal(&mut head);
    for (at, bytes) in std::iter::once(&head)
        .chain(&inner)
        .chain([&head])
        .enumerate()
    {
        poke(path, (start + at as u64) * BLOCK, bytes);
    }
}

fn set_flags(head: &mut [u8], set: u32, clear: u32) {
    let flags = (word(head, 132) | set) & !clear;
    head[132..136].copy_from_slice(&flags.to_le_bytes());
}

/// As after a crash: without the mark of an unmount, and without summaries of nodes.
fn crash(path: &Path) {
    rewrite(path, |head, inner| {
        set_flags(head, 0, UNMOUNTED);
        inner.truncate(3);
    });
}

/// Journal and summaries as the kernel packs them when there are few.
#[test]
fn packed_summaries() {
    let image = empty(100, &[]);
    let before = region(&image, 512).used;
    rewrite(&image.path, |head, inner| {
        let packed = word(head, 132) & 4 != 0;
        assert!(packed, "mkfs.f2fs packs them");
        // Unpacked: whole blocks of the data logs, the second journal in the third one.
        let journals = inner[0][..1014].to_vec();
        let nodes = inner.split_off(inner.len() - 3);
        *inner = vec![vec![0; 4096]; 3];
        inner[0][3584..4091].copy_from_slice(&journals[..507]);
        inner[2][3584..4091].copy_from_slice(&journals[507..]);
        assert!(journals[507] > 0, "the journal has segments");
        inner.extend(nodes);
        set_flags(head, 0, 4);
    });
    assert_eq!(wanted(&image.path, 100 << 20), before);
    assert_eq!(region(&image, 512).used, before);
}

#[test]
fn after_a_crash_without_anything_to_recover_the_checkpoint_is_the_map() {
    let image = image(128, &[]);
    let before = region(&image, 512).used;
    crash(&image.path);
    assert!(is_clean(&image.path));
    let (region, map) = whole(&image.path);
    assert_eq!((region.method, &region.used), (Method::Used, &before));
    assert_eq!(region.used, wanted(&image.path, region.size));
    let kinds: Vec<_> = map.warnings.iter().map(|w| w.kind).collect();
    assert_eq!(kinds, [WarningKind::FsDirty]);
    assert!(map.warnings[0].detail.contains("nothing to recover"));
}

/// A node of the checkpoint's version in the next free block of the log: with the mark
/// of an unmount too, because a session that follows does not take it away at once.
#[test]
fn data_to_recover_makes_it_full() {
    let image = image(128, &[]);
    let told = Told::of(&image.path);
    let next = told.area("main_blkaddr")
        + told.number("cur_node_segno[1]") * SEGMENT
        + told.number("cur_node_blkoff[1]") * BLOCK;
    let version: [u8; 8] = peek(&image.path, 512 * BLOCK);
    assert_eq!(region(&image, 512).method, Method::Used);
    poke(&image.path, next + BLOCK - 12, &version);
    assert_full(&image.path, Some(WarningKind::FsDirty), "data to recover");
    crash(&image.path);
    assert_full(&image.path, Some(WarningKind::FsDirty), "data to recover");
    poke(&image.path, next + BLOCK - 12, &[version[0] ^ 1]);
    assert_eq!(whole(&image.path).0.method, Method::Used);
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

#[test]
fn what_does_not_fit_is_copied_in_full() {
    use WarningKind::{FsDamaged, FsDirty};
    let image = empty(100, &["-O", "extra_attr,sb_checksum"]);
    let path = &image.path;
    let original = std::fs::read(path).unwrap();
    let (damaged, dirty) = (Some(FsDamaged), Some(FsDirty));
    let expect = |kind, words: &str| {
        assert_full(path, kind, words);
        poke(path, 0, &original[..8 << 20]);
        assert_eq!(whole(path).0.method, Method::Used);
    };
    // Fields of both superblocks, with the checksum made right again.
    let supers = |at: usize, bytes: &[u8], kind, words: &str| {
        for copy in [1024, 1024 + BLOCK as usize] {
            let mut raw = original[copy..copy + 3072].to_vec();
            raw[at..at + bytes.len()].copy_from_slice(bytes);
            let sum = checksum(&raw[..3068]).to_le_bytes();
            raw[3068..].copy_from_slice(&sum);
            poke(path, copy as u64, &raw);
        }
        expect(kind, words);
    };
    supers(16, &[14], None, "blocks of 2^14 bytes");
    supers(2180, &[0x0a, 0x08], None, "zoned");
    supers(2180, &[0x08, 0x48], None, "read-only kind");
    supers(2180, &[0x08, 0x88], None, "not all known");
    supers(2201, b"/dev/sdb", None, "several devices");
    supers(2794, &[1], damaged, "recorded errors");
    supers(92, &[1], damaged, "do not follow each other");
    supers(36, &[0, 1, 0, 0], damaged, "do not fit its length");
    supers(38, &[9], damaged, "says it has");
    supers(44, &[1], damaged, "sections");
    supers(1664, &[0xff, 0xff], damaged, "extra blocks");
    poke(path, 1024 + 110, &[original[1024 + 110] ^ 1]);
    expect(damaged, "checksum of its superblock");
    poke(path, 1024 + BLOCK + 110, &[1]);
    expect(damaged, "second superblock");

    // Words of the checkpoint, with its checksum made right again.
    let word_is = |at: usize, value: u32, kind, words: &str| {
        rewrite(path, |head, _| {
            head[at..at + 4].copy_from_slice(&value.to_le_bytes())
        });
        expect(kind, words);
    };
    let flags = word(&block(path, 512), 132);
    word_is(132, flags | 0x8, damaged, "were errors");
    word_is(132, flags | 0x10, damaged, "needs a check");
    word_is(132, flags | 0x1000, dirty, "switched off");
    word_is(132, flags | 0x4000, dirty, "interrupted");
    word_is(132, flags | 0x8000, None, "not all known");
    word_is(132, flags | 0x400, None, "older layout");
    word_is(132, flags & !4, damaged, "number of summaries");
    word_is(16, 1, damaged, "its checkpoint counts");
    word_is(144, 9, damaged, "of them nodes");
    word_is(36, 0xffff, damaged, "writes to segment 65535");
    word_is(156, 9, damaged, "wrong size");
    word_is(140, 99, damaged, "lie outside");
    poke(path, 512 * BLOCK + 9, &[1]);
    expect(dirty, "one of its two checkpoints");
    poke(path, 512 * BLOCK + 9, &[1]);
    poke(path, 1024 * BLOCK + 9, &[1]);
    expect(damaged, "neither of its checkpoints");

    // The journal of segments, behind that of nodes in the only summary block.
    let journal = |at: usize, bytes: &[u8], words: &str| {
        rewrite(path, |_, inner| {
            inner[0][507 + at..][..bytes.len()].copy_from_slice(bytes)
        });
        expect(damaged, words);
    };
    journal(0, &[7], "journal of its checkpoint has 7 entries");
    journal(2, &[0xff, 0xff], "names segment 65535");
    let second = block(path, 513)[507 + 80..][..4].to_vec();
    journal(2, &second, "names a segment twice");
    journal(6, &[2], "in its count");
    journal(7, &[0xff], "in its count");
}

/// The checksum of F2FS: CRC-32 from its magic number, nothing inverted.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf2f5_2010u32, |mut sum, &byte| {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
        sum
    })
}
