//! A running virtual machine, watched by its serial console and killed when dropped.
//!
//! Owns: the serial log with its markers, keys and screenshots, and how the machine
//! ends. Does not own: QEMU's command line (`qemu`), the monitor's protocol (`qmp`).

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::qmp::Monitor;

/// How often the serial log is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Text that never comes from a healthy guest: waiting any longer is pointless.
const FATAL: [&str; 1] = ["Kernel panic - not syncing"];
/// How much of the serial log stands in an error.
const TAIL_LINES: usize = 40;
/// A loaded machine needs a while to start a program.
const MONITOR_LIMIT: Duration = Duration::from_secs(60);

/// A running virtual machine. Dropping it kills it.
#[derive(Debug)]
pub struct Machine {
    name: String,
    child: Child,
    folder: TempDir,
    log: PathBuf,
    /// Bytes of the log in which markers were already looked for.
    seen: u64,
    started: Instant,
}

impl Machine {
    /// Starts QEMU with its sockets in `folder` and its serial log in `log`.
    ///
    /// # Errors
    /// QEMU ends at once (its words are in the error) or never answers.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        folder: TempDir,
        log: PathBuf,
    ) -> io::Result<Machine> {
        File::create(&log)?;
        let errors = folder.path().join("stderr");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors)?)
            .spawn()?;
        let mut machine = Machine {
            name: name.to_owned(),
            child,
            folder,
            log,
            seen: 0,
            started: Instant::now(),
        };
        machine.wait_for_monitor(&errors)?;
        Ok(machine)
    }

    /// Waits until `marker` is in the serial output after the last marker that was
    /// waited for, and returns the time since the machine's start.
    ///
    /// # Errors
    /// The time is over, the guest's kernel panics, or the machine ends before; the last
    /// lines of its console are in the error.
    pub fn wait_for(&mut self, marker: &str, limit: Duration) -> io::Result<Duration> {
        self.wait_for_any(&[marker], limit).map(|(_, time)| time)
    }

    /// As [`Machine::wait_for`], for several markers; says which one came first.
    ///
    /// # Errors
    /// As [`Machine::wait_for`].
    pub fn wait_for_any(
        &mut self,
        markers: &[&str],
        limit: Duration,
    ) -> io::Result<(usize, Duration)> {
        let end = Instant::now() + limit;
        loop {
            // Looked at before the log is read: what was written before the end counts.
            let ended = self.child.try_wait()?;
            let text = self.unseen()?;
            let first = markers
                .iter()
                .enumerate()
                .filter_map(|(which, marker)| text.find(marker).map(|at| (at, which)))
                .min();
            if let Some((at, which)) = first {
                let length = at + markers.get(which).map_or(0, |marker| marker.len());
                self.seen += length as u64;
                return Ok((which, self.started.elapsed()));
            }
            let fatal = FATAL.iter().find(|words| text.contains(**words));
            let why = match (fatal, ended) {
                (Some(panic), _) => format!("the guest says \"{panic}\""),
                (None, Some(status)) => format!("the machine ended ({status})"),
                (None, None) if Instant::now() >= end => {
                    format!("not within {} s", limit.as_secs())
                }
                (None, None) => {
                    thread::sleep(POLL);
                    continue;
                }
            };
            return Err(self.failure(&format!("waiting for {markers:?}: {why}")));
        }
    }

    /// Waits until the machine ends by itself (power off, or reboot: QEMU is told not to
    /// start again).
    ///
    /// # Errors
    /// It still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= end {
                let text = format!("waiting for its end: not within {} s", limit.as_secs());
                return Err(self.failure(&text));
            }
            thread::sleep(POLL);
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The process cannot be asked about.
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Pulls the plug.
    ///
    /// # Errors
    /// The process cannot be killed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_| ())
    }

    /// Types on the serial console.
    ///
    /// # Errors
    /// The console's socket is gone.
    pub fn type_text(&self, text: &str) -> io::Result<()> {
        UnixStream::connect(self.folder.path().join("serial"))?.write_all(text.as_bytes())
    }

    /// Writes what the screen shows to a PNG file.
    ///
    /// # Errors
    /// The monitor refuses, or is gone.
    pub fn screenshot(&self, png: &Path) -> io::Result<()> {
        Monitor::connect(&self.folder.path().join("qmp"))?.screendump(png)
    }

    /// Everything that the serial console showed so far.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn console(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// QEMU's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The serial log's file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    fn unseen(&self) -> io::Result<String> {
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.seen))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        // Positions in the text are used as positions in the file: one byte, one char.
        Ok(bytes
            .into_iter()
            .map(|byte| {
                if byte.is_ascii() {
                    char::from(byte)
                } else {
                    '?'
                }
            })
            .collect())
    }

    /// An error with the end of the console in it.
    pub fn failure(&self, what: &str) -> io::Error {
        let console = self.console().unwrap_or_default();
        let lines: Vec<&str> = console.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(TAIL_LINES)..)
            .unwrap_or_default()
            .join("\n  | ");
        io::Error::other(format!(
            "machine {}: {what}; its console ({}) ends with:\n  | {tail}",
            self.name,
            self.log.display()
        ))
    }

    /// QEMU's monitor answers once the whole command line was accepted (its socket is
    /// there before).
    fn wait_for_monitor(&mut self, errors: &Path) -> io::Result<()> {
        let end = Instant::now() + MONITOR_LIMIT;
        loop {
            if Monitor::connect(&self.folder.path().join("qmp")).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let said = fs::read_to_string(errors).unwrap_or_default();
                return Err(io::Error::other(format!(
                    "machine {}: QEMU ended at once ({status}): {said}",
                    self.name
                )));
            }
            if Instant::now() >= end {
                return Err(self.failure("QEMU's monitor does not answer"));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Already ended is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
