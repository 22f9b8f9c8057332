//! Paths inside a file system of an image.
//!
//! Owns: from a path to what it stands for, symbolic links included. Links lead only to
//! places in the same file system. Does not own: reading directories.

use super::{Fail, Kind, Node, Tree};

/// Most links on the way: more than any system follows.
const MAX_LINKS: usize = 40;
/// Longest path, in bytes, with links put in.
const MAX_PATH: usize = 65_536;

/// What was found.
pub struct Found {
    /// What it is.
    pub node: Node,
    /// Its path from the root, without links, `.` and `..`; empty for the root.
    pub path: Vec<u8>,
}

/// Finds what a path stands for; it begins at the root with or without a slash. A link at
/// its end is followed if `follow` or a slash behind it says so, those before always.
pub fn find(tree: &dyn Tree, path: &[u8], follow: bool) -> Result<Found, Fail> {
    let mut way: Vec<(Vec<u8>, Node)> = Vec::new();
    let root = tree.root()?;
    // Components that are still to go, the next one last.
    let mut left: Vec<Vec<u8>> = components(path);
    let mut links = 0;
    while let Some(name) = left.pop() {
        let here = way.last().map_or(&root, |(_, node)| node);
        if here.kind != Kind::Directory {
            return Err(Fail::NotFound);
        }
        if name == b"." {
            continue;
        }
        if name == b".." {
            way.pop();
            continue;
        }
        let (name, node) = child(tree, here, &name)?;
        let is_last = left.is_empty();
        if node.kind == Kind::Symlink && (follow || !is_last) {
            links += 1;
            let target = tree.target(&node)?;
            let length: usize = left.iter().map(|name| name.len() + 1).sum();
            if links > MAX_LINKS || length + target.len() > MAX_PATH {
                return Err(Fail::Kind("leads through too many links".to_owned()));
            }
            if target.first() == Some(&b'/') {
                way.clear();
            }
            left.extend(components(&target));
            continue;
        }
        way.push((name, node));
    }
    let path = way.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>();
    let path = path.join(&b'/');
    let node = way.pop().map_or(root, |(_, node)| node);
    Ok(Found { node, path })
}

/// In backward order. A slash at the end means what is in it, as `/.` does.
fn components(path: &[u8]) -> Vec<Vec<u8>> {
    let end = path.ends_with(b"/").then(|| b".".to_vec());
    let parts = path.split(|&byte| byte == b'/').rev();
    let real = parts.filter(|part| !part.is_empty());
    end.into_iter().chain(real.map(<[u8]>::to_vec)).collect()
}

/// The entry of that name; where letter case does not count, the one that is written so,
/// or the only one.
fn child(tree: &dyn Tree, directory: &Node, name: &[u8]) -> Result<(Vec<u8>, Node), Fail> {
    let items = tree.list(directory)?;
    if let Some(item) = items.iter().find(|item| item.name == name) {
        return Ok((item.name.clone(), tree.node(item.at)?));
    }
    if tree.ignores_case() {
        let wanted = String::from_utf8_lossy(name).to_lowercase();
        let mut alike = items
            .iter()
            .filter(|item| String::from_utf8_lossy(&item.name).to_lowercase() == wanted);
        if let (Some(item), None) = (alike.next(), alike.next()) {
            return Ok((item.name.clone(), tree.node(item.at)?));
        }
    }
    Err(Fail::NotFound)
}
