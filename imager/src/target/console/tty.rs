//! Terminal devices: which there are, raw mode, reading without waiting.
//!
//! Owns: the file descriptors and their modes. Does not own: what is shown.

use nix::sys::termios::{
    InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const O_NOCTTY: i32 = 0o400;
const O_NONBLOCK: i32 = 0o4000;
/// How often a device that takes nothing is tried before its output is dropped.
const MAX_STALLS: u32 = 50;
const STALL_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// VGA or frame buffer: gets the full-screen view.
    Screen,
    /// Serial line: gets lines.
    Serial,
}

/// An open terminal.
#[derive(Debug)]
pub struct Tty {
    /// `tty0`, `ttyS0`.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    path: PathBuf,
    file: File,
    original: Option<Termios>,
}

/// The consoles that are named in the kernel's list, and the screen if there is one. The
/// last one of the list is what the kernel calls `/dev/console`.
pub fn open_all(active: &str, dev: &Path) -> Vec<Tty> {
    let mut names: Vec<&str> = active
        .split_ascii_whitespace()
        .filter(|n| !n.contains('/'))
        .collect();
    if !names.iter().any(|name| is_screen(name)) {
        names.insert(0, "tty0");
    }
    names
        .iter()
        .filter_map(|name| Tty::open(name, dev).ok())
        .collect()
}

fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_NOCTTY | O_NONBLOCK)
        .open(path)
}

/// `tty0`, `tty1`, ... are virtual terminals; `ttyS0`, `hvc0`, ... are lines.
fn is_screen(name: &str) -> bool {
    name.strip_prefix("tty")
        .is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
}

impl Tty {
    fn open(name: &str, dev: &Path) -> io::Result<Tty> {
        let path = dev.join(name);
        let file = open_device(&path)?;
        // A serial port that is listed but not there fails here.
        let original = Some(tcgetattr(&file)?);
        let kind = if is_screen(name) {
            Kind::Screen
        } else {
            Kind::Serial
        };
        let name = name.to_owned();
        let tty = Tty {
            name,
            kind,
            path,
            file,
            original,
        };
        tty.raw();
        Ok(tty)
    }

    /// Opens the device anew and takes it into raw mode: the end of a shell's session
    /// hangs up every descriptor of its terminal, ours too.
    pub fn reopen(&mut self) {
        // If it cannot be opened there is nothing left to say there.
        if let Ok(file) = open_device(&self.path) {
            self.file = file;
        }
        self.raw();
    }

    /// No echo, no line editing, no signals: keys do nothing by themselves. Output stays
    /// cooked, so that a line end returns to the first column.
    pub fn raw(&self) {
        let Some(mut mode) = self.original.clone() else {
            return;
        };
        mode.local_flags
            .remove(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG | LocalFlags::IEXTEN);
        mode.input_flags.remove(InputFlags::IXON);
        mode.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        mode.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        // A terminal that refuses stays usable for output.
        let _ = tcsetattr(&self.file, SetArg::TCSANOW, &mode);
    }

    /// Line editing and echo, for a shell.
    pub fn cooked(&self) {
        if let Some(mode) = &self.original {
            let _ = tcsetattr(&self.file, SetArg::TCSANOW, mode);
        }
    }

    /// Writes; what the device does not take in half a second is dropped: a serial line
    /// whose flow control is stuck must not stop a job.
    pub fn write(&mut self, text: &str) {
        let mut bytes = text.as_bytes();
        let mut stalls = 0;
        while !bytes.is_empty() && stalls < MAX_STALLS {
            match self.file.write(bytes) {
                Ok(len) if len > 0 => {
                    bytes = bytes.get(len..).unwrap_or_default();
                    stalls = 0;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) => stalls += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    stalls += 1;
                    std::thread::sleep(STALL_PAUSE);
                }
                Err(_) => return,
            }
        }
    }

    /// The bytes that were typed since the last call.
    pub fn typed(&mut self) -> Vec<u8> {
        let mut buffer = [0; 64];
        match self.file.read(&mut buffer) {
            Ok(len) => buffer.get(..len).unwrap_or_default().to_vec(),
            Err(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{is_screen, open_all};
    use std::path::Path;

    #[test]
    fn screens_and_lines_are_told_apart() {
        for (name, screen) in [
            ("tty0", true),
            ("tty12", true),
            ("ttyS0", false),
            ("hvc0", false),
            ("ttyAMA0", false),
        ] {
            assert_eq!(is_screen(name), screen, "{name}");
        }
    }

    #[test]
    fn devices_that_are_no_terminals_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ttyS0"), "").unwrap();
        assert!(open_all("tty0 ttyS0 ../x", dir.path()).is_empty());
        assert!(open_all("", Path::new("/nonexistent")).is_empty());
    }
}
