//! Asking for a passphrase on the terminal.
//!
//! Owns: that what is typed is not shown, and that the terminal shows it again however the
//! asking ends. Does not own: when a passphrase is wanted (`crate::keyring`).
//!
//! Ctrl-C ends the line here instead of the process: the terminal is put right first, and
//! then the signal is sent as the terminal would have done.

use super::signals;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use wire::{Code, DiskState, Report};
use zeroize::Zeroizing;

/// Longest passphrase in bytes; a terminal gives no longer lines.
const MAX_LINE: usize = 4096;

/// How often is looked for a signal that somebody else waits for (milliseconds).
const LOOK: u8 = 200;

/// A terminal that does not show what is typed, and how it was before.
static SILENT: Mutex<Option<(File, Termios)>> = Mutex::new(None);

/// Makes a terminal that is being asked on show what is typed again, for whoever ends the
/// process.
pub(super) fn restore() {
    let silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((tty, before)) = silent {
        // There is nobody to tell but the terminal itself.
        let _ = tcsetattr(&tty, SetArg::TCSAFLUSH, &before);
        let _ = writeln!(&tty);
    }
}

/// Restores the terminal when it goes.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        restore();
    }
}

/// How the asking ended.
enum Typed {
    Line(Zeroizing<String>),
    Signal(Signal),
    /// A signal that somebody else waited for.
    Stopped,
    /// The end of what is typed, before a line was.
    End,
}

/// Asks on the terminal, without showing what is typed.
///
/// # Errors
/// `image-locked`: there is no terminal, or Ctrl-D or a hang-up instead of a line.
/// `interrupted`: a signal, where that does not end the process.
pub(super) fn ask(what: &str) -> Result<Zeroizing<String>, Report> {
    let typed = line(what).map_err(|e| {
        let found = format!("{what} wants a passphrase, and there is no terminal to ask on: {e}");
        Report::new(Code::ImageLocked, found, DiskState::Untouched)
    })?;
    match typed {
        Typed::Line(line) => return Ok(line),
        Typed::End => {
            let found = format!("{what} wants a passphrase, and none was typed");
            return Err(Report::new(Code::ImageLocked, found, DiskState::Untouched));
        }
        Typed::Signal(signal) => {
            // By default it ends the process here.
            let _ = kill(Pid::this(), signal);
        }
        Typed::Stopped => {}
    }
    let found = format!("stopped while the passphrase of {what} was asked for");
    Err(Report::new(Code::Interrupted, found, DiskState::Untouched))
}

fn line(what: &str) -> io::Result<Typed> {
    // Standard input may be an image.
    let tty = File::options().read(true).write(true).open("/dev/tty")?;
    let signals = Caught::new()?;
    let before = tcgetattr(&tty)?;
    let mut silent = before.clone();
    let flags = LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ISIG;
    silent.local_flags.remove(flags);
    let key = |index: SpecialCharacterIndices| before.control_chars[index as usize];
    let (interrupt, quit) = (
        key(SpecialCharacterIndices::VINTR),
        key(SpecialCharacterIndices::VQUIT),
    );
    silent.control_chars[SpecialCharacterIndices::VEOL as usize] = interrupt;
    silent.control_chars[SpecialCharacterIndices::VEOL2 as usize] = quit;
    let place = Some((tty.try_clone()?, before));
    let _restored = Restored;
    {
        // Whoever ends the process comes before both steps or after both.
        let mut shared = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
        *shared = place;
        tcsetattr(&tty, SetArg::TCSAFLUSH, &silent)?;
    }
    write!(&tty, "Passphrase of {what}: ")?;
    let mut typed = Zeroizing::new(Vec::with_capacity(MAX_LINE));
    loop {
        if let Some(end) = signals.wait(&tty)? {
            return Ok(end);
        }
        let held = typed.len();
        typed.resize(MAX_LINE, 0);
        let count = (&tty).read(&mut typed[held..])?;
        typed.truncate(held + count);
        // A key that is switched off is the byte 0.
        match typed.last() {
            Some(&last) if last == interrupt && last != 0 => {
                return Ok(Typed::Signal(Signal::SIGINT));
            }
            Some(&last) if last == quit && last != 0 => {
                return Ok(Typed::Signal(Signal::SIGQUIT));
            }
            Some(b'\n') => break,
            // Half a line is no passphrase either.
            _ if count == 0 => return Ok(Typed::End),
            _ if typed.len() == MAX_LINE => break,
            _ => {}
        }
    }
    let text = str::from_utf8(&typed)
        .map_err(|_| io::Error::other("what was typed is not UTF-8"))?
        .trim_end_matches(['\r', '\n']);
    Ok(Typed::Line(Zeroizing::new(text.to_owned())))
}

/// SIGINT and SIGTERM, held back in this thread while it asks. Where they were held back
/// before, somebody else waits for them (`signals`). A hang-up takes the terminal along.
struct Caught {
    fd: SignalFd,
    before: SigSet,
}

impl Caught {
    fn new() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        let before = set.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let mut ours = SigSet::empty();
        for signal in set.iter().filter(|&signal| !before.contains(signal)) {
            ours.add(signal);
        }
        let fd = SignalFd::with_flags(&ours, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Caught { fd, before })
    }

    /// Waits for something typed; how the asking ends if a signal comes first.
    fn wait(&self, tty: &File) -> io::Result<Option<Typed>> {
        let mut fds = [
            PollFd::new(tty.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.fd.as_fd(), PollFlags::POLLIN),
        ];
        loop {
            match poll(&mut fds, LOOK) {
                Ok(0) | Err(Errno::EINTR) if signals::stopping() => {
                    return Ok(Some(Typed::Stopped));
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        let info = self.fd.read_signal()?;
        let signal = info.and_then(|info| Signal::try_from(info.ssi_signo.cast_signed()).ok());
        Ok(signal.map(Typed::Signal))
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        // It was valid before.
        let _ = self.before.thread_set_mask();
    }
}
