//! NVMe drives: what they can do to erase themselves, and having them do it.
//!
//! Owns: the questions and the commands, and what the drive's answer means. Does not own:
//! encoding (`command`), decoding (`data`), the kernel call (`ioctl::nvme`), any trust in
//! an answer: a drive that says that it did something may not have.

mod command;
mod data;

pub use command::{FormatErase, SanitizeAction};
pub use data::{Controller, Namespace, SanitizeLog, SanitizeState};

pub(crate) use command::{Command, MAX_DATA};

use crate::error::{Error, ErrorKind, Operation};
use crate::ioctl;
use crate::sysfs::{DevNum, Roots, name_of};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A namespace of an NVMe drive, through which its controller is spoken with.
#[derive(Debug)]
pub struct Nvme {
    file: File,
    path: PathBuf,
    nsid: u32,
}

impl Nvme {
    /// Opens a disk that is a whole namespace; none if it is something else, as a partition.
    ///
    /// # Errors
    /// It cannot be opened, or does not tell its number.
    pub fn open(path: &Path) -> Result<Option<Nvme>, Error> {
        let failed = |e| Error::new(Operation::Open, path, e);
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let dir = Roots::live().dir_of(DevNum::from_raw(metadata.rdev()));
        let is_namespace = dir.is_some_and(|dir| {
            name_of(&dir).starts_with("nvme") && !dir.join("partition").exists()
        });
        if !metadata.file_type().is_block_device() || !is_namespace {
            return Ok(None);
        }
        let file = File::open(path).map_err(failed)?;
        let nsid = ioctl::nvme::namespace_id(&file)
            .map_err(|errno| Error::errno(Operation::Command, path, errno))?;
        Ok(Some(Nvme {
            file,
            path: path.to_owned(),
            nsid,
        }))
    }

    /// What the controller can do.
    ///
    /// # Errors
    /// The drive does not answer; so for all that follows.
    pub fn controller(&self) -> Result<Controller, Error> {
        Ok(Controller::decode(
            &self.send(&Command::identify_controller())?,
        ))
    }

    /// How this namespace is formatted.
    pub fn namespace(&self) -> Result<Namespace, Error> {
        Ok(Namespace::decode(
            &self.send(&Command::identify_namespace(self.nsid))?,
        ))
    }

    /// The ids of all namespaces of the drive, as far as it tells.
    pub fn namespaces(&self, controller: &Controller) -> Result<Vec<u32>, Error> {
        let mut ids = data::namespace_list(&self.send(&Command::active_namespaces())?);
        if controller.manages_namespaces {
            let all = self.send(&Command::allocated_namespaces())?;
            ids.extend(data::namespace_list(&all));
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Formats this namespace with its present format, and erases it. Returns when the drive
    /// says that it has: that may take hours.
    pub fn format(&self, erase: FormatErase) -> Result<(), Error> {
        let now = self.namespace()?;
        self.send(&Command::format(self.nsid, &now, erase))
            .map(drop)
    }

    /// Begins to sanitize the whole drive, which goes on whatever happens to this program or
    /// to the power. [`Self::sanitize_log`] tells how far it is.
    pub fn sanitize(&self, action: SanitizeAction) -> Result<(), Error> {
        self.send(&Command::sanitize(action)).map(drop)
    }

    /// What became of the last sanitize, or how far it is.
    pub fn sanitize_log(&self) -> Result<SanitizeLog, Error> {
        Ok(SanitizeLog::decode(
            &self.send(&Command::sanitize_status())?,
        ))
    }

    fn send(&self, command: &Command) -> Result<Vec<u8>, Error> {
        let mut answer = vec![0; command.answer.min(MAX_DATA)];
        match ioctl::nvme::admin(&self.file, command, &mut answer) {
            Ok(0) => Ok(answer),
            Ok(status) => {
                let error = Error::new(
                    Operation::Command,
                    &self.path,
                    io::Error::other(refusal(status)),
                );
                Err(error.with_kind(kind_of(status)))
            }
            Err(errno) => Err(Error::errno(Operation::Command, &self.path, errno)),
        }
    }
}

/// Status type and code, without "do not retry" and the like.
const STATUS: u16 = 0x7ff;

fn kind_of(status: u16) -> ErrorKind {
    match status & STATUS {
        // Invalid opcode, invalid field, invalid log page, invalid format.
        0x001 | 0x002 | 0x109 | 0x10a => ErrorKind::Unsupported,
        // Sanitize in progress, format in progress.
        0x01d | 0x084 => ErrorKind::Busy,
        0x020 => ErrorKind::ReadOnly,
        _ => ErrorKind::Other,
    }
}

/// What a status of the drive means, in words.
fn refusal(status: u16) -> String {
    let code = status & STATUS;
    let meaning = match code {
        0x001 => "it does not know the command",
        0x002 => "it does not know a field of the command",
        0x006 => "internal error",
        0x00c => "command sequence error",
        0x015 => "operation denied",
        0x01c => "a sanitize has failed",
        0x01d => "a sanitize is in progress",
        0x020 => "the namespace is write-protected",
        0x084 => "a format is in progress",
        0x109 => "it has no such log page",
        0x10a => "invalid format",
        _ => "see the NVM Express specification",
    };
    format!(
        "the drive refused it with status type {}, code 0x{:02x}: {meaning}",
        code >> 8,
        code & 0xff
    )
}

#[cfg(test)]
mod tests {
    use super::{Nvme, kind_of, refusal};
    use crate::ErrorKind;
    use std::path::Path;

    #[test]
    fn what_is_no_namespace_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Nvme::open(file.path()).unwrap().is_none());
        assert!(Nvme::open(Path::new("/dev/null")).unwrap().is_none());
        assert!(Nvme::open(Path::new("/dev/no-such-disk")).is_err());
    }

    /// With "do not retry" (bit 14) as the kernel hands it on.
    #[test]
    fn refusals_have_their_words_and_kinds() {
        assert_eq!(kind_of(0x4001), ErrorKind::Unsupported);
        assert_eq!(kind_of(0x410a), ErrorKind::Unsupported);
        assert_eq!(kind_of(0x001d), ErrorKind::Busy);
        assert_eq!(kind_of(0x4006), ErrorKind::Other);
        assert_eq!(
            refusal(0x410a),
            "the drive refused it with status type 1, code 0x0a: invalid format"
        );
    }
}
