//! Making files in a folder, and nowhere else.
//!
//! Owns: that a name stays in the folder that it is made in, that nothing is followed or
//! replaced unasked, and that a file has its name only once it is written. Does not own:
//! what is made, or that it is on the medium before [`Folder::sync`].
//!
//! Every step goes from one open folder to the next by a single name, never by a path, and
//! never through a link: whatever an image calls its files, and whoever moves folders about
//! meanwhile, nothing is made outside of the destination.

use crate::files::{Fail, Node, Time};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, UtimensatFlags, fchmod, fstat, fstatat, futimens, mkdirat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchown, fchownat, geteuid, linkat, symlinkat, unlinkat,
};
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use wire::{Code, DiskState, Report};

/// Set-user-ID and set-group-ID: they give rights to whoever owns the file, so they go only
/// with the owner.
const SET_IDS: u16 = 0o6000;

/// An open folder.
pub struct Folder {
    fd: OwnedFd,
    /// What this run made in it where it may replace: what is there already is
    /// replaced, what the same run made is not. Names cannot tell: those of some file
    /// systems are the same in other letter cases.
    made: Rc<RefCell<HashSet<Identity>>>,
}

/// What tells a file apart from all others: its file system and its inode. Either alone does
/// not: the first folders of many file systems have the same inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

/// A file that is being made under a name of its own; dropping it removes it.
pub struct NewFile<'a> {
    folder: &'a Folder,
    name: OsString,
    /// What is written.
    pub file: File,
    published: bool,
}

/// Whether a name can be one of a file in a folder.
pub fn is_safe(name: &[u8]) -> bool {
    !matches!(name, b"" | b"." | b"..") && !name.iter().any(|&byte| byte == 0 || byte == b'/')
}

/// Whether files can be given away.
pub fn gives_away() -> bool {
    geteuid().is_root()
}

/// What the system said when something was made.
pub fn failed(what: &str, errno: Errno) -> Fail {
    let (code, advice) = match errno {
        Errno::ENOSPC | Errno::EDQUOT => (
            Code::NoSpace,
            "Free space at the destination, or extract elsewhere.",
        ),
        _ => (
            Code::OutputFailed,
            "Check the destination and the rights on it.",
        ),
    };
    let found = format!("{what}: {}", errno.desc());
    let report = Report::new(code, found, DiskState::NotInvolved).with_advice(advice);
    Fail::Output(Box::new(report))
}

/// Something of that name is there already.
fn taken(name: &OsStr) -> Fail {
    let name = crate::map::printable(&name.to_string_lossy(), 255);
    let found = format!("{name} is there already, at the destination");
    Fail::Output(Box::new(Report::new(
        Code::FileExists,
        found,
        DiskState::NotInvolved,
    )))
}

/// This run made something of that name before, which the image has only once.
fn taken_twice(name: &OsStr) -> Fail {
    let name = crate::map::printable(&name.to_string_lossy(), 255);
    let found = format!("{name} was made by this run: the destination takes two names for one");
    let report = Report::new(Code::FileExists, found, DiskState::NotInvolved);
    let advice = "Extract to a file system that tells letter cases apart.";
    Fail::Output(Box::new(report.with_advice(advice)))
}

fn name(bytes: &[u8]) -> Result<&OsStr, Fail> {
    if is_safe(bytes) {
        Ok(OsStr::from_bytes(bytes))
    } else {
        Err(Fail::damaged("a name that no file can have"))
    }
}

impl Folder {
    /// Opens the destination, which is made if it is not there.
    pub fn destination(path: &Path) -> Result<Folder, Fail> {
        let shown = path.display().to_string();
        std::fs::create_dir_all(path).map_err(|e| {
            let errno = Errno::from_raw(e.raw_os_error().unwrap_or(0));
            failed(
                &shown,
                if errno == Errno::EEXIST {
                    Errno::ENOTDIR
                } else {
                    errno
                },
            )
        })?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(AT_FDCWD, path, flags, Mode::empty());
        Ok(Folder::of(fd.map_err(|errno| failed(&shown, errno))?))
    }

