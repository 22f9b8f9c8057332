//! A tree of block groups, which the tools at hand cannot make.
//!
//! Owns: moving the block group items of a new file system to a tree of their own, by
//! rewriting leaves. Does not own: the proof that it was done right, which is left to the
//! tools and the kernel: they must take the result.

use crate::common::{ok, peek, poke, s, whole_used};
use crate::damage::{HEADER, Leaf, NODE, SUPER, lie};
use crate::image::{self, Image};
use crate::oracle::{assert_matches, oracle};

const GROUP_TREE: u64 = 11;
const ROOT_ITEM: u8 = 132;
const METADATA: u8 = 169;
const GROUP: u8 = 192;
const FREE: u8 = 199;

/// Key and data.
type Item = ([u8; 17], Vec<u8>);

fn key(object: u64, kind: u8, offset: u64) -> [u8; 17] {
    let mut key = [0; 17];
    key[..8].copy_from_slice(&object.to_le_bytes());
    key[8] = kind;
    key[9..].copy_from_slice(&offset.to_le_bytes());
    key
}

fn object(item: &Item) -> u64 {
    u64::from_le_bytes(item.0[..8].try_into().unwrap())
}

fn offset(item: &Item) -> u64 {
    u64::from_le_bytes(item.0[9..].try_into().unwrap())
}

/// Adds to a number.
fn add(data: &mut [u8], at: usize, more: u64) {
    let value = u64::from_le_bytes(data[at..at + 8].try_into().unwrap()) + more;
    data[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn items(leaf: &Leaf) -> Vec<Item> {
    let number = |at: usize| u32::from_le_bytes(leaf.bytes[at..at + 4].try_into().unwrap());
    (0..number(96) as usize)
        .map(|at| {
            let head = HEADER + at * 25;
            let start = HEADER + number(head + 17) as usize;
            let data = &leaf.bytes[start..start + number(head + 21) as usize];
            (
                leaf.bytes[head..head + 17].try_into().unwrap(),
                data.to_vec(),
            )
        })
        .collect()
}

/// Writes a leaf with these items to a place on the device.
fn write(
    path: &std::path::Path,
    place: u64,
    like: &Leaf,
    (bytenr, owner): (u64, u64),
    mut list: Vec<Item>,
) {
    list.sort_by_key(|item| (object(item), item.0[8], offset(item)));
    let mut bytes = [0; NODE];
    bytes[..HEADER].copy_from_slice(&like.bytes[..HEADER]);
    bytes[0x30..0x38].copy_from_slice(&bytenr.to_le_bytes());
    bytes[0x58..0x60].copy_from_slice(&owner.to_le_bytes());
    bytes[96..100].copy_from_slice(&(list.len() as u32).to_le_bytes());
    let mut end = NODE;
    for (at, (key, data)) in list.iter().enumerate() {
        let head = HEADER + at * 25;
        end -= data.len();
        bytes[end..end + data.len()].copy_from_slice(data);
        bytes[head..head + 17].copy_from_slice(key);
        bytes[head + 17..head + 21].copy_from_slice(&((end - HEADER) as u32).to_le_bytes());
        bytes[head + 21..head + 25].copy_from_slice(&(data.len() as u32).to_le_bytes());
    }
    lie::<NODE>(path, place, 32, &bytes[32..]);
}

#[test]
fn a_tree_of_block_groups() {
    let image = Image::new(128, &["-d", "single", "-m", "single"]);
    let path = &image.path;
    let files = image.mounted("ro", image::files);
    let [extent, root, free] =
        ["EXTENT_TREE", "ROOT_TREE", "FREE_SPACE_TREE"].map(|t| Leaf::find(path, t));
    let node = NODE as u64;

    // The new leaf's place is the start of free space behind the last leaf.
    let mut extents = items(&extent);
    let last = extents
        .iter()
        .rfind(|item| item.0[8] == METADATA)
        .unwrap()
        .clone();
    let new = object(&last) + node;
    let mut spaces = items(&free);
    let space = spaces
        .iter_mut()
        .find(|item| (object(item), item.0[8]) == (new, FREE))
        .unwrap();
    space.0 = key(new + node, FREE, offset(space) - node);

    let mut groups = Vec::new();
    extents.retain(|item| {
        let is_group = item.0[8] == GROUP;
        groups.extend(is_group.then(|| item.clone()));
        !is_group
    });
    let group = groups
        .iter_mut()
        .rfind(|group| object(group) <= new)
        .unwrap();
    add(&mut group.1, 0, node);
    let mut own = last.1;
    own[25..33].copy_from_slice(&GROUP_TREE.to_le_bytes());
    extents.push((key(new, METADATA, 0), own));

    let mut roots = items(&root);
    let mut top = roots
        .iter()
        .find(|item| (object(item), item.0[8]) == (2, ROOT_ITEM))
        .unwrap()
        .clone();
    top.0 = key(GROUP_TREE, ROOT_ITEM, 0);
    top.1[176..184].copy_from_slice(&new.to_le_bytes());
    roots.push(top);

    let place = new - extent.u64(0x30) + extent.place;
    write(path, place, &extent, (new, GROUP_TREE), groups);
    for (leaf, list) in [(&extent, extents), (&root, roots), (&free, spaces)] {
        write(
            path,
            leaf.place,
            leaf,
            (leaf.u64(0x30), leaf.u64(0x58)),
            list,
        );
    }
    let mut sb: [u8; 4096] = peek(path, SUPER);
    add(&mut sb, 0x78, node);
    sb[0xb4] |= 8;
    lie::<4096>(path, SUPER, 32, &sb[32..]);

    // It is right if others say so.
    image::check(path);
    let dump = ok(
        "btrfs",
        &["inspect-internal", "dump-tree", "-t", "11", s(path)],
    );
    assert!(dump.contains("BLOCK_GROUP_ITEM"), "{dump}");
    assert_eq!(image.mounted("ro", image::files), files);

    let used = whole_used(path).used;
    assert_matches(&used, &oracle(path));
    assert!(used.contains(place));
    let old: [u8; NODE] = peek(path, place);
    lie::<NODE>(path, place, NODE - 24, &[1]);
    crate::damage::assert_full(path, Some(diskmap::WarningKind::FsDamaged), "which says");
    poke(path, place, &old);
    image.age();
    assert_matches(&whole_used(path).used, &oracle(path));
}
