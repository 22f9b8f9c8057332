//! Containers opened at random: every byte of the disk, from small and large images, from
//! several threads, and of damaged ones none.
//!
//! Owns: the comparison with a disk in memory. Does not own: the stored forms (the unit
//! tests and golden files).

use image::container::ContainerWriter;
use image::layout::{Blob, Disk, Region, Table};
use image::open::EAGER_PAGES;
use image::record::{Compression, Encoder};
use image::{BadRange, CellMap, Error, Layout, OpenImage, ReadAt, cells};
use proptest::prelude::*;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const CELL: u32 = 64 << 10;

/// A disk, what of it is used, and its image.
struct Sample {
    disk: Vec<u8>,
    used: Vec<(u64, u64)>,
    container: Vec<u8>,
}

/// A region: start, size, used extents.
type Part = (u64, u64, Vec<(u64, u64)>);

/// An empty list of extents in a region of odd number makes it absent. Pages hold
/// `per_page` cells.
fn sample(size: u64, blobs: &[(u64, usize)], regions: &[Part], per_page: usize) -> Sample {
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

fn layout_with(layout: &mut Layout, blobs: &[(u64, usize)]) -> Layout {
    layout.table.blobs = blobs
        .iter()
        .map(|&(offset, len)| Blob {
            offset,
            data: vec![0xb1; len],
        })
        .collect();
    layout.clone()
}

fn joined(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
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

fn used<S: ReadAt>(image: &OpenImage<S>, from: u64) -> Result<Vec<(u64, u64)>, Error> {
    image
        .used(from)
        .map(|range| range.map(|range| (range.start, range.len)))
        .collect()
}

fn whole<S: ReadAt>(image: &OpenImage<S>) -> Result<Vec<u8>, Error> {
    let mut disk = vec![0xee; image.disk_size() as usize];
    image.read_exact_at(&mut disk, 0).map(|()| disk)
}

/// A table, a gap that it reaches into, an absent region, and a partition of which every
/// fourth block is used.
fn usual(per_page: usize) -> Sample {
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

#[test]
fn every_range_of_the_disk_reads_as_it_was() {
    for per_page in [1024, 7, 1] {
        let sample = usual(per_page);
        let image = OpenImage::open(sample.container.clone()).unwrap();
        assert!(image.is_proved());
        assert!(whole(&image).unwrap() == sample.disk);
        assert_eq!(used(&image, 0).unwrap(), sample.used);
        let mut seed = 1u64;
        for _ in 0..500 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(11);
            let at = (seed >> 33) % (6 << 20);
            let len = ((seed >> 13) % (200 << 10)).min((6 << 20) - at) as usize;
            let mut buf = vec![0xee; len];
            image.read_exact_at(&mut buf, at).unwrap();
            assert!(buf == sample.disk[at as usize..][..len], "{len} at {at}");
        }
    }
}

#[test]
fn used_ranges_begin_where_they_are_asked_for() {
    let sample = usual(7);
    let image = OpenImage::open(sample.container).unwrap();
    for from in (0..6 << 20)
        .step_by(37_777)
        .chain([511, 4095, 4096, 6 << 20])
    {
        let expected: Vec<_> = sample
            .used
            .iter()
            .filter(|&&(start, len)| start + len > from)
            .map(|&(start, len)| (start.max(from), start + len - start.max(from)))
            .collect();
        assert_eq!(used(&image, from).unwrap(), expected, "from {from}");
    }
}

#[test]
fn regions_are_views_and_nothing_is_read_beyond_an_end() {
    let sample = usual(1024);
    let image = OpenImage::open(sample.container.clone()).unwrap();
    assert!(image.region(1).is_none(), "it is absent");
    assert!(image.region(4).is_none());
    // The table reaches into the gap.
    let gap = image.region(0).unwrap();
    let mut bytes = vec![0; 3584];
    gap.read_exact_at(&mut bytes, 0).unwrap();
    assert!(bytes == sample.disk[512..4096]);
    assert_eq!(bytes[0], 0xb1);
    assert!(gap.read_exact_at(&mut bytes, 1).is_err());
    assert_eq!(ReadAt::read_at(&gap, &mut bytes, 3000).unwrap(), 584);
    assert_eq!(gap.size().unwrap(), 3584);

    let mut buf = vec![0; 1000];
    let end = image.disk_size();
    for at in [end - 999, end, u64::MAX] {
        match image.read_exact_at(&mut buf, at).unwrap_err() {
            Error::Io { source, .. } => assert_eq!(source.kind(), io::ErrorKind::InvalidInput),
            other => panic!("{other}"),
        }
    }
    assert_eq!(image.read_at(&mut buf, end - 10).unwrap(), 10);
    assert_eq!(image.read_at(&mut buf, u64::MAX).unwrap(), 0);
}

/// A source that counts what is read from it.
struct Counting {
    bytes: Vec<u8>,
    read: AtomicU64,
}

impl ReadAt for Counting {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let count = self.bytes.read_at(buf, offset)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn size(&self) -> io::Result<u64> {
        self.bytes.size()
    }
}

/// One cell in each page, so many pages that opening does not read them.
fn large() -> Sample {
    let cells = EAGER_PAGES as u64 + 40;
    let size = cells * u64::from(CELL);
    let extents = (0..cells)
        .map(|n| (n * u64::from(CELL) + 512, 1024))
        .collect();
    sample(size, &[(0, 512)], &[(0, size, extents)], 1)
}

#[test]
fn a_large_image_is_open_before_its_pages_are_read() {
    let sample = large();
    let source = Counting {
        bytes: sample.container,
        read: AtomicU64::new(0),
    };
    let image = OpenImage::open(source).unwrap();
    assert!(!image.is_proved());
    let read = || image_read(&image);
    let index = (EAGER_PAGES as u64 + 40) * 16;
    assert!(read() < index + 2048, "{} bytes to open", read());
    let mut buf = vec![0; 4096];
    let at = sample.disk.len() - 4096 - 60_000;
    let before = read();
    image.read_exact_at(&mut buf, at as u64).unwrap();
    assert!(buf == sample.disk[at..at + 4096]);
    assert!(
        read() - before < 20_000,
        "{} bytes for one read",
        read() - before
    );

    assert!(whole(&image).unwrap() == sample.disk);
    assert_eq!(used(&image, 0).unwrap(), sample.used);
    image.prove().unwrap();
    assert!(image.is_proved());
    assert!(whole(&image).unwrap() == sample.disk);
}

fn image_read(image: &OpenImage<Counting>) -> u64 {
    image.source().read.load(Ordering::Relaxed)
}

/// Changes the used map of the first page, whose sectors 1 and 2 become 0 and 1, and
/// corrects the checksums.
fn forge(bytes: &mut [u8]) {
    let at = bytes.windows(6).position(|w| w == b"DSec\x02\0").unwrap();
    let map = at + 32 + 4 + 12;
    assert_eq!(bytes[map..map + 7], [2, 9, 3, 0, 0, 0, 0b110]);
    bytes[map + 6] = 0b011;
    let len = u32::from_le_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&bytes[at + 32..at + 32 + len]);
    bytes[at + 16..at + 20].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&bytes[at..at + 28]);
    bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_forged_page_fails_the_proof_and_every_read_after_it() {
    let mut sample = large();
    let bytes = &mut sample.container;
    forge(bytes);
    let image = OpenImage::open(sample.container.clone()).unwrap();
    let mut buf = [0; 512];
    image.read_exact_at(&mut buf, 8192).unwrap();
    assert!(image.prove().unwrap_err().to_string().contains("root"));
    assert!(image.read_exact_at(&mut buf, 8192).is_err());
    assert!(image.used(0).next().unwrap().is_err());
    assert!(image.prove().is_err());
}

/// A source whose content is changed while it is open.
struct Changing(Mutex<Vec<u8>>);

impl ReadAt for &Changing {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.lock().unwrap().read_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }
}

