//! Variables of the firmware as files of efivarfs.
//!
//! Owns: their names and form there (the kernel's efivarfs: attributes in 4 bytes, then the
//! value; one write is the whole variable), and reading back what was written. Does not own:
//! what is in them (`efi`).

use efi::{Firmware, MAX_VARIABLE, boot_name, boot_number, decode_order, encode_order};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// GUID of the variables that the specification defines (3.3).
const GLOBAL: &str = "-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Kept without power, readable before and after the system has started.
const ATTRIBUTES: [u8; 4] = [7, 0, 0, 0];

/// A folder of variables.
pub struct Vars(PathBuf);

/// A variable that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{what} the firmware's variable {name}: {source}")]
pub struct Failed {
    what: &'static str,
    name: String,
    source: io::Error,
}

impl Vars {
    /// efivarfs, or in a test a folder that looks like it.
    pub fn at(folder: &Path) -> Vars {
        Vars(folder.to_owned())
    }

    /// All boot entries and their order.
    pub fn firmware(&self) -> Result<Firmware, Failed> {
        let listing = |source| Failed {
            what: "listing",
            name: self.0.display().to_string(),
            source,
        };
        let mut firmware = Firmware::default();
        for entry in fs::read_dir(&self.0).map_err(listing)? {
            let file = entry.map_err(listing)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(GLOBAL));
            if let Some(number) = name.and_then(boot_number) {
                let bytes = self.read(&boot_name(number))?;
                firmware.entries.insert(number, bytes.unwrap_or_default());
            }
        }
        let order = self.read("BootOrder")?;
        firmware.order = decode_order(&order.unwrap_or_default());
        Ok(firmware)
    }

    /// Makes or replaces an entry.
    pub fn set_entry(&self, number: u16, bytes: &[u8]) -> Result<(), Failed> {
        self.write(&boot_name(number), bytes)
    }

    /// Sets the order.
    pub fn set_order(&self, order: &[u16]) -> Result<(), Failed> {
        self.write("BootOrder", &encode_order(order))
    }

    /// Removes an entry; one that is gone already is as good.
    pub fn delete_entry(&self, number: u16) -> Result<(), Failed> {
        let name = boot_name(number);
        let path = self.path(&name);
        let failed = |source| Failed {
            what: "removing",
            name: name.clone(),
            source,
        };
        match blockdev::make_changeable(&path).and_then(|()| fs::remove_file(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ if path.exists() => Err(failed(io::Error::other("it is there all the same"))),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}{GLOBAL}"))
    }

    /// The value of a variable; none if there is no such variable.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Failed> {
        let failed = |source| Failed {
            what: "reading",
            name: name.to_owned(),
            source,
        };
        let file = match File::open(self.path(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut bytes = Vec::new();
        let most = (ATTRIBUTES.len() + MAX_VARIABLE + 1) as u64;
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes.get(ATTRIBUTES.len()..).map(<[u8]>::to_vec))
    }

    fn write(&self, name: &str, value: &[u8]) -> Result<(), Failed> {
        let failed = |source| Failed {
            what: "writing",
            name: name.to_owned(),
            source,
        };
        self.replace(name, value).map_err(failed)?;
        if self.read(name)?.as_deref() == Some(value) {
            return Ok(());
        }
        Err(failed(io::Error::other("it gives back something else")))
    }

    fn replace(&self, name: &str, value: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        if path.exists() {
            blockdev::make_changeable(&path)?;
        }
        let whole = [&ATTRIBUTES, value].concat();
        // Cutting the file to nothing first would be a write of its own.
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let mut file = open?;
        if file.write(&whole)? != whole.len() {
            return Err(io::Error::other("only a part of it was taken"));
        }
        // Other file systems keep what stood behind; efivarfs does not know how to cut.
        if file.metadata()?.len() > whole.len() as u64 {
            file.set_len(whole.len() as u64)?;
        }
        Ok(())
    }
}
