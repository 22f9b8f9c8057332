//! Walking a tree: every node checked, none twice.
//!
//! Owns: reading nodes through the chunks, the order of keys across nodes, and what
//! bounds a walk. Does not own: what the items mean.
//!
//! A walk ends: each step goes one level down, and a node that was met before, in
//! this tree or another, is damage. So a map reads at most what the device holds.
//!
//! Where a chunk has two copies and the first is not as it should be, the second is
//! taken if everything holds of it that would have to hold of the first: checksum,
//! place, generation, tree, level and keys. That is what the kernel does, too.

use super::super::{Fault, damaged};
use super::chunk::Chunks;
use super::node::{Format, Item, Key, Node, Want};
use super::superblock::{MAX_LEVEL, Root, unsupported};
use crate::view::View;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::rc::Rc;

/// Most nodes that are read: 16 GiB of them at the usual size.
const LIMIT: usize = 1 << 20;

/// Takes the items of a tree in the order of their keys.
pub(super) type Visit<'a> = dyn FnMut(&Item<'_>) -> Result<(), Fault> + 'a;

/// Reads nodes.
pub(super) struct Forest<'a> {
    view: &'a View<'a>,
    format: Format,
    /// Where nodes lie.
    pub chunks: Rc<Chunks>,
    met: HashSet<u64>,
    /// Nodes of which only the second copy is right.
    pub half_bad: u64,
}

impl<'a> Forest<'a> {
    /// Nothing is read yet.
    pub fn new(view: &'a View<'a>, format: Format, chunks: Rc<Chunks>) -> Forest<'a> {
        Forest {
            view,
            format,
            chunks,
            met: HashSet::new(),
            half_bad: 0,
        }
    }

    /// How nodes look.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// Logical addresses of the nodes that were met so far; they are forgotten.
    pub fn take_met(&mut self) -> Vec<u64> {
        self.met.drain().collect()
    }

    /// Shows every item of a tree whose key is in the range.
    pub fn walk(
        &mut self,
        root: Root,
        range: RangeInclusive<Key>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        if root.level > MAX_LEVEL {
            return damaged(format!("tree {} is too deep", root.owner));
        }
        let want = Want {
            bytenr: root.bytenr,
            level: root.level,
            generation: root.generation,
            owner: root.owner,
            first: None,
            end: None,
        };
        self.descend(&want, &range, visit)
    }

    fn descend(
        &mut self,
        want: &Want,
        range: &RangeInclusive<Key>,
        visit: &mut Visit<'_>,
    ) -> Result<(), Fault> {
        let node = self.node(want)?;
        for at in 0..node.count() {
            let Some(key) = node.key(at) else { break };
            if key > *range.end() {
                break;
            }
            if want.level == 0 {
                if let Some(item) = node.item(at).filter(|_| range.contains(&key)) {
                    visit(&item)?;
                }
                continue;
            }
            // The pointer behind it, or what bounds this node.
            let end = match at + 1 < node.count() {
                true => node.key(at + 1),
                false => want.end,
            };
            if end.is_some_and(|end| end <= *range.start()) {
                continue;
            }
            let Some((bytenr, generation)) = node.pointer(at) else {
                break;
            };
            if generation > want.generation {
                return damaged(format!("tree node {bytenr} is newer than its parent"));
            }
            let child = Want {
                bytenr,
                level: want.level - 1,
                generation,
                owner: want.owner,
                first: Some(key),
                end,
            };
            self.descend(&child, range, visit)?;
        }
        Ok(())
    }

    /// Reads a node and checks everything that is known of it.
    fn node(&mut self, want: &Want) -> Result<Node, Fault> {
        let name = || format!("node {} of tree {}", want.bytenr, want.owner as i64);
        if !want
            .bytenr
            .is_multiple_of(u64::from(self.format.sector_size))
        {
            return damaged(format!("{} is at no sector", name()));
        }
        if self.met.len() >= LIMIT {
            return unsupported("its trees are too large");
        }
        if !self.met.insert(want.bytenr) {
            return damaged(format!("{} occurs twice", name()));
        }
        let len = self.format.node_size;
        let mut wrong = "in no chunk";
        for (copy, place) in self
            .chunks
            .copies_of(want.bytenr, u64::from(len))
            .enumerate()
        {
            let bytes = self.view.bytes(place, len as usize)?;
            match Node::check(bytes, want, &self.format) {
                Ok(node) => {
                    self.half_bad += u64::from(copy > 0);
                    return Ok(node);
                }
                Err(what) if copy == 0 => wrong = what,
                Err(_) => {}
            }
        }
        damaged(format!("{} is {wrong}", name()))
    }
}
