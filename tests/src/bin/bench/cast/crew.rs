//! The programs of one transfer: starting them, what they say and when, and ending them.
//!
//! Owns: processes, by their ids, and that none is left behind. Does not own: what they are
//! for.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// Lines of a program that are kept for the report of a failure.
const KEPT: usize = 12;
/// Time that a killed program has to be gone: longer than what it has to write to a slow disk.
const LONGEST_END: Duration = Duration::from_secs(60);

/// Programs that run together. Dropping it ends them all.
pub struct Crew {
    members: Vec<Member>,
    events: Receiver<Event>,
    teller: Sender<Event>,
}

struct Member {
    name: String,
    child: Child,
    ended: bool,
    said: Vec<String>,
}

/// Something that a program did.
pub struct Event {
    /// Its number, as [`Crew::start`] gave it.
    pub who: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What a program did.
pub enum What {
    /// A line on standard error.
    Said(String),
    /// It is over; nothing more is said.
    Ended {
        /// Whether it succeeded.
        ok: bool,
        /// User and system seconds.
        cpu: f64,
    },
}

impl Crew {
    pub fn new() -> Crew {
        let (teller, events) = channel();
        Crew {
            members: Vec::new(),
            events,
            teller,
        }
    }

    /// Starts a program; its number.
    pub fn start(&mut self, name: &str, mut command: Command) -> io::Result<usize> {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("{name}: {e}")))?;
        let who = self.members.len();
        let stderr = child.stderr.take();
        let pid = Pid::from_raw(child.id().cast_signed());
        self.members.push(Member {
            name: name.to_owned(),
            child,
            ended: false,
            said: Vec::new(),
        });
        let teller = self.teller.clone();
        thread::Builder::new().spawn(move || follow(who, pid, stderr, &teller))?;
        Ok(who)
    }

    /// The next event, or `None` if there is none until then.
    pub fn next(&mut self, until: Instant) -> io::Result<Option<Event>> {
        let left = until.saturating_duration_since(Instant::now());
        let mut event = match self.events.recv_timeout(left) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("no programs")),
        };
        if let Some(member) = self.members.get_mut(event.who) {
            match &mut event.what {
                What::Said(line) => {
                    if member.said.len() == KEPT {
                        member.said.remove(0);
                    }
                    member.said.push(line.clone());
                }
                What::Ended { ok, .. } => {
                    // Only now, so that its number stayed its own while it could be killed.
                    *ok = member.child.wait()?.success();
                    member.ended = true;
                }
            }
        }
        Ok(Some(event))
    }

    /// Ends a program at once; nothing if it is over.
    pub fn kill(&mut self, who: usize) -> io::Result<()> {
        match self.members.get_mut(who).filter(|member| !member.ended) {
            Some(member) => member.child.kill(),
            None => Ok(()),
        }
    }

    /// Whether a program is over.
    pub fn is_over(&self, who: usize) -> bool {
        self.members.get(who).is_none_or(|member| member.ended)
    }

    /// Whether all are.
    pub fn are_over(&self) -> bool {
        self.members.iter().all(|member| member.ended)
    }

    /// An error, with what the program said last.
    pub fn failure(&self, who: usize, text: &str) -> io::Error {
        let (name, said) = self.members.get(who).map_or_else(
            || (String::new(), String::new()),
            |member| (member.name.clone(), member.said.join("\n  ")),
        );
        io::Error::other(format!("{name} {text}; it said\n  {said}"))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in self.members.iter_mut().filter(|member| !member.ended) {
            // It may have ended by itself.
            let _ = member.child.kill();
        }
        let until = Instant::now() + LONGEST_END;
        for member in self.members.iter_mut().filter(|member| !member.ended) {
            while matches!(member.child.try_wait(), Ok(None)) {
                if Instant::now() > until {
                    eprintln!(
                        "{} (process {}) does not end",
                        member.name,
                        member.child.id()
                    );
                    break;
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Passes on what a program says until it is over. It is not reaped here.
fn follow(who: usize, pid: Pid, stderr: Option<ChildStderr>, teller: &Sender<Event>) {
    let tell = |what| {
        let at = Instant::now();
        teller.send(Event { who, at, what }).is_ok()
    };
    if let Some(mut stderr) = stderr.map(BufReader::new) {
        let mut line = Vec::new();
        // Lines that are drawn over end with a carriage return.
        while let Ok(true) = next_line(&mut stderr, &mut line) {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            if !text.is_empty() && !tell(What::Said(text)) {
                break;
            }
        }
    }
    let _ = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
    let cpu = processor_seconds(pid.as_raw().cast_unsigned()).unwrap_or(f64::NAN);
    tell(What::Ended { ok: false, cpu });
}

/// Reads up to a line feed or carriage return; `false` at the end.
fn next_line(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    loop {
        let there = from.fill_buf()?;
        if there.is_empty() {
            return Ok(!line.is_empty());
        }
        let end = there.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.unwrap_or(there.len());
        line.extend_from_slice(there.get(..taken).unwrap_or_default());
        from.consume(taken + usize::from(end.is_some()));
        if end.is_some() {
            return Ok(true);
        }
    }
}

/// User and system seconds of a process that is not reaped yet.
pub fn processor_seconds(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, fields) = text.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).take(2);
    let mut ticks = || times.next()?.parse::<f64>().ok();
    let (user, system) = (ticks()?, ticks()?);
    let second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some((user + system) / second as f64)
}

/// A moment of the machine's processors, to tell what part of a time they had nothing to do.
#[derive(Clone, Copy)]
pub struct Processors {
    free: u64,
    all: u64,
}

impl Processors {
    /// Now.
    pub fn look() -> io::Result<Processors> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let first = text.lines().next().unwrap_or_default();
        let times: Vec<u64> = first
            .split_whitespace()
            .skip(1)
            .take(8)
            .filter_map(|field| field.parse().ok())
            .collect();
        match times[..] {
            // What programs of lower priority take would be there for the asking.
            [_, nice, _, idle, wait, ..] => Ok(Processors {
                free: nice + idle + wait,
                all: times.iter().sum(),
            }),
            _ => Err(io::Error::other("/proc/stat is not as expected")),
        }
    }

    /// The part that was free since then, 0 to 1.
    pub fn free_since(self, before: Processors) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.free.saturating_sub(before.free) as f64 / all as f64
    }
}
