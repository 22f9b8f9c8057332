//! Two file systems of images, file by file.
//!
//! Owns: which names belong together, and in what their files differ. Does not own: what is
//! said of it (`crate::cli`).
//!
//! The content of two files of one size is compared completely. What the images hold alike
//! is not read for that ([`Alike`]): only what may differ is, and then as it is.

use super::walk::{self, MAX_DEPTH, Visitor, walk_unseen};
use super::{Alike, Besides, Fail, Item, Kind, Node, Part, Piece, Tree, read};
use std::collections::HashSet;
use std::rc::Rc;

/// Content is held against zeros in pieces of this many bytes.
const BLOCK: usize = 4096;

/// One of the two.
pub struct Side<'a> {
    /// The partition.
    pub part: &'a Part<'a>,
    /// Its file system.
    pub tree: &'a dyn Tree,
}

/// What is told of a path.
pub enum Difference {
    /// Only the second image has it.
    Added(Node),
    /// Only the first image has it.
    Removed(Node),
    /// Both have it.
    Changed {
        /// In the first image.
        before: Node,
        /// In the second image.
        after: Node,
        /// In what they differ: `kind`, `size`, `time`, `mode`, `owner`, `content`, `streams`
        /// (how many), `attributes` (whether there are extended ones).
        what: Vec<&'static str>,
    },
    /// It cannot be compared.
    Unreadable(Fail),
}

/// Is told each difference with its path, in the order of names; an error ends it.
pub type Told<'a> = dyn FnMut(&[u8], Difference) -> Result<(), Fail> + 'a;

/// Compares everything from the roots on. Tells how many paths have more in both than is
/// compared: contents of streams and extended attributes, device numbers.
///
/// # Errors
/// What nothing can be done after ([`Fail::is_final`]), and a root that cannot be read.
pub fn compare(
    before: &Side<'_>,
    after: &Side<'_>,
    alike: &Rc<Alike>,
    told: &mut Told<'_>,
) -> Result<u64, Fail> {
    let (a, b) = (before.tree.root()?, after.tree.root()?);
    let mut run = Run {
        before,
        after,
        alike,
        told,
        seen: (HashSet::from([a.id]), HashSet::from([b.id])),
        unlooked: 0,
    };
    run.both(&[], &a, &b, 0)?;
    Ok(run.unlooked)
}

struct Run<'a, 'b> {
    before: &'a Side<'a>,
    after: &'a Side<'a>,
    alike: &'a Rc<Alike>,
    told: &'a mut Told<'b>,
    /// Directories that were gone into: each has one name.
    seen: (HashSet<u64>, HashSet<u64>),
    /// Paths that have more than is compared.
    unlooked: u64,
}

impl Run<'_, '_> {
    /// A path that both have.
    fn both(&mut self, path: &[u8], a: &Node, b: &Node, depth: usize) -> Result<(), Fail> {
        self.unlooked += u64::from(has_more(a) && has_more(b));
        match self.differences(a, b) {
            Ok(what) if what.is_empty() => {}
            Ok(what) => {
                let (before, after) = (a.clone(), b.clone());
                (self.told)(
                    path,
                    Difference::Changed {
                        before,
                        after,
                        what,
                    },
                )?;
            }
            Err(fail) => self.unreadable(path, fail)?,
        }
        match (a.kind, b.kind) {
            (Kind::Directory, Kind::Directory) => self.directories(path, a, b, depth),
            (Kind::Directory, _) => self.below(path, a, true),
            (_, Kind::Directory) => self.below(path, b, false),
            _ => Ok(()),
        }
    }

    fn directories(&mut self, path: &[u8], a: &Node, b: &Node, depth: usize) -> Result<(), Fail> {
        let lists = walk::sorted(self.before.tree, a)
            .and_then(|a| Ok((a, walk::sorted(self.after.tree, b)?)));
        let (a, b) = match lists {
            Ok(lists) => lists,
            Err(fail) => return self.unreadable(path, fail),
        };
        let (mut a, mut b) = (a.into_iter().peekable(), b.into_iter().peekable());
        loop {
            let order = match (a.peek(), b.peek()) {
                (None, None) => return Ok(()),
                (Some(a), Some(b)) => a.name.cmp(&b.name),
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
            };
            let here = if order.is_le() { a.next() } else { None };
            let there = if order.is_ge() { b.next() } else { None };
            self.entries(path, here, there, depth)?;
        }
    }

