//! Images for the tests.
//!
//! Owns: regions, used extents and chunks from a seed, and their container and manifest.
//! Does not own: reading them.

use crate::reading::read;
use image::container::ContainerWriter;
use image::layout::{Blob, Disk, Region, Table};
use image::manifest::ManifestWriter;
use image::record::{Compression, Encoder};
use image::{CellMap, ChunkRef, Layout, PAGE_CHUNKS, Root, cells};
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::prop_oneof;

/// Grid of the generated images, in bytes.
const CELL: u32 = 1 << 16;

/// A region: hole before it, and its used extents as (hole before, length), in sectors.
type Plan = Vec<(u64, Vec<(u16, u16)>)>;

/// A generated image.
#[derive(Clone, Debug)]
pub struct Image {
    pub layout: Layout,
    pub cells: Vec<CellMap>,
    pub chunks: Vec<ChunkRef>,
    pub container: Vec<u8>,
    /// Byte ranges of the records.
    pub records: Vec<(usize, usize)>,
    pub root: Root,
}

fn plans() -> impl Strategy<Value = Plan> {
    let extent = (0..200u16, 1..90u16);
    prop::collection::vec((0..9u64, prop::collection::vec(extent, 0..8)), 0..4)
}

fn compressions() -> impl Strategy<Value = Compression> {
    prop_oneof![
        Just(Compression::None),
        Just(Compression::Zstd(1)),
        Just(Compression::Deflate(1))
    ]
}

/// Any image.
pub fn images() -> impl Strategy<Value = Image> {
    (plans(), compressions(), any::<u8>())
        .prop_map(|(plan, compression, seed)| make(&plan, compression, seed))
}

/// Bytes of a chunk: by its number noise, text, zeros, or what another chunk has too.
pub fn plain(number: usize, seed: u8, len: usize) -> Vec<u8> {
    let mut state = u32::from(seed) + number as u32 * 977 + 1;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    match number % 4 {
        0 => (0..len).map(|_| noise()).collect(),
        1 => (0..len)
            .map(|at| b"some text "[at % 10] ^ (number as u8))
            .collect(),
        2 => vec![0; len],
        _ => vec![seed; len],
    }
}

fn make(plan: &Plan, compression: Compression, seed: u8) -> Image {
    let mut layout = Layout {
        created: "2026-01-02T03:04:05Z".into(),
        tool: "test".into(),
        disk: Disk {
            sector_size: 512,
            ..Disk::default()
        },
        cell_size: CELL,
        table: Table {
            kind: "mbr".into(),
            blobs: vec![Blob {
                offset: 0,
                data: vec![seed; 512],
            }],
        },
        ..Layout::default()
    };
    let mut all = Vec::new();
    let mut start = 512;
    for (number, (hole, used)) in plan.iter().enumerate() {
        start += hole * 512;
        let mut at = 0;
        let mut extents = Vec::new();
        for &(hole, len) in used {
            // Extents that touch are one extent; the first may start at once.
            at += u64::from(hole) * 512 + if at == 0 { 0 } else { 512 };
            extents.push((at, u64::from(len) * 512));
            at += u64::from(len) * 512;
        }
        let size = at + 4096;
        layout.regions.push(Region {
            kind: "partition".into(),
            start,
            size,
            method: "used".into(),
            used_bytes: extents.iter().map(|&(_, len)| len).sum(),
            ..Region::default()
        });
        all.extend(cells::cut(number as u32, CELL, extents));
        start += size;
    }
    layout.disk.size_bytes = start + 1024;

    let mut writer = ContainerWriter::new(Vec::new(), &layout).unwrap();
    let mut encoder = Encoder::new(compression).unwrap();
    let mut chunks = Vec::new();
    let mut bytes = Vec::new();
    for page in all.chunks(PAGE_CHUNKS) {
        writer.begin_page(page).unwrap();
        for cell in page {
            let plain = plain(chunks.len(), seed, cell.used.len() as usize);
            bytes.clear();
            let header = encoder.encode(&plain, &mut bytes).unwrap();
            writer.record(&header, &bytes).unwrap();
            chunks.push(ChunkRef {
                name: header.name,
                plain_len: header.plain_len,
            });
        }
    }
    let (container, root, length) = writer.finish().unwrap();
    assert_eq!(length, container.len() as u64);
    let read = read(&container[..]).unwrap();
    let ends = read.records.iter();
    let records = ends
        .map(|(header, at)| (*at as usize, (*at + header.record_len()) as usize))
        .collect();
    Image {
        layout,
        cells: all,
        chunks,
        container,
        records,
        root,
    }
}

/// The manifest of an image.
pub fn manifest(image: &Image) -> Vec<u8> {
    let mut writer = ManifestWriter::new(Vec::new(), &image.layout).unwrap();
    let pages = image.cells.chunks(PAGE_CHUNKS);
    for (cells, chunks) in pages.zip(image.chunks.chunks(PAGE_CHUNKS)) {
        writer.page(cells, chunks).unwrap();
    }
    writer.finish().unwrap().0
}
