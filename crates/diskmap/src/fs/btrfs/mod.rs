//! Btrfs on one device: used bytes from the extent tree.
//!
//! Owns: the order in which the trees are read and compared, and the map that
//! follows. Does not own: files and directories, checksums of data, free space
//! caches.
//!
//! Btrfs never writes over what the last complete generation refers to: a block that
//! a transaction frees is not given to anyone before the superblock of the next
//! generation is on the device. So the superblock names a tree of trees that is
//! complete whenever the power goes, and its extent tree knows every block that
//! this generation refers to, its own included. What it does not know is free.
//!
//! Two things are outside of it:
//! - The log, written by fsync between two generations. Its nodes and the file
//!   extents in it lie in space that the extent tree calls free; the kernel replays it
//!   at the next mount. All of it is walked and copied, too.
//! - Older generations, which the superblock's backup roots lead to. Their blocks may
//!   have been used again, and no complete generation needs them.
//!
//! A map is made only if everything agrees: the checksum, place, generation, tree,
//! level and keys of every node; chunks, device extents and block groups one for one;
//! each block group's counter and the superblock's with the extents found; and no tree
//! node in space that would be free.

mod chunk;
mod device;
mod log;
mod node;
mod space;
mod sum;
mod superblock;
mod tree;

use super::{Fault, Map, Mapped, Trouble, TroubleKind, Volume, damaged};
use crate::bytes::le64;
use crate::extents::Extent;
use crate::view::{ReadFailure, View};
use chunk::{Chunk, Chunks};
use node::{Item, Key};
use space::Space;
use std::rc::Rc;
use superblock::{Root, Superblock, unsupported};
use tree::Forest;

/// Numbers of trees.
const EXTENT_TREE: u64 = 2;
const CHUNK_TREE: u64 = 3;
const DEVICE_TREE: u64 = 4;
const GROUP_TREE: u64 = 11;
/// All log trees have this one.
const LOG: u64 = 6u64.wrapping_neg();

/// Kind of an item that says where a tree starts.
const ROOT_ITEM: u8 = 132;
/// Kind of an item about a device, and the object that all of them belong to.
const DEVICE_ITEM: u8 = 216;
const DEVICES: u64 = 1;

/// Nothing is ever allocated in front of this; boot loaders live there.
const RESERVED: u64 = 1 << 20;

/// Looks for a superblock.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    Ok(Superblock::read(view)?.map(|sb| Volume {
        name: "btrfs",
        label: sb.label.clone(),
        uuid: sb.uuid.clone(),
        size: sb.size_bytes(),
        wraps: false,
        map: Box::new(sb),
    }))
}

impl Map for Superblock {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        used(view, self)
    }
}

/// Bytes to copy, relative to the region.
fn used(view: &View<'_>, sb: &Superblock) -> Result<Mapped, Fault> {
    let format = sb.check()?;
    let size = sb.size_bytes().min(view.size());
    let system = Rc::new(Chunks::system(sb, &format, size)?);
    let mut forest = Forest::new(view, format, Rc::clone(&system));
    let chunks = Rc::new(read_chunks(&mut forest, sb, size)?);
    check_system(&system, &chunks)?;
    forest.chunks = Rc::clone(&chunks);

    let roots = Roots::read(&mut forest, sb)?;
    let mut device = device::Extents::new(&chunks, sb.device());
    forest.walk(roots.device, Key::MIN..=Key::MAX, &mut |item| {
        device.item(item)
    })?;
    device.finish()?;

    let mut space = Space::new(&chunks, format);
    let own_tree = roots.groups.is_some();
    forest.walk(roots.extent, Key::MIN..=Key::MAX, &mut |item| {
        space.extent_tree(item, !own_tree)
    })?;
    if let Some(root) = roots.groups {
        forest.walk(root, Key::MIN..=Key::MAX, &mut |item| match item.key.kind {
            space::GROUP => space.group(item),
            kind => unsupported(format!("its block group tree holds items of kind {kind}")),
        })?;
    }
    space.check_counters(sb.bytes_used())?;
    check_nodes(&forest.take_met(), &space, &forest)?;

    let mut troubles = Vec::new();
    if let Some(top) = sb.log_tree() {
        let reach = log::reach(&mut forest, top)?;
        reach.check(&space, u64::from(format.sector_size))?;
        space.add(&reach.into_extents());
        troubles.push(Trouble {
            kind: TroubleKind::Dirty,
            detail: "it was not unmounted: a log is to be replayed; the log, what it refers to \
                     and the space in use are copied"
                .into(),
        });
    }
    if forest.half_bad > 0 {
        troubles.push(Trouble {
            kind: TroubleKind::Damaged,
            detail: format!(
                "of {} of its tree nodes one of two copies is bad; the map comes from the good \
                 ones, and both are copied as they are",
                forest.half_bad
            ),
        });
    }
    let mut used = space.on_device();
    for extent in fixed(view.size()) {
        used.push(extent);
    }
    Ok(Mapped {
        troubles,
        ..Mapped::from(used)
    })
}

