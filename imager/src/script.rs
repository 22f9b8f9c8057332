//! Running a script: as a child of its own, for a limited time, with what it says kept.
//!
//! Owns: the process, its end, and the end of its output. Does not own: whether it may run
//! (`job::scripts`).

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use wire::script::MAX_OUTPUT_BYTES;

/// How often is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);
/// What it leaves running may hold its output open for so long after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a file that is still open elsewhere is tried.
const BUSY_TRIES: u32 = 40;
const BUSYBOX: &str = "/bin/busybox";

/// How a script ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none after a signal.
    pub exit_code: Option<i32>,
    /// It took too long and was ended.
    pub timed_out: bool,
    /// An operator stopped the job, and it was ended.
    pub interrupted: bool,
    /// The end of its output.
    pub output: String,
    /// Bytes of output before that.
    pub dropped_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// Runs it: what begins with `#!` or is a program, as it is; anything else by the shell. It
/// has no standard input, and these variables.
///
/// # Errors
/// It cannot be started.
pub fn run(
    bytes: &[u8],
    variables: &[(&str, &str)],
    limit: Duration,
    stop: &dyn Fn() -> bool,
) -> io::Result<Ended> {
    let folder = tempfile::Builder::new().prefix("script-").tempdir()?;
    let path = folder.path().join("script");
    write(&path, bytes)?;
    let (mut reader, writer) = io::pipe()?;
    // It may take longer than a program that hangs would get; it has a limit of its own.
    let _has_a_limit = crate::alive::patience();
    let began = Instant::now();
    let mut child = start(&path, bytes, variables, writer.into(), folder.path())?;
    let tail = Arc::new(Tail::default());
    let into = Arc::clone(&tail);
    // Not waited for: what the script leaves running may hold the pipe open for ever.
    std::thread::spawn(move || into.fill(&mut reader));
    let (mut timed_out, mut interrupted) = (false, false);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        timed_out = began.elapsed() >= limit;
        interrupted = !timed_out && stop();
        if timed_out || interrupted {
            break end(&mut child)?;
        }
        std::thread::sleep(LOOK);
    };
    let took = began.elapsed();
    tail.wait(LAST_WORDS);
    // Nor does it leave anything that writes to a disk later.
    let _ = killpg(group(&child), Signal::SIGKILL);
    let (output, dropped_bytes) = tail.text();
    Ok(Ended {
        exit_code: status.code().filter(|_| status.signal().is_none()),
        timed_out,
        interrupted,
        output,
        dropped_bytes,
        took,
    })
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(path)?;
    file.write_all(bytes)
}

fn start(
    path: &Path,
    bytes: &[u8],
    variables: &[(&str, &str)],
    output: OwnedFd,
    folder: &Path,
) -> io::Result<Child> {
    let as_it_is = bytes.starts_with(b"#!") || bytes.starts_with(b"\x7fELF");
    let mut command = match (as_it_is, Path::new(BUSYBOX).exists()) {
        (true, _) => Command::new(path),
        (false, true) => {
            let mut command = Command::new(BUSYBOX);
            command.arg("sh").arg(path);
            command
        }
        (false, false) => {
            let mut command = Command::new("/bin/sh");
            command.arg(path);
            command
        }
    };
    let errors = output.try_clone()?;
    let command = command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        )
        .env("HOME", "/")
        .env("TMPDIR", folder)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(errors))
        // A group of its own: what it starts ends with it.
        .process_group(0);
    let mut tries = 0;
    loop {
        match command.spawn() {
            // A child that another thread has just started still has the file open for
            // writing, for a moment.
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                std::thread::sleep(LOOK);
            }
            done => return done,
        }
    }
}

fn group(child: &Child) -> Pid {
    // Process ids fit into i32 on Linux.
    Pid::from_raw(child.id().cast_signed())
}

/// Ends it and what it has started.
fn end(child: &mut Child) -> io::Result<ExitStatus> {
    let _ = killpg(group(child), Signal::SIGKILL);
    child.wait()
}

/// The end of what was written to a pipe.
#[derive(Default)]
struct Tail(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    dropped: u64,
    ended: bool,
}

impl Tail {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, from: &mut impl Read) {
        let mut piece = vec![0; 16 << 10];
        loop {
            match from.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => self.keep(piece.get(..count).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.kept().ended = true;
    }

    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.kept();
        kept.bytes.extend(bytes);
        let over = kept.bytes.len().saturating_sub(MAX_OUTPUT_BYTES);
        kept.bytes.drain(..over);
        kept.dropped += over as u64;
    }

    fn wait(&self, at_most: Duration) {
        let began = Instant::now();
        while !self.kept().ended && began.elapsed() < at_most {
            std::thread::sleep(LOOK);
        }
    }

    fn text(&self) -> (String, u64) {
        let mut kept = self.kept();
        let bytes = kept.bytes.make_contiguous();
        (String::from_utf8_lossy(bytes).into_owned(), kept.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ended, MAX_OUTPUT_BYTES, run};
    use std::time::{Duration, Instant};

    const LONG: Duration = Duration::from_secs(60);

    fn sh(text: &str) -> Ended {
        run(text.as_bytes(), &[("DEPLOY_WHEN", "before")], LONG, &|| {
            false
        })
        .unwrap()
    }

    #[test]
    fn exit_code_output_and_variables() {
        let ended = sh("echo to out; echo to err >&2; echo when $DEPLOY_WHEN; exit 7");
        assert_eq!((ended.exit_code, ended.timed_out), (Some(7), false));
        assert_eq!(ended.output, "to out\nto err\nwhen before\n");
        let ended = sh("#!/bin/sh\n# as it is\nread line || echo no input");
        assert_eq!(
            (ended.exit_code, ended.output.as_str()),
            (Some(0), "no input\n")
        );
        assert_eq!(sh("kill -9 $$").exit_code, None);
        assert!(run(b"#!/no/such/program\n", &[], LONG, &|| false).is_err());
    }

    #[test]
    fn the_end_of_much_output_is_kept_and_odd_bytes_are_replaced() {
        let ended = sh("head -c 1000000 /dev/zero | tr '\\0' x; printf '\\377end'");
        assert!(
            ended.output.ends_with("x\u{fffd}end"),
            "{}",
            ended.output.len()
        );
        assert_eq!(ended.dropped_bytes, 1_000_004 - MAX_OUTPUT_BYTES as u64);
    }

    #[test]
    fn a_script_that_takes_too_long_ends_with_all_that_it_started() {
        let began = Instant::now();
        let limit = Duration::from_millis(300);
        let ended = run(b"echo begun; sleep 1000 & sleep 1000", &[], limit, &|| {
            false
        })
        .unwrap();
        assert!(ended.timed_out && !ended.interrupted);
        assert_eq!(ended.output, "begun\n");
        let ended = run(b"sleep 1000", &[], LONG, &|| true).unwrap();
        assert!(ended.interrupted && !ended.timed_out);
        // What it leaves behind holds nobody up.
        let ended = sh("sleep 1000 & echo left");
        assert_eq!(
            (ended.exit_code, ended.output.as_str()),
            (Some(0), "left\n")
        );
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}
