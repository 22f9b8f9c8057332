//! Journals of every kind, on file systems with every feature and block size, also those
//! that the kernel of this machine cannot mount.

use crate::common::{assert_same_tree, ok, restore_onto_garbage, run, s};
use crate::image::dumpe2fs;
use crate::logged::{Logged, logged, unclean_map};

/// The map is the union of all states, to the block, and a restore by it comes to the
/// last one.
fn verify(logged: &Logged) {
    let path = &logged.image.path;
    let region = unclean_map(path);
    let missing = logged.used.subtract(&region.used);
    assert!(missing.is_empty(), "not in the map: {missing:?}");
    let extra = region.used.subtract(&logged.used);
    assert!(extra.is_empty(), "in the map for no reason: {extra:?}");
    let before = dumpe2fs(path).used;
    assert!(!logged.used.subtract(&before).is_empty(), "nothing is new");

    let target = logged.image.work.join("restored");
    restore_onto_garbage(path, &region.used, &target);
    let output = run("e2fsck", &["-fy", s(&target)]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    ok("e2fsck", &["-fn", s(&target)]);
    let files = logged.image.work.join("files");
    std::fs::create_dir(&files).unwrap();
    let request = format!("rdump / {}", s(&files));
    ok("debugfs", &["-R", &request, s(&target)]);
    let _ = std::fs::remove_dir(files.join("lost+found"));
    assert_same_tree(&logged.image.tree, &files);
}

macro_rules! variants {
    ($($name:ident: $mib:literal, $open:literal, [$($arg:literal),*];)*) => {
        $(#[test]
        fn $name() {
            verify(&logged($mib, &[$($arg),*], $open));
        })*
    };
}

variants! {
    ext3_1k: 24, "", ["-t", "ext3", "-b", "1024"];
    ext3_2k_commit_checksums: 24, "-c -v 1", ["-t", "ext3", "-b", "2048"];
    ext4_4k: 24, "", ["-t", "ext4"];
    ext4_short_checksums: 24, "-c -v 2", ["-t", "ext4"];
    ext4_short_checksums_32bit: 24, "-c -v 2", ["-t", "ext4", "-O", "^64bit"];
    ext4_full_checksums: 24, "-c -v 3", ["-t", "ext4", "-b", "1024"];
    ext4_full_checksums_32bit: 24, "-c -v 3", ["-t", "ext4", "-O", "^64bit"];
    ext4_16k: 64, "-c -v 3", ["-t", "ext4", "-b", "16384"];
    ext4_64k: 160, "-c -v 3", ["-t", "ext4", "-b", "65536"];
    ext4_meta_bg: 24, "", ["-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"];
    ext4_sparse_super2: 24, "", ["-t", "ext4", "-b", "1024", "-O", "sparse_super2,^resize_inode"];
    ext4_uninit_bg: 24, "", ["-t", "ext4", "-b", "1024", "-O", "uninit_bg,^metadata_csum"];
    ext4_bigalloc: 64, "", ["-t", "ext4", "-O", "bigalloc", "-C", "65536"];
    ext4_checksum_seed: 24, "-c -v 3", ["-t", "ext4", "-O", "metadata_csum_seed,^flex_bg"];
    ext4_journal_by_blocks: 24, "", ["-t", "ext4", "-O", "^extents,^64bit"];
    ext4_large_inodes: 24, "", ["-t", "ext4", "-I", "1024", "-O", "orphan_file,inline_data"];
    ext4_lazy_tables: 24, "", ["-t", "ext4", "-N", "40000", "-E", "nodiscard,lazy_itable_init=1"];
}
