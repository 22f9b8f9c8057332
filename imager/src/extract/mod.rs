//! Files of an image, made anew in a folder.
//!
//! Owns: what is made of what, what is passed over, and the account of it. Does not own:
//! reading (`crate::files`), or the safety of each step (`folder`).

pub mod folder;

use crate::files::path::Found;
use crate::files::walk::{Visitor, walk};
use crate::files::{self, Fail, Kind, Node, Piece, Tree};
use crate::progress::ProgressSink;
use folder::{Folder, Identity, is_safe};
use image::record::is_zero;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use wire::{Code, DiskState, Report};

/// Zeros in pieces of this size and place become holes.
const HOLE: usize = 4096;
/// Names of files with several names that are kept.
const MAX_LINKS: usize = 1 << 20;
/// Failures that are kept; all are counted and told.
const KEPT: usize = 100;

/// What was made.
#[derive(Default)]
pub struct Account {
    /// Regular files.
    pub files: u64,
    /// Folders.
    pub folders: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Further names of files that were made already.
    pub hard_links: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Devices, pipes and sockets that were passed over.
    pub specials: u64,
    /// Streams beside the contents of files that were made.
    pub streams: u64,
    /// Files, folders and links that were made without their extended attributes.
    pub bare: u64,
    /// What could not be made, the first ones.
    pub failures: Vec<Report>,
    /// How many those were.
    pub failed: u64,
}

/// How it is made.
pub struct Options<'a> {
    /// What stands before paths when they are told, as `partition 2: `.
    pub label: &'a str,
    /// Files that are there are replaced, and folders filled.
    pub overwrite: bool,
}

/// Makes what was found, by its last name; the root's content if it is the root.
pub fn extract(
    tree: &dyn Tree,
    found: &Found,
    into: &Folder,
    options: &Options<'_>,
    progress: &dyn ProgressSink,
    account: &mut Account,
) -> Result<(), Fail> {
    let mut work = Work {
        tree,
        options,
        progress,
        account,
        folders: vec![into.again()?],
        known: HashMap::new(),
        top: into,
    };
    let name = found
        .path
        .rsplit(|&byte| byte == b'/')
        .next()
        .unwrap_or_default();
    if found.node.kind != Kind::Directory {
        work.make(name, name, Ok(found.node.clone()))?;
        return Ok(());
    }
    if name.is_empty() {
        return walk(tree, &found.node, b"", &mut work);
    }
    if work.make(name, name, Ok(found.node.clone()))? {
        walk(tree, &found.node, name, &mut work)?;
    }
    Ok(())
}

struct Work<'a> {
    tree: &'a dyn Tree,
    options: &'a Options<'a>,
    progress: &'a dyn ProgressSink,
    account: &'a mut Account,
    /// From the destination to the folder that is being filled.
    folders: Vec<Folder>,
    /// Where files with several names were made, from the destination, and as what.
    known: HashMap<u64, (Vec<u8>, Identity)>,
    top: &'a Folder,
}

impl Visitor for Work<'_> {
    fn entry(&mut self, path: &[u8], name: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail> {
        self.make(path, name, node)
    }

    fn leave(&mut self, path: &[u8], node: &Node, failed: Option<Fail>) -> Result<(), Fail> {
        if let Some(fail) = failed {
            self.failed(path, fail)?;
        }
        // The destination itself stays as its owner made it.
        if self.folders.len() > 1
            && let Some(folder) = self.folders.pop()
            && let Err(fail) = folder.settle(node)
        {
            self.failed(path, fail)?;
        }
        Ok(())
    }
}

