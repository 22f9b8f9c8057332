//! Containers opened at random: any bytes, with one knob that makes the checksums right.
//! What a streamed reader takes has to open, and to give the same bytes.
#![no_main]

mod framing;

use image::container::{ContainerReader, Event};
use image::open::{OpenImage, ReadAt};
use image::record::Decoder;
use libfuzzer_sys::fuzz_target;

/// Ranges that are read of one input.
const RANGES: usize = 64;
/// Bytes of each.
const LONGEST: u64 = 128 << 10;

/// Reads the start of each used range and what is around it.
fn read_at_random<S: ReadAt>(image: &OpenImage<S>) {
    let mut end = 0;
    for range in image.used(0).take(RANGES) {
        let Ok(range) = range else {
            return;
        };
        assert!(range.len > 0 && range.end() <= image.disk_size());
        assert!(
            end == 0 || range.start > end,
            "ranges are ascending and apart"
        );
        end = range.end();
        let first = range.start.saturating_sub(1000);
        let len = (range.len + 2000)
            .min(LONGEST)
            .min(image.disk_size() - first);
        let mut buf = vec![0xee; len as usize];
        let _ = image.read_exact_at(&mut buf, first);
    }
}

/// Reads the container as a stream and compares each chunk with what is at its place.
/// Nothing if the stream is damaged.
fn compare<S: ReadAt>(bytes: &[u8], image: &OpenImage<S>) -> Option<()> {
    let mut reader = ContainerReader::open(bytes).ok()?;
    let layout = reader.layout().clone();
    let mut decoder = Decoder::new();
    let (mut payload, mut plain, mut total) = (Vec::new(), Vec::new(), 0);
    let mut cells = Vec::new().into_iter();
    let mut refused = false;
    loop {
        match reader.next_event(&mut payload).ok()? {
            Event::Page(page) => cells = page.into_iter(),
            Event::End(root) => {
                assert_eq!(root, image.root());
                assert!(!refused, "what can be streamed can be read at random");
                return Some(());
            }
            Event::Record { header, offset } => {
                let cell = cells.next()?;
                total += header.plain_len as usize;
                if total > framing::PLAIN_BUDGET {
                    continue;
                }
                decoder.decode(&header, &payload, offset, &mut plain).ok()?;
                let region = &layout.regions[cell.region as usize];
                let base = region.start + cell.cell * u64::from(layout.cell_size);
                let mut at = 0;
                for &(start, len) in cell.used.extents() {
                    let expected = &plain[at..at + len as usize];
                    at += len as usize;
                    let place = base + u64::from(start);
                    let end = place + u64::from(len);
                    let covered = layout.table.blobs.iter().any(|blob| {
                        blob.offset < end && blob.offset + blob.data.len() as u64 > place
                    });
                    let mut there = vec![0; len as usize];
                    match image.read_exact_at(&mut there, place) {
                        Ok(()) => assert!(covered || there == expected),
                        // The page's list, which comes later, may not name the record.
                        Err(_) => refused = true,
                    }
                }
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if knobs & 1 != 0 {
        framing::repair(&mut bytes);
    }
    match OpenImage::open(bytes.as_slice()) {
        Ok(image) => {
            read_at_random(&image);
            let proved = image.prove().is_ok();
            if compare(&bytes, &image).is_some() {
                assert!(proved, "what can be streamed can be proved");
            }
        }
        Err(_) => {
            let mut reader = ContainerReader::open(&bytes[..]);
            let mut payload = Vec::new();
            while let Ok(open) = &mut reader {
                match open.next_event(&mut payload) {
                    Ok(Event::End(_)) => panic!("what can be streamed can be opened"),
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        }
    }
});
