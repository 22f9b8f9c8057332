//! Manifests: any bytes. One knob makes the checksums right.
#![no_main]

mod framing;

use image::manifest::ManifestReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if knobs & 1 != 0 {
        framing::repair(&mut bytes);
    }
    let Ok(mut reader) = ManifestReader::open(&bytes[..]) else {
        return;
    };
    let mut used = 0;
    while let Ok(Some(page)) = reader.next_page() {
        assert_eq!(page.cells.len(), page.chunks.len());
        assert_eq!(page.pack().unpack().expect("a page that was packed"), page);
        used += page
            .chunks
            .iter()
            .map(|chunk| u64::from(chunk.plain_len))
            .sum::<u64>();
    }
    if let Some(root) = reader.root() {
        assert_eq!(used, root.plain_bytes);
        assert_eq!(used, reader.layout().used_bytes());
        let bad = reader.bad().to_vec();
        assert_eq!(image::bad::joined(bad.clone()), bad);
    }
});
