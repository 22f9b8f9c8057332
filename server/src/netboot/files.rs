//! The folder of boot files, as machines may see it.
//!
//! Owns: which names can be asked for, and opening them so that nothing outside the
//! folder can be reached. Does not own: how bytes are sent (`tftp`, `http`).
//!
//! A name is one plain component of letters, digits and `.`, `_`, `-`, not starting
//! with a dot: without separators there is no way up, and a link is refused when it
//! is opened. So the folder may change while the server runs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;

/// Longest name of a boot file in bytes.
pub const MAX_NAME: usize = 128;

/// Whether a name can be that of a boot file.
pub fn is_boot_file_name(name: &str) -> bool {
    name.len() <= MAX_NAME
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Why a boot file is not given out.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file, or none that may be seen.
    #[error("there is no such boot file")]
    NotFound,
    /// The file is there, reading it fails.
    #[error("the boot file cannot be opened: {0}")]
    Unreadable(io::Error),
}

/// An open boot file.
#[derive(Debug)]
pub struct BootFile {
    /// The file, open for reading.
    pub file: File,
    /// Its size in bytes when it was opened.
    pub size: u64,
}

/// The folder of boot files.
#[derive(Clone, Debug)]
pub struct BootFiles {
    folder: PathBuf,
}

impl BootFiles {
    /// Boot files of a folder. It need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> BootFiles {
        BootFiles {
            folder: folder.into(),
        }
    }

    /// Opens a boot file by its exact name.
    ///
    /// # Errors
    /// [`FileError::NotFound`] for every name that is none, for links, folders and
    /// special files; [`FileError::Unreadable`] if the system fails.
    pub fn open(&self, name: &str) -> Result<BootFile, FileError> {
        if !is_boot_file_name(name) {
            return Err(FileError::NotFound);
        }
        // O_NONBLOCK: opening a pipe must not wait for its writer.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags.bits())
            .open(self.folder.join(name));
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(FileError::NotFound);
            }
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32) => {
                return Err(FileError::NotFound);
            }
            Err(error) => return Err(FileError::Unreadable(error)),
        };
        let metadata = file.metadata().map_err(FileError::Unreadable)?;
        if !metadata.is_file() {
            return Err(FileError::NotFound);
        }
        Ok(BootFile {
            file,
            size: metadata.len(),
        })
    }

    /// The first of several names that exists.
    pub fn first_of(&self, names: &[&str]) -> Option<String> {
        names
            .iter()
            .find(|name| self.open(name).is_ok())
            .map(|name| (*name).to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{BootFiles, FileError, is_boot_file_name};
    use proptest::prelude::{any, prop_assert, proptest};
    use std::os::unix::fs::symlink;

    fn folder() -> (tempfile::TempDir, BootFiles) {
        let outer = tempfile::tempdir().unwrap();
        let pxe = outer.path().join("pxe");
        std::fs::create_dir_all(pxe.join("folder")).unwrap();
        std::fs::write(outer.path().join("secret"), "secret").unwrap();
        std::fs::write(pxe.join("vmlinuz"), "kernel").unwrap();
        std::fs::write(pxe.join(".hidden"), "hidden").unwrap();
        std::fs::write(pxe.join("folder/inner"), "inner").unwrap();
        symlink(outer.path().join("secret"), pxe.join("link")).unwrap();
        let files = BootFiles::new(&pxe);
        (outer, files)
    }

    #[test]
    fn plain_files_are_opened_by_exact_name() {
        let (_keep, files) = folder();
        assert_eq!(files.open("vmlinuz").unwrap().size, 6);
        assert!(matches!(files.open("VMLINUZ"), Err(FileError::NotFound)));
        assert_eq!(
            files.first_of(&["nothing", "vmlinuz"]).as_deref(),
            Some("vmlinuz")
        );
        assert_eq!(files.first_of(&["nothing"]), None);
    }

    #[test]
    fn nothing_outside_is_reached() {
        let (outer, files) = folder();
        let absolute = outer.path().join("secret").display().to_string();
        let names = [
            "../secret",
            "..",
            ".",
            "",
            "/",
            "link",
            "folder",
            "folder/inner",
            "folder/../vmlinuz",
            ".hidden",
            "..\\secret",
            "vmlinuz\0",
            "vmlinuz\n",
            " vmlinuz",
            "%2e%2e%2fsecret",
            "vmlinuz/",
            &absolute,
        ];
        for name in names {
            assert!(
                matches!(files.open(name), Err(FileError::NotFound)),
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let (outer, files) = folder();
        nix::unistd::mkfifo(
            &outer.path().join("pxe/pipe"),
            nix::sys::stat::Mode::S_IRWXU,
        )
        .unwrap();
        assert!(matches!(files.open("pipe"), Err(FileError::NotFound)));
    }

    proptest! {
        #[test]
        fn sound_names_hold_no_way_up(name in any::<String>()) {
            if is_boot_file_name(&name) {
                prop_assert!(!name.contains(['/', '\\', '\0']) && !name.starts_with('.'));
                prop_assert!(std::path::Path::new(&name).components().count() == 1);
            }
        }
    }
}
