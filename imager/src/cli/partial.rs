//! A file that gets its name only when it is complete.
//!
//! Owns: the file beside it (`NAME.partial`) that is written meanwhile, and that it is nobody
//! else's. Does not own: what is written.

use crate::report;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use std::fs::{File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report};

/// How often a file is opened that somebody else takes away each time.
const ATTEMPTS: u32 = 100;

/// A file that gets its name only when it is complete, and is removed if it is not. It
/// is locked as long as it is written, so that two runs never write the same one.
pub(super) struct PartialFile {
    file: Flock<File>,
    partial: PathBuf,
    name: PathBuf,
    /// Whether the file is there for this run alone, and goes when it fails.
    ours: bool,
    published: bool,
}

impl PartialFile {
    /// The name of `name` as long as it is not complete.
    pub(super) fn beside(name: &Path) -> PathBuf {
        let mut partial = name.as_os_str().to_owned();
        partial.push(".partial");
        PathBuf::from(partial)
    }

    /// Begins the file `name`. None of the files in `read` is ever emptied for it.
    pub(super) fn create(name: &Path, read: &[&Path]) -> Result<Self, Report> {
        let partial = Self::beside(name);
        let (file, ours) = lock(&partial)?;
        let mut part = PartialFile {
            file,
            partial,
            name: name.to_owned(),
            ours,
            published: false,
        };
        let there = part.file.metadata();
        let there = there.map_err(|e| failed(&part.partial, &e))?;
        let shown = part.partial.display();
        // A file that was made just now is nothing that anybody reads.
        if !ours && read.iter().any(|path| is_that(path, &there)) {
            let name = name.display();
            let found = format!("{shown} is what is read, and would be written to make {name}");
            return Err(refused(found, "Choose another name."));
        }
        // What an earlier, killed run left there is of no use to anybody. A pipe has
        // nothing to cut off.
        if there.is_file() {
            // Some file servers count none.
            if there.nlink() > 1 {
                let found = format!("{shown} is a file with other names, too");
                return Err(refused(found, "Remove it, or choose another name."));
            }
            let emptied = part.file.set_len(0);
            emptied.map_err(|e| failed(&part.partial, &e))?;
        }
        part.ours = true;
        Ok(part)
    }

    /// What is written into it.
    pub(super) fn writer(&self) -> &File {
        &self.file
    }

    /// Gives it its name, and waits until that is on the medium.
    pub(super) fn publish(mut self, overwrite: bool) -> Result<(), Report> {
        let mut sync = || -> std::io::Result<()> {
            self.file.sync_all()?;
            if !is_at(&self.file, &self.partial) {
                let what = "it was taken away or replaced while it was written";
                return Err(std::io::Error::other(what));
            }
            if overwrite {
                std::fs::rename(&self.partial, &self.name)?;
            } else {
                // Unlike a rename this fails if the name was taken meanwhile.
                match std::fs::hard_link(&self.partial, &self.name) {
                    Ok(()) => std::fs::remove_file(&self.partial)?,
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => return Err(e),
                    // File systems without hard links (FAT).
                    Err(_) => std::fs::rename(&self.partial, &self.name)?,
                }
            }
            self.published = true;
            let folder = self.name.parent().filter(|p| !p.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        };
        sync().map_err(|e| failed(&self.name, &e))
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.ours && !self.published && is_at(&self.file, &self.partial) {
            // If it cannot be removed, its name still says that it is no image.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Opens the file of that name, which is no link; tells whether it was made for that. `None`
/// if it went away in between.
fn open(partial: &Path) -> Result<Option<(File, bool)>, Report> {
    match File::options().write(true).create_new(true).open(partial) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed(partial, &e)),
        Ok(file) => return Ok(Some((file, true))),
    }
    let mut there = File::options();
    there.write(true).custom_flags(OFlag::O_NOFOLLOW.bits());
    match there.open(partial) {
        Ok(file) => Ok(Some((file, false))),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) if e.raw_os_error() == Some(Errno::ELOOP as i32) => {
            let found = format!("{} is a symbolic link", partial.display());
            Err(refused(found, "Remove it, or choose another name."))
        }
        Err(e) => Err(failed(partial, &e)),
    }
}

/// Opens and locks the file of that name; tells whether it was made for that.
fn lock(partial: &Path) -> Result<(Flock<File>, bool), Report> {
    for _ in 0..ATTEMPTS {
        let Some((file, made)) = open(partial)? else {
            continue;
        };
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => break,
            Err((file, errno)) => {
                if made && is_at(&file, partial) {
                    // If it cannot be removed, its name still says that it is no image.
                    let _ = std::fs::remove_file(partial);
                }
                return Err(failed(partial, &errno.into()));
            }
        };
        // Whoever had the lock may have given the file its own name meanwhile: it is
        // complete then, and no longer the one that is to be written.
        if is_at(&file, partial) {
            return Ok((file, made));
        }
    }
    let found = format!("another run is writing {}", partial.display());
    let advice = "Wait for it to end, or choose another name.";
    Err(refused(found, advice))
}

/// Whether an open file is what stands under that name.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => is_same(&open, &there),
        _ => false,
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn is_that(path: &Path, there: &Metadata) -> bool {
    std::fs::metadata(path).is_ok_and(|file| is_same(&file, there))
}

fn refused(found: String, advice: &'static str) -> Report {
    Report::new(Code::ImageExists, found, DiskState::NotInvolved).with_advice(advice)
}

/// What the system said of a file that is written.
pub(super) fn failed(path: &Path, error: &std::io::Error) -> Report {
    let mut report = report::output(error);
    report.found = format!("{}: {error}", path.display());
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A lock that was waited for may be one on a file that is complete by now.
    #[test]
    fn a_file_is_known_to_have_got_another_name() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, name) = (dir.path().join("x.partial"), dir.path().join("x"));
        let file = File::create(&partial).unwrap();
        assert!(is_at(&file, &partial));
        fs::rename(&partial, &name).unwrap();
        assert!(!is_at(&file, &partial));
        fs::write(&partial, b"the next run's").unwrap();
        assert!(!is_at(&file, &partial) && is_at(&file, &name));
    }

    #[test]
    fn a_file_that_is_no_longer_ours_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("x");
        let partial = dir.path().join("x.partial");
        let part = PartialFile::create(&name, &[]).unwrap();
        fs::rename(&partial, &name).unwrap();
        fs::write(&partial, b"the next run's").unwrap();
        drop(part);
        assert_eq!(fs::read(&partial).unwrap(), b"the next run's");
        // One that is ours is.
        drop(PartialFile::create(&name, &[]).unwrap());
        assert!(!partial.exists() && name.exists());
    }

    #[test]
    fn another_file_never_gets_the_name() {
        let dir = tempfile::tempdir().unwrap();
        let (name, partial) = (dir.path().join("x"), dir.path().join("x.partial"));
        for overwrite in [false, true] {
            let part = PartialFile::create(&name, &[]).unwrap();
            fs::remove_file(&partial).unwrap();
            fs::write(&partial, b"another program's").unwrap();
            let report = part.publish(overwrite).unwrap_err();
            assert!(report.found.contains("replaced"), "{report:?}");
            assert!(!name.exists());
            assert_eq!(fs::read(&partial).unwrap(), b"another program's");
        }
    }

    #[test]
    fn two_runs_never_write_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("x");
        let first = PartialFile::create(&name, &[]).unwrap();
        let second = PartialFile::create(&name, &[]).err().unwrap();
        assert!(second.found.starts_with("another run is writing"));
        first.publish(false).unwrap();
        PartialFile::create(&name, &[]).unwrap();
    }
}