    fn of(fd: OwnedFd) -> Folder {
        Folder {
            fd,
            made: Rc::default(),
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> Result<bool, Fail> {
        let copy = openat(
            &self.fd,
            ".",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY,
            Mode::empty(),
        );
        let copy = copy.map_err(|errno| failed("the destination", errno))?;
        let mut list =
            nix::dir::Dir::from_fd(copy).map_err(|errno| failed("the destination", errno))?;
        let own = |name: &[u8]| name == b"." || name == b"..";
        Ok(list
            .iter()
            .all(|entry| entry.is_ok_and(|entry| own(entry.file_name().to_bytes()))))
    }

    /// Whether something of that name is in it.
    pub fn has(&self, bytes: &[u8]) -> Result<bool, Fail> {
        Ok(self.identity(name(bytes)?)?.is_some())
    }

    /// What stands under that name, if anything does.
    fn identity(&self, name: &OsStr) -> Result<Option<Identity>, Fail> {
        match fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(there) => Ok(Some(Identity(there.st_dev, there.st_ino))),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(failed("the destination", errno)),
        }
    }

    /// Refuses a name under which this run made something already.
    fn refuse_own(&self, name: &OsStr) -> Result<(), Fail> {
        let there = self.identity(name)?;
        match there.filter(|there| self.made.borrow().contains(there)) {
            Some(_) => Err(taken_twice(name)),
            None => Ok(()),
        }
    }

    /// Makes a folder in it; with `merge` one that is there will do.
    pub fn folder(&self, bytes: &[u8], merge: bool) -> Result<Folder, Fail> {
        let name = name(bytes)?;
        match mkdirat(&self.fd, name, Mode::S_IRWXU) {
            Err(Errno::EEXIST) if merge => self.refuse_own(name)?,
            Err(Errno::EEXIST) => return Err(taken(name)),
            Err(errno) => return Err(failed(&name.to_string_lossy(), errno)),
            Ok(()) => {}
        }
        let folder = self.enter(bytes)?;
        if merge && let Some(made) = self.identity(name)? {
            self.made.borrow_mut().insert(made);
        }
        Ok(folder)
    }

    /// Opens a folder in it; a link to one is none.
    pub fn enter(&self, bytes: &[u8]) -> Result<Folder, Fail> {
        let name = name(bytes)?;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Folder::of(fd)),
            Err(Errno::ENOTDIR | Errno::ELOOP) => Err(taken(name)),
            Err(errno) => Err(failed(&name.to_string_lossy(), errno)),
        }
    }

    /// Begins a file.
    pub fn file(&self) -> Result<NewFile<'_>, Fail> {
        let name = partial_name()?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, &*name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        let fd = fd.map_err(|errno| failed("a new file", errno))?;
        Ok(NewFile {
            folder: self,
            name,
            file: File::from(fd),
            published: false,
        })
    }

    /// Makes a symbolic link.
    pub fn symlink(
        &self,
        bytes: &[u8],
        target: &[u8],
        node: &Node,
        replace: bool,
    ) -> Result<(), Fail> {
        let name = name(bytes)?;
        let partial = partial_name()?;
        symlinkat(OsStr::from_bytes(target), &self.fd, &*partial)
            .map_err(|errno| failed("a new link", errno))?;
        let settled = self.settle_link(&partial, node);
        let moved = settled.and_then(|()| self.publish(&partial, name, replace));
        if moved.is_err() {
            let _ = unlinkat(&self.fd, &*partial, UnlinkatFlags::NoRemoveDir);
        }
        moved
    }

    fn settle_link(&self, name: &OsStr, node: &Node) -> Result<(), Fail> {
        let failed = |errno| failed("a new link", errno);
        if let Some((user, group)) = node.owner.filter(|_| gives_away()) {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            fchownat(
                &self.fd,
                name,
                Some(user),
                Some(group),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .map_err(failed)?;
        }
        let (accessed, modified) = times(node);
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(&self.fd, name, &accessed, &modified, flags).map_err(failed)
    }

    /// Gives a file that was made in `from` one more name here, if it still is the one that
    /// has its name there.
    pub fn hard_link(
        &self,
        bytes: &[u8],
        from: &Folder,
        (other, identity): (&[u8], Identity),
        replace: bool,
    ) -> Result<(), Fail> {
        let (name, other) = (name(bytes)?, self::name(other)?);
        let partial = partial_name()?;
        linkat(&from.fd, other, &self.fd, &*partial, AtFlags::empty())
            .map_err(|errno| failed("one more name", errno))?;
        let moved = match self.identity(&partial) {
            Ok(there) if there == Some(identity) => self.publish(&partial, name, replace),
            Ok(_) => Err(taken(other)),
            Err(fail) => Err(fail),
        };
        // A rename to another name of the same file does nothing.
        let _ = unlinkat(&self.fd, &*partial, UnlinkatFlags::NoRemoveDir);
        moved
    }

    /// From the name under which something was made to its own.
    fn publish(&self, partial: &OsStr, name: &OsStr, replace: bool) -> Result<(), Fail> {
        let said = |errno| match errno {
            Errno::EEXIST | Errno::EISDIR | Errno::ENOTEMPTY => taken(name),
            errno => failed(&name.to_string_lossy(), errno),
        };
        if replace {
            self.refuse_own(name)?;
        } else {
            // Unlike a rename this fails if the name was taken meanwhile.
            match linkat(&self.fd, partial, &self.fd, name, AtFlags::empty()) {
                Ok(()) => {
                    let removed = unlinkat(&self.fd, partial, UnlinkatFlags::NoRemoveDir);
                    return removed.map_err(said);
                }
                // File systems without hard links (FAT).
                Err(Errno::EPERM | Errno::EOPNOTSUPP | Errno::ENOSYS) => {}
                Err(errno) => return Err(said(errno)),
            }
            if self.has(name.as_bytes())? {
                return Err(taken(name));
            }
        }
        let own = self.identity(partial)?.filter(|_| replace);
        renameat(&self.fd, partial, &self.fd, name).map_err(said)?;
        self.made.borrow_mut().extend(own);
        Ok(())
    }

    /// Gives the folder itself owner, mode and times; after what is in it.
    pub fn settle(&self, node: &Node) -> Result<(), Fail> {
        settle(&self.fd, node, 0o755)
    }

    /// Waits until all of it is on the medium.
    pub fn sync(&self) -> Result<(), Fail> {
        nix::unistd::syncfs(&self.fd).map_err(|errno| failed("writing to the medium", errno))
    }

    /// The same folder once more.
    pub fn again(&self) -> Result<Folder, Fail> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(&self.fd, ".", flags, Mode::empty());
        Ok(Folder {
            fd: fd.map_err(|errno| failed("the destination", errno))?,
            made: Rc::clone(&self.made),
        })
    }
}

