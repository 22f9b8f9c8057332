//! File systems with random bytes in their metadata: an answer, never a panic, and
//! a map only of what is there.

mod common;

use common::{FileDisk, Numbers, ok, s, sparse};
use diskmap::{DiskRead, Geometry, Method, ScanOptions, scan};
use std::io;

/// A disk in memory whose every read can be made to fail from some byte on.
struct Faulty<'a>(&'a [u8], u64);

impl DiskRead for Faulty<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset + buf.len() as u64 > self.1 {
            return Err(io::Error::other("bad sector"));
        }
        self.0.read_exact_at(offset, buf)
    }
}

fn made(tool: &str, args: &[&str], mib: u64) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), mib << 20);
    let mut all = args.to_vec();
    all.push(s(&path));
    ok(tool, &all);
    let disk = FileDisk::open(&path);
    let mut data = vec![0; disk.size() as usize];
    disk.read_exact_at(0, &mut data).unwrap();
    data
}

/// Overwrites a few bytes in the first KiB-sized pieces, where metadata lives.
fn mutate(original: &[u8], rounds: u64) {
    let geometry = Geometry {
        size_bytes: original.len() as u64,
        sector_size: 512,
    };
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    let (mut used, mut full) = (0, 0);
    let mut disk = original.to_vec();
    for _ in 0..rounds {
        let mut old = Vec::new();
        for _ in 0..1 + numbers.below(3) {
            let area = [512, 2048, 4096, 16384][numbers.below(4) as usize];
            let at = (numbers.below(area) + if numbers.below(2) == 0 { 0 } else { 1024 }) as usize;
            let value = match numbers.below(4) {
                0 => 0xff,
                1 => 0,
                2 => 1 << numbers.below(8),
                _ => numbers.next() as u8,
            };
            old.push((at, disk[at]));
            disk[at] = value;
        }
        let map = scan(&disk, geometry, &ScanOptions::default());
        for region in map.iter().flat_map(|map| &map.regions) {
            assert!(region.used.end() <= region.size);
            match region.method {
                Method::Used => used += 1,
                Method::Full => {
                    full += 1;
                    assert_eq!(region.used.total(), region.size);
                }
                Method::Absent => panic!("nothing was left out"),
            }
        }
        let limit = numbers.below(geometry.size_bytes);
        let _ = scan(&Faulty(&disk, limit), geometry, &ScanOptions::default());
        old.into_iter()
            .rev()
            .for_each(|(at, value)| disk[at] = value);
    }
    assert!(
        used > 0 && full > 0,
        "the mutations reach nothing: {used} used, {full} full"
    );
}

#[test]
fn ext2() {
    mutate(
        &made("mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024"], 20),
        400,
    );
}

#[test]
fn ext3() {
    mutate(
        &made("mke2fs", &["-q", "-F", "-t", "ext3", "-b", "1024"], 20),
        400,
    );
}

#[test]
fn ext4_without_checksums() {
    let args = [
        "-q",
        "-F",
        "-t",
        "ext4",
        "-b",
        "1024",
        "-O",
        "^metadata_csum,bigalloc,^resize_inode,meta_bg",
    ];
    mutate(&made("mke2fs", &args, 20), 400);
}

#[test]
fn fat12() {
    mutate(&made("mkfs.fat", &["-F", "12"], 4), 400);
}

#[test]
fn fat32() {
    mutate(&made("mkfs.fat", &["-F", "32", "-s", "1"], 34), 400);
}

#[test]
fn exfat() {
    mutate(&made("mkfs.exfat", &["-c", "512", "-b", "4K"], 4), 400);
}

#[test]
fn swap() {
    mutate(&made("mkswap", &["-q"], 1), 400);
}

#[test]
fn a_read_error_is_told_with_its_place_and_full_goes_on() {
    let disk = made("mke2fs", &["-q", "-F", "-t", "ext2", "-b", "1024"], 20);
    let geometry = Geometry {
        size_bytes: disk.len() as u64,
        sector_size: 512,
    };
    let faulty = Faulty(&disk, 2048);
    let error = scan(&faulty, geometry, &ScanOptions::default()).unwrap_err();
    assert_eq!(error.code(), "read-error");
    let map = scan(
        &faulty,
        geometry,
        &ScanOptions {
            full: true,
            strict: true,
        },
    )
    .unwrap();
    assert_eq!(map.regions[0].used.total(), geometry.size_bytes);
}