#[test]
fn a_page_that_changed_since_it_was_given_out_is_noticed() {
    let sample = large();
    let mut forged = sample.container.clone();
    forge(&mut forged);
    let source = Changing(Mutex::new(forged));
    let image = OpenImage::open(&source).unwrap();
    image.read_exact_at(&mut [0; 512], 8192).unwrap();
    *source.0.lock().unwrap() = sample.container;
    let error = image.prove().unwrap_err().to_string();
    assert!(error.contains("changed"), "{error}");
}

#[test]
fn threads_share_an_image() {
    let sample = usual(7);
    // Room for hardly more than one chunk.
    let image = OpenImage::open_with_cache(sample.container.clone(), 70_000).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let (image, disk) = (&image, &sample.disk);
            scope.spawn(move || {
                for turn in 0..40 {
                    let at = ((thread * 7 + turn * 13) % 60) * 100_000;
                    let mut buf = vec![0; 150_000];
                    image.read_exact_at(&mut buf, at).unwrap();
                    assert!(buf == disk[at as usize..][..150_000]);
                }
            });
        }
    });
}

#[test]
fn bad_ranges_read_as_zeros_and_are_told() {
    let mut layout = Layout::default();
    layout.disk.size_bytes = 8192;
    layout.disk.sector_size = 512;
    layout.cell_size = CELL;
    layout.table.kind = "none".into();
    layout.regions = vec![Region {
        kind: "whole".into(),
        size: 8192,
        used_bytes: 8192,
        method: "full".into(),
        ..Region::default()
    }];
    let mut plain = vec![9; 8192];
    plain[1024..1536].fill(0);
    let bad = [BadRange {
        region: 0,
        start: 1024,
        len: 512,
    }];
    let mut out = ContainerWriter::of_bad_disk(Vec::new(), &layout).unwrap();
    let cells: Vec<_> = cells::cut(0, CELL, [(0, 8192)]).collect();
    out.begin_page(&cells).unwrap();
    let mut record = Vec::new();
    let mut encoder = Encoder::new(Compression::None).unwrap();
    let header = encoder.encode(&plain, &mut record).unwrap();
    out.record(&header, &record).unwrap();
    let image = OpenImage::open(out.finish_with(&bad).unwrap().0).unwrap();
    assert_eq!(image.bad(), bad);
    assert!(whole(&image).unwrap() == plain);
}