    fn entries(
        &mut self,
        folder: &[u8],
        here: Option<Item>,
        there: Option<Item>,
        depth: usize,
    ) -> Result<(), Fail> {
        let Some(item) = here.as_ref().or(there.as_ref()) else {
            return Ok(());
        };
        let mut path = folder.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&item.name);
        let a = here.map(|item| once(self.before.tree, &item, &mut self.seen.0, depth));
        let b = there.map(|item| once(self.after.tree, &item, &mut self.seen.1, depth));
        match (a.transpose(), b.transpose()) {
            (Err(fail), _) | (_, Err(fail)) => self.unreadable(&path, fail),
            (Ok(Some(a)), Ok(Some(b))) => self.both(&path, &a, &b, depth + 1),
            (Ok(Some(a)), Ok(None)) => {
                (self.told)(&path, Difference::Removed(a.clone()))?;
                self.below(&path, &a, true)
            }
            (Ok(None), Ok(Some(b))) => {
                (self.told)(&path, Difference::Added(b.clone()))?;
                self.below(&path, &b, false)
            }
            (Ok(None), Ok(None)) => Ok(()),
        }
    }

    /// Everything below a directory that only one of them has.
    fn below(&mut self, path: &[u8], node: &Node, removed: bool) -> Result<(), Fail> {
        if node.kind != Kind::Directory {
            return Ok(());
        }
        let (tree, seen) = match removed {
            true => (self.before.tree, &mut self.seen.0),
            false => (self.after.tree, &mut self.seen.1),
        };
        let mut lone = Lone {
            told: self.told,
            removed,
        };
        walk_unseen(tree, node, path, seen, &mut lone)
    }

    fn unreadable(&mut self, path: &[u8], fail: Fail) -> Result<(), Fail> {
        match fail.is_final() {
            true => Err(fail),
            false => (self.told)(path, Difference::Unreadable(fail)),
        }
    }

    fn differences(&self, a: &Node, b: &Node) -> Result<Vec<&'static str>, Fail> {
        if a.kind != b.kind {
            return Ok(vec!["kind"]);
        }
        // Of a folder they say only that something in it changed, which is told itself.
        let is_folder = a.kind == Kind::Directory;
        let content = match a.kind {
            Kind::File => a.size != b.size || self.content_differs(a, b)?,
            Kind::Symlink => self.before.tree.target(a)? != self.after.tree.target(b)?,
            Kind::Directory | Kind::Special(_) => false,
        };
        let all = [
            ("size", a.kind == Kind::File && a.size != b.size),
            ("time", !is_folder && a.modified != b.modified),
            ("mode", a.mode != b.mode),
            ("owner", a.owner != b.owner),
            ("content", content),
            ("streams", a.besides.streams != b.besides.streams),
            ("attributes", a.besides.attributes != b.besides.attributes),
        ];
        let found = all.into_iter().filter(|(_, differs)| *differs);
        Ok(found.map(|(name, _)| name).collect())
    }

    fn content_differs(&self, a: &Node, b: &Node) -> Result<bool, Fail> {
        let quick = Some(Rc::clone(self.alike));
        if hash(self.before, a, quick.clone())? == hash(self.after, b, quick)? {
            return Ok(false);
        }
        // It may only have moved.
        Ok(hash(self.before, a, None)? != hash(self.after, b, None)?)
    }
}

/// Whether a file has what is not read of it.
fn has_more(node: &Node) -> bool {
    let is_device = matches!(node.kind, Kind::Special(name) if name.ends_with("device"));
    is_device || node.besides != Besides::default()
}

