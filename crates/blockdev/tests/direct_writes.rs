//! Writes past the page cache, on loop devices of both sector sizes. Needs root.

use blockdev::Device;
use std::path::Path;
use testkit::build::Random;
use testkit::loopdev::LoopDevice;

const SIZE: usize = 24 << 20;
const THREADS: usize = 4;

fn disk(sector_size: u32) -> (tempfile::TempDir, LoopDevice) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("disk");
    std::fs::write(&file, vec![0xee; SIZE]).unwrap();
    let device = LoopDevice::attach(&file, sector_size);
    (dir, device)
}

/// Bytes that the device was given to write, whether they are durable or not.
fn given(device: &Path) -> u64 {
    let name = device.file_name().unwrap().to_str().unwrap();
    let stat = std::fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
    stat.split_whitespace()
        .nth(6)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 512
}

#[test]
fn neighbours_of_any_length_by_many_threads_all_arrive() {
    for (seed, sector_size) in (0..4).flat_map(|seed| [(seed, 512), (seed, 4096)]) {
        let (_dir, disk) = disk(sector_size);
        let mut device = Device::open_write(disk.path()).unwrap();
        device.write_directly();
        let mut random = Random::new(seed);
        let content = random.bytes(SIZE);
        // From one sector to 700 KiB, side by side: pages are shared by neighbours.
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < SIZE {
            let sectors = match random.below(3) {
                0 => 1 + random.below(8),
                1 => 1 + random.below(300),
                _ => 1 + random.below(1400),
            };
            let len = usize::try_from(sectors).unwrap() * 512;
            let len = len.next_multiple_of(sector_size as usize).min(SIZE - at);
            pieces.push((at, len));
            at += len;
        }
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (device, pieces, content) = (&device, &pieces, &content);
                scope.spawn(move || {
                    for &(at, len) in pieces.iter().skip(thread).step_by(THREADS) {
                        let bytes = &content[at..at + len];
                        device.write_all_at(at as u64, bytes).unwrap();
                    }
                });
            }
        });
        // By the same handle first: what its cache has may not be older.
        let mut through_cache = vec![0; SIZE];
        device.read_exact_at(0, &mut through_cache).unwrap();
        device.invalidate_cache().unwrap();
        let mut found = vec![0; SIZE];
        let medium = Device::open_direct_read(disk.path()).unwrap();
        medium.read_exact_at(0, &mut found).unwrap();
        let wrong = |read: &[u8]| read.iter().zip(&content).position(|(a, b)| a != b);
        assert_eq!(wrong(&through_cache), None, "cache, seed {seed}");
        assert_eq!(wrong(&found), None, "medium, seed {seed}, {sector_size}");
    }
}

#[test]
fn large_writes_do_not_wait_in_the_cache() {
    let (_dir, disk) = disk(512);
    let mut device = Device::open_write(disk.path()).unwrap();
    device.write_directly();
    let before = given(disk.path());
    device.write_all_at(512, &vec![7; 8 << 20]).unwrap();
    let whole_pages = (8 << 20) - 4096;
    assert!(given(disk.path()) - before >= whole_pages);
}

#[test]
fn small_writes_wait_in_the_cache_unless_they_may_not() {
    let (_dir, disk) = disk(512);
    let mut device = Device::open_write(disk.path()).unwrap();
    device.write_directly();
    let before = given(disk.path());
    device.write_past_cache(8192, &[7; 4096]).unwrap();
    assert_eq!(given(disk.path()) - before, 4096);
    // Part of a page is the cache's in any case.
    device.write_past_cache(512, &[9; 512]).unwrap();
    device.flush().unwrap();
    let mut found = vec![0; 12288];
    device.read_exact_at(0, &mut found).unwrap();
    assert!(found[512..1024].iter().all(|&byte| byte == 9));
    assert!(found[8192..].iter().all(|&byte| byte == 7));
    assert!(found[1024..8192].iter().all(|&byte| byte == 0xee));
}

#[test]
fn a_write_past_the_end_is_refused_whole() {
    let (_dir, disk) = disk(512);
    let mut device = Device::open_write(disk.path()).unwrap();
    device.write_directly();
    let bytes = vec![1; 1 << 20];
    let start = SIZE as u64 - (1 << 19);
    device.write_all_at(start, &bytes).unwrap_err();
    let mut found = vec![0; 1 << 19];
    device.read_exact_at(start, &mut found).unwrap();
    assert!(found.iter().all(|&byte| byte == 0xee));
}
