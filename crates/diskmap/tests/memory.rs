//! Memory that the maps of very large file systems take. The only test of its program:
//! the peak is that of the whole process.

mod common;

use common::{MIB, ok, peek, poke, s, sparse, whole_used};

/// Most memory that this process had, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() * 1024
}

#[test]
fn two_tebibytes_take_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("f2fs"), 2 << 40);
    ok("mkfs.f2fs", &["-q", "-t", "0", s(&path)]);
    let used = whole_used(&path).used;
    // The summaries alone would be 4 GiB.
    assert!(used.total() < 300 * MIB, "{}", used.total());
    std::fs::remove_file(&path).unwrap();

    let path = sparse(&dir.path().join("exfat"), 2 << 40);
    ok("mkfs.exfat", &["-c", "128K", s(&path)]);
    let before = whole_used(&path).used.total();
    // Every second cluster of the first half million behind the volume's own.
    let heap = u64::from(u32::from_le_bytes(peek(&path, 88))) * 512;
    poke(&path, heap + 1024, &[0x55; 64 << 10]);
    let used = whole_used(&path).used;
    assert_eq!(used.total(), before + (256 << 10) * (128 << 10));
    assert!(used.len() > 256 << 10);
    assert!(peak() < 64 * MIB, "{} MiB", peak() / MIB);
}
