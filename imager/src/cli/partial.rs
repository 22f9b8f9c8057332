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
    published: bool,
}

impl PartialFile {
    /// Begins the file `name`. None of the files in `read` is ever emptied for it; a folder
    /// there stands for the files in it.
    pub(super) fn create(name: &Path, read: &[&Path]) -> Result<Self, Report> {
        let mut partial = name.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = lock(&partial)?;
        let there = file.metadata().map_err(|e| failed(&partial, &e))?;
        if read.iter().any(|path| is_or_holds(path, &there)) {
            let found = format!(
                "{} is what is read, and would be written to make {}",
                partial.display(),
                name.display()
            );
            return Err(refused(found, "Choose another name."));
        }
        // What an earlier, killed run left there is of no use to anybody. A pipe has
        // nothing to cut off.
        if there.is_file() {
            if there.nlink() != 1 {
                let found = format!("{} is a file with other names, too", partial.display());
                return Err(refused(found, "Remove it, or choose another name."));
            }
            file.set_len(0).map_err(|e| failed(&partial, &e))?;
        }
        Ok(PartialFile {
            file,
            partial,
            name: name.to_owned(),
            published: false,
        })
    }

    /// What is written into it.
    pub(super) fn writer(&self) -> &File {
        &self.file
    }

    /// Gives it its name, and waits until that is on the medium.
    pub(super) fn publish(mut self, overwrite: bool) -> Result<(), Report> {
        let mut sync = || -> std::io::Result<()> {
            self.file.sync_all()?;
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
        if !self.published && is_at(&self.file, &self.partial) {
            // If it cannot be removed, its name still says that it is no image.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Opens and locks a file that stands under that name, and is no link.
fn lock(partial: &Path) -> Result<Flock<File>, Report> {
    for _ in 0..ATTEMPTS {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(partial)
            .map_err(|e| match Errno::from_raw(e.raw_os_error().unwrap_or(0)) {
                Errno::ELOOP => {
                    let found = format!("{} is a symbolic link", partial.display());
                    refused(found, "Remove it, or choose another name.")
                }
                _ => failed(partial, &e),
            })?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => break,
            Err((_, errno)) => return Err(failed(partial, &errno.into())),
        };
        // Whoever had the lock may have given the file its own name meanwhile: it is
        // complete then, and no longer the one that is to be written.
        if is_at(&file, partial) {
            return Ok(file);
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

fn is_or_holds(path: &Path, there: &Metadata) -> bool {
    let Ok(own) = std::fs::metadata(path) else {
        return false;
    };
    let below = || std::fs::read_dir(path).into_iter().flatten().flatten();
    is_same(&own, there)
        || own.is_dir()
            && below().any(|entry| {
                std::fs::metadata(entry.path()).is_ok_and(|file| is_same(&file, there))
            })
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
