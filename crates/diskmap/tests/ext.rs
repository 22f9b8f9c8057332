//! ext2, ext3 and ext4 made by mke2fs, against what e2fsprogs says of them.
//!
//! Three oracles: the list of free blocks of dumpe2fs must be matched block by
//! block, a restore by the map onto garbage must pass e2fsck, and every file in it
//! must be the same.

mod common;

use common::{
    assert_same_tree, fill, ok, ok_with_input, peek, poke, restore_onto_garbage, run, s, sparse,
    whole, whole_used,
};
use diskmap::{Extent, Extents, Method, WarningKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Image {
    _dir: TempDir,
    path: PathBuf,
    tree: PathBuf,
    work: PathBuf,
}

/// Makes a file system of `mib` MiB with files, some of them deleted again.
fn image(mib: u64, args: &[&str]) -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let tree = dir.path().join("tree");
    fill(&tree, 60, (mib << 20) / 200);
    let mut all = vec![
        "-q",
        "-F",
        "-U",
        "01234567-89ab-cdef-0123-456789abcdef",
        "-L",
        "mylabel",
    ];
    all.extend(args);
    all.extend(["-d", s(&tree), s(&path)]);
    ok("mke2fs", &all);
    let mut commands = String::new();
    for i in (0..60).step_by(3) {
        let name = format!("d{}/file{i}", i % 5);
        commands += &format!("rm /{name}\n");
        std::fs::remove_file(tree.join(name)).unwrap();
    }
    ok_with_input("debugfs", &["-w", "-f", "-", s(&path)], &commands);
    let work = dir.path().to_path_buf();
    Image {
        _dir: dir,
        path,
        tree,
        work,
    }
}

/// What dumpe2fs tells, in bytes.
struct Dump {
    used: Extents,
    /// Inode table parts that need not be there.
    skippable: Extents,
    block: u64,
}

fn number(text: &str) -> u64 {
    let digits: String = text
        .trim()
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number in {text:?}"))
}

fn field(dump: &str, name: &str) -> Option<u64> {
    dump.lines()
        .find_map(|line| line.strip_prefix(name))
        .map(number)
}

fn dumpe2fs(path: &Path) -> Dump {
    let dump = ok("dumpe2fs", &[s(path)]);
    let block = field(&dump, "Block size:").unwrap();
    let blocks = field(&dump, "Block count:").unwrap();
    let ratio = field(&dump, "Cluster size:").map_or(1, |cluster| cluster / block);
    let inode = field(&dump, "Inode size:").unwrap_or(128);
    let per_group = field(&dump, "Inodes per group:").unwrap();
    let checksums = dump.lines().any(|l| {
        l.starts_with("Filesystem features:")
            && (l.contains("metadata_csum") || l.contains("uninit_bg"))
    });
    let bytes = |from: u64, to: u64| Extent::between(from * block, to * block);
    let mut free = Vec::new();
    let mut skippable = Vec::new();
    let (mut zeroed, mut uninit, mut table) = (false, false, 0);
    for line in dump.lines() {
        let trimmed = line.trim();
        if line.starts_with("Group ") {
            zeroed = line.contains("ITABLE_ZEROED");
            uninit = line.contains("INODE_UNINIT");
        } else if let Some(rest) = trimmed.strip_prefix("Inode table at ") {
            table = number(rest);
        } else if let Some((_, rest)) = trimmed.split_once("directories") {
            if checksums && !zeroed {
                let unused = if rest.contains("unused inodes") {
                    number(rest.trim_start_matches([',', ' ']))
                } else {
                    0
                };
                let unused = if uninit { per_group } else { unused };
                let first = ((per_group - unused) * inode).div_ceil(block);
                skippable.push(bytes(
                    table + first,
                    table + (per_group * inode).div_ceil(block),
                ));
            }
        } else if let Some(list) = line.strip_prefix("  Free blocks: ") {
            for part in list.split(", ").filter(|part| !part.trim().is_empty()) {
                let (from, to) = part.split_once('-').unwrap_or((part, part));
                free.push(bytes(number(from), number(to) + ratio));
            }
        }
    }
    let free: Extents = free.into_iter().collect();
    Dump {
        used: Extents::whole(blocks * block).subtract(&free),
        skippable: skippable.into_iter().collect(),
        block,
    }
}

