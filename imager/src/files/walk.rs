//! Everything below a directory, in order.
//!
//! Owns: the order (by the names' bytes), and the end of directories that contain each
//! other. Does not own: what is done with what is found.

use super::{Fail, Item, Kind, Node, Tree};
use std::collections::HashSet;

/// Deepest directory: below it every level costs a descriptor and a stack frame.
pub const MAX_DEPTH: usize = 400;

/// What a walk tells, in order; an error ends it.
pub trait Visitor {
    /// Something was found: its path from where the walk began, and what it is or why that
    /// cannot be told. Says whether a directory is to be gone into.
    fn entry(&mut self, path: &[u8], name: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail>;

    /// A directory that was gone into is left: all of it was told, unless `failed` says why
    /// it could not be listed.
    fn leave(&mut self, path: &[u8], node: &Node, failed: Option<Fail>) -> Result<(), Fail>;
}

/// The names of a directory, sorted.
pub fn sorted(tree: &dyn Tree, directory: &Node) -> Result<Vec<Item>, Fail> {
    let mut items = tree.list(directory)?;
    items.sort_unstable();
    Ok(items)
}

/// Walks through everything below `top`, whose path is `path`, and leaves it.
pub fn walk(
    tree: &dyn Tree,
    top: &Node,
    path: &[u8],
    visitor: &mut dyn Visitor,
) -> Result<(), Fail> {
    let mut seen = HashSet::from([top.id]);
    walk_unseen(tree, top, path, &mut seen, visitor)
}

/// As [`walk`]; directories that are in `seen` are not gone into, and those that were are in
/// it then. Several walks of one file system end only so where damage has made one directory
/// a part of all of them.
pub fn walk_unseen(
    tree: &dyn Tree,
    top: &Node,
    path: &[u8],
    seen: &mut HashSet<u64>,
    visitor: &mut dyn Visitor,
) -> Result<(), Fail> {
    inside(tree, top, path, 0, seen, visitor)
}

fn inside(
    tree: &dyn Tree,
    directory: &Node,
    path: &[u8],
    depth: usize,
    seen: &mut HashSet<u64>,
    visitor: &mut dyn Visitor,
) -> Result<(), Fail> {
    let items = match sorted(tree, directory) {
        Ok(items) => items,
        Err(fail) if fail.is_final() => return Err(fail),
        Err(fail) => return visitor.leave(path, directory, Some(fail)),
    };
    for item in items {
        let mut below = path.to_vec();
        if !below.is_empty() {
            below.push(b'/');
        }
        below.extend_from_slice(&item.name);
        let node = match tree.node(item.at) {
            Err(fail) if fail.is_final() => return Err(fail),
            // A directory has one name: a second one is a loop, or its double.
            Ok(node) if node.kind == Kind::Directory && !seen.insert(node.id) => Err(
                Fail::damaged("the directory is in more than one place of the file system"),
            ),
            Ok(node) if node.kind == Kind::Directory && depth >= MAX_DEPTH => Err(
                Fail::Unsupported(format!("it is more than {MAX_DEPTH} directories deep")),
            ),
            other => other,
        };
        let directory = node
            .as_ref()
            .ok()
            .filter(|node| node.kind == Kind::Directory)
            .cloned();
        let enter = visitor.entry(&below, &item.name, node)?;
        if let (true, Some(directory)) = (enter, directory) {
            inside(tree, &directory, &below, depth + 1, seen, visitor)?;
        }
    }
    visitor.leave(path, directory, None)
}
