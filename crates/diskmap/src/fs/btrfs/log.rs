//! The log: what was synchronised after the last complete generation.
//!
//! Owns: finding the log's nodes and the file extents they refer to. Does not own:
//! replaying it.

use super::super::{Fault, damaged};
use super::chunk;
use super::node::{Item, Key};
use super::space::Space;
use super::superblock::{Root, unsupported};
use super::tree::Forest;
use super::{LOG, ROOT_ITEM, root_item};
use crate::bytes::le64;
use crate::extents::{Extent, Extents};

/// Kind of an item that says where a part of a file lies.
const FILE_EXTENT: u8 = 108;

/// Most file extents of logs: what a few seconds of writing leave behind.
const LIMIT: usize = 1 << 20;

/// Most logs: one for each subvolume.
const MAX_LOGS: usize = 1 << 16;

/// Logical addresses of everything that a replay of the log reads or gives to a file.
pub(super) fn reach(forest: &mut Forest<'_>, top: Root) -> Result<Reach, Fault> {
    let mut roots = Vec::new();
    forest.walk(top, Key::MIN..=Key::MAX, &mut |item| {
        if (item.key.objectid, item.key.kind) != (LOG, ROOT_ITEM) {
            return damaged("its tree of logs holds something else");
        }
        if roots.len() >= MAX_LOGS {
            return unsupported("it has too many logs");
        }
        roots.push(root_item(item, LOG, top.generation)?);
        Ok(())
    })?;
    let mut files = Vec::new();
    for root in roots {
        forest.walk(root, Key::MIN..=Key::MAX, &mut |item| {
            if item.key.kind == FILE_EXTENT {
                files.extend(file_extent(item)?);
            }
            if files.len() > LIMIT {
                return unsupported("its log is too large");
            }
            Ok(())
        })?;
    }
    let len = u64::from(forest.format().node_size);
    let nodes = forest.take_met();
    Ok(Reach {
        nodes: nodes
            .into_iter()
            .map(|start| Extent { start, len })
            .collect(),
        files,
    })
}

/// What a log reaches, by logical address.
pub(super) struct Reach {
    /// Its nodes.
    nodes: Vec<Extent>,
    /// What its items of files refer to.
    files: Vec<Extent>,
}

impl Reach {
    /// Whether all of it can be where it says.
    pub fn check(&self, space: &Space<'_>, sector: u64) -> Result<(), Fault> {
        for node in &self.nodes {
            let free = space.allocated(*node).is_some_and(|(chunk, extents)| {
                chunk.kind & (chunk::METADATA | chunk::SYSTEM) != 0
                    && extents.intersect(node.start..node.end()).is_empty()
            });
            // A map that was made coarser cannot tell.
            if !free && !space.is_coarse() {
                return damaged(format!("its log lies on other data at {}", node.start));
            }
        }
        for file in &self.files {
            let fits = space
                .allocated(*file)
                .is_some_and(|(chunk, _)| chunk.kind & chunk::DATA != 0);
            if !fits || file.start % sector != 0 || file.len % sector != 0 {
                return damaged(format!(
                    "its log refers to {}, which is no data",
                    file.start
                ));
            }
        }
        Ok(())
    }

    /// All of it.
    pub fn into_extents(self) -> Extents {
        self.nodes.into_iter().chain(self.files).collect()
    }
}

/// The data that an item of a file refers to; none if it carries them itself, or if it
/// is a hole.
fn file_extent(item: &Item<'_>) -> Result<Option<Extent>, Fault> {
    const INLINE: u8 = 0;
    let wrong = || damaged("its log has an impossible file extent");
    match (item.data.get(20), item.data.len()) {
        (Some(&INLINE), _) => Ok(None),
        (Some(1 | 2), 53) => match (le64(item.data, 21), le64(item.data, 29)) {
            (Some(0), _) => Ok(None),
            (Some(start), Some(len)) if len > 0 => Ok(Some(Extent { start, len })),
            _ => wrong(),
        },
        _ => wrong(),
    }
}
