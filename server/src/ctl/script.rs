//! `deployctl script`, and the scripts of other orders.
//!
//! Owns: arguments, reading the files, what was said. Does not own: signing (the server).

use super::args::AfterArg;
use super::client::{Answer, Client, Problem, encode};
use super::{create, print};
use crate::view::{ExecutionView, JobRequest, NewExecution};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use wire::Code;
use wire::script::{DEFAULT_LIMIT_SECONDS, MAX_SCRIPT_BYTES, NewScript, ScriptResult, ScriptWhen};

/// Commands for scripts.
#[derive(Debug, Subcommand)]
pub enum Script {
    /// Run a script in the Deploy-OS of a machine, at its next network boot. Its disks are
    /// not touched but by the script.
    Run {
        /// Name, id or network address.
        machine: String,
        /// The script: of the shell, or anything that the machine can start.
        file: PathBuf,
        /// Seconds that it may take.
        #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LIMIT_SECONDS)]
        limit: u32,
        /// What the machine does afterwards.
        #[arg(long, value_enum, default_value_t = AfterArg::Reboot)]
        after: AfterArg,
        /// Wait for the end and show progress.
        #[arg(long)]
        wait: bool,
    },
    /// Show what the scripts of a machine's last execution that had some said.
    Output {
        /// Name, id or network address.
        machine: String,
        /// Id of an execution.
        #[arg(long)]
        execution: Option<String>,
    },
}

/// Scripts of a backup or restore.
#[derive(Debug, Default, Args)]
pub struct With {
    /// Script to run on the machine before; if it fails, nothing else is done.
    #[arg(long, value_name = "FILE")]
    before_script: Option<PathBuf>,
    /// Script to run on the machine when the job is done.
    #[arg(long, value_name = "FILE")]
    after_script: Option<PathBuf>,
    /// Seconds that each of them may take.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_LIMIT_SECONDS)]
    script_limit: u32,
}

impl With {
    /// The scripts, read from their files.
    pub(super) fn read(&self) -> Answer<Vec<NewScript>> {
        let of = [
            (ScriptWhen::Before, &self.before_script),
            (ScriptWhen::After, &self.after_script),
        ];
        let given = of
            .into_iter()
            .filter_map(|(when, file)| Some((when, file.as_ref()?)));
        given
            .map(|(when, file)| read(file, when, self.script_limit))
            .collect()
    }
}

fn read(path: &Path, when: ScriptWhen, limit_seconds: u32) -> Answer<NewScript> {
    let failed = |e: std::io::Error| Problem::usage(format!("{}: {e}", path.display()));
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(failed)?
        .take(MAX_SCRIPT_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() > MAX_SCRIPT_BYTES {
        return Err(Problem::usage(format!(
            "{}: a script has at most {MAX_SCRIPT_BYTES} bytes",
            path.display()
        )));
    }
    let name = path.file_name().unwrap_or_default();
    Ok(NewScript {
        when,
        name: name.to_string_lossy().into_owned(),
        data: STANDARD.encode(bytes),
        limit_seconds,
    })
}

/// Runs a command.
pub(super) fn run(client: &Client, json: bool, command: &Script) -> Answer<u8> {
    match command {
        Script::Run {
            machine,
            file,
            limit,
            after,
            wait,
        } => {
            let script = read(file, ScriptWhen::Alone, *limit)?;
            let new = NewExecution {
                job: JobRequest::Script {
                    name: script.name.clone(),
                },
                after: (*after).into(),
                rate: None,
                scripts: vec![script],
            };
            create(client, json, machine, &new, *wait)
        }
        Script::Output { machine, execution } => {
            let results = output(client, machine, execution.as_deref())?;
            print(json, &results, |results| text(results))
        }
    }
}

/// What the scripts of an execution said; of the newest one that had some.
fn output(client: &Client, machine: &str, execution: Option<&str>) -> Answer<Vec<ScriptResult>> {
    let of = |id: &str| client.get(&format!("/executions/{}/scripts", encode(id)));
    if let Some(id) = execution {
        return of(id);
    }
    let all: Vec<ExecutionView> =
        client.get(&format!("/machines/{}/executions", encode(machine)))?;
    for execution in &all {
        let results: Vec<ScriptResult> = of(&execution.id)?;
        if !results.is_empty() {
            return Ok(results);
        }
    }
    let found = format!("no script of machine \"{machine}\" has said anything");
    Err(Problem::new(Code::NothingAssigned, found)
        .with_advice("A target tells how a script ended as soon as it has."))
}

fn text(results: &[ScriptResult]) -> String {
    let one = |result: &ScriptResult| {
        let dropped = match result.dropped_bytes {
            0 => String::new(),
            bytes => format!("({bytes} bytes before this were dropped)\n"),
        };
        format!("{}\n{dropped}{}", result.sentence(), result.output)
    };
    results.iter().map(one).collect::<Vec<_>>().join("\n")
}