#[test]
fn an_empty_image_is_all_zeros() {
    let sample = sample(10_000, &[], &[(0, 10_000, vec![])], 1);
    let image = OpenImage::open(sample.container).unwrap();
    assert!(whole(&image).unwrap() == sample.disk);
    assert_eq!(used(&image, 0).unwrap(), []);
}

#[test]
fn of_a_damaged_or_cut_container_no_wrong_byte_comes() {
    for sample in [usual(7), large()] {
        let length = sample.container.len();
        for cut in (0..length).step_by(1 + length / 50).chain([length - 1]) {
            assert!(OpenImage::open(&sample.container[..cut]).is_err(), "{cut}");
        }
        let mut longer = sample.container.clone();
        longer.push(0);
        assert!(OpenImage::open(longer).is_err());
        let (mut opened, mut refused) = (0, 0);
        for at in (0..length).step_by(1 + length / 400) {
            let mut bytes = sample.container.clone();
            bytes[at] ^= 0x10;
            let Ok(image) = OpenImage::open(bytes) else {
                continue;
            };
            opened += 1;
            // Without the proof too: what is damaged has a checksum. The record of a chunk
            // that occurs twice may not be wanted at all.
            match whole(&image) {
                Err(Error::Damaged { .. }) => refused += 1,
                Err(other) => panic!("{other}"),
                Ok(disk) => assert!(disk == sample.disk, "flip at {at}"),
            }
        }
        assert!(refused > opened / 2, "{refused} of {opened}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_extents_read_as_they_were(
        gaps in prop::collection::vec((0u64..40_000, 1u64..90_000), 0..40),
        lead in 0u64..5000,
        per_page in 1usize..9,
        reads in prop::collection::vec((0u64..3_000_000, 0usize..200_000), 20),
    ) {
        let mut at = 0;
        let extents: Vec<_> = gaps
            .iter()
            .map(|&(gap, len)| {
                let start = at + gap + 1;
                at = start + len;
                (start, len)
            })
            .collect();
        let size = lead + at + 700;
        let sample = sample(size, &[(lead / 2, 600)], &[(lead, at + 1, extents)], per_page);
        let image = OpenImage::open_with_cache(sample.container, 200_000).unwrap();
        prop_assert_eq!(used(&image, 0).unwrap(), sample.used);
        for (at, len) in reads {
            let at = at % size;
            let len = len.min((size - at) as usize);
            let mut buf = vec![0xee; len];
            image.read_exact_at(&mut buf, at).unwrap();
            prop_assert!(buf == sample.disk[at as usize..][..len]);
        }
    }

    #[test]
    fn any_bytes_open_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(OpenImage::open(bytes).is_err());
    }
}
