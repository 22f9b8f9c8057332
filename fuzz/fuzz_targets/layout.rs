//! Layouts: any JSON, and what a reader relies on after it was parsed.
#![no_main]

use image::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(layout) = Layout::parse(data, 0) else {
        return;
    };
    assert_eq!(
        Layout::parse(&layout.to_json(), 0).expect("our own JSON"),
        layout
    );
    let mut end = 0;
    for region in &layout.regions {
        assert!(region.start >= end && region.used_bytes <= region.size);
        end = region.start + region.size;
    }
    assert!(end <= layout.disk.size_bytes && layout.used_bytes() <= end);
    for blob in &layout.table.blobs {
        assert!(blob.offset + blob.data.len() as u64 <= layout.disk.size_bytes);
    }
});