/// The map must be what dumpe2fs says, to the block; the boot block belongs to it.
fn assert_matches(used: &Extents, dump: &Dump) {
    let wanted = dump.used.subtract(&dump.skippable);
    let missing = wanted.subtract(used);
    assert!(missing.is_empty(), "not in the map: {missing:?}");
    let extra = used.subtract(&wanted);
    assert!(extra.is_empty(), "in the map for no reason: {extra:?}");
}

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn verify(image: &Image) {
    let region = whole_used(&image.path);
    assert_eq!(region.label, "mylabel");
    assert_eq!(region.uuid, "01234567-89ab-cdef-0123-456789abcdef");
    assert_matches(&region.used, &dumpe2fs(&image.path));
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, &region.used, &target);
    // Some recipes leave quota figures that e2fsck does not like; not a byte more.
    let check = |path: &Path| run("e2fsck", &["-fn", s(path)]);
    let (before, after) = (check(&image.path), check(&target));
    assert_eq!(
        text(&before).replace(s(&image.path), ""),
        text(&after).replace(s(&target), "")
    );
    assert_eq!(before.status, after.status);
    let files = image.work.join("files");
    std::fs::create_dir(&files).unwrap();
    ok(
        "debugfs",
        &["-R", &format!("rdump / {}", s(&files)), s(&target)],
    );
    let _ = std::fs::remove_dir(files.join("lost+found"));
    assert_same_tree(&image.tree, &files);
}

macro_rules! variants {
    ($($name:ident: $mib:literal, $flavour:literal, [$($arg:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let image = image($mib, &[$($arg),*]);
            assert_eq!(whole_used(&image.path).file_system, $flavour);
            verify(&image);
        })*
    };
}

variants! {
    ext2_1k: 64, "ext2", ["-t", "ext2", "-b", "1024"];
    ext2_dense_superblocks: 64, "ext2", ["-t", "ext2", "-b", "1024", "-O", "^sparse_super,^resize_inode"];
    ext2_revision_0: 40, "ext2", ["-t", "ext2", "-r", "0", "-b", "1024", "-O", "none"];
    ext2_small_groups: 40, "ext2", ["-t", "ext2", "-b", "4096", "-g", "1024"];
    ext2_meta_bg: 100, "ext2", ["-t", "ext2", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"];
    ext3_4k: 64, "ext3", ["-t", "ext3", "-b", "4096"];
    ext3_1k_many_backups: 64, "ext3", ["-t", "ext3", "-b", "1024", "-g", "2048"];
    ext4_default: 64, "ext4", ["-t", "ext4"];
    ext4_1k: 90, "ext4", ["-t", "ext4", "-b", "1024"];
    ext4_2k: 90, "ext4", ["-t", "ext4", "-b", "2048"];
    ext4_16k: 90, "ext4", ["-t", "ext4", "-b", "16384"];
    ext4_64k: 128, "ext4", ["-t", "ext4", "-b", "65536"];
    ext4_without_flex_bg: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "^flex_bg"];
    ext4_meta_bg: 80, "ext4", ["-t", "ext4", "-b", "1024", "-g", "2048", "-O", "meta_bg,^resize_inode"];
    ext4_meta_bg_small_groups: 100, "ext4", ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode,^flex_bg"];
    ext4_sparse_super2: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"];
    ext4_sparse_super2_one_backup: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode", "-E", "num_backup_sb=1"];
    ext4_uninit_bg: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "uninit_bg,^metadata_csum"];
    ext4_uninit_bg_32bit: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "uninit_bg,^metadata_csum,^64bit"];
    ext4_no_checksums: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "^uninit_bg,^metadata_csum"];
    ext4_32bit: 90, "ext4", ["-t", "ext4", "-b", "1024", "-O", "^64bit"];
    ext4_checksum_seed: 64, "ext4", ["-t", "ext4", "-O", "metadata_csum_seed"];
    ext4_bigalloc: 100, "ext4", ["-t", "ext4", "-O", "bigalloc", "-C", "65536"];
    ext4_bigalloc_1k: 100, "ext4", ["-t", "ext4", "-b", "1024", "-O", "bigalloc", "-C", "16384"];
    ext4_no_journal: 64, "ext4", ["-t", "ext4", "-O", "^has_journal"];
    ext4_journal_without_extents: 64, "ext4", ["-t", "ext4", "-O", "^extents,^64bit"];
    ext4_multi_mount_protection: 64, "ext4", ["-t", "ext4", "-O", "mmp"];
    ext4_many_features: 64, "ext4", ["-t", "ext4", "-O", "quota,project,inline_data,large_dir,casefold,orphan_file,ea_inode,encrypt,verity"];
    ext4_lazy_inode_tables: 100, "ext4", ["-t", "ext4", "-N", "100000", "-E", "nodiscard,lazy_itable_init=1"];
    ext4_lazy_uninit_bg_1k: 100, "ext4", ["-t", "ext4", "-N", "100000", "-b", "1024", "-O", "uninit_bg,^metadata_csum", "-E", "nodiscard,lazy_itable_init=1"];
}

