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
/// Executions that a terminal shows at a time, so that all of it fits on a small one.
const MOST: usize = 16;

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
        let ended = shown.iter().all(|e| e.state.is_final());
        printer.show(&sessions, &shown, ended)?;
        if ended {
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
    fn show(
        &mut self,
        sessions: &[SessionView],
        executions: &[&ExecutionView],
        ended: bool,
    ) -> Answer<()> {
        let lines = if self.json {
            json_lines(executions)?
        } else {
            lines(sessions, executions, self.terminal && !ended)
        };
        let mut out = String::new();
        if self.terminal {
            if self.lines > 0 {
                // Back to the first line of the last time; each is cleared before it is written.
                out += &format!("\x1b[{}A", self.lines);
            }
            // One that is wider than the terminal is cut: as two it could not be gone back over.
            // In the end there is no more going back.
            out += if ended { "\x1b[J" } else { "\x1b[?7l" };
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
            // What the last time had more goes.
            out += "\x1b[?7h\x1b[J";
        }
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(out.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|e| Problem::new(Code::OutputFailed, format!("standard output: {e}")))
    }
}

/// Lines, each with the id of what it is about.
type Lines<'a> = Vec<(&'a str, String)>;

fn json_lines<'a>(executions: &[&'a ExecutionView]) -> Answer<Lines<'a>> {
    let line = |execution: &&'a ExecutionView| {
        let text = serde_json::to_string(execution)
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        Ok((execution.id.as_str(), text))
    };
    executions.iter().map(line).collect()
}

/// A line for each session and execution; if they have to be `few`, for those executions that
/// are not over rather than for those that are.
fn lines<'a>(
    sessions: &'a [SessionView],
    executions: &[&'a ExecutionView],
    few: bool,
) -> Lines<'a> {
    let one_line = |text: &str| show::clean(text).replace('\n', " ");
    let mut lines: Lines<'_> = sessions
        .iter()
        .map(|s| (s.id.as_str(), one_line(&multicast::text::line(s))))
        .collect();
    let mut shown = executions.to_vec();
    if few && shown.len() > MOST {
        shown.sort_by_key(|e| e.state.is_final());
        shown.truncate(MOST);
    }
    lines.extend(
        shown
            .iter()
            .map(|e| (e.id.as_str(), one_line(&show::line(e)))),
    );
    let others = executions.len() - shown.len();
    if others > 0 {
        let done = executions.iter().filter(|e| e.state == State::Done).count();
        let all = executions.len();
        lines.push(("", format!("and {others} others; {done} of {all} are done")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::{ExecutionView, lines};
    use serde_json::json;

    fn execution(number: usize, state: &str) -> ExecutionView {
        serde_json::from_value(json!({
            "id": number.to_string(), "machine": format!("pc-{number}\nx"), "kind": "restore", "image": null,
            "image_id": null, "disk": null, "writes_to": null, "state": state, "note": "", "open": true,
            "created": 0, "changed": 0, "started": null, "ended": null, "silent_since": null,
            "progress": null, "report": null, "warnings": [], "summary": null, "after": wire::After::Reboot,
        }))
        .unwrap()
    }

    #[test]
    fn a_terminal_shows_of_many_those_that_are_not_over() {
        let state = |n: usize| if n < 20 { "done" } else { "running" };
        let all: Vec<ExecutionView> = (0..24).map(|n| execution(n, state(n))).collect();
        let all: Vec<&ExecutionView> = all.iter().collect();
        let few = lines(&[], &all, true);
        assert_eq!(few.len(), 17);
        assert_eq!(few[0], ("20", "pc-20 x: restore: running".to_owned()));
        assert_eq!(few[4], ("0", "pc-0 x: restore: done".to_owned()));
        assert_eq!(few[16].1, "and 8 others; 20 of 24 are done");
        // In a pipe, and in the end, nothing is left out.
        assert_eq!(lines(&[], &all, false).len(), 24);
    }
}
