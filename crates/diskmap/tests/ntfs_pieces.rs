//! NTFS whose own files are in many pieces: $Bitmap and $MFT with a run for each cluster,
//! told by one record or by several. ntfs-3g's tools read the same volumes.

mod common;
#[path = "common/ntfs.rs"]
mod image;
#[path = "common/ntfs_edit.rs"]
mod ntfs_edit;

use common::{partclone, restore_onto_garbage, whole, whole_used};
use diskmap::{Extents, Method, WarningKind};
use image::{Image, assert_holds, bitmap, filled, is_consistent, sizes};
use ntfs_edit::{DATA, Editor, Plan};

/// A volume with a bitmap of 64 clusters.
fn image() -> Image {
    filled(128, &["-c", "512"])
}

/// Free records of the file table, the first at or after each of these numbers.
fn free_records<const N: usize>(image: &Image, from: [u64; N]) -> [u64; N] {
    let editor = Editor::open(&image.path);
    let is_free = |number: &u64| {
        let record = editor.record(*number);
        record.starts_with(b"FILE") && record[22] & 1 == 0
    };
    from.map(|from| (from..from + 9).find(is_free).unwrap())
}

fn verify(image: &Image) {
    is_consistent(&image.path).unwrap();
    let used = whole_used(&image.path).used;
    let sizes = sizes(&image.path);
    let in_clusters = used.intersect(0..sizes.clusters * sizes.cluster);
    assert_eq!(in_clusters, bitmap(&image.path));
    let theirs = partclone::used("partclone.ntfs", &image.path, &image.work);
    assert_eq!(in_clusters, theirs);
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, &used, &target);
    is_consistent(&target).unwrap();
    assert_holds(&target, &image.tree, &image.work);
}

fn scatter(plan: &Plan<'_>, image: &Image) {
    Editor::open(&image.path).scatter(plan);
}

#[test]
fn a_bitmap_in_many_runs() {
    let image = image();
    let before = whole_used(&image.path).used;
    scatter(
        &Plan {
            number: 6,
            keep: 0,
            holders: &[],
            base_empty: false,
            list_outside: false,
        },
        &image,
    );
    verify(&image);
    assert_ne!(whole_used(&image.path).used, before);
    assert_eq!(Editor::open(&image.path).places(6, DATA).len(), 64);
}

#[test]
fn a_bitmap_whose_runs_are_in_several_records() {
    for (base_empty, list_outside) in [(false, false), (true, false), (false, true)] {
        let image = image();
        let holders = free_records(&image, [24, 34, 44, 54]);
        scatter(
            &Plan {
                number: 6,
                keep: 1,
                holders: &holders,
                base_empty,
                list_outside,
            },
            &image,
        );
        verify(&image);
    }
}

/// The table's own pieces are told by records that lie in pieces that are told before:
/// each of these holders is in the part that the one before it tells.
#[test]
fn a_file_table_in_many_runs_and_records() {
    let image = image();
    let records = Editor::open(&image.path).places(0, DATA).len() as u64 / 2;
    let holders = free_records(&image, [24, 60, 90]);
    let keep = 2 * (holders[0] + 1);
    let share = (2 * records - keep).div_ceil(4);
    for (holder, part) in holders[1..].iter().zip(1..) {
        let start = keep + part * share;
        assert!((start..start + share).contains(&(2 * holder)), "{holder}");
    }
    scatter(
        &Plan {
            number: 0,
            keep: keep as usize,
            holders: &holders,
            base_empty: false,
            list_outside: false,
        },
        &image,
    );
    verify(&image);
}

/// Parts that do not fit together are damage.
#[test]
fn parts_that_contradict_each_other() {
    let image = image();
    let holders = free_records(&image, [24, 34, 44]);
    scatter(
        &Plan {
            number: 6,
            keep: 1,
            holders: &holders,
            base_empty: false,
            list_outside: false,
        },
        &image,
    );
    let editor = Editor::open(&image.path);
    let with = |number: u64, at: usize, change: &[u8], words: &str| {
        let old = editor.record(number);
        let mut record = old.clone();
        record[at..at + change.len()].copy_from_slice(change);
        editor.write_record(number, &record);
        let (region, map) = whole(&image.path);
        assert_eq!(region.method, Method::Full, "{words}");
        assert_eq!(region.used, Extents::whole(region.size));
        assert_eq!(map.warnings[0].kind, WarningKind::FsDamaged);
        assert!(
            map.warnings[0].detail.contains(words),
            "{words}: {}",
            map.warnings[0].detail
        );
        editor.write_record(number, &old);
    };
    let holder = holders[1];
    let part = format!("file record {holder} is not the part of file 6");
    with(holder, 22, &[0], &part);
    with(holder, 16, &[9], &part);
    with(holder, 32, &[7], &part);
    with(holder, 38, &[9], &part);
    let lacks = format!("file record {holder} lacks an attribute");
    with(holder, 56, &[0x90], &lacks);
    with(holder, 56 + 16, &[0xee], "file record");
    // One cluster more or less than the part before.
    with(holder, 56 + 24, &[0xee], "a list of");
    with(holder, 56 + 64, &[0x0f], "a list of");
    // Entries of the list that are of another type: parts are missing in the middle and
    // at the end.
    let base = editor.record(6);
    for (holder, words) in [
        (holders[1], "goes on at its cluster"),
        (holders[2], "bytes in"),
    ] {
        let reference = (holder | 1 << 48).to_le_bytes();
        let at = base.windows(8).position(|w| w == reference).unwrap();
        with(6, at - 16, &[0x90], words);
    }
    whole_used(&image.path);
}
