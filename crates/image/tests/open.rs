//! Containers opened at random: every byte of the disk, from small and large images, from
//! several threads, and of damaged ones none.
//!
//! Owns: the comparison with a disk in memory. Does not own: damaged containers
//! (`open_damaged`), or the stored forms (the unit tests and golden files).

mod opened;

use image::container::ContainerWriter;
use image::layout::Region;
use image::open::EAGER_PAGES;
use image::record::{Compression, Encoder};
use image::{BadRange, Error, Layout, OpenImage, ReadAt, cells};
use opened::{CELL, large, sample, used, usual, whole};
use proptest::prelude::*;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

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
fn used_ranges_end_where_they_are_asked_for() {
    let sample = usual(7);
    let image = OpenImage::open(sample.container).unwrap();
    let size = 6u64 << 20;
    for from in (0..size).step_by(137_777).chain([511, 4096, size]) {
        for len in [0, 1, 512, 5000, 70_000, 900_000, size] {
            let until = from + len;
            let inside = sample.used.iter().filter_map(|&(start, len)| {
                let (start, end) = (start.max(from), (start + len).min(until));
                (start < end).then(|| (start, end - start))
            });
            let found = image.used_within(from, until);
            let found: Vec<_> = found
                .map(|range| range.map(|range| (range.start, range.len)))
                .collect::<Result<_, _>>()
                .unwrap();
            assert_eq!(found, inside.collect::<Vec<_>>(), "{from} to {until}");
        }
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

/// Whoever asks for the first bytes of a long used range does not wait for its end.
#[test]
fn a_piece_of_a_used_range_does_not_cost_all_of_it() {
    let size = (EAGER_PAGES as u64 + 40) * u64::from(CELL);
    let sample = sample(size, &[], &[(0, size, vec![(0, size)])], 1);
    let image = OpenImage::open(Counting {
        bytes: sample.container,
        read: AtomicU64::new(0),
    })
    .unwrap();
    for from in [0, size / 2] {
        let before = image_read(&image);
        let first = image.used_within(from, from + 4096).next().unwrap();
        assert_eq!(first.unwrap().len, 4096);
        let cost = image_read(&image) - before;
        assert!(cost < 20_000, "{cost} bytes for one range");
    }
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
