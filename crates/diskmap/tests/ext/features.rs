//! Clean file systems with every feature, against what e2fsprogs says of them.
//!
//! Three oracles: the list of free blocks of dumpe2fs must be matched block by
//! block, a restore by the map onto garbage must pass e2fsck, and every file in it
//! must be the same.

use crate::common::{ok, s, sparse, whole_used};
use crate::image::{assert_matches, dumpe2fs, image, verify};
use diskmap::{Extent, Extents};
use std::path::Path;

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
    ext4_inodes_of_1k: 40, "ext4", ["-t", "ext4", "-b", "4096", "-I", "1024", "-O", "inline_data"];
    ext4_inodes_of_4k: 40, "ext4", ["-t", "ext4", "-b", "4096", "-I", "4096", "-N", "2000"];
    ext4_fast_commit: 40, "ext4", ["-t", "ext4", "-O", "fast_commit"];
    ext4_stable_inodes: 40, "ext4", ["-t", "ext4", "-b", "4096", "-O", "stable_inodes,encrypt,verity"];
    ext4_wide_flex_groups: 90, "ext4", ["-t", "ext4", "-b", "1024", "-G", "64", "-O", "project,quota"];
    ext4_lazy_inode_tables: 100, "ext4", ["-t", "ext4", "-N", "100000", "-E", "nodiscard,lazy_itable_init=1"];
    ext4_lazy_uninit_bg_1k: 100, "ext4", ["-t", "ext4", "-N", "100000", "-b", "1024", "-O", "uninit_bg,^metadata_csum", "-E", "nodiscard,lazy_itable_init=1"];
}

/// A value of an attribute that is as large as a block has an inode of its own.
#[test]
fn ext4_large_attributes() {
    let image = image(40, &["-t", "ext4", "-b", "4096", "-O", "ea_inode"]);
    let value = image.work.join("value");
    std::fs::write(&value, vec![0x5a; 4096]).unwrap();
    let request = format!("ea_set -f {} /d1/file1 user.large", s(&value));
    ok("debugfs", &["-w", "-R", &request, s(&image.path)]);
    verify(&image);
    let get = |path: &Path| {
        let request = "ea_get -x /d1/file1 user.large";
        ok("debugfs", &["-R", request, s(path)])
    };
    let value = get(&image.path);
    assert!(value.len() > 12_000, "{} characters", value.len());
    assert!(get(&image.work.join("restored")) == value, "another value");
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
