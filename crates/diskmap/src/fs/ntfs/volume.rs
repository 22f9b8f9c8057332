//! The file $Volume: label, version and flags.
//!
//! Owns: what the flags mean for a map. Does not own: the other signs of an unclean
//! volume.

use super::super::{Fault, damaged};
use super::mft::{Mft, Value};
use super::record::{VOLUME_INFORMATION, VOLUME_NAME};
use crate::bytes::{array, le16};

/// Number of its record.
const RECORD: u64 = 3;

/// A check is due.
const DIRTY: u16 = 0x0001;
/// A check was under way.
const CHECKING: u16 = 0x4000;
/// Flags that say nothing about what is allocated: the log will get another size, an
/// older version was here, a change journal is being deleted, object ids will be
/// repaired, a finished check changed something.
const HARMLESS: u16 = 0x0002 | 0x0004 | 0x0008 | 0x0010 | 0x0020 | 0x8000;

/// What $Volume tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Volume {
    pub label: String,
    /// Major and minor.
    pub version: (u8, u8),
    pub flags: u16,
}

impl Volume {
    /// Reads the record.
    pub fn read(mft: &Mft<'_, '_>) -> Result<Volume, Fault> {
        let record = mft.system(RECORD)?;
        let label = match mft.value(&record, VOLUME_NAME, "")? {
            Some(Value::Resident(name)) => label(&name),
            _ => String::new(),
        };
        let info = match mft.value(&record, VOLUME_INFORMATION, "")? {
            Some(Value::Resident(info)) => info,
            _ => return damaged("it has no volume information"),
        };
        match (array(&info, 8), le16(&info, 10)) {
            (Some([major, minor]), Some(flags)) => Ok(Volume {
                label,
                version: (major, minor),
                flags,
            }),
            _ => damaged("its volume information is cut off"),
        }
    }

    /// Versions 1.1 and 1.2 of Windows NT, 3.0 of 2000, 3.1 of all since.
    pub fn check_version(&self) -> Result<(), Fault> {
        match self.version {
            (1, 1 | 2) | (3, 0 | 1) => Ok(()),
            (major, minor) => Err(Fault::Unsupported(format!(
                "its version {major}.{minor} is not known"
            ))),
        }
    }

    /// Why the flags forbid a map; `None` if they do not.
    pub fn unclean(&self) -> Option<String> {
        let unknown = self.flags & !(DIRTY | CHECKING | HARMLESS);
        if self.flags & DIRTY != 0 {
            Some("its volume is marked as dirty".into())
        } else if self.flags & CHECKING != 0 {
            Some("a check of its volume was not finished".into())
        } else if unknown != 0 {
            Some(format!("its volume has the unknown flags {unknown:#06x}"))
        } else {
            None
        }
    }
}

/// Text of a label, without control characters.
fn label(utf16: &[u8]) -> String {
    let units = utf16
        .chunks_exact(2)
        .map(|b| u16::from_le_bytes([b[0], b[1]]));
    char::decode_utf16(units)
        .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
        .filter(|c| !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Volume, label};

    fn with(version: (u8, u8), flags: u16) -> Volume {
        Volume {
            label: String::new(),
            version,
            flags,
        }
    }

    #[test]
    fn flags_that_matter() {
        assert_eq!(with((3, 1), 0).unclean(), None);
        assert_eq!(with((3, 1), 0x803e).unclean(), None);
        let words = |flags| with((3, 1), flags).unclean().unwrap();
        assert!(words(0x8001).contains("dirty"));
        assert!(words(0x4000).contains("not finished"));
        assert!(words(0x0084).contains("0x0080"));
    }

    #[test]
    fn versions_that_are_known() {
        for version in [(1, 2), (3, 0), (3, 1)] {
            assert!(with(version, 0).check_version().is_ok());
        }
        for version in [(0, 0), (2, 0), (3, 2), (4, 1)] {
            assert!(with(version, 0).check_version().is_err());
        }
    }

    #[test]
    fn labels_have_no_controls() {
        assert_eq!(
            label(&[0x44, 0, 7, 0, 0xf6, 0, 0x00, 0xd8]),
            "D\u{f6}\u{fffd}"
        );
    }
}