/// What is copied whatever the trees say.
fn fixed(size: u64) -> impl Iterator<Item = Extent> {
    let mirrors = superblock::MIRRORS.map(|at| Extent::between(at, at + superblock::SIZE));
    [Extent::between(0, RESERVED)]
        .into_iter()
        .chain(mirrors)
        .map(move |e| Extent::between(e.start, e.end().min(size)))
}

/// All chunks, from their tree.
fn read_chunks(forest: &mut Forest<'_>, sb: &Superblock, size: u64) -> Result<Chunks, Fault> {
    let mut chunks = Chunks::default();
    let mut devices = 0;
    let format = *forest.format();
    forest.walk(sb.chunk_tree(), Key::MIN..=Key::MAX, &mut |item| match (
        item.key.objectid,
        item.key.kind,
    ) {
        (DEVICES, DEVICE_ITEM) if item.key.offset != sb.device() => {
            unsupported("it has another device, too")
        }
        (DEVICES, DEVICE_ITEM) => {
            devices += 1;
            Ok(())
        }
        (chunk::OBJECT, chunk::ITEM) => {
            chunks.push(Chunk::read(item.key, item.data, sb, &format, size)?)
        }
        (_, kind) => unsupported(format!("its chunk tree holds items of kind {kind}")),
    })?;
    if devices != 1 {
        return damaged("its chunk tree does not know its device");
    }
    chunks.check_copies()?;
    Ok(chunks)
}

/// The superblock's chunks are the system chunks of the chunk tree.
fn check_system(system: &Chunks, chunks: &Chunks) -> Result<(), Fault> {
    let listed = chunks.as_slice().iter();
    if listed
        .filter(|chunk| chunk.kind & chunk::SYSTEM != 0)
        .eq(system.as_slice())
    {
        Ok(())
    } else {
        damaged("its superblock has other system chunks than its chunk tree")
    }
}

/// No node that was read may lie in space that would be left out.
fn check_nodes(nodes: &[u64], space: &Space<'_>, forest: &Forest<'_>) -> Result<(), Fault> {
    let len = u64::from(forest.format().node_size);
    for &start in nodes {
        let node = Extent { start, len };
        if !space
            .allocated(node)
            .is_some_and(|(_, extents)| extents.contains_all(node))
        {
            return damaged(format!("the tree node {start} lies in free space"));
        }
    }
    Ok(())
}

/// Where the trees start that a map needs.
struct Roots {
    extent: Root,
    device: Root,
    /// Block groups, if they are not in the extent tree.
    groups: Option<Root>,
}

impl Roots {
    fn read(forest: &mut Forest<'_>, sb: &Superblock) -> Result<Roots, Fault> {
        let range = Key::new(EXTENT_TREE, ROOT_ITEM, 0)..=Key::new(GROUP_TREE, ROOT_ITEM, 0);
        let top = sb.root_tree();
        let mut found = [(EXTENT_TREE, None), (DEVICE_TREE, None), (GROUP_TREE, None)];
        forest.walk(top, range, &mut |item| {
            if (item.key.kind, item.key.offset) != (ROOT_ITEM, 0) {
                return Ok(());
            }
            for (tree, root) in &mut found {
                if *tree == item.key.objectid {
                    *root = Some(root_item(item, *tree, top.generation)?);
                }
            }
            Ok(())
        })?;
        let [(_, extent), (_, device), (_, groups)] = found;
        let (Some(extent), Some(device)) = (extent, device) else {
            return damaged("its extent tree or device tree is missing");
        };
        if groups.is_some() != sb.block_group_tree() {
            return damaged("its features and its trees do not agree on block groups");
        }
        Ok(Roots {
            extent,
            device,
            groups,
        })
    }
}

/// Where the tree of a root item starts; it is no newer than `newest`.
fn root_item(item: &Item<'_>, owner: u64, newest: u64) -> Result<Root, Fault> {
    let fields = (
        le64(item.data, 160),
        le64(item.data, 176),
        item.data.get(238),
    );
    match fields {
        (Some(generation), Some(bytenr), Some(&level)) if generation <= newest => Ok(Root {
            bytenr,
            generation,
            level,
            owner,
        }),
        _ => damaged(format!(
            "the root of tree {} is impossible",
            item.key.objectid
        )),
    }
}