/// What a name stands for; a directory that has two is refused the second time.
fn once(tree: &dyn Tree, item: &Item, seen: &mut HashSet<u64>, depth: usize) -> Result<Node, Fail> {
    let node = tree.node(item.at)?;
    if node.kind == Kind::Directory {
        if !seen.insert(node.id) {
            let what = "the directory is in more than one place of the file system";
            return Err(Fail::damaged(what));
        }
        if depth >= MAX_DEPTH {
            let what = format!("it is more than {MAX_DEPTH} directories deep");
            return Err(Fail::Unsupported(what));
        }
    }
    Ok(node)
}

/// Tells everything below a directory that only one image has.
struct Lone<'a, 'b> {
    told: &'a mut Told<'b>,
    removed: bool,
}

impl Visitor for Lone<'_, '_> {
    fn entry(&mut self, path: &[u8], _: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail> {
        match node {
            Ok(node) if self.removed => (self.told)(path, Difference::Removed(node))?,
            Ok(node) => (self.told)(path, Difference::Added(node))?,
            Err(fail) => {
                (self.told)(path, Difference::Unreadable(fail))?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn leave(&mut self, path: &[u8], _: &Node, failed: Option<Fail>) -> Result<(), Fail> {
        match failed {
            Some(fail) => (self.told)(path, Difference::Unreadable(fail)),
            None => Ok(()),
        }
    }
}

/// The hash of a file's content, in which a hole is what zeros are.
fn hash(side: &Side<'_>, file: &Node, alike: Option<Rc<Alike>>) -> Result<blake3::Hash, Fail> {
    side.part.stand_in(alike);
    let mut content = Content::default();
    let done = read(side.tree, file, &mut |piece| {
        match piece {
            Piece::Data(bytes) => content.data(bytes),
            Piece::Hole(len) => content.zeros(len),
        }
        Ok(())
    });
    side.part.stand_in(None);
    done.map(|()| content.finish())
}

/// Hashes blocks that hold something, and how many zero ones lie between them.
#[derive(Default)]
struct Content {
    hasher: blake3::Hasher,
    block: Vec<u8>,
    zero_blocks: u64,
}

impl Content {
    fn data(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK - self.block.len()));
            self.block.extend_from_slice(now);
            if self.block.len() == BLOCK {
                self.end_block();
            }
            bytes = later;
        }
    }

    fn zeros(&mut self, len: u64) {
        let begun = match self.block.len() {
            0 => 0,
            held => len.min((BLOCK - held) as u64),
        };
        self.data(&[0; BLOCK][..begun as usize]);
        let left = len - begun;
        self.zero_blocks += left / BLOCK as u64;
        self.data(&[0; BLOCK][..(left % BLOCK as u64) as usize]);
    }

    fn end_block(&mut self) {
        if image::record::is_zero(&self.block) {
            self.zero_blocks += 1;
        } else {
            self.hasher.update(&self.zero_blocks.to_le_bytes());
            self.hasher.update(&self.block);
            self.zero_blocks = 0;
        }
        self.block.clear();
    }

    fn finish(mut self) -> blake3::Hash {
        // The sizes are compared beside it: a last block needs no length.
        self.block.resize(BLOCK, 0);
        self.end_block();
        self.hasher.update(&self.zero_blocks.to_le_bytes());
        self.hasher.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, Content};

    #[test]
    fn a_hole_is_what_its_zeros_are_wherever_it_begins() {
        for (before, hole) in [
            (0, 3 * BLOCK),
            (5, 1),
            (5, BLOCK),
            (BLOCK, 2),
            (9, 5 * BLOCK + 7),
        ] {
            let (mut one, mut other) = (Content::default(), Content::default());
            let data = vec![7; before];
            one.data(&data);
            one.zeros(hole as u64);
            one.data(b"end");
            other.data(&data);
            other.data(&vec![0; hole]);
            other.data(b"end");
            let mut less = Content::default();
            less.data(&data);
            less.zeros(hole as u64 - 1);
            less.data(b"end");
            let same = one.finish();
            assert_eq!(same, other.finish(), "{before} {hole}");
            assert_ne!(same, less.finish(), "{before} {hole}");
        }
    }
}
