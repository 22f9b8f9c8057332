//! Scripts that a server has a target run: what is sent, and what comes back.
//!
//! Owns: the shapes, their limits, and the bytes that are signed. Does not own: running
//! (the `imager`), keys (`image`), keeping (the server).

use crate::size;
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Longest script in bytes.
pub const MAX_SCRIPT_BYTES: usize = 256 << 10;
/// Most of its output that is kept, in bytes: the newest.
pub const MAX_OUTPUT_BYTES: usize = 256 << 10;
/// Time that a script has if nothing else is said, in seconds.
pub const DEFAULT_LIMIT_SECONDS: u32 = 600;
/// Most that it may have.
pub const MAX_LIMIT_SECONDS: u32 = 24 * 3600;

/// When a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScriptWhen {
    /// Before the job; if it fails, nothing else is done.
    Before,
    /// It is the job.
    Alone,
    /// After a job that was done.
    After,
}

impl ScriptWhen {
    /// The name that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            ScriptWhen::Before => "before",
            ScriptWhen::Alone => "alone",
            ScriptWhen::After => "after",
        }
    }
}

impl FromStr for ScriptWhen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [ScriptWhen::Before, ScriptWhen::Alone, ScriptWhen::After];
        let mut named = all.into_iter().filter(|when| when.as_str() == text);
        named
            .next()
            .ok_or_else(|| format!("{text:?} is none of before, alone, after"))
    }
}

/// A script that an operator orders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewScript {
    /// When it runs.
    pub when: ScriptWhen,
    /// Its name, for people.
    pub name: String,
    /// Its bytes, base64.
    pub data: String,
    /// Seconds that it may take.
    #[serde(default = "default_limit")]
    pub limit_seconds: u32,
}

fn default_limit() -> u32 {
    DEFAULT_LIMIT_SECONDS
}

/// A script of an execution, as the target gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// What was ordered.
    #[serde(flatten)]
    pub ordered: NewScript,
    /// Public key of the signer, hex.
    pub signed_by: String,
    /// Ed25519 signature of [`signed_bytes`], hex.
    pub signature: String,
}

/// The bytes that are signed: a script of one execution is none of another, nor is one that
/// runs after its job one that runs before it.
pub fn signed_bytes(execution: &str, script: &NewScript, data: &[u8]) -> Vec<u8> {
    let head = format!(
        "{execution}\n{}\n{}\n",
        script.when.as_str(),
        script.limit_seconds
    );
    [head.as_bytes(), data].concat()
}

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScriptResult {
    /// When it ran.
    pub when: ScriptWhen,
    /// Its name.
    pub name: String,
    /// Its exit code; none if a signal ended it.
    pub exit_code: Option<i32>,
    /// It took too long and was ended.
    pub timed_out: bool,
    /// The end of what it wrote to standard output and error, together; what is no UTF-8 is
    /// replaced.
    pub output: String,
    /// Bytes of output before that, which were dropped.
    pub dropped_bytes: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

impl ScriptResult {
    /// Whether it did what it should.
    pub fn is_success(&self) -> bool {
        self.exit_code == Some(0) && !self.timed_out
    }

    /// How it ended, in words.
    pub fn sentence(&self) -> String {
        let how = match (self.timed_out, self.exit_code) {
            (true, _) => "was ended: it took too long".to_owned(),
            (false, Some(code)) => format!("ended with {code}"),
            (false, None) => "was ended by a signal".to_owned(),
        };
        let after = size::duration(self.seconds as u64);
        format!(
            "script {:?} ({}) {how} after {after}",
            self.name,
            self.when.as_str()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{NewScript, ScriptResult, ScriptWhen, signed_bytes};

    fn script(when: ScriptWhen) -> NewScript {
        NewScript {
            when,
            name: "x.sh".into(),
            data: String::new(),
            limit_seconds: 60,
        }
    }

    #[test]
    fn what_is_signed_says_of_which_job_and_when() {
        let before = signed_bytes("e1", &script(ScriptWhen::Before), b"exit 0");
        assert_eq!(before, b"e1\nbefore\n60\nexit 0");
        assert_ne!(
            before,
            signed_bytes("e2", &script(ScriptWhen::Before), b"exit 0")
        );
        assert_ne!(
            before,
            signed_bytes("e1", &script(ScriptWhen::After), b"exit 0")
        );
        let long = NewScript {
            limit_seconds: 61,
            ..script(ScriptWhen::Before)
        };
        assert_ne!(before, signed_bytes("e1", &long, b"exit 0"));
    }

    #[test]
    fn an_end_in_words() {
        let end = |exit_code, timed_out| {
            let result = ScriptResult {
                when: ScriptWhen::After,
                name: "x.sh".into(),
                exit_code,
                timed_out,
                output: String::new(),
                dropped_bytes: 0,
                seconds: 3.9,
            };
            (result.is_success(), result.sentence())
        };
        assert_eq!(
            end(Some(0), false),
            (
                true,
                "script \"x.sh\" (after) ended with 0 after 3 s".to_owned()
            )
        );
        assert!(!end(Some(1), false).0 && !end(None, false).0);
        let (success, said) = end(None, true);
        assert!(!success && said.contains("too long"), "{said}");
        for when in [ScriptWhen::Before, ScriptWhen::Alone, ScriptWhen::After] {
            assert_eq!(when.as_str().parse(), Ok(when));
        }
    }
}