#[test]
fn tables_that_were_never_initialised_are_left_out() {
    let image = image(
        100,
        &[
            "-t",
            "ext4",
            "-N",
            "100000",
            "-E",
            "nodiscard,lazy_itable_init=1",
        ],
    );
    let dump = dumpe2fs(&image.path);
    assert!(
        dump.skippable.total() > 10 << 20,
        "the recipe has no lazy tables"
    );
    let used = whole_used(&image.path).used;
    assert!(used.intersect(0..u64::MAX).subtract(&dump.skippable) == used);
}

/// Where tables are left to the kernel to clear, other tools copy 32 GiB of an empty
/// file system of 2 TiB.
#[test]
fn an_empty_file_system_of_2_tib_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), 2 << 40);
    let lazy = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";
    ok(
        "mke2fs",
        &[
            "-q",
            "-F",
            "-t",
            "ext4",
            "-J",
            "size=64",
            "-E",
            lazy,
            s(&path),
        ],
    );
    let used = whole_used(&path).used;
    let dump = dumpe2fs(&path);
    assert!(
        dump.skippable.total() > 31 << 30,
        "the recipe has no lazy tables"
    );
    assert_matches(&used, &dump);
    assert!(used.total() < 1 << 30, "{} bytes", used.total());
}

/// The checks above must notice a single block that is lost, and one too many.
#[test]
fn the_oracles_notice_one_block() {
    let image = image(64, &["-t", "ext4"]);
    let dump = dumpe2fs(&image.path);
    let used = whole_used(&image.path).used;
    for extent in used.iter().take(20) {
        let less = used.subtract(
            &[Extent {
                start: extent.start,
                len: dump.block,
            }]
            .into_iter()
            .collect(),
        );
        assert!(std::panic::catch_unwind(|| assert_matches(&less, &dump)).is_err());
    }
    let end = used.iter().next().unwrap().end();
    let more = used.union(
        &[Extent {
            start: end,
            len: dump.block,
        }]
        .into_iter()
        .collect(),
    );
    assert!(std::panic::catch_unwind(|| assert_matches(&more, &dump)).is_err());
}

#[test]
fn a_file_system_smaller_than_its_partition() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), 100 << 20);
    ok(
        "mke2fs",
        &["-q", "-F", "-t", "ext4", "-b", "4096", s(&path), "10000"],
    );
    let used = whole_used(&path).used;
    assert_eq!(
        used.intersect(0..10000 * 4096)
            .subtract(&dumpe2fs(&path).used),
        Extents::new()
    );
    // The last MiB is kept; other layers have their labels there.
    let behind = used.intersect(10000 * 4096..100 << 20);
    assert_eq!(behind.as_slice(), [Extent::between(99 << 20, 100 << 20)]);
}

/// Copied in full with a warning of that kind that contains the words.
fn assert_full(path: &Path, kind: WarningKind, words: &str) {
    let (region, map) = whole(path);
    assert_eq!(region.method, Method::Full, "{}", region.reason);
    assert_eq!(region.used, Extents::whole(region.size));
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    let warning = &map.warnings[0];
    assert_eq!((warning.kind, warning.partition), (kind, Some(0)));
    assert!(warning.detail.contains(words), "{}", warning.detail);
    assert!(
        region.file_system.starts_with("ext"),
        "{}",
        region.file_system
    );
}

/// Group descriptors of a file system of 4 KiB blocks start in block 1.
const DESCRIPTORS: u64 = 4096;
const PLAIN: &[&str] = &["-t", "ext2", "-b", "4096"];
const MODERN: &[&str] = &["-t", "ext4", "-b", "4096"];

#[test]
fn damage_of_checksummed_metadata_is_seen() {
    let image = image(40, MODERN);
    let dump = ok("dumpe2fs", &[s(&image.path)]);
    let bitmap = dump
        .lines()
        .find_map(|l| l.trim().strip_prefix("Block bitmap at "))
        .map(number);
    for (offset, words) in [
        (1024 + 0x08, "checksum of the superblock"),
        (DESCRIPTORS + 0x30, "checksum of the descriptor of group 0"),
        (
            bitmap.unwrap() * 4096 + 700,
            "checksum of the block bitmap of group 0",
        ),
    ] {
        let [byte] = peek::<1>(&image.path, offset);
        poke(&image.path, offset, &[byte ^ 4]);
        assert_full(&image.path, WarningKind::FsDamaged, words);
        poke(&image.path, offset, &[byte]);
    }
    whole_used(&image.path);
}

