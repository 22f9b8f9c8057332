//! Checkpoints rewritten by recipe: what the tools do not make by themselves, crashes,
//! and fields that do not fit.
//!
//! Owns: the recipes. Does not own: images and oracles, which are the main file's.

use super::common::{FileDisk, peek, poke, whole};
use super::{BLOCK, SEGMENT, Told, empty, image, is_clean, region, wanted};
use diskmap::{DiskRead, Extents, Method, WarningKind};
use std::path::Path;

/// The checkpoint's flag of an unmount.
const UNMOUNTED: u32 = 1;

fn block(path: &Path, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    let disk = FileDisk::open(path);
    disk.read_exact_at(number * BLOCK, &mut bytes).unwrap();
    bytes
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn seal(bytes: &mut [u8]) {
    let sum = checksum(&bytes[..4092]).to_le_bytes();
    bytes[4092..].copy_from_slice(&sum);
}

/// Changes the checkpoint in the first pack: its blocks behind the first, and it.
fn rewrite(path: &Path, change: impl FnOnce(&mut [u8], &mut Vec<Vec<u8>>)) {
    let start = 512;
    let mut head = block(path, start);
    let total = u64::from(word(&head, 136));
    let mut inner: Vec<_> = (start + 1..start + total - 1)
        .map(|number| block(path, number))
        .collect();
    change(&mut head, &mut inner);
    head[136..140].copy_from_slice(&(inner.len() as u32 + 2).to_le_bytes());
    seal(&mut head);
    for (at, bytes) in std::iter::once(&head)
        .chain(&inner)
        .chain([&head])
        .enumerate()
    {
        poke(path, (start + at as u64) * BLOCK, bytes);
    }
}

fn set_flags(head: &mut [u8], set: u32, clear: u32) {
    let flags = (word(head, 132) | set) & !clear;
    head[132..136].copy_from_slice(&flags.to_le_bytes());
}

/// As after a crash: without the mark of an unmount, and without summaries of nodes.
fn crash(path: &Path) {
    rewrite(path, |head, inner| {
        set_flags(head, 0, UNMOUNTED);
        inner.truncate(3);
    });
}

/// Journal and summaries as the kernel packs them when there are few.
#[test]
fn packed_summaries() {
    let image = empty(100, &[]);
    let before = region(&image, 512).used;
    rewrite(&image.path, |head, inner| {
        let packed = word(head, 132) & 4 != 0;
        assert!(packed, "mkfs.f2fs packs them");
        // Unpacked: whole blocks of the data logs, the second journal in the third one.
        let journals = inner[0][..1014].to_vec();
        let nodes = inner.split_off(inner.len() - 3);
        *inner = vec![vec![0; 4096]; 3];
        inner[0][3584..4091].copy_from_slice(&journals[..507]);
        inner[2][3584..4091].copy_from_slice(&journals[507..]);
        assert!(journals[507] > 0, "the journal has segments");
        inner.extend(nodes);
        set_flags(head, 0, 4);
    });
    assert_eq!(wanted(&image.path, 100 << 20), before);
    assert_eq!(region(&image, 512).used, before);
}

/// Segment entries take turns between two places; the checkpoint says which counts.
#[test]
fn entries_in_their_second_place() {
    let image = image(128, &[]);
    let before = region(&image, 512).used;
    let told = Told::of(&image.path);
    let first = told.area("sit_blkaddr");
    let second = first + told.number("segment_count_sit") / 2 * SEGMENT;
    let entries = block(&image.path, first / BLOCK);
    poke(&image.path, second, &entries);
    poke(&image.path, first, &[0; BLOCK as usize]);
    rewrite(&image.path, |head, _| head[192] |= 0x80);
    assert_eq!(wanted(&image.path, 128 << 20), before);
    assert_eq!(region(&image, 512).used, before);
}

#[test]
fn after_a_crash_without_anything_to_recover_the_checkpoint_is_the_map() {
    let image = image(128, &[]);
    let before = region(&image, 512).used;
    crash(&image.path);
    assert!(is_clean(&image.path));
    let (region, map) = whole(&image.path);
    assert_eq!((region.method, &region.used), (Method::Used, &before));
    assert_eq!(region.used, wanted(&image.path, region.size));
    let kinds: Vec<_> = map.warnings.iter().map(|w| w.kind).collect();
    assert_eq!(kinds, [WarningKind::FsDirty]);
    assert!(map.warnings[0].detail.contains("nothing to recover"));
}

/// A node of the checkpoint's version in the next free block of the log: with the mark
/// of an unmount too, because a session that follows does not take it away at once.
#[test]
fn data_to_recover_makes_it_full() {
    let image = image(128, &[]);
    let told = Told::of(&image.path);
    let next = told.area("main_blkaddr")
        + told.number("cur_node_segno[1]") * SEGMENT
        + told.number("cur_node_blkoff[1]") * BLOCK;
    let version: [u8; 8] = peek(&image.path, 512 * BLOCK);
    assert_eq!(region(&image, 512).method, Method::Used);
    poke(&image.path, next + BLOCK - 12, &version);
    assert_full(&image.path, Some(WarningKind::FsDirty), "data to recover");
    crash(&image.path);
    assert_full(&image.path, Some(WarningKind::FsDirty), "data to recover");
    poke(&image.path, next + BLOCK - 12, &[version[0] ^ 1]);
    assert_eq!(whole(&image.path).0.method, Method::Used);
}

fn assert_full(path: &Path, kind: Option<WarningKind>, words: &str) {
    let (region, map) = whole(path);
    assert_eq!(
        (region.method, &region.used),
        (Method::Full, &Extents::whole(region.size)),
        "{words}"
    );
    let kinds: Vec<_> = map.warnings.iter().map(|w| w.kind).collect();
    assert_eq!(kinds, Vec::from_iter(kind), "{}", region.reason);
    assert!(region.reason.contains(words), "{}", region.reason);
}

#[test]
fn what_does_not_fit_is_copied_in_full() {
    use WarningKind::{FsDamaged, FsDirty};
    let image = empty(100, &["-O", "extra_attr,sb_checksum"]);
    let path = &image.path;
    let original = std::fs::read(path).unwrap();
    let (damaged, dirty) = (Some(FsDamaged), Some(FsDirty));
    let expect = |kind, words: &str| {
        assert_full(path, kind, words);
        poke(path, 0, &original[..8 << 20]);
        assert_eq!(whole(path).0.method, Method::Used);
    };
    // Fields of both superblocks, with the checksum made right again.
    let supers = |at: usize, bytes: &[u8], kind, words: &str| {
        for copy in [1024, 1024 + BLOCK as usize] {
            let mut raw = original[copy..copy + 3072].to_vec();
            raw[at..at + bytes.len()].copy_from_slice(bytes);
            let sum = checksum(&raw[..3068]).to_le_bytes();
            raw[3068..].copy_from_slice(&sum);
            poke(path, copy as u64, &raw);
        }
        expect(kind, words);
    };
    supers(16, &[14], None, "blocks of 2^14 bytes");
    supers(2180, &[0x0a, 0x08], None, "zoned");
    supers(2180, &[0x08, 0x48], None, "read-only kind");
    supers(2180, &[0x08, 0x88], None, "not all known");
    supers(2201, b"/dev/sdb", None, "several devices");
    supers(2794, &[1], damaged, "recorded errors");
    supers(92, &[1], damaged, "do not follow each other");
    supers(36, &[0, 1, 0, 0], damaged, "do not fit its length");
    supers(38, &[9], damaged, "says it has");
    supers(44, &[1], damaged, "sections");
    supers(1664, &[0xff, 0xff], damaged, "extra blocks");
    poke(path, 1024 + 110, &[original[1024 + 110] ^ 1]);
    expect(damaged, "checksum of its superblock");
    poke(path, 1024 + BLOCK + 110, &[1]);
    expect(damaged, "second superblock");

    // Words of the checkpoint, with its checksum made right again.
    let word_is = |at: usize, value: u32, kind, words: &str| {
        rewrite(path, |head, _| {
            head[at..at + 4].copy_from_slice(&value.to_le_bytes())
        });
        expect(kind, words);
    };
    let flags = word(&block(path, 512), 132);
    word_is(132, flags | 0x8, damaged, "were errors");
    word_is(132, flags | 0x10, damaged, "needs a check");
    word_is(132, flags | 0x1000, dirty, "switched off");
    word_is(132, flags | 0x4000, dirty, "interrupted");
    word_is(132, flags | 0x8000, None, "not all known");
    word_is(132, flags | 0x400, None, "older layout");
    word_is(132, flags & !4, damaged, "number of summaries");
    word_is(16, 1, damaged, "its checkpoint counts");
    word_is(144, 9, damaged, "of them nodes");
    word_is(36, 0xffff, damaged, "writes to segment 65535");
    word_is(156, 9, damaged, "wrong size");
    word_is(140, 99, damaged, "lie outside");
    poke(path, 512 * BLOCK + 9, &[1]);
    expect(dirty, "one of its two checkpoints");
    poke(path, 512 * BLOCK + 9, &[1]);
    poke(path, 1024 * BLOCK + 9, &[1]);
    expect(damaged, "neither of its checkpoints");

    // The journal of segments, behind that of nodes in the only summary block.
    let journal = |at: usize, bytes: &[u8], words: &str| {
        rewrite(path, |_, inner| {
            inner[0][507 + at..][..bytes.len()].copy_from_slice(bytes)
        });
        expect(damaged, words);
    };
    journal(0, &[7], "journal of its checkpoint has 7 entries");
    journal(2, &[0xff, 0xff], "names segment 65535");
    let second = block(path, 513)[507 + 80..][..4].to_vec();
    journal(2, &second, "names a segment twice");
    journal(6, &[2], "in its count");
    journal(7, &[0xff], "in its count");
}

/// The checksum of F2FS: CRC-32 from its magic number, nothing inverted.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf2f5_2010u32, |mut sum, &byte| {
        sum ^= u32::from(byte);
        for _ in 0..8 {
            sum = sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
        sum
    })
}
