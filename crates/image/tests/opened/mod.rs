//! Disks in memory and their containers, for the tests that open them at random.
#![allow(dead_code)] // no test program uses all of it

use image::container::ContainerWriter;
use image::layout::{Blob, Disk, Region, Table};
use image::open::EAGER_PAGES;
use image::record::{Compression, Encoder};
use image::{CellMap, Error, Layout, OpenImage, ReadAt, cells};

pub const CELL: u32 = 64 << 10;

/// A disk, what of it is used, and its image.
pub struct Sample {
    pub disk: Vec<u8>,
    pub used: Vec<(u64, u64)>,
    pub container: Vec<u8>,
}

/// A region: start, size, used extents.
pub type Part = (u64, u64, Vec<(u64, u64)>);

/// An empty list of extents in a region of odd number makes it absent. Pages hold
/// `per_page` cells.
pub fn sample(size: u64, blobs: &[(u64, usize)], regions: &[Part], per_page: usize) -> Sample {
    let mut disk = vec![0; size as usize];
    let mut used = Vec::new();
    let mut layout = Layout {
        disk: Disk {
            size_bytes: size,
            sector_size: 512,
            ..Disk::default()
        },
        cell_size: CELL,
        table: Table {
            kind: "mbr".into(),
            blobs: Vec::new(),
        },
        ..Layout::default()
    };
    for (number, (start, size, extents)) in regions.iter().enumerate() {
        for &(at, len) in extents {
            let place = (start + at) as usize..(start + at + len) as usize;
            for (byte, at) in disk[place.clone()].iter_mut().zip(place) {
                // Some of it compresses, some does not, some is zero.
                *byte = match at >> 15 & 3 {
                    0 => 0,
                    1 => (at as u64)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        .to_be_bytes()[0],
                    _ => (at >> 9) as u8 | 1,
                };
            }
            used.push((start + at, len));
        }
        layout.regions.push(Region {
            kind: "partition".into(),
            start: *start,
            size: *size,
            method: if number % 2 == 1 && extents.is_empty() {
                "none"
            } else {
                "used"
            }
            .into(),
            used_bytes: extents.iter().map(|&(_, len)| len).sum(),
            ..Region::default()
        });
    }
    let mut encoder = Encoder::new(Compression::Zstd(1)).unwrap();
    let mut out = ContainerWriter::new(Vec::new(), &layout_with(&mut layout, blobs)).unwrap();
    let all: Vec<CellMap> = regions
        .iter()
        .enumerate()
        .flat_map(|(number, (_, _, extents))| {
            cells::cut(number as u32, CELL, extents.iter().copied())
        })
        .collect();
    for page in all.chunks(per_page) {
        out.begin_page(page).unwrap();
        for cell in page {
            let base = regions[cell.region as usize].0 + cell.offset(CELL).unwrap();
            let mut plain = Vec::new();
            for &(start, len) in cell.used.extents() {
                let at = (base + u64::from(start)) as usize;
                plain.extend_from_slice(&disk[at..at + len as usize]);
            }
            let mut record = Vec::new();
            let header = encoder.encode(&plain, &mut record).unwrap();
            out.record(&header, &record).unwrap();
        }
    }
    let container = out.finish().unwrap().0;
    for &(at, len) in blobs {
        disk[at as usize..at as usize + len].fill(0xb1);
        used.push((at, len as u64));
    }
    Sample {
        disk,
        used: joined(used),
        container,
    }
}

pub fn layout_with(layout: &mut Layout, blobs: &[(u64, usize)]) -> Layout {
    layout.table.blobs = blobs
        .iter()
        .map(|&(offset, len)| Blob {
            offset,
            data: vec![0xb1; len],
        })
        .collect();
    layout.clone()
}

pub fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (start, len) in ranges {
        match out.last_mut() {
            Some(last) if start <= last.0 + last.1 => {
                last.1 = (last.0 + last.1).max(start + len) - last.0;
            }
            _ => out.push((start, len)),
        }
    }
    out
}

pub fn used<S: ReadAt>(image: &OpenImage<S>, from: u64) -> Result<Vec<(u64, u64)>, Error> {
    image
        .used(from)
        .map(|range| range.map(|range| (range.start, range.len)))
        .collect()
}

pub fn whole<S: ReadAt>(image: &OpenImage<S>) -> Result<Vec<u8>, Error> {
    let mut disk = vec![0xee; image.disk_size() as usize];
    image.read_exact_at(&mut disk, 0).map(|()| disk)
}

/// A table, a gap that it reaches into, an absent region, and a partition of which every
/// fourth block is used.
pub fn usual(per_page: usize) -> Sample {
    let scattered = (0..200).map(|n| (n * 16_384, 4096)).collect();
    let regions = [
        (512, 3584, vec![(0, 3584)]),
        (4096, 100 << 10, vec![]),
        (1 << 20, 4 << 20, scattered),
        (5 << 20, 130 << 10, vec![(0, 130 << 10)]),
    ];
    sample(
        6 << 20,
        &[(0, 1024), ((6 << 20) - 512, 512)],
        &regions,
        per_page,
    )
}

/// One cell in each page, so many pages that opening does not read them.
pub fn large() -> Sample {
    let cells = EAGER_PAGES as u64 + 40;
    let size = cells * u64::from(CELL);
    let extents = (0..cells)
        .map(|n| (n * u64::from(CELL) + 512, 1024))
        .collect();
    sample(size, &[(0, 512)], &[(0, size, extents)], 1)
}
