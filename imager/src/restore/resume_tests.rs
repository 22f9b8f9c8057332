//! When a restore that was cut off may go on: on disks as they really look.

use super::is_unfinished;
use blockdev::Device;
use image::Layout;
use image::layout::{Region, Table};
use wire::RestoreScope;

const SIZE: u64 = 8 << 20;

fn layout(table: &str, file_system: &str) -> Layout {
    let region = Region {
        file_system: file_system.to_owned(),
        ..Region::default()
    };
    Layout {
        table: Table {
            kind: table.to_owned(),
            blobs: Vec::new(),
        },
        regions: vec![region],
        ..Layout::default()
    }
}

/// Whether a disk with one byte set at each of `places` counts as unfinished.
fn unfinished(layout: &Layout, places: &[u64]) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::create_file(&folder.path().join("disk"), SIZE).unwrap();
    for &place in places {
        device.write_all_at(place, &[1]).unwrap();
    }
    is_unfinished(&device, layout, &RestoreScope::default()).unwrap()
}

#[test]
fn with_a_table_the_first_sector_decides() {
    for kind in ["mbr", "gpt"] {
        let layout = layout(kind, "ext4");
        assert!(unfinished(&layout, &[]));
        // A boot loader in the gap and data in partitions are written before the table.
        assert!(unfinished(&layout, &[512, 4096, 3 << 20]));
        assert!(!unfinished(&layout, &[510]), "{kind}: a table is there");
    }
}

#[test]
fn without_a_table_the_place_of_the_signature_decides() {
    let layout = layout("none", "ext4");
    assert!(unfinished(&layout, &[2 << 20]));
    // An ext file system has nothing before byte 1024, swap nothing before 4086.
    assert!(!unfinished(&layout, &[1024 + 56]));
    assert!(!unfinished(&layout, &[4086]));
}

#[test]
fn unknown_contents_are_never_taken_for_unfinished() {
    assert!(!unfinished(&layout("none", ""), &[]));
}

#[test]
fn only_what_begins_with_a_signature_can_tell_that_it_is_unfinished() {
    for (name, tells) in [
        ("ext4", true),
        ("ntfs", true),
        ("", false),
        ("md", false),
        ("ldm", false),
    ] {
        let region = Region {
            file_system: name.into(),
            ..Default::default()
        };
        assert_eq!(super::has_signature_in_head(&region), tells, "{name}");
    }
}
