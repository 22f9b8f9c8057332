//! The files of a source, from the first look at them to the end of the job.
//!
//! Owns: that no virtual machine writes to one meanwhile (QEMU's locks), that a change of one
//! is noticed, and that none is written by the job itself. Does not own: disks of this machine
//! (`crate::in_use`).
//!
//! An image is read for minutes, and what is read first says where the rest stands: tables
//! of minute 0 with the clusters of minute 20 are no disk that ever was.

use crate::in_use;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use wire::{Code, DiskState, Report};

/// QEMU locks this byte as long as somebody may write to an image (its permission to write
/// is number 1, and byte 100 is that of number 0).
const WRITER: libc::off_t = 101;
/// Who has locked these does not bear that somebody writes (number 1) or changes the size
/// (number 3): byte 200 and the number of the permission. QEMU asks before it opens.
const UNSHARED: [libc::off_t; 2] = [201, 203];

/// What tells that a file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// The time that nobody can set back.
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            file: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The files that were opened or read.
#[derive(Debug, Default)]
pub struct Claims {
    /// The user knows that something may write to them.
    forced: bool,
    /// What the job itself writes or replaces.
    outputs: Vec<PathBuf>,
    files: RefCell<Vec<(PathBuf, Stamp)>>,
    /// Locks are given up when these are closed.
    locked: RefCell<Vec<File>>,
}

impl Claims {
    /// No files yet; `forced` for a source that something may write to: nothing is refused,
    /// nobody is hindered. What is in `outputs` is no source, forced or not.
    pub fn new(forced: bool, outputs: &[PathBuf]) -> Claims {
        Claims {
            forced,
            outputs: outputs.to_owned(),
            ..Claims::default()
        }
    }

    /// Claims an open file, before it is read.
    ///
    /// # Errors
    /// `disk-in-use` if something may write to it, `image-exists` if this job would.
    pub fn take(&self, path: &Path, file: &File) -> Result<(), Report> {
        let metadata = file.metadata().map_err(|e| gone(path, &e))?;
        self.refuse_output(path, &metadata)?;
        if self.forced {
            return Ok(());
        }
        in_use::refuse_if_written(path)?;
        // First the lock, then the question: whoever comes in between is seen or refused.
        if lock(file).is_err() || is_locked(file) {
            let found = format!("{}: a virtual machine may write to it", path.display());
            return Err(
                Report::new(Code::DiskInUse, found, DiskState::NotInvolved).with_advice(
                    "Shut the virtual machine down, or add --force: the image may be torn then.",
                ),
            );
        }
        let kept = file.metadata().and_then(|m| Ok((m, file.try_clone()?)));
        let (metadata, kept) = kept.map_err(|e| gone(path, &e))?;
        self.note(path, &metadata);
        self.locked.borrow_mut().push(kept);
        Ok(())
    }

    /// Remembers a file that is read by its name, before that is done.
    ///
    /// # Errors
    /// It cannot be looked at; `import-unsupported` if it is no file: a pipe would be waited
    /// for; `image-exists` if this job would write to it.
    pub fn watch(&self, path: &Path) -> Result<(), Report> {
        let metadata = std::fs::metadata(path).map_err(|e| gone(path, &e))?;
        if !metadata.is_file() {
            let found = format!("{} is no regular file", path.display());
            let report = Report::new(Code::ImportUnsupported, found, DiskState::NotInvolved);
            return Err(
                report.with_advice("Name a folder as Clonezilla leaves it, with all of its files.")
            );
        }
        self.refuse_output(path, &metadata)?;
        if !self.forced {
            self.note(path, &metadata);
        }
        Ok(())
    }

    /// The new image would take the place of a file that it is made of, or be written into it.
    fn refuse_output(&self, path: &Path, metadata: &Metadata) -> Result<(), Report> {
        let identity = (metadata.dev(), metadata.ino());
        let is = |output: &&PathBuf| {
            let there = std::fs::symlink_metadata(output);
            there.is_ok_and(|there| (there.dev(), there.ino()) == identity)
        };
        match self.outputs.iter().find(is) {
            Some(output) => Err(Report::new(
                Code::ImageExists,
                format!(
                    "{} is read, and the new image would be written to {}, which is the same file",
                    path.display(),
                    output.display()
                ),
                DiskState::NotInvolved,
            )
            .with_advice("Choose another name.")),
            None => Ok(()),
        }
    }

    fn note(&self, path: &Path, metadata: &Metadata) {
        let mut files = self.files.borrow_mut();
        // The first look counts.
        if files.iter().all(|(known, _)| known != path) {
            files.push((path.to_owned(), Stamp::of(metadata)));
        }
    }

    /// Asked when all was read.
    ///
    /// # Errors
    /// `disk-in-use` if a file is another one by now.
    pub fn check(&self) -> Result<(), Report> {
        for (path, before) in self.files.borrow().iter() {
            let metadata = std::fs::metadata(path).map_err(|e| gone(path, &e))?;
            let now = Stamp::of(&metadata);
            if now == *before {
                continue;
            }
            let how = match () {
                () if now.file != before.file => "another file has its name by now".to_owned(),
                () if now.size != before.size => {
                    format!("it had {} bytes, now {}", before.size, now.size)
                }
                () if now.modified != before.modified => "its times say so".to_owned(),
                () => "its owner, rights, labels or names, or its contents with the time set back"
                    .to_owned(),
            };
            let found = format!("{} changed while it was read: {how}", path.display());
            return Err(
                Report::new(Code::DiskInUse, found, DiskState::NotInvolved).with_advice(
                    "Nothing was kept. Stop what writes to it, and import it again; or add --force: the image may be torn then.",
                ),
            );
        }
        Ok(())
    }
}

fn gone(path: &Path, error: &std::io::Error) -> Report {
    let found = format!("{}: {error}", path.display());
    Report::new(Code::ReadError, found, DiskState::NotInvolved)
        .with_advice("Check that the source stays where it is while it is imported.")
}

fn byte(kind: libc::c_int, at: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: at,
        l_len: 1,
        l_pid: 0,
    }
}

/// Keeps writers away. Where files cannot be locked nobody is kept away, and that is no error.
fn lock(file: &File) -> Result<(), Errno> {
    for at in UNSHARED {
        let asked = fcntl(file, FcntlArg::F_OFD_SETLK(&byte(libc::F_RDLCK, at)));
        if let Err(errno @ (Errno::EAGAIN | Errno::EACCES)) = asked {
            return Err(errno);
        }
    }
    Ok(())
}

/// Whether somebody may write to it by QEMU's locks.
fn is_locked(file: &File) -> bool {
    let mut lock = byte(libc::F_WRLCK, WRITER);
    let asked = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock));
    asked.is_ok() && lock.l_type != libc::F_UNLCK as libc::c_short
}

#[cfg(test)]
mod tests {
    use super::Claims;
    use nix::sys::stat::Mode;
    use wire::Code;

    #[test]
    fn what_would_be_waited_for_is_no_source() {
        let dir = tempfile::tempdir().unwrap();
        let [file, pipe] = ["file", "pipe"].map(|name| dir.path().join(name));
        std::fs::write(&file, b"sda").unwrap();
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        for forced in [false, true] {
            let claims = Claims::new(forced, &[]);
            claims.watch(&file).unwrap();
            let report = claims.watch(&pipe).unwrap_err();
            assert_eq!(report.code, Code::ImportUnsupported);
        }
    }
}
