//! What lies in the file systems of a raw disk image, as a list that can be compared.
//!
//! Owns: read-only looks into ext4 (mounted by offset) and FAT (by mtools), and a
//! digest of whole files. Does not own: making the disks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::run;
use crate::debian_disk::Part;

/// Path below the root, and one line that says all about it: type and permissions,
/// owner, time of change, size, and digest or link target.
pub type Listing = BTreeMap<String, String>;

/// Everything in an ext4 file system inside a raw disk image.
///
/// # Errors
/// It cannot be mounted or read.
pub fn ext4(disk: &Path, part: Part) -> io::Result<Listing> {
    let folder = tempfile::tempdir()?;
    // noload: not even the journal is written.
    let options = format!(
        "ro,noload,loop,offset={},sizelimit={}",
        part.offset_bytes(),
        part.bytes()
    );
    run(Command::new("mount")
        .args(["-t", "ext4", "-o", &options])
        .args([disk, folder.path()]))?;
    let listing = list(folder.path());
    run(Command::new("umount").arg(folder.path()))?;
    listing
}

/// Everything in a FAT file system inside a raw disk image. Owners and permissions are
/// this machine's, so only names and contents count.
///
/// # Errors
/// It cannot be read.
pub fn fat(disk: &Path, part: Part) -> io::Result<Listing> {
    let folder = tempfile::tempdir()?;
    run(Command::new("mcopy")
        .arg("-s")
        .arg("-m")
        .arg("-i")
        .arg(format!("{}@@{}", disk.display(), part.offset_bytes()))
        .arg("::/")
        .arg(folder.path()))?;
    list(folder.path())
}

/// Digest of a whole file, as hexadecimal digits.
///
/// # Errors
/// It cannot be read.
pub fn digest(path: &Path) -> io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The first differences of two listings, as text for a failing test; empty if equal.
pub fn differences(left: &Listing, right: &Listing) -> Vec<String> {
    let mut all = Vec::new();
    for (path, what) in left {
        match right.get(path) {
            Some(other) if other == what => {}
            Some(other) => all.push(format!("{path}: {what} became {other}")),
            None => all.push(format!("{path}: missing")),
        }
    }
    for path in right.keys().filter(|path| !left.contains_key(*path)) {
        all.push(format!("{path}: added"));
    }
    all.truncate(20);
    all
}

fn list(root: &Path) -> io::Result<Listing> {
    let mut listing = Listing::new();
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let content = if meta.is_symlink() {
                fs::read_link(&path)?.display().to_string()
            } else if meta.is_file() {
                digest(&path)?
            } else {
                String::new()
            };
            if meta.is_dir() {
                folders.push(path.clone());
            }
            let name = path.strip_prefix(root).unwrap_or(&path);
            listing.insert(
                name.display().to_string(),
                format!(
                    "{:o} {}:{} {} {} {content}",
                    meta.mode(),
                    meta.uid(),
                    meta.gid(),
                    meta.mtime(),
                    if meta.is_file() { meta.size() } else { 0 }
                ),
            );
        }
    }
    Ok(listing)
}

#[cfg(test)]
mod tests {
    use super::{Listing, differences, list};

    #[test]
    fn a_listing_sees_content_names_and_permissions() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        std::fs::write(folder.path().join("a/f"), b"one").unwrap();
        let before = list(folder.path()).unwrap();
        assert_eq!(before.len(), 2);
        assert!(differences(&before, &before).is_empty());
        std::fs::write(folder.path().join("a/f"), b"two").unwrap();
        std::fs::write(folder.path().join("g"), b"").unwrap();
        let after = list(folder.path()).unwrap();
        let found = differences(&before, &after).join("\n");
        assert!(
            found.contains("a/f: ") && found.contains("g: added"),
            "{found}"
        );
        assert!(differences(&before, &Listing::new())[0].contains("missing"));
    }
}
