//! Btrfs that contradicts itself, with checksums that are right: each lie is seen.
//!
//! Owns: changing superblocks and tree nodes so that their checksums hold. Does not
//! own: what the fuzzer finds.

use crate::common::{ok, peek, poke, s, whole, whole_used};
use crate::image::Image;
use crate::oracle::{assert_matches, oracle};
use diskmap::{Extents, Method, WarningKind};
use std::path::Path;

pub const SUPER: u64 = 65536;
pub const NODE: usize = 16384;
/// Bytes of a node's header; addresses in heads of items count from its end.
pub const HEADER: usize = 101;

/// CRC-32C, one bit at a time.
fn crc32c(data: &[u8]) -> u32 {
    !data.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 }
        })
    })
}

/// Overwrites bytes behind a checksum and corrects it.
pub fn lie<const N: usize>(path: &Path, place: u64, offset: usize, value: &[u8]) {
    let mut block: [u8; N] = peek(path, place);
    block[offset..offset + value.len()].copy_from_slice(value);
    let sum = crc32c(&block[32..]);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    poke(path, place, &block);
}

/// Copied in full for a reason with these words, and with a warning of that kind.
pub fn assert_full(path: &Path, kind: Option<WarningKind>, words: &str) {
    let (region, map) = whole(path);
    assert_eq!(region.method, Method::Full, "{words}: {}", region.reason);
    assert_eq!(region.used, Extents::whole(region.size));
    assert_eq!(region.file_system, "btrfs");
    assert!(region.reason.contains(words), "{words}: {}", region.reason);
    let kinds: Vec<_> = map.warnings.iter().map(|w| w.kind).collect();
    assert_eq!(kinds, kind.into_iter().collect::<Vec<_>>(), "{words}");
}

/// Puts the bytes there, looks, and puts the old ones back.
fn seen<const N: usize>(
    path: &Path,
    place: u64,
    (offset, value): (usize, &[u8]),
    kind: Option<WarningKind>,
    words: &str,
) {
    let old: [u8; N] = peek(path, place);
    lie::<N>(path, place, offset, value);
    assert_full(path, kind, words);
    poke(path, place, &old);
}

const DAMAGED: Option<WarningKind> = Some(WarningKind::FsDamaged);
const DIRTY: Option<WarningKind> = Some(WarningKind::FsDirty);

#[test]
fn superblocks() {
    let image = Image::new(128, &[]);
    let path = &image.path;
    let dump = ok("btrfs", &["inspect-internal", "dump-super", s(path)]);
    let features: [u8; 8] = peek(path, SUPER + 0xbc);
    assert!(dump.contains(&format!(
        "incompat_flags\t\t{:#x}",
        u64::from_le_bytes(features)
    )));
    let with = |bit: u32| (u64::from_le_bytes(features) | 1 << bit).to_le_bytes();
    let look = |offset, value: &[u8], kind, words| {
        seen::<4096>(path, SUPER, (offset, value), kind, words);
    };
    look(0xbc, &with(12), None, "it is zoned");
    look(0xbc, &with(13), None, "second version of the extent tree");
    look(0xbc, &with(14), None, "it has a stripe tree");
    look(0xbc, &with(17), None, "it has a remap tree");
    look(0xbc, &with(40), None, "it has unknown features");
    look(0xbc, &[0x40], None, "it is of the first version");
    look(0xb4, &[0x13], None, "it has unknown features");
    look(0xac, &[1], None, "it has unknown features");
    look(0xb4, &[0x0b], DAMAGED, "do not agree on block groups");
    look(0x38, &[5], DIRTY, "errors were found in it");
    look(0x3c, &[1], None, "it is the seed of other file systems");
    look(0x3c, &[2], None, "it is a dump of metadata only");
    look(0x3c, &[8], None, "a conversion of it is not finished");
    look(0xc4, &[9], None, "its kind of checksum is not known");
    look(0x88, &[0], DAMAGED, "it says it has no device");
    look(0x88, &[3], None, "it is one of 3 devices");
    look(0xc9, &[0], None, "it is the target of a replacement");
    look(0xc9, &[2], DAMAGED, "lies on another device");
    look(
        0xc9 + 82,
        &[0; 16],
        DAMAGED,
        "its device belongs to another file system",
    );
    look(
        0x30,
        &[1],
        DAMAGED,
        "its superblock is a copy of another place",
    );
    look(0x90, &[1], DAMAGED, "are impossible");
    look(0x94, &[0, 0x10], DAMAGED, "node");
    look(
        0xa0,
        &[0xff, 0xff],
        DAMAGED,
        "its array of system chunks is too long",
    );
    look(
        0xa0,
        &[100],
        DAMAGED,
        "its array of system chunks is cut short",
    );
    look(0xc6, &[8], DAMAGED, "the root of tree 1 is impossible");
    look(0xc6, &[1], DAMAGED, "of another level");
    look(0x48, &[99], DAMAGED, "of another generation");
    look(0x50, &[0; 8], DAMAGED, "is in no chunk");
    look(0x60, &[0, 0, 1], DAMAGED, "is in no chunk");
    look(0x78, &[1], DAMAGED, "the superblock says");
    look(0xd1 + 5, &[1], DAMAGED, "says it has");
    look(
        0x32b + 17,
        &[0, 0, 1],
        DAMAGED,
        "other system chunks than its chunk tree",
    );
    whole_used(path);
    let [byte] = peek::<1>(path, SUPER + 0x12b);
    poke(path, SUPER + 0x12b, &[byte ^ 1]);
    assert_full(path, DAMAGED, "wrong checksum of its superblock");
}

