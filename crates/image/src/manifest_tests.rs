//! Manifests: what was written is read, and nothing else.
//!
//! Owns: cuts, flips and missing pages. Does not own: signatures (`sign`).

use super::*;
use crate::{cells, layout::tests::small};

fn sample() -> (Layout, Vec<u8>, Root, usize) {
    let size = 3000 * (1 << 16);
    let mut layout = small(size);
    let cells: Vec<_> = cells::cut(0, layout.cell_size, [(0, size)]).collect();
    layout.regions[0].used_bytes = size;
    let mut writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
    for page in cells.chunks(PAGE_CHUNKS) {
        let chunks: Vec<_> = page
            .iter()
            .map(|c| ChunkRef {
                name: Hash::of(&c.cell.to_le_bytes()),
                plain_len: c.used.len(),
            })
            .collect();
        writer.page(page, &chunks).unwrap();
    }
    let (bytes, root) = writer.finish().unwrap();
    (layout, bytes, root, cells.len())
}

fn read(bytes: &[u8]) -> Result<(usize, Root), Error> {
    let mut reader = ManifestReader::open(bytes)?;
    let mut count = 0;
    while let Some(page) = reader.next_page()? {
        count += page.chunks.len();
    }
    reader
        .root()
        .map(|root| (count, root))
        .ok_or_else(|| Error::damaged("no root", 0))
}

#[test]
fn reads_what_was_written() {
    let (layout, bytes, root, count) = sample();
    assert_eq!(ManifestReader::open(&bytes[..]).unwrap().layout(), &layout);
    assert_eq!(read(&bytes).unwrap(), (count, root));
    let page = ManifestReader::open(&bytes[..])
        .unwrap()
        .next_page()
        .unwrap()
        .unwrap();
    assert_eq!(page.pack().unpack().unwrap(), page);
}

#[test]
fn every_cut_and_flip_is_noticed() {
    let (_, bytes, _, _) = sample();
    for cut in (0..bytes.len()).step_by(977).chain([bytes.len() - 1]) {
        assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in (0..bytes.len()).step_by(487) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x10;
        assert!(read(&changed).is_err(), "flip at {at}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(read(&longer).is_err());
}

#[test]
fn a_missing_page_is_noticed_even_with_a_matching_root() {
    let size = 1 << 20;
    let layout = small(size);
    let cells: Vec<_> = cells::cut(0, layout.cell_size, [(0, size / 2)]).collect();
    let chunks: Vec<_> = cells
        .iter()
        .map(|c| ChunkRef {
            name: Hash::default(),
            plain_len: c.used.len(),
        })
        .collect();
    let mut writer = ManifestWriter::new(Vec::new(), &layout).unwrap();
    writer.page(&cells, &chunks).unwrap();
    let (bytes, _) = writer.finish().unwrap();
    assert!(read(&bytes).unwrap_err().to_string().contains("missing"));
}
