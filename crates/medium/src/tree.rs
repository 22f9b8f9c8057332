//! Files and the folders that their paths name.
//!
//! Owns: the tree and the rules for names. Does not own: how a file system spells them.

use crate::{Entry, Error, MAX_FILE};

/// Longest name: what the plain form of ISO 9660 takes, with its version number.
const MAX_NAME: usize = 28;
const MAX_DEPTH: usize = 8;

/// A file or folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node<'a> {
    pub name: String,
    /// The folder that it is in; the root is in itself.
    pub parent: usize,
    pub kind: Kind<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind<'a> {
    /// With what it holds, by name.
    Folder(Vec<usize>),
    File(&'a Entry),
}

/// Node 0 is the root; a folder stands before what it holds.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub nodes: Vec<Node<'a>>,
}

impl<'a> Tree<'a> {
    /// The tree of these files.
    pub fn of(entries: &'a [Entry]) -> Result<Tree<'a>, Error> {
        let root = Node {
            name: String::new(),
            parent: 0,
            kind: Kind::Folder(Vec::new()),
        };
        let mut tree = Tree { nodes: vec![root] };
        for entry in entries {
            tree.add(entry)?;
        }
        Ok(tree)
    }

    /// Folders with their numbers and what they hold, the root first.
    pub fn folders(&self) -> impl Iterator<Item = (usize, &[usize])> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(at, node)| match &node.kind {
            Kind::Folder(held) => Some((at, held.as_slice())),
            Kind::File(_) => None,
        })
    }

    /// Files with their numbers, in the order in which they were put in.
    pub fn files(&self) -> impl Iterator<Item = (usize, &'a Entry)> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(at, node)| match node.kind {
            Kind::File(entry) => Some((at, entry)),
            Kind::Folder(_) => None,
        })
    }

    fn add(&mut self, entry: &'a Entry) -> Result<(), Error> {
        if entry.size_bytes > MAX_FILE {
            return Err(Error::FileTooLarge {
                path: entry.path.clone(),
                size_bytes: entry.size_bytes,
            });
        }
        let names: Vec<&str> = entry.path.split('/').collect();
        if names.len() > MAX_DEPTH || !names.iter().all(|name| is_name(name)) {
            return Err(Error::Name(entry.path.clone()));
        }
        let mut folder = 0;
        for (depth, name) in names.iter().enumerate() {
            let is_last = depth + 1 == names.len();
            let twice = || Error::Twice(entry.path.clone());
            match self.held(folder, name) {
                Some(_) if is_last => return Err(twice()),
                Some(there) if matches!(self.nodes[there].kind, Kind::File(_)) => {
                    return Err(twice());
                }
                Some(there) => folder = there,
                None if is_last => {
                    self.put(folder, name, Kind::File(entry));
                }
                None => folder = self.put(folder, name, Kind::Folder(Vec::new())),
            }
        }
        Ok(())
    }

    /// What a folder holds by a name, which differs from others in more than case.
    fn held(&self, folder: usize, name: &str) -> Option<usize> {
        let Kind::Folder(held) = &self.nodes[folder].kind else {
            return None;
        };
        let same = |&&at: &&usize| self.nodes[at].name.eq_ignore_ascii_case(name);
        held.iter().find(same).copied()
    }

    fn put(&mut self, parent: usize, name: &str, kind: Kind<'a>) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node {
            name: name.to_owned(),
            parent,
            kind,
        });
        let upper = |at: usize, nodes: &[Node<'_>]| nodes[at].name.to_ascii_uppercase();
        let own = upper(at, &self.nodes);
        if let Kind::Folder(held) = &self.nodes[parent].kind {
            let place = held.partition_point(|&other| upper(other, &self.nodes) < own);
            if let Kind::Folder(held) = &mut self.nodes[parent].kind {
                held.insert(place, at);
            }
        }
        at
    }
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.';
    let dots = name.bytes().filter(|&b| b == b'.').count();
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(plain)
        && dots <= 1
        && !name.starts_with('.')
        && !name.ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::{Kind, Tree};
    use crate::{Content, Entry, Error, MAX_FILE};

    fn entries(paths: &[&str]) -> Vec<Entry> {
        let entry = |path: &&str| Entry::of_bytes(path, *b"x");
        paths.iter().map(entry).collect()
    }

    #[test]
    fn folders_are_made_and_names_are_in_order() {
        let entries = entries(&["b/z.txt", "a", "b/Y", "b/c/x", "B-1"]);
        let tree = Tree::of(&entries).unwrap();
        let names = |folder: usize| -> Vec<&str> {
            let Kind::Folder(held) = &tree.nodes[folder].kind else {
                panic!("no folder")
            };
            held.iter()
                .map(|&at| tree.nodes[at].name.as_str())
                .collect()
        };
        assert_eq!(names(0), ["a", "b", "B-1"]);
        let folders: Vec<usize> = tree.folders().map(|(at, _)| at).collect();
        assert_eq!(folders.len(), 3);
        assert_eq!(names(folders[1]), ["c", "Y", "z.txt"]);
        assert_eq!(tree.nodes[folders[2]].parent, folders[1]);
        let files: Vec<&str> = tree.files().map(|(_, e)| e.path.as_str()).collect();
        assert_eq!(files, ["b/z.txt", "a", "b/Y", "b/c/x", "B-1"]);
    }

    #[test]
    fn names_that_not_every_file_system_takes_are_refused() {
        for path in [
            "", "/a", "a/", "a//b", "..", "a/..", ".a", "a.", "a.b.c", "a b", "ä", "a:b",
        ] {
            let entries = entries(&[path]);
            assert_eq!(Tree::of(&entries).unwrap_err(), Error::Name(path.into()));
        }
        assert!(Tree::of(&entries(&[&"n".repeat(29)])).is_err());
        assert!(Tree::of(&entries(&["a/b/c/d/e/f/g/h/i"])).is_err());
        for paths in [["a", "A"], ["a", "a/b"], ["a/b", "a"]] {
            let entries = entries(&paths);
            assert!(
                matches!(Tree::of(&entries), Err(Error::Twice(_))),
                "{paths:?}"
            );
        }
        let large = [Entry {
            path: "a".into(),
            size_bytes: MAX_FILE + 1,
            content: Content::Zeros,
        }];
        assert!(matches!(Tree::of(&large), Err(Error::FileTooLarge { .. })));
    }
}
