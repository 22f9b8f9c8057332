//! Scripts of a job: before it, after it, or alone.
//!
//! Owns: that only what the trusted key has signed runs, and what a script's failure means
//! for the job. Does not own: the running (`crate::script`).

use crate::progress::ProgressSink;
use crate::remote::Remote;
use crate::script;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::signature::Statement;
use image::{PublicKey, Signature};
use std::time::Duration;
use wire::script::{
    MAX_LIMIT_SECONDS, MAX_SCRIPT_BYTES, Script, ScriptResult, ScriptWhen, signed_bytes,
};
use wire::{Code, DiskState, Job, Report};

/// The scripts of a job, each found to be the trusted key's.
pub struct Scripts<'a> {
    job: &'a Job,
    proved: Vec<(&'a Script, Vec<u8>)>,
}

impl<'a> Scripts<'a> {
    /// Checks all of them, so that a job does not fail in its end over what could be seen at
    /// its beginning.
    ///
    /// # Errors
    /// `script-untrusted`.
    pub fn check(job: &'a Job, trusted: Option<PublicKey>) -> Result<Self, Report> {
        let mut proved = Vec::new();
        for script in &job.scripts {
            let bytes = prove(&job.execution, script, trusted)
                .map_err(|found| Report::new(Code::ScriptUntrusted, found, DiskState::Untouched))?;
            proved.push((script, bytes));
        }
        Ok(Scripts { job, proved })
    }

    /// Runs those of this moment, and tells the server of each. `disk` is what the disk is
    /// then.
    ///
    /// # Errors
    /// `script-failed`, `interrupted`, or the server cannot be told.
    pub fn run(
        &self,
        when: ScriptWhen,
        disk: DiskState,
        remote: &Remote,
        progress: &dyn ProgressSink,
    ) -> Result<(), Report> {
        let due = self.proved.iter();
        for (script, bytes) in due.filter(|(script, _)| script.ordered.when == when) {
            progress.note(&format!("running script {:?}", script.ordered.name));
            let result = self.run_one(script, bytes, disk, progress)?;
            progress.note(&result.sentence());
            remote
                .script_result(&result)
                .map_err(|report| Report { disk, ..report })?;
            if progress.interrupted() {
                let found = format!("stopped by an operator; {}", result.sentence());
                return Err(Report::new(Code::Interrupted, found, disk));
            }
            if !result.is_success() {
                return Err(failed(&result, disk));
            }
        }
        Ok(())
    }

    fn run_one(
        &self,
        script: &Script,
        bytes: &[u8],
        disk: DiskState,
        progress: &dyn ProgressSink,
    ) -> Result<ScriptResult, Report> {
        let ordered = &script.ordered;
        let variables = [
            ("DEPLOY_EXECUTION", self.job.execution.as_str()),
            ("DEPLOY_WHEN", ordered.when.as_str()),
        ];
        let limit = Duration::from_secs(ordered.limit_seconds.min(MAX_LIMIT_SECONDS).into());
        let ended = script::run(bytes, &variables, limit, &|| progress.interrupted());
        let ended = ended.map_err(|e| {
            let found = format!("script {:?} cannot be started: {e}", ordered.name);
            Report::new(Code::ScriptFailed, found, disk)
        })?;
        Ok(ScriptResult {
            when: ordered.when,
            name: ordered.name.clone(),
            exit_code: ended.exit_code,
            timed_out: ended.timed_out,
            output: ended.output,
            dropped_bytes: ended.dropped_bytes,
            seconds: ended.took.as_secs_f64(),
        })
    }
}

fn failed(result: &ScriptResult, disk: DiskState) -> Report {
    let last = result
        .output
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty());
    let words = last.map_or(String::new(), |line| {
        format!("; its last words: {}", crate::map::printable(line, 200))
    });
    let what = match result.when {
        ScriptWhen::Before => "; the job was not begun",
        ScriptWhen::Alone => "",
        ScriptWhen::After => "; the job before it was done",
    };
    let found = format!("{}{words}{what}", result.sentence());
    Report::new(Code::ScriptFailed, found, disk)
}

/// The script's bytes, if the trusted key signed them for this execution.
fn prove(execution: &str, script: &Script, trusted: Option<PublicKey>) -> Result<Vec<u8>, String> {
    let name = &script.ordered.name;
    let Some(trusted) = trusted else {
        return Err(format!(
            "script {name:?}: this machine was told of no key that signs scripts"
        ));
    };
    let bytes = STANDARD
        .decode(&script.ordered.data)
        .map_err(|e| format!("script {name:?} is no base64: {e}"))?;
    if bytes.len() > MAX_SCRIPT_BYTES {
        return Err(format!("script {name:?} has {} bytes", bytes.len()));
    }
    let key = PublicKey::from_hex(&script.signed_by).filter(|key| *key == trusted);
    let signature: Option<[u8; 64]> = hex::decode(&script.signature)
        .ok()
        .and_then(|bytes| bytes.try_into().ok());
    let good = key.zip(signature).is_some_and(|(key, signature)| {
        let text = signed_bytes(execution, &script.ordered, &bytes);
        Signature { key, signature }.is_of_statement(Statement::Script, &text)
    });
    match good {
        true => Ok(bytes),
        false => Err(format!(
            "script {name:?} is not signed by {trusted}, which is trusted"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::prove;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use image::SigningKey;
    use image::signature::Statement;
    use wire::script::{NewScript, Script, ScriptWhen, signed_bytes};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn signed(by: &SigningKey) -> Script {
        let ordered = NewScript {
            when: ScriptWhen::Before,
            name: "x".into(),
            data: STANDARD.encode(b"exit 0"),
            limit_seconds: 60,
        };
        let text = signed_bytes("e1", &ordered, b"exit 0");
        let signature = by.sign_statement(Statement::Script, &text);
        Script {
            signed_by: by.public().to_string(),
            signature: hex::encode(signature.signature),
            ordered,
        }
    }

    #[test]
    fn only_what_the_trusted_key_signed_for_this_job_and_moment_runs() {
        let ours = key(1);
        let trusted = Some(ours.public());
        assert_eq!(prove("e1", &signed(&ours), trusted), Ok(b"exit 0".to_vec()));
        let refused = |execution: &str, change: fn(&mut Script)| {
            let mut script = signed(&ours);
            change(&mut script);
            prove(execution, &script, trusted).unwrap_err()
        };
        refused("e2", |_| {});
        for change in [
            (|s| s.ordered.when = ScriptWhen::After) as fn(&mut Script),
            |s| s.ordered.limit_seconds = 61,
            |s| s.ordered.data = STANDARD.encode(b"exit 1"),
            |s| s.ordered.data = "!".into(),
            |s| s.signature.clear(),
            |s| s.signed_by = "00".repeat(32),
        ] {
            refused("e1", change);
        }
        assert!(prove("e1", &signed(&key(2)), trusted).is_err());
        let found = prove("e1", &signed(&ours), None).unwrap_err();
        assert!(found.contains("no key"), "{found}");
    }
}
