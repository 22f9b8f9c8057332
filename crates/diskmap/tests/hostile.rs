//! File systems with random bytes in their metadata: an answer, never a panic, and
//! a map only of what is there.

mod common;

use common::{FileDisk, Numbers, ok, s, sparse};
use diskmap::{DiskRead, Geometry, Method, ScanOptions, scan};
use std::io;
use std::ops::Range;

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

/// Changes bytes at the given places and makes the checksums right again, so that the
/// fields behind them are reached. All places lie before `front`.
fn mutate_sealed(original: &[u8], front: usize, places: &[Range<usize>], seal: fn(&mut [u8])) {
    let geometry = Geometry {
        size_bytes: original.len() as u64,
        sector_size: 512,
    };
    let mut numbers = Numbers(0xfeed_5eed_1234_5678);
    let (mut used, mut full) = (0, 0);
    let mut disk = original.to_vec();
    for _ in 0..600 {
        for _ in 0..1 + numbers.below(3) {
            let place = &places[numbers.below(places.len() as u64) as usize];
            let at = place.start + numbers.below(place.len() as u64) as usize;
            disk[at] = match numbers.below(4) {
                0 => 0xff,
                1 => 0,
                2 => disk[at] ^ 1 << numbers.below(8),
                _ => numbers.next() as u8,
            };
        }
        seal(&mut disk);
        if let Ok(map) = scan(&disk, geometry, &ScanOptions::default()) {
            for region in map.regions {
                assert!(region.used.end() <= region.size);
                if region.method == Method::Used {
                    used += 1;
                } else {
                    full += 1;
                    assert_eq!(region.used.total(), region.size);
                }
            }
        }
        disk[..front].copy_from_slice(&original[..front]);
    }
    assert!(used > 20 && full > 20, "{used} used, {full} full");
}

#[test]
fn exfat_behind_its_checksums() {
    let disk = made("mkfs.exfat", &["-c", "512", "-b", "4K"], 4);
    let at = |word: usize| u32::from_le_bytes(disk[word..word + 4].try_into().unwrap()) as usize;
    let (table, heap) = (at(80) * 512, at(88) * 512);
    let root = heap + (at(96) - 2) * 512;
    let places = [
        64..113,
        64..113,
        table..table + 160,
        root..root + 96,
        heap..heap + 16,
    ];
    mutate_sealed(&disk, disk.len(), &places, |disk| {
        let sum = (0..11 * 512)
            .filter(|at| ![106, 107, 112].contains(at))
            .fold(0u32, |sum, at| {
                sum.rotate_right(1).wrapping_add(disk[at].into())
            });
        for slot in disk[11 * 512..12 * 512].chunks_mut(4) {
            slot.copy_from_slice(&sum.to_le_bytes());
        }
        disk.copy_within(..12 * 512, 12 * 512);
    });
}

#[test]
fn f2fs_behind_its_checksums() {
    const PACKS: [usize; 2] = [512 * 4096, 1024 * 4096];
    let disk = made("mkfs.f2fs", &["-q", "-O", "extra_attr,sb_checksum"], 64);
    let (pack, entries) = (PACKS[0], 1536 * 4096);
    let places = [
        1024 + 4..1024 + 124,
        pack..pack + 170,
        pack + 132..pack + 172,
        pack + 192..pack + 260,
        // The journals in the summaries, and the entries.
        pack + 4096..pack + 4096 + 1014,
        pack + 4096 + 507..pack + 4096 + 1014,
        entries..entries + 1000,
    ];
    mutate_sealed(&disk, 8 << 20, &places, |disk| {
        let seal = |bytes: &mut [u8], at: usize| {
            let sum = bytes[..at].iter().fold(0xf2f5_2010u32, |mut sum, &byte| {
                sum ^= u32::from(byte);
                for _ in 0..8 {
                    sum = sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
                }
                sum
            });
            bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        };
        seal(&mut disk[1024..1024 + 3072], 3068);
        disk.copy_within(1024..1024 + 3072, 4096 + 1024);
        let head = &mut disk[PACKS[0]..PACKS[0] + 4096];
        head[164..168].copy_from_slice(&4092u32.to_le_bytes());
        seal(head, 4092);
        let total = u32::from_le_bytes(head[136..140].try_into().unwrap()) as usize;
        let last = PACKS[0] + (total.clamp(1, 512) - 1) * 4096;
        disk.copy_within(PACKS[0]..PACKS[0] + 4096, last);
    });
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