/// The leaf that a tree consists of: its place on the device, and its items' heads and
/// data by kind of key.
pub struct Leaf {
    pub place: u64,
    pub bytes: [u8; NODE],
}

impl Leaf {
    pub fn find(path: &Path, tree: &str) -> Leaf {
        let dump = ok("btrfs", &["inspect-internal", "dump-tree", s(path)]);
        let owner = format!(" owner {tree}");
        let line = dump
            .lines()
            .find(|l| l.starts_with("leaf ") && l.ends_with(&owner));
        let logical: u64 = line.unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        Leaf::at(path, logical)
    }

    /// By its logical address.
    pub fn at(path: &Path, logical: u64) -> Leaf {
        let oracle = oracle(path);
        let inside = |c: &&crate::oracle::Copy| (c.logical..c.logical + c.len).contains(&logical);
        let chunk = oracle.chunks.iter().find(inside).unwrap();
        let place = chunk.place + logical - chunk.logical;
        Leaf {
            place,
            bytes: peek(path, place),
        }
    }

    /// Places in the leaf of the head and the data of the `nth` item of a kind.
    pub fn item(&self, kind: u8, nth: usize) -> (usize, usize) {
        let head = (0..)
            .map(|at| HEADER + at * 25)
            .filter(|&head| self.bytes[head + 8] == kind)
            .nth(nth)
            .unwrap();
        let offset: [u8; 4] = self.bytes[head + 17..head + 21].try_into().unwrap();
        (head, HEADER + u32::from_le_bytes(offset) as usize)
    }

    pub fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    pub fn seen(
        &self,
        path: &Path,
        offset: usize,
        value: &[u8],
        kind: Option<WarningKind>,
        words: &str,
    ) {
        seen::<NODE>(path, self.place, (offset, value), kind, words);
    }
}

const SINGLE: &[&str] = &["-d", "single", "-m", "single"];

#[test]
fn tree_nodes() {
    let image = Image::new(128, SINGLE);
    let path = &image.path;
    for tree in ["CHUNK_TREE", "ROOT_TREE", "EXTENT_TREE", "DEV_TREE"] {
        let leaf = Leaf::find(path, tree);
        let look = |offset, value: &[u8], words| leaf.seen(path, offset, value, DAMAGED, words);
        look(0x20, &[leaf.bytes[0x20] ^ 1], "of another file system");
        look(0x30, &[1], "of another place");
        look(0x38, &[0], "never written");
        look(0x50, &[leaf.bytes[0x50] ^ 1], "of another generation");
        look(0x58, &[77], "of another tree");
        look(96, &[0xff, 0xff], "too full");
        look(100, &[1], "of another level");
        look(HEADER, &[0xff; 17], "out of order");
        look(HEADER + 17, &[1, 0], "of items that overlap or leave gaps");
        look(
            HEADER + 21,
            &[0xff; 4],
            "of items that overlap or leave gaps",
        );
        poke(path, leaf.place + 5000, &[leaf.bytes[5000] ^ 1]);
        assert_full(path, DAMAGED, "wrong checksum");
        poke(path, leaf.place + 5000, &[leaf.bytes[5000]]);
    }
    whole_used(path);
}

#[test]
fn chunks_and_device_extents() {
    let image = Image::new(128, SINGLE);
    let path = &image.path;
    let leaf = Leaf::find(path, "CHUNK_TREE");
    let look = |offset, value: &[u8], kind, words| leaf.seen(path, offset, value, kind, words);
    let (device, _) = leaf.item(216, 0);
    look(device + 9, &[9], None, "it has another device, too");
    look(device + 8, &[217], None, "items of kind 217");
    let (_, first) = leaf.item(228, 0);
    let (head, second) = leaf.item(228, 1);
    look(head + 9 + 5, &[1], DAMAGED, "");
    look(second, &[1], DAMAGED, "is impossible");
    look(second + 16, &[1], DAMAGED, "is impossible");
    look(second + 25, &[0x80], None, "is of an unknown kind");
    look(
        second + 24,
        &[0x44],
        None,
        "has a profile for several devices",
    );
    look(second + 24, &[0x24], DAMAGED, "has 1 stripes");
    look(second + 24, &[5], DAMAGED, "of an impossible kind");
    look(second + 44, &[2], DAMAGED, "is impossible");
    look(second + 48, &[2], DAMAGED, "lies on another device");
    look(second + 64, &[0; 16], DAMAGED, "lies on another device");
    look(second + 56 + 5, &[1], DAMAGED, "leaves the device");
    look(
        second + 56,
        &leaf.u64(first + 56).to_le_bytes(),
        DAMAGED,
        "overlap on the device",
    );
    look(first, &(1u64 << 40).to_le_bytes(), DAMAGED, "");

    let leaf = Leaf::find(path, "DEV_TREE");
    let look = |offset, value: &[u8], kind, words| leaf.seen(path, offset, value, kind, words);
    let (head, extent) = leaf.item(204, 0);
    look(head + 8, &[203], None, "items of kind 203");
    look(
        96,
        &[leaf.bytes[96] - 1],
        DAMAGED,
        "does not know of the chunk",
    );
    look(extent + 16, &[1], DAMAGED, "is of no chunk");
    look(extent + 24, &[1], DAMAGED, "is of no chunk");
    whole_used(path);
}

