//! Bad ranges: any body of the section, with a layout of a few regions.
#![no_main]

use image::layout::{Disk, Region, Table};
use image::{Layout, bad};
use libfuzzer_sys::fuzz_target;

fn layout() -> Layout {
    let region = |number: u64| Region {
        kind: "partition".into(),
        start: number << 20,
        size: 1 << 20,
        method: if number == 2 { "none" } else { "full" }.into(),
        ..Region::default()
    };
    Layout {
        disk: Disk {
            size_bytes: 4 << 20,
            sector_size: 512,
            ..Disk::default()
        },
        table: Table::default(),
        regions: (0..4).map(region).collect(),
        ..Layout::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let layout = layout();
    let Ok(ranges) = bad::decode(data, &layout, 0) else {
        return;
    };
    assert_eq!(bad::encode(&ranges), data);
    assert_eq!(bad::joined(ranges.clone()), ranges);
    assert!(bad::total(&ranges) <= 3 << 20);
    for range in &ranges {
        let region = &layout.regions[range.region as usize];
        assert!(range.len > 0 && range.end() <= region.size && !region.is_absent());
    }
});
