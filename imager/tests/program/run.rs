//! Running `imager` and looking at how it ended.
//!
//! Owns: starting it, and the assertions that hold for every run: no panic, a known exit
//! code, the check code on both outputs. Does not own: disks.

use serde_json::Value;
use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

/// Exit codes.
pub const DONE: i32 = 0;
/// Failed while working.
pub const FAILED: i32 = 1;
/// Wrong usage.
pub const USAGE: i32 = 2;
/// Refused by a check.
pub const REFUSED: i32 = 3;

/// The program with these arguments, without a terminal.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_imager"));
    command
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command of the program to its end.
pub fn finish(mut command: Command) -> Run {
    Run::from(command.output().expect("imager starts"))
}

/// Runs the program: `imager!["map", path, "--json"]`, each argument a path or text.
#[macro_export]
macro_rules! imager {
    ($($arg:expr),* $(,)?) => {
        $crate::run::finish($crate::run::command([
            $(::std::convert::AsRef::<::std::ffi::OsStr>::as_ref(&$arg)),*
        ]))
    };
}

/// A run that ended.
#[derive(Debug)]
pub struct Run {
    /// The exit code; none after a signal.
    pub exit: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let run = Run {
            exit: output.status.code(),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        assert!(!run.stderr.contains("panicked at"), "{}", run.stderr);
        assert_ne!(run.exit, Some(101), "{}", run.stderr);
        run
    }
}

impl Run {
    /// Asserts success.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.exit, Some(DONE), "{}", self.stderr);
        self
    }

    /// Asserts a failure with this check code and exit code; `--json` carries it too.
    #[track_caller]
    pub fn fails(self, code: &str, exit: i32) -> Self {
        assert_eq!(self.exit, Some(exit), "{}", self.stderr);
        let said = format!("imager: {code}: ");
        assert!(self.stderr.contains(&said), "no {code}: {}", self.stderr);
        if let Some(json) = self.json_if_any() {
            assert_eq!(json["result"], "failed");
            assert_eq!(json["code"], code);
            for field in ["headline", "found", "advice"] {
                assert!(json[field].as_str().is_some_and(|text| !text.is_empty()));
            }
        }
        self
    }

    /// Asserts that it was refused: the check code, exit code 3.
    #[track_caller]
    pub fn refused(self, code: &str) -> Self {
        self.fails(code, REFUSED)
    }

    /// Asserts that the failure is told with the disk in this state.
    #[track_caller]
    pub fn disk(self, state: &str) -> Self {
        assert_eq!(self.json()["disk"], state, "{}", self.stderr);
        self
    }

    /// Asserts success with a warning of this code.
    #[track_caller]
    pub fn warns(self, code: &str) -> Self {
        let run = self.ok();
        let said = format!("warning: {code}: ");
        assert!(run.stderr.contains(&said), "no {code}: {}", run.stderr);
        run
    }

    /// Standard output as text.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        self.json_if_any()
            .unwrap_or_else(|| panic!("no JSON; {}", self.stderr))
    }

    fn json_if_any(&self) -> Option<Value> {
        serde_json::from_slice(&self.stdout).ok()
    }
}