impl Work<'_> {
    /// Makes one thing; true for a folder that is to be filled.
    fn make(&mut self, path: &[u8], name: &[u8], node: Result<Node, Fail>) -> Result<bool, Fail> {
        if self.progress.interrupted() {
            return Err(Fail::Interrupted);
        }
        match node.and_then(|node| self.made(path, name, &node)) {
            Ok(enter) => Ok(enter),
            Err(fail) => {
                self.failed(path, fail)?;
                Ok(false)
            }
        }
    }

    fn made(&mut self, path: &[u8], name: &[u8], node: &Node) -> Result<bool, Fail> {
        let specials = self.account.specials;
        let hard_links = self.account.hard_links;
        let enter = self.make_new(path, name, node)?;
        // What was passed over, or is one more name, has left nothing out.
        if (specials, hard_links) == (self.account.specials, self.account.hard_links) {
            self.account.streams += u64::from(node.besides.streams);
            self.account.bare += u64::from(node.besides.attributes);
        }
        Ok(enter)
    }

    fn make_new(&mut self, path: &[u8], name: &[u8], node: &Node) -> Result<bool, Fail> {
        if !is_safe(name) {
            return Err(Fail::damaged("its name is none that a file can have"));
        }
        let replace = self.options.overwrite;
        let Some(folder) = self.folders.last() else {
            return Err(Fail::damaged("no folder to put it in"));
        };
        match node.kind {
            Kind::Directory => {
                let made = folder.folder(name, replace)?;
                self.folders.push(made);
                self.account.folders += 1;
                return Ok(true);
            }
            Kind::Symlink => {
                let target = self.tree.target(node)?;
                if target.is_empty() || target.contains(&0) || target.len() > 4095 {
                    return Err(Fail::damaged("its target is none that a link can have"));
                }
                folder.symlink(name, &target, node, replace)?;
                self.account.symlinks += 1;
            }
            Kind::Special(_) => self.account.specials += 1,
            Kind::File => {
                if node.links > 1 && self.linked(name, node) {
                    self.account.hard_links += 1;
                    return Ok(false);
                }
                let identity = self.file(folder, name, node)?;
                self.account.files += 1;
                self.account.bytes = self.account.bytes.saturating_add(node.size);
                if node.links > 1 && self.known.len() < MAX_LINKS {
                    self.known.insert(node.id, (path.to_vec(), identity));
                }
            }
        }
        Ok(false)
    }

    /// One more name for a file that was made already; if that cannot be, it is made again.
    fn linked(&self, name: &[u8], node: &Node) -> bool {
        let Some((known, identity)) = self.known.get(&node.id) else {
            return false;
        };
        let mut parts: Vec<&[u8]> = known.split(|&byte| byte == b'/').collect();
        let Some(last) = parts.pop() else {
            return false;
        };
        let Ok(mut from) = self.top.again() else {
            return false;
        };
        for part in parts {
            match from.enter(part) {
                Ok(next) => from = next,
                Err(_) => return false,
            }
        }
        let folder = self.folders.last();
        folder.is_some_and(|folder| {
            folder
                .hard_link(name, &from, (last, *identity), self.options.overwrite)
                .is_ok()
        })
    }

    fn file(&self, folder: &Folder, name: &[u8], node: &Node) -> Result<Identity, Fail> {
        let new = folder.file()?;
        let mut at = 0u64;
        files::read(self.tree, node, &mut |piece| {
            if self.progress.interrupted() {
                return Err(Fail::Interrupted);
            }
            match piece {
                Piece::Data(bytes) => {
                    write_data(&new.file, at, bytes).map_err(|e| output(&e))?;
                    at += bytes.len() as u64;
                    self.progress
                        .advance(bytes.len() as u64, bytes.len() as u64);
                }
                Piece::Hole(len) => at = at.saturating_add(len),
            }
            Ok(())
        })?;
        new.file.set_len(node.size).map_err(|e| output(&e))?;
        new.publish(name, node, self.options.overwrite)
    }

    /// Notes a failure of one thing; a failure of everything ends the work.
    fn failed(&mut self, path: &[u8], fail: Fail) -> Result<(), Fail> {
        if let Fail::Output(report) = &fail
            && !matches!(report.code, Code::NoSpace | Code::Interrupted)
        {
            self.tell((**report).clone(), path);
            return Ok(());
        }
        if fail.is_final() {
            return Err(fail);
        }
        // A report on the image does not say of which file.
        let about = if matches!(fail, Fail::Image(_)) {
            path
        } else {
            b""
        };
        let report = fail.report(&shown(self.options.label, path));
        self.tell(report, about);
        Ok(())
    }

    fn tell(&mut self, mut report: Report, path: &[u8]) {
        if !path.is_empty() {
            report.found = format!("{}: {}", shown(self.options.label, path), report.found);
        }
        self.progress
            .note(&format!("{}: {}", report.code, report.found));
        self.account.failed += 1;
        if self.account.failures.len() < KEPT {
            self.account.failures.push(report);
        }
    }
}

/// A path for people.
pub fn shown(label: &str, path: &[u8]) -> String {
    let path = crate::map::printable(&String::from_utf8_lossy(path), 4096);
    format!("{label}/{}", path.trim_start_matches('/'))
}

fn output(error: &io::Error) -> Fail {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
    folder::failed("writing a file", errno)
}

/// Writes what is not zero.
fn write_data(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let (mut from, mut end) = (0, 0);
    while end < bytes.len() {
        // Pieces begin where those of the file do.
        let in_piece = (at % HOLE as u64) as usize;
        let next = bytes.len().min(end + HOLE - (in_piece + end) % HOLE);
        if is_zero(&bytes[end..next]) {
            if from < end {
                file.write_all_at(&bytes[from..end], at + from as u64)?;
            }
            from = next;
        }
        end = next;
    }
    if from < end {
        file.write_all_at(&bytes[from..end], at + from as u64)?;
    }
    Ok(())
}

/// The end of an extraction of which something is missing.
pub fn incomplete(account: &Account) -> Option<Report> {
    let first = account.failures.first()?;
    let complete = account.files + account.folders + account.symlinks + account.hard_links;
    let found = format!(
        "{} could not be extracted, {complete} were; the first: {}: {}",
        account.failed, first.code, first.found
    );
    Some(Report::new(
        Code::FilesIncomplete,
        found,
        DiskState::NotInvolved,
    ))
}