#[test]
fn lies_without_checksums_are_seen() {
    let image = image(40, PLAIN);
    let poke_back = |offset: u64, bytes: &[u8], kind, words: &str| {
        let old = peek::<4>(&image.path, offset);
        poke(&image.path, offset, bytes);
        assert_full(&image.path, kind, words);
        poke(&image.path, offset, &old);
    };
    use WarningKind::{FsDamaged, FsDirty};
    poke_back(
        DESCRIPTORS,
        &u32::MAX.to_le_bytes(),
        FsDamaged,
        "block bitmap of group 0 is at",
    );
    poke_back(
        DESCRIPTORS + 8,
        &10_200u32.to_le_bytes(),
        FsDamaged,
        "inode table of group 0",
    );
    poke_back(
        DESCRIPTORS,
        &1u32.to_le_bytes(),
        FsDamaged,
        "free blocks in its bitmap",
    );
    poke_back(
        DESCRIPTORS + 4,
        &1u32.to_le_bytes(),
        FsDamaged,
        "two kinds of metadata",
    );
    poke_back(
        DESCRIPTORS + 12,
        &[1, 0, 1, 0],
        FsDamaged,
        "free blocks in its bitmap",
    );
    poke_back(
        1024 + 0x04,
        &1_000_000u32.to_le_bytes(),
        FsDamaged,
        "says it has 4096000000 bytes",
    );
    poke_back(1024 + 0x28, &8u32.to_le_bytes(), FsDamaged, "inodes");
    poke_back(1024 + 0x20, &8u32.to_le_bytes(), FsDamaged, "impossible");
    poke_back(1024 + 0x3a, &[0, 0], FsDirty, "not cleanly unmounted");
    poke_back(1024 + 0x3a, &[3, 0], FsDirty, "errors");
    poke_back(1024 + 0xe8, &[12, 0], FsDirty, "deleted files");
    poke_back(1024 + 0x60, &[6, 0], FsDirty, "needs recovery");
    poke_back(1024 + 0x60, &[2, 0, 0, 0x40], FsDirty, "unknown features");
    poke_back(1024 + 0x64, &[3, 0, 0, 0x40], FsDirty, "unknown features");
    whole_used(&image.path);
}

/// A bitmap that frees its own group's metadata, with the counter made to match.
#[test]
fn metadata_marked_as_free_is_seen() {
    let image = image(40, PLAIN);
    let bitmap = u64::from(u32::from_le_bytes(peek(&image.path, DESCRIPTORS)));
    let [free] = [u16::from_le_bytes(peek(&image.path, DESCRIPTORS + 12))];
    let [byte] = peek::<1>(&image.path, bitmap * 4096);
    assert_eq!(byte & 2, 2);
    poke(&image.path, bitmap * 4096, &[byte & !2]);
    poke(&image.path, DESCRIPTORS + 12, &(free + 1).to_le_bytes());
    assert_full(
        &image.path,
        WarningKind::FsDamaged,
        "block 1 holds metadata and is marked as free",
    );
}

#[test]
fn journals_that_hold_something_or_are_elsewhere() {
    let image = image(40, &["-t", "ext3", "-b", "4096"]);
    let map = ok("debugfs", &["-R", "bmap <8> 0", s(&image.path)]);
    let journal = number(&map) * 4096;
    poke(&image.path, journal + 0x1c, &[0, 0, 0, 1]);
    assert_full(&image.path, WarningKind::FsDirty, "journal is not empty");
    poke(&image.path, journal + 0x1c, &[0, 0, 0, 0]);
    poke(&image.path, journal + 0x20, &[0, 0, 0, 5]);
    assert_full(&image.path, WarningKind::FsDirty, "recorded an error");
    poke(&image.path, journal, &[0]);
    assert_full(&image.path, WarningKind::FsDamaged, "journal superblock");
    poke(&image.path, 1024 + 0xe0, &u32::MAX.to_le_bytes());
    assert_full(&image.path, WarningKind::FsDamaged, "journal is inode");
    poke(&image.path, 1024 + 0xe0, &[0; 4]);
    assert_full(
        &image.path,
        WarningKind::FsDirty,
        "journal is on another disk",
    );
}

#[test]
fn a_journal_device_is_copied_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("journal"), 16 << 20);
    ok(
        "mke2fs",
        &["-q", "-F", "-O", "journal_dev", "-b", "4096", s(&path)],
    );
    let (region, map) = whole(&path);
    assert_eq!((region.method, map.warnings.len()), (Method::Full, 0));
    assert!(
        region.reason.contains("journal of another"),
        "{}",
        region.reason
    );
}
