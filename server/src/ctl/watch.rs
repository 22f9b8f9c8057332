//! Live progress on a terminal or in a pipe.
//!
//! Owns: when to ask and what to print again. Does not own: the lines ([`super::show`]).

use super::client::{Answer, Client, Problem, encode};
use super::show;
use crate::exec::state::State;
use crate::view::{ExecutionView, Overview};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use wire::Code;

const POLL: Duration = Duration::from_secs(1);
/// Times in a row that the server may be away, for example while it is updated.
const PATIENCE: u32 = 60;

/// Shows progress until nothing watched is unfinished. The exit code is 1 if an execution
/// that was watched has failed.
pub fn until_done(
    client: &Client,
    json: bool,
    machine: Option<&str>,
    only: Option<&str>,
) -> Answer<u8> {
    let terminal = std::io::stdout().is_terminal() && !json;
    let mut printer = Printer {
        terminal,
        json,
        lines: 0,
        last: HashMap::new(),
    };
    let mut watched: Vec<String> = only.map(str::to_owned).into_iter().collect();
    let mut away = 0;
    loop {
        let executions = match fetch(client, machine) {
            Ok(executions) => executions,
            Err(problem)
                if problem.report.code == Code::ServerNotFound
                    && away < PATIENCE
                    && !watched.is_empty() =>
            {
                away += 1;
                std::thread::sleep(POLL);
                continue;
            }
            Err(problem) => return Err(problem),
        };
        away = 0;
        for execution in executions
            .iter()
            .filter(|e| only.is_none() && !e.state.is_final())
        {
            if !watched.contains(&execution.id) {
                watched.push(execution.id.clone());
            }
        }
        let shown: Vec<&ExecutionView> = executions
            .iter()
            .filter(|e| watched.contains(&e.id))
            .collect();
        printer.show(&shown)?;
        if shown.iter().all(|e| e.state.is_final()) {
            return Ok(u8::from(shown.iter().any(|e| e.state != State::Done)));
        }
        std::thread::sleep(POLL);
    }
}

fn fetch(client: &Client, machine: Option<&str>) -> Answer<Vec<ExecutionView>> {
    match machine {
        Some(machine) => client.get(&format!("/machines/{}/executions", encode(machine))),
        None => client.get::<Overview>("/overview").map(|o| o.executions),
    }
}

struct Printer {
    terminal: bool,
    json: bool,
    lines: usize,
    last: HashMap<String, String>,
}

impl Printer {
    fn show(&mut self, executions: &[&ExecutionView]) -> Answer<()> {
        let mut out = String::new();
        if self.terminal && self.lines > 0 {
            // Back to the first line of the last time; each is cleared before it is written.
            out += &format!("\x1b[{}A", self.lines);
        }
        for execution in executions {
            let line = if self.json {
                serde_json::to_string(execution)
                    .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
            } else {
                show::clean(&show::line(execution)).replace('\n', " ")
            };
            if self.terminal {
                out += &format!("\x1b[2K{line}\n");
            } else if self
                .last
                .insert(execution.id.clone(), line.clone())
                .as_ref()
                != Some(&line)
            {
                out += &format!("{line}\n");
            }
        }
        self.lines = executions.len();
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| Problem::new(Code::OutputFailed, format!("standard output: {e}")))
    }
}
