//! Scripts of executions: signed when they are ordered, and what they said.
//!
//! Owns: what may be ordered, the signature, the results in the state folder. Does not own:
//! running them (the target).

use super::files;
use super::run::unfinished;
use crate::app::App;
use crate::db::executions::Execution;
use crate::failure::{Failure, Outcome};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use image::SigningKey;
use image::signature::Statement;
use std::path::PathBuf;
use wire::JobKind;
use wire::script::{
    MAX_LIMIT_SECONDS, MAX_OUTPUT_BYTES, MAX_SCRIPT_BYTES, NewScript, Script, ScriptResult,
    ScriptWhen, signed_bytes,
};

/// Room in a result for what replaces odd bytes of the output.
const MOST_OUTPUT: usize = 3 * MAX_OUTPUT_BYTES;

/// The scripts of an order, signed for its execution.
///
/// # Errors
/// The order makes no sense, or there is no key.
pub(crate) fn sign(
    key: Option<&SigningKey>,
    execution: &str,
    job: &JobKind,
    ordered: Vec<NewScript>,
) -> Outcome<Vec<Script>> {
    let of_job: &[ScriptWhen] = match job {
        JobKind::Backup { .. } | JobKind::Restore { .. } => {
            &[ScriptWhen::Before, ScriptWhen::After]
        }
        JobKind::Script { .. } => &[ScriptWhen::Alone],
        JobKind::Wipe(_) | JobKind::DiskCheck => &[],
    };
    if matches!(job, JobKind::Script { .. }) && ordered.is_empty() {
        return Err(Failure::usage("a script job without a script"));
    }
    let mut signed: Vec<Script> = Vec::new();
    for script in ordered {
        let when = script.when.as_str();
        if !of_job.contains(&script.when) {
            return Err(Failure::usage(format!("this job has no script {when}")));
        }
        if signed.iter().any(|other| other.ordered.when == script.when) {
            return Err(Failure::usage(format!("two scripts {when}")));
        }
        super::control::check_name("script", &script.name)?;
        if !(1..=MAX_LIMIT_SECONDS).contains(&script.limit_seconds) {
            return Err(Failure::usage(format!(
                "{} seconds for a script; 1 to {MAX_LIMIT_SECONDS} are possible",
                script.limit_seconds
            )));
        }
        let bytes = STANDARD
            .decode(&script.data)
            .map_err(|e| Failure::usage(format!("script {:?} is no base64: {e}", script.name)))?;
        if bytes.is_empty() || bytes.len() > MAX_SCRIPT_BYTES {
            return Err(Failure::usage(format!(
                "script {:?} has {} bytes; 1 to {MAX_SCRIPT_BYTES} are possible",
                script.name,
                bytes.len()
            )));
        }
        let Some(key) = key else {
            return Err(Failure::internal(
                "this server has no key to sign scripts with",
            ));
        };
        let text = signed_bytes(execution, &script, &bytes);
        let signature = key.sign_statement(Statement::Script, &text);
        signed.push(Script {
            ordered: script,
            signed_by: signature.key.to_string(),
            signature: hex::encode(signature.signature),
        });
    }
    Ok(signed)
}

fn path(app: &App, execution: &str, when: ScriptWhen) -> PathBuf {
    let name = format!("{execution}.{}.json", when.as_str());
    app.state_dir.join("scripts").join(name)
}

/// Stores what a script of the execution said; said twice, the last one counts.
///
/// # Errors
/// Refused, no such script, or the file cannot be written.
pub(crate) async fn result(app: &App, id: &str, token: &str, message: ScriptResult) -> Outcome<()> {
    let execution = unfinished(&mut *app.db.read().await?, id, token).await?;
    let mut scripts = execution.scripts.iter();
    if !scripts.any(|script| script.ordered.when == message.when) {
        return Err(Failure::usage("the execution has no such script"));
    }
    if message.output.len() > MOST_OUTPUT {
        return Err(Failure::usage("the output of a script is too long"));
    }
    tracing::info!(execution = %id, script = %message.sentence(), "script");
    files::write(
        path(app, &execution.id, message.when),
        serde_json::to_vec(&message)?,
    )
    .await
}

/// What the scripts of an execution said, in the order in which they ran.
///
/// # Errors
/// A file cannot be read.
pub(crate) async fn results(app: &App, execution: &Execution) -> Outcome<Vec<ScriptResult>> {
    let mut whens: Vec<ScriptWhen> = execution.scripts.iter().map(|s| s.ordered.when).collect();
    whens.sort();
    let mut found = Vec::new();
    for when in whens {
        match tokio::fs::read(path(app, &execution.id, when)).await {
            Ok(bytes) => found.push(serde_json::from_slice(&bytes)?),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::io("reading the result of a script", &e)),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::sign;
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use image::SigningKey;
    use wire::JobKind;
    use wire::script::{MAX_SCRIPT_BYTES, NewScript, ScriptWhen};

    fn script(when: ScriptWhen, bytes: &[u8]) -> NewScript {
        NewScript {
            when,
            name: "x.sh".into(),
            data: STANDARD.encode(bytes),
            limit_seconds: 60,
        }
    }

    #[test]
    fn what_may_be_ordered() {
        let key = SigningKey::from_seed(&[1; 32]).unwrap();
        let backup = crate::exec::state::tests::backup();
        let alone = JobKind::Script {
            name: "x.sh".into(),
        };
        let (before, after) = (ScriptWhen::Before, ScriptWhen::After);
        let try_one = |job: &JobKind, scripts: Vec<NewScript>| {
            sign(Some(&key), "e1", job, scripts).map(|signed| signed.len())
        };
        let both = vec![script(before, b"exit"), script(after, b"exit")];
        assert_eq!(try_one(&backup, both.clone()).unwrap(), 2);
        assert_eq!(try_one(&backup, Vec::new()).unwrap(), 0);
        let one = vec![script(ScriptWhen::Alone, b"exit")];
        assert_eq!(try_one(&alone, one.clone()).unwrap(), 1);
        let refused = [
            (&alone, Vec::new()),
            (&alone, both.clone()),
            (&backup, one),
            (&JobKind::DiskCheck, vec![script(before, b"exit")]),
            (&backup, vec![script(before, b"a"), script(before, b"b")]),
            (&backup, vec![script(before, b"")]),
            (
                &backup,
                vec![script(before, &vec![b'x'; MAX_SCRIPT_BYTES + 1])],
            ),
            (
                &backup,
                vec![NewScript {
                    limit_seconds: 0,
                    ..script(before, b"x")
                }],
            ),
            (
                &backup,
                vec![NewScript {
                    name: "a/b".into(),
                    ..script(before, b"x")
                }],
            ),
            (
                &backup,
                vec![NewScript {
                    data: "!".into(),
                    ..script(before, b"x")
                }],
            ),
        ];
        for (job, scripts) in refused {
            assert!(try_one(job, scripts.clone()).is_err(), "{scripts:?}");
        }
        assert!(sign(None, "e1", &backup, both).is_err());
    }
}