impl NewFile<'_> {
    /// Gives it owner, mode, times, and its name.
    pub fn publish(mut self, bytes: &[u8], node: &Node, replace: bool) -> Result<Identity, Fail> {
        settle(&self.file, node, 0o644)?;
        let there = fstat(&self.file).map_err(|errno| failed("a new file", errno))?;
        self.folder.publish(&self.name, name(bytes)?, replace)?;
        self.published = true;
        Ok(Identity(there.st_dev, there.st_ino))
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.published {
            // If it cannot be removed, its name still says that it is not complete.
            let _ = unlinkat(&self.folder.fd, &*self.name, UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// Owner first: giving a file away takes its set-ID bits.
fn settle(fd: &impl AsFd, node: &Node, otherwise: u16) -> Result<(), Fail> {
    let failed = |errno| failed("owner, mode and times", errno);
    let mut mode = node.mode.unwrap_or(otherwise);
    match node.owner.filter(|_| gives_away()) {
        Some((user, group)) => {
            fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))).map_err(failed)?;
        }
        None => mode &= !SET_IDS,
    }
    fchmod(fd, Mode::from_bits_truncate(u32::from(mode))).map_err(failed)?;
    let (accessed, modified) = times(node);
    futimens(fd, &accessed, &modified).map_err(failed)
}

fn times(node: &Node) -> (TimeSpec, TimeSpec) {
    let spec = |time: Option<Time>| match time {
        Some(time) => TimeSpec::new(time.seconds, i64::from(time.nanos)),
        None => TimeSpec::UTIME_OMIT,
    };
    (spec(node.accessed), spec(node.modified))
}

/// A name that no other run makes at the same time, and that says what it is.
fn partial_name() -> Result<OsString, Fail> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|_| failed("a random name", Errno::EIO))?;
    Ok(format!(".imager-{}.partial", hex::encode(random)).into())
}

#[cfg(test)]
mod tests {
    use super::{Folder, is_safe};
    use crate::files::{Besides, Kind, Node};

    /// One more name is for the file that was made, not for what has its name now.
    #[test]
    fn names_are_given_only_to_what_was_made() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::destination(dir.path()).unwrap();
        let node = Node {
            id: 1,
            kind: Kind::File,
            size: 0,
            mode: None,
            owner: None,
            modified: None,
            accessed: None,
            links: 2,
            besides: Besides::default(),
            at: 1,
        };
        let made = |name| folder.file()?.publish(name, &node, true);
        let first = made(b"first").unwrap();
        let linked = |name: &[u8]| folder.hard_link(name, &folder, (b"first", first), true);
        assert!(linked(b"second").is_ok());
        // A name that is made only once, and one that was put in its place.
        assert!(linked(b"second").is_err() && made(b"first").is_err());
        std::fs::remove_file(dir.path().join("first")).unwrap();
        std::fs::write(dir.path().join("first"), b"another").unwrap();
        assert!(linked(b"third").is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn names_that_lead_elsewhere_are_none() {
        for bad in [
            &b""[..],
            b".",
            b"..",
            b"/",
            b"a/b",
            b"/etc",
            b"a\0b",
            b"../x",
        ] {
            assert!(!is_safe(bad), "{bad:?}");
        }
        for good in [
            &b"a"[..],
            b"...",
            b"..a",
            b" ",
            b"\xff\xfe",
            b"a\nb",
            b"-rf",
            b"a\\b",
        ] {
            assert!(is_safe(good), "{good:?}");
        }
    }
}
