//! The mark that keeps a file from being changed.
//!
//! Owns: taking it away. Does not own: what is written then. The kernel marks firmware
//! variables so, because losing one can keep a machine from starting.

use crate::ioctl;
use nix::errno::Errno;
use std::fs::File;
use std::io;
use std::path::Path;

/// `FS_IMMUTABLE_FL` of `linux/fs.h`.
const IMMUTABLE: i32 = 0x10;

/// Takes the mark from a file that has it, as `chattr -i` does. A file system without such
/// marks is as good.
///
/// # Errors
/// The file cannot be opened, or the kernel refuses.
pub fn make_changeable(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let flags = match ioctl::file_flags(&file) {
        Ok(flags) => flags,
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if flags & IMMUTABLE != 0 {
        ioctl::set_file_flags(&file, flags & !IMMUTABLE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{IMMUTABLE, make_changeable};
    use crate::ioctl;
    use std::fs::{self, File};

    #[test]
    fn a_marked_file_can_be_changed_afterwards() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("variable");
        fs::write(&path, "old").unwrap();
        make_changeable(&path).unwrap();
        let file = File::open(&path).unwrap();
        // Only some file systems have the mark, and only root may set it.
        let marked = ioctl::file_flags(&file)
            .and_then(|flags| ioctl::set_file_flags(&file, flags | IMMUTABLE));
        if marked.is_ok() {
            assert!(fs::write(&path, "new").is_err());
        }
        make_changeable(&path).unwrap();
        fs::write(&path, "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(make_changeable(&folder.path().join("none")).is_err());
    }
}
