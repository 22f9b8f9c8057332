//! File systems that the kernel wrote to until it was stopped.
//!
//! Every state that a replay can end with, whether it goes to the end or stops at any
//! transaction, must be inside the map; what is restored by the map onto garbage must
//! hold every safe file and be clean after the kernel's or the tools' own replay.

use crate::common::{ok, peek, poke, restore_onto_garbage, run, s, whole};
use crate::crash::{Crashed, Until, alone, crash, cut_journal, descriptors, replay, wraps};
use crate::image::{Dump, dumpe2fs};
use diskmap::{Extents, Method, Region, WarningKind};
use std::path::Path;
use testkit::loopdev::{LoopDevice, Mounted};

/// A used map, with a warning that the file system was not clean.
fn unclean_map(path: &Path) -> Region {
    let (region, map) = whole(path);
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert!(region.reason.contains("replayed"), "{}", region.reason);
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
    region
}

/// As [`dumpe2fs`], whatever the checksums of the bitmaps: where a replay stops early,
/// descriptors and bitmaps are of different ages. Changes the file.
fn dump_unchecked(path: &Path) -> Dump {
    const RO_COMPAT: u64 = 1024 + 0x64;
    let features = u32::from_le_bytes(peek(path, RO_COMPAT));
    if features & 0x400 != 0 {
        // As if the descriptors alone had checksums, which dumpe2fs does not insist on.
        poke(path, RO_COMPAT, &(features & !0x400 | 0x10).to_le_bytes());
    }
    dumpe2fs(path)
}

/// Asserts that every replay, wherever it stops, ends inside the map. Returns by how
/// many bytes the states differ from what the bitmaps on the disk say.
fn assert_covers_every_replay(crashed: &Crashed, used: &Extents) -> u64 {
    let copy = crashed.work.path().join("replayed");
    std::fs::copy(&crashed.path, &copy).unwrap();
    let before = dump_unchecked(&copy);
    let mut only_in_journal = 0;
    let log = descriptors(&crashed.path);
    assert!(!log.is_empty(), "the recipe left nothing in the journal");
    // Ends of the log to try: the whole, and up to four places on the way.
    let step = (log.len() / 4).max(1);
    let cuts = log.iter().step_by(step).map(|&(_, block)| Some(block));
    for cut in cuts.chain([None]) {
        std::fs::copy(&crashed.path, &copy).unwrap();
        if let Some(block) = cut {
            cut_journal(&copy, before.block, block);
        }
        replay(&copy);
        let dump = dump_unchecked(&copy);
        let state = dump.used.subtract(&dump.skippable);
        let missing = state.subtract(used);
        assert!(
            missing.is_empty(),
            "cut at {cut:?}: not in the map: {missing:?}"
        );
        only_in_journal = only_in_journal.max(state.subtract(&before.used).total());
    }
    only_in_journal
}

fn assert_safe_files(crashed: &Crashed, root: &Path) {
    assert!(crashed.safe.len() > 20, "the recipe left few files");
    for (name, bytes) in &crashed.safe {
        let found = std::fs::read(root.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(found == *bytes, "{name} differs");
    }
}

fn assert_clean(path: &Path) {
    ok("e2fsck", &["-fn", s(path)]);
}

fn verify(crashed: &Crashed) {
    let region = unclean_map(&crashed.path);
    let gained = assert_covers_every_replay(crashed, &region.used);
    // Else the test would pass without a look into the journal.
    assert!(
        gained > 0,
        "the recipe has nothing that only the journal knows"
    );
    let work = crashed.work.path();
    let by_kernel = work.join("by-kernel");
    restore_onto_garbage(&crashed.path, &region.used, &by_kernel);
    let by_tool = work.join("by-tool");
    std::fs::copy(&by_kernel, &by_tool).unwrap();
    {
        let device = LoopDevice::attach(&by_kernel, 512);
        let mounted = Mounted::new(device.path(), "rw");
        assert_safe_files(crashed, mounted.path());
    }
    assert_clean(&by_kernel);
    let output = run("e2fsck", &["-fy", s(&by_tool)]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    assert_clean(&by_tool);
    let device = LoopDevice::attach(&by_tool, 512);
    let mounted = Mounted::new(device.path(), "ro");
    assert_safe_files(crashed, mounted.path());
    drop(mounted);
}

macro_rules! variants {
    ($($name:ident: $mib:literal, $rounds:literal, $options:literal, [$($arg:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let _alone = alone();
            verify(&crash($mib, &[$($arg),*], $options, Until::Rounds($rounds)));
        })*
    };
}

variants! {
    ext3_ordered: 40, 30, "rw", ["-t", "ext3", "-b", "1024"];
    ext3_journaled_data: 40, 30, "data=journal", ["-t", "ext3", "-b", "4096"];
    ext4_ordered: 40, 30, "rw", ["-t", "ext4"];
    ext4_1k: 40, 30, "rw", ["-t", "ext4", "-b", "1024"];
    ext4_data_when_it_comes: 40, 30, "data=writeback", ["-t", "ext4"];
    ext4_journaled_data: 40, 30, "data=journal", ["-t", "ext4", "-O", "^metadata_csum"];
    ext4_commit_checksums: 40, 30, "journal_checksum", ["-t", "ext4", "-O", "^metadata_csum"];
    ext4_asynchronous_commits: 40, 30, "data=writeback,journal_async_commit", ["-t", "ext4"];
    ext4_uninit_bg: 40, 30, "rw", ["-t", "ext4", "-b", "1024", "-O", "uninit_bg,^metadata_csum,^64bit"];
    ext4_meta_bg: 40, 30, "rw", ["-t", "ext4", "-b", "1024", "-g", "2048", "-O", "meta_bg,^resize_inode"];
    ext4_bigalloc: 64, 30, "rw", ["-t", "ext4", "-O", "bigalloc", "-C", "16384"];
    ext4_orphan_file: 40, 30, "rw", ["-t", "ext4", "-O", "orphan_file,inline_data"];
    ext4_lazy_tables: 40, 30, "rw", ["-t", "ext4", "-N", "60000", "-E", "nodiscard,lazy_itable_init=1"];
}

/// The log goes on at its start when it comes to its end.
#[test]
fn ext4_wrapped() {
    let _alone = alone();
    let args = ["-t", "ext4", "-b", "1024", "-J", "size=1"];
    let crashed = crash(40, &args, "rw", Until::Wrapped);
    assert!(wraps(&descriptors(&crashed.path)));
    verify(&crashed);
}
