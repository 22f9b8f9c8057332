//! The layout of an encrypted image: a part for everybody, a part for the key's owner.
//!
//! Owns: what of a layout is hidden, and that the two parts belong together. Does not own:
//! the cryptography ([`crate::seal`]).
//!
//! The part for everybody is a layout without what names or describes the machine's
//! contents: boot code and tables, labels, names, identifiers, warnings. What is left is what
//! a server needs for its work: sizes, places, partition types, architecture and firmware.
//! The hidden part is the whole layout as it was.

use crate::Error;
use crate::layout::{Disk, Layout, Machine, Region, Table};
use crate::seal::{ImageKey, KeyId};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// The only scheme there is.
pub const SCHEME: &str = "xchacha20poly1305-blake3-1";
/// Longest key file that a layout carries.
const MAX_WRAPPED: usize = 64 << 10;

/// How an image is encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encryption {
    /// [`SCHEME`].
    pub scheme: String,
    /// Id of the key, 32 hexadecimal digits.
    pub key_id: String,
    /// The key file: image and passphrase (or identity) suffice.
    pub wrapped_key: String,
    /// The hidden part, sealed, in base64; empty in a layout that was opened.
    pub sealed: String,
}

impl Encryption {
    /// The first rule that it breaks.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.scheme != SCHEME {
            return Some(format!(
                "it is encrypted in the unknown way {:?}",
                self.scheme
            ));
        }
        if KeyId::from_hex(&self.key_id).is_none() || self.wrapped_key.len() > MAX_WRAPPED {
            return Some("what it says of its encryption is impossible".into());
        }
        None
    }

    /// Which key it wants.
    pub fn key(&self) -> KeyId {
        // `problem` was asked before.
        KeyId::from_hex(&self.key_id).unwrap_or(KeyId([0; 16]))
    }
}

impl Layout {
    /// The layout as an encrypted image has it. `wrapped` is the key file.
    ///
    /// # Errors
    /// No random numbers.
    pub fn sealed(&self, key: &ImageKey, wrapped: &str) -> Result<Layout, Error> {
        let whole = Layout {
            encryption: None,
            ..self.clone()
        };
        let sealed = key.seal_layout(&whole.to_json())?;
        Ok(Layout {
            encryption: Some(Encryption {
                scheme: SCHEME.to_owned(),
                key_id: key.id().to_string(),
                wrapped_key: wrapped.to_owned(),
                sealed: STANDARD.encode(sealed),
            }),
            ..whole.for_everybody()
        })
    }

    /// The layout as it was, proved to be what the key's owner sealed; one that is not
    /// encrypted stays as it is.
    ///
    /// # Errors
    /// [`Error::Key`] if it wants another key, damage if it was changed.
    pub fn opened(&self, key: &ImageKey, offset: u64) -> Result<Layout, Error> {
        let Some(encryption) = &self.encryption else {
            return Ok(self.clone());
        };
        if encryption.key() != key.id() {
            return Err(Error::Key {
                wanted: encryption.key(),
                given: key.id(),
            });
        }
        let damaged = |what: &str| Error::damaged(what, offset);
        let sealed = STANDARD.decode(&encryption.sealed);
        let json = sealed.ok().and_then(|sealed| key.open_layout(&sealed));
        let json = json.ok_or_else(|| damaged("the layout's hidden part was changed"))?;
        let whole = Layout::parse(&json, offset)?;
        let shown = Layout {
            encryption: None,
            ..self.clone()
        };
        if whole.encryption.is_some() || whole.for_everybody() != shown {
            return Err(damaged("the layout's open part was changed"));
        }
        Ok(Layout {
            encryption: Some(Encryption {
                sealed: String::new(),
                ..encryption.clone()
            }),
            ..whole
        })
    }

    fn for_everybody(&self) -> Layout {
        let region = |region: &Region| Region {
            name: String::new(),
            guid: String::new(),
            file_system: String::new(),
            label: String::new(),
            uuid: String::new(),
            reason: String::new(),
            ..region.clone()
        };
        Layout {
            machine: Machine {
                firmware: self.machine.firmware.clone(),
                architecture: self.machine.architecture.clone(),
                ..Machine::default()
            },
            disk: Disk {
                model: String::new(),
                serial: String::new(),
                wwn: String::new(),
                ..self.disk.clone()
            },
            table: Table {
                kind: self.table.kind.clone(),
                blobs: Vec::new(),
            },
            regions: self.regions.iter().map(region).collect(),
            warnings: Vec::new(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::tests::small;

    fn layout() -> Layout {
        let mut layout = small(1 << 20);
        layout.machine.name = "pc-17".into();
        layout.disk.serial = "S1234".into();
        layout.regions[0].label = "payroll".into();
        layout.regions[0].file_system = "ext4".into();
        layout.regions[0].part_type = "0x83".into();
        layout.warnings = vec!["fs-dirty: payroll".into()];
        layout
    }

    #[test]
    fn the_key_brings_back_what_was_hidden() {
        let key = ImageKey::new(&[1; 32]);
        let sealed = layout().sealed(&key, "wrapped").unwrap();
        let json = String::from_utf8(sealed.to_json()).unwrap();
        for hidden in ["pc-17", "S1234", "payroll", "ext4", "BwcHBwcH"] {
            assert!(!json.contains(hidden), "{hidden} shows in {json}");
        }
        assert!(json.contains("0x83"));
        let parsed = Layout::parse(json.as_bytes(), 0).unwrap();
        assert_eq!(parsed, sealed);
        let opened = parsed.opened(&key, 0).unwrap();
        assert_eq!(opened.encryption.as_ref().unwrap().wrapped_key, "wrapped");
        let whole = Layout {
            encryption: None,
            ..opened
        };
        assert_eq!(whole, layout());
    }

    #[test]
    fn another_key_is_told_and_a_change_is_damage() {
        let key = ImageKey::new(&[1; 32]);
        let sealed = layout().sealed(&key, "wrapped").unwrap();
        let other = ImageKey::new(&[2; 32]);
        assert!(matches!(sealed.opened(&other, 0), Err(Error::Key { .. })));
        let changes: &[fn(&mut Layout)] = &[
            |l| l.disk.size_bytes += 512,
            |l| l.regions[0].used_bytes -= 512,
            |l| l.regions[0].part_type = "0x07".into(),
            |l| l.machine.architecture = "arm64".into(),
            |l| l.created.clear(),
            |l| {
                l.encryption
                    .as_mut()
                    .unwrap()
                    .sealed
                    .replace_range(40..41, "*")
            },
            |l| l.encryption.as_mut().unwrap().sealed.clear(),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut changed = sealed.clone();
            change(&mut changed);
            let opened = changed.opened(&key, 0);
            assert!(
                matches!(opened, Err(Error::Damaged { .. })),
                "change {number}"
            );
        }
    }
}