#[test]
fn extents_and_block_groups() {
    let image = Image::new(128, SINGLE);
    let path = &image.path;
    let leaf = Leaf::find(path, "EXTENT_TREE");
    let look = |offset, value: &[u8], kind, words| leaf.seen(path, offset, value, kind, words);
    let (head, extent) = leaf.item(168, 0);
    look(head + 9, &[1], DAMAGED, "is out of place");
    look(head + 9 + 3, &[1], DAMAGED, "is in no chunk");
    look(
        head + 9,
        &(leaf.u64(head + 9) - 4096).to_le_bytes(),
        DAMAGED,
        "which says",
    );
    look(extent + 16, &[2], DAMAGED, "is of another kind");
    look(extent + 16, &[3], DAMAGED, "is of another kind");
    let (head, group) = leaf.item(192, 0);
    look(
        group,
        &(leaf.u64(group) + 4096).to_le_bytes(),
        DAMAGED,
        "which says",
    );
    look(
        group + 16,
        &[leaf.bytes[group + 16] ^ 7],
        DAMAGED,
        "has no chunk like it",
    );
    look(
        head + 9,
        &(leaf.u64(head + 9) + 4096).to_le_bytes(),
        DAMAGED,
        "has no chunk like it",
    );
    let (head, node) = leaf.item(169, 0);
    look(head + 9, &[8], DAMAGED, "is too deep");
    look(node + 16, &[1], DAMAGED, "is of another kind");
    look(head + 8, &[173], None, "items of kind 173");
    whole_used(path);
}

/// An extent item that is moved away from a tree node, so that all counters hold.
#[test]
fn a_tree_node_in_free_space() {
    let image = Image::new(128, SINGLE);
    let leaf = Leaf::find(&image.path, "EXTENT_TREE");
    let own = leaf.u64(0x30);
    let all: Vec<usize> = (0..)
        .map_while(|nth| (HEADER + nth * 25 < leaf.item(192, 2).0 + 500).then_some(nth))
        .map(|nth| HEADER + nth * 25)
        .filter(|&head| leaf.bytes[head + 8] == 169)
        .collect();
    let at = all.iter().position(|&head| leaf.u64(head) == own).unwrap();
    // The last one before a gap moves up, and so does each between.
    let gap = (at..)
        .find(|&i| {
            all.get(i + 1)
                .is_none_or(|&n| leaf.u64(n) > leaf.u64(all[i]) + NODE as u64)
        })
        .unwrap();
    let mut bytes = leaf.bytes;
    for &head in &all[at..=gap] {
        let moved = leaf.u64(head) + NODE as u64;
        bytes[head..head + 8].copy_from_slice(&moved.to_le_bytes());
    }
    leaf.seen(&image.path, 32, &bytes[32..], DAMAGED, "lies in free space");
}

/// One bad copy of a tree node is no loss, two are.
#[test]
fn one_of_two_copies_is_enough() {
    let image = Image::new(128, &[]);
    let path = &image.path;
    let right = whole_used(path).used;
    for tree in ["CHUNK_TREE", "ROOT_TREE", "EXTENT_TREE"] {
        let leaf = Leaf::find(path, tree);
        poke(path, leaf.place + 200, &[leaf.bytes[200] ^ 1]);
    }
    let (region, map) = whole(path);
    assert_eq!((region.method, &region.used), (Method::Used, &right));
    assert_eq!(map.warnings.len(), 1, "{:?}", map.warnings);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDamaged);
    assert!(
        map.warnings[0]
            .detail
            .contains("of 3 of its tree nodes one of two copies is bad")
    );

    let leaf = Leaf::find(path, "ROOT_TREE");
    let copies = oracle(path);
    let chunk = copies
        .chunks
        .iter()
        .find(|c| c.number == 0 && (c.place..c.place + c.len).contains(&leaf.place))
        .unwrap();
    let second = copies
        .chunks
        .iter()
        .find(|c| c.number == 1 && c.logical == chunk.logical)
        .unwrap();
    poke(
        path,
        second.place + (leaf.place - chunk.place) + 300,
        &[0xee; 9],
    );
    assert_full(path, DAMAGED, "wrong checksum");
    assert_matches(&right, &copies);
}
