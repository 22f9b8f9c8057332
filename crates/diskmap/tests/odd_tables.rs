//! Tables inside tables: hybrid MBRs and BSD disk labels lose nothing.

mod common;

use common::{disk, ok, partitions, peek, poke, s, scan_file, try_scan};
use diskmap::{Method, ScanOptions, TableKind, table};

/// The MBR entries beside the protective one are part of the image, on any disk size.
#[test]
fn a_hybrid_mbr_keeps_its_entries() {
    let (_dir, path) = disk(64);
    ok(
        "sgdisk",
        &[
            "-n",
            "1:2048:+8M",
            "-n",
            "2:0:+8M",
            "-n",
            "3:0:+8M",
            "-h",
            "2:3",
            s(&path),
        ],
    );
    let before: [u8; 64] = peek(&path, 446);
    assert_eq!(
        before.chunks(16).filter(|entry| entry[4] != 0).count(),
        3,
        "sgdisk made a hybrid"
    );
    let map = scan_file(&path, 512);
    assert_eq!(map.table, TableKind::Gpt);
    assert_eq!(partitions(&map).len(), 3);
    assert_eq!(map.blobs[0].data[446..510], before);
    for size in [128 << 20, 40 << 20] {
        let moved = table::relocate(map.table, &map.blobs, map.geometry, size).unwrap();
        let after = &moved[0].data[446..510];
        for (old, new) in before.chunks(16).zip(after.chunks(16)) {
            // Only the protective entry may follow the disk's size.
            assert!(old == new || old[4] == 0xee, "{old:?} {new:?}");
        }
    }
}

/// A BSD system splits its partition again: all of it is copied, the label named.
#[test]
fn a_bsd_disk_label_is_copied_with_everything_in_it() {
    let (_dir, path) = disk(64);
    let script = "label: dos\nstart=2048, size=65536, type=a5\n";
    common::ok_with_input("sfdisk", &["-q", s(&path)], script);
    for (at, partition) in [((2048 + 1) * 512, 1), (512, 0)] {
        if partition == 0 {
            poke(&path, 0, &[0; 512]);
        }
        poke(&path, at, &[0x57, 0x45, 0x56, 0x82]);
        let map = try_scan(&path, ScanOptions::default()).unwrap();
        let region = map
            .regions
            .iter()
            .find(|r| r.number == Some(partition))
            .unwrap();
        assert_eq!(region.method, Method::Full);
        assert_eq!(region.file_system, "bsdlabel");
        assert_eq!(region.used.total(), region.size);
        assert!(
            region.reason.contains("BSD disk label"),
            "{}",
            region.reason
        );
    }
}
