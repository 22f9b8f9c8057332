//! Live progress on a terminal or in a pipe.
//!
//! Owns: when to ask and what to print again. Does not own: the lines ([`super::show`]).

use super::client::{Answer, Client, Problem, encode};
use super::{multicast, show};
use crate::cast::shown::{SessionView, Stage};
use crate::exec::state::State;
use crate::view::{ExecutionView, Overview};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;
use wire::Code;

const POLL: Duration = Duration::from_secs(1);
/// Times in a row that the server may be away, for example while it is updated.
const PATIENCE: u32 = 60;

/// What is watched; everything that is unfinished if nothing is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watched<'a> {
    /// Only this machine.
    pub machine: Option<&'a str>,
    /// Ids of the executions; those that are unfinished if there is none.
    pub executions: &'a [String],
    /// Id of the multicast session that brings their image.
    pub session: Option<&'a str>,
}

/// Shows progress until nothing watched is unfinished. The exit code is 1 if an execution
/// that was watched has failed.
pub fn until_done(client: &Client, json: bool, what: &Watched<'_>) -> Answer<u8> {
    let terminal = std::io::stdout().is_terminal() && !json;
    let mut printer = Printer {
        terminal,
        json,
        lines: 0,
        last: HashMap::new(),
    };
    let mut watched: Vec<String> = what.executions.to_vec();
    let mut away = 0;
    loop {
        let (executions, sessions) = match fetch(client, what) {
            Ok(seen) => seen,
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
            .filter(|e| what.executions.is_empty() && !e.state.is_final())
        {
            if !watched.contains(&execution.id) {
                watched.push(execution.id.clone());
            }
        }
        let shown: Vec<&ExecutionView> = executions
            .iter()
            .filter(|e| watched.contains(&e.id))
            .collect();
        printer.show(&sessions, &shown)?;
        if shown.iter().all(|e| e.state.is_final()) {
            return Ok(u8::from(shown.iter().any(|e| e.state != State::Done)));
        }
        std::thread::sleep(POLL);
    }
}

fn fetch(client: &Client, what: &Watched<'_>) -> Answer<(Vec<ExecutionView>, Vec<SessionView>)> {
    let (mut executions, mut sessions) = match what.machine {
        Some(machine) => {
            let of_machine = format!("/machines/{}/executions", encode(machine));
            (client.get(&of_machine)?, Vec::new())
        }
        None => {
            let overview: Overview = client.get("/overview")?;
            (overview.executions, overview.sessions)
        }
    };
    // A list has only the newest: none that is waited for may get lost, and count as done.
    for id in what.executions {
        if !executions.iter().any(|e| e.id == *id) {
            executions.push(client.get(&format!("/executions/{}", encode(id)))?);
        }
    }
    sessions.retain(|s| match what.session {
        Some(id) => s.id == id,
        None => what.executions.is_empty() && s.stage != Stage::Over,
    });
    Ok((executions, sessions))
}

struct Printer {
    terminal: bool,
    json: bool,
    lines: usize,
    last: HashMap<String, String>,
}

impl Printer {
    fn show(&mut self, sessions: &[SessionView], executions: &[&ExecutionView]) -> Answer<()> {
        let mut lines: Vec<(&str, String)> = Vec::new();
        if self.json {
            for execution in executions {
                let line = serde_json::to_string(execution)
                    .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
                lines.push((&execution.id, line));
            }
        } else {
            let one_line = |text: String| show::clean(&text).replace('\n', " ");
            let of_session = |s| one_line(multicast::text::line(s));
            lines.extend(sessions.iter().map(|s| (s.id.as_str(), of_session(s))));
            let of_execution = |e| one_line(show::line(e));
            lines.extend(executions.iter().map(|e| (e.id.as_str(), of_execution(e))));
        }
        let mut out = String::new();
        if self.terminal && self.lines > 0 {
            // Back to the first line of the last time; each is cleared before it is written.
            out += &format!("\x1b[{}A", self.lines);
        }
        self.lines = lines.len();
        for (id, line) in lines {
            if self.terminal {
                out += &format!("\x1b[2K{line}\n");
            } else if self.last.get(id) != Some(&line) {
                out += &format!("{line}\n");
                self.last.insert(id.to_owned(), line);
            }
        }
        if self.terminal {
            // What the last time had more.
            out += "\x1b[J";
        }
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| Problem::new(Code::OutputFailed, format!("standard output: {e}")))
    }
}
