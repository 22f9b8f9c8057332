//! Containers: any bytes, as a stream and opened at random. One knob makes the checksums
//! right.
#![no_main]

mod framing;

use image::container::{ContainerReader, Event};
use image::record::Decoder;
use image::{BadRange, Error, Layout, Root, structure};
use libfuzzer_sys::fuzz_target;
use std::io::Cursor;

/// Reads to the end; the plain bytes that were decoded are counted.
fn read(bytes: &[u8]) -> Result<(Layout, Root, u64, Vec<BadRange>), Error> {
    let mut reader = ContainerReader::open(bytes)?;
    let mut decoder = Decoder::new();
    let (mut payload, mut plain) = (Vec::new(), Vec::new());
    let (mut total, mut used) = (0, 0);
    let mut page = Vec::new().into_iter();
    loop {
        match reader.next_event(&mut payload)? {
            Event::Page(cells) => {
                let regions = &reader.layout().regions;
                for cell in &cells {
                    let region = &regions[cell.region as usize];
                    let start = cell.cell * u64::from(reader.layout().cell_size);
                    assert!(start + u64::from(cell.used.span().1) <= region.size);
                }
                page = cells.into_iter();
            }
            Event::Record { header, offset } => {
                let cell = page.next().expect("a record for each cell");
                assert_eq!(cell.used.len(), header.plain_len);
                used += u64::from(header.plain_len);
                if total < framing::PLAIN_BUDGET {
                    total += header.plain_len as usize;
                    decoder.decode(&header, &payload, offset, &mut plain)?;
                    assert_eq!(plain.len(), header.plain_len as usize);
                }
            }
            Event::End(root) => {
                assert_eq!(reader.position(), bytes.len() as u64);
                let bad = reader.bad().to_vec();
                return Ok((reader.layout().clone(), root, used, bad));
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
    let streamed = read(&bytes);
    let opened = structure::read(&mut Cursor::new(&bytes));
    if let Ok((layout, root, used, bad)) = streamed {
        assert_eq!(used, layout.used_bytes());
        assert_eq!(used, root.plain_bytes);
        let opened = opened.expect("what can be streamed can be opened");
        assert_eq!(
            (opened.layout, opened.root, opened.length, opened.bad),
            (layout, root, bytes.len() as u64, bad)
        );
    }
});
