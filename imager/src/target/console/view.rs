//! What the target's screen shows, as 25 rows of 80 characters.
//!
//! Owns: layout and wording of the running view and of the error view. Does not own:
//! devices and escape codes ([`super::screen`]). Only printable ASCII leaves here: a
//! plain VGA font has nothing else in a place that can be relied on.

use super::Inquiry;
use super::choice::Key;
use crate::progress::{Snapshot, bar};
use wire::{Report, Step, size};

/// Columns of a text screen.
pub const COLUMNS: usize = 80;
/// Rows of a text screen.
pub const ROWS: usize = 25;
/// Log lines at the bottom.
const RECENT: usize = 5;
const LABEL: usize = 11;

/// How a row is set off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// Normal.
    #[default]
    Plain,
    /// The bar at the top.
    Title,
    /// The bar at the top, of the error screen.
    Alarm,
    /// Important.
    Bold,
    /// Something to notice.
    Notice,
}

/// A screen full of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// At most [`ROWS`] rows of at most [`COLUMNS`] characters.
    pub rows: Vec<(Style, String)>,
}

/// The job, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobView {
    /// `backup`, `restore`, `disk check`.
    pub verb: String,
    /// Name of the image; empty if there is none.
    pub image: String,
    /// The disk.
    pub disk: String,
}

/// Everything that the running view shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Machine's name and model.
    pub machine: String,
    /// Server's address.
    pub server: String,
    /// Card and address.
    pub network: String,
    /// What is being done or waited for.
    pub state: String,
    /// The job, once there is one.
    pub job: Option<JobView>,
    /// A warning or a reason to wait.
    pub notice: String,
    /// Newest log lines.
    pub recent: Vec<String>,
}

impl View {
    /// Adds a log line; the oldest goes.
    pub fn log(&mut self, line: &str) {
        self.recent.extend(line.lines().map(str::to_owned));
        let surplus = self.recent.len().saturating_sub(RECENT);
        self.recent.drain(..surplus);
    }
}

/// The running view.
pub fn running(view: &View, progress: Option<&Snapshot>, uptime_seconds: u64) -> Frame {
    let mut frame = Frame::titled(
        Style::Title,
        &format!("up {}", size::duration(uptime_seconds)),
    );
    frame.blank();
    for (label, text) in [
        ("Machine", &view.machine),
        ("Server", &view.server),
        ("Network", &view.network),
    ] {
        let text = if text.is_empty() { "..." } else { text };
        frame.field(label, text, 1);
    }
    frame.blank();
    if let Some(job) = &view.job {
        let image = if job.image.is_empty() { "" } else { ", image " };
        frame.field("Job", &format!("{}{image}{}", job.verb, job.image), 1);
        frame.field("Disk", &job.disk, 1);
        frame.blank();
    }
    frame.push(Style::Bold, &format!("  {}", capitalised(&view.state)));
    frame.blank();
    if let Some(progress) = progress.filter(|p| p.total > 0) {
        frame.progress(progress);
    }
    if !view.notice.is_empty() {
        frame.wrapped(Style::Notice, "  ! ", &view.notice, 2);
    }
    let bottom = ROWS - 2 - RECENT;
    frame.rows.truncate(bottom);
    while frame.rows.len() < bottom {
        frame.blank();
    }
    for at in 0..RECENT {
        let line = view.recent.get(at).map(String::as_str).unwrap_or_default();
        frame.push(Style::Plain, &format!("  {line}"));
    }
    frame.push(Style::Plain, &"-".repeat(COLUMNS));
    let footer = match &view.job {
        Some(_) => " Please leave the machine on. Keys do nothing while a job runs.",
        None => " Please leave the machine on.",
    };
    frame.push(Style::Plain, footer);
    frame
}

/// The error view, with the key that waits for its confirmation.
pub fn error(view: &View, report: &Report, pending: Option<Key>, reboot_in: Option<u64>) -> Frame {
    let mut frame = Frame::titled(Style::Alarm, "FAILED");
    frame.blank();
    frame.push(Style::Bold, &format!("  {}", report.code));
    frame.wrapped(Style::Bold, "  ", report.code.headline(), 2);
    frame.blank();
    frame.field("Found", &report.found, 6);
    frame.field("To do", &report.advice, 3);
    if !report.disk.sentence().is_empty() {
        frame.field("Disk", report.disk.sentence(), 2);
    }
    frame.blank();
    for (label, text) in [
        ("Machine", &view.machine),
        ("Server", &view.server),
        ("Network", &view.network),
    ] {
        if !text.is_empty() {
            frame.field(label, text, 1);
        }
    }
    let bottom = ROWS - 3;
    frame.rows.truncate(bottom);
    while frame.rows.len() < bottom {
        frame.blank();
    }
    frame.push(Style::Plain, &"-".repeat(COLUMNS));
    frame.push(
        Style::Bold,
        "   p  power off      r  reboot      s  rescue shell",
    );
    let line = match (pending, reboot_in) {
        (Some(key), _) => format!(
            "   {}: press Enter to confirm, any other key to cancel",
            key.name()
        ),
        (None, Some(seconds)) => {
            format!(
                "   Press a key, then Enter. Reboots by itself in {}.",
                size::duration(seconds)
            )
        }
        (None, None) => "   Press a key, then Enter.".to_owned(),
    };
    frame.push(
        if pending.is_some() {
            Style::Notice
        } else {
            Style::Plain
        },
        &line,
    );
    frame
}

/// The view of a question, with the answer as far as it is typed. A text that is too long
/// for one screen has several pages, which go round.
pub fn asking(inquiry: &Inquiry, typed: &str, page: usize) -> Frame {
    const BELOW: usize = 5;
    let mut frame = Frame::titled(Style::Title, &inquiry.title);
    frame.blank();
    let lines: Vec<String> = inquiry.text.lines().flat_map(lines_of).collect();
    let room = ROWS - BELOW - frame.rows.len();
    let pages = lines.len().div_ceil(room).max(1);
    for line in lines.iter().skip((page % pages) * room).take(room) {
        frame.push(Style::Plain, line);
    }
    while frame.rows.len() < ROWS - BELOW {
        frame.blank();
    }
    frame.push(Style::Plain, &"-".repeat(COLUMNS));
    frame.push(Style::Bold, &format!("  {}", inquiry.question));
    frame.push(Style::Notice, &format!("  > {typed}_"));
    frame.blank();
    let more = match pages {
        1 => String::new(),
        _ => format!(" Tab shows more: page {} of {pages}.", page % pages + 1),
    };
    frame.push(
        Style::Plain,
        &format!("   Enter answers, Backspace corrects.{more}"),
    );
    frame
}

/// A line in the width of the screen. What fits keeps its columns.
fn lines_of(line: &str) -> Vec<String> {
    const WIDTH: usize = COLUMNS - 4;
    let line = plain(line);
    if line.len() <= WIDTH {
        return vec![format!("  {line}")];
    }
    let indent = line.len() - line.trim_start().len();
    let indent = " ".repeat(2 + indent.min(20));
    let wrapped = wrap(&line, COLUMNS - 2 - indent.len());
    wrapped.iter().map(|part| indent.clone() + part).collect()
}

/// The error view where settings can be changed: its last two rows say so.
pub fn with_settings(mut frame: Frame, pending: Option<Key>, local_in: Option<u64>) -> Frame {
    frame.rows.truncate(ROWS - 2);
    frame.push(
        Style::Bold,
        "   p  power off      r  reboot      s  rescue shell      Esc  settings",
    );
    match (pending, local_in) {
        (Some(key), _) => frame.push(
            Style::Notice,
            &format!(
                "   {}: press Enter to confirm, any other key to cancel",
                key.name()
            ),
        ),
        (None, Some(seconds)) => frame.push(
            Style::Notice,
            &format!(
                "   The local disk is booted in {}. Any key stops that.",
                size::duration(seconds)
            ),
        ),
        (None, None) => frame.push(Style::Plain, "   Press a key, then Enter; Esc alone."),
    }
    frame
}

/// What a step is called on the screen.
pub fn step_name(verb: &str, step: Step) -> String {
    crate::progress::terminal::step_name(verb, step)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

/// Printable ASCII, anything else as `?`, line ends and tabs as spaces.
pub fn plain(text: &str) -> String {
    let printable = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        ' '..='~' => c,
        _ => '?',
    };
    text.chars().map(printable).collect()
}

impl Frame {
    pub(super) fn titled(style: Style, right: &str) -> Frame {
        let left = format!(" Deploy-OS {}", wire::SOFTWARE_VERSION);
        let gap = COLUMNS.saturating_sub(left.len() + right.len() + 1);
        let mut frame = Frame::default();
        frame.push(style, &format!("{left}{}{right} ", " ".repeat(gap)));
        frame
    }

    pub(super) fn push(&mut self, style: Style, text: &str) {
        let mut text = plain(text);
        if text.len() > COLUMNS {
            text.truncate(COLUMNS - 3);
            text.push_str("...");
        }
        self.rows.push((style, text));
    }

    pub(super) fn blank(&mut self) {
        self.push(Style::Plain, "");
    }

    pub(super) fn field(&mut self, label: &str, text: &str, max_rows: usize) {
        self.wrapped(Style::Plain, &format!("  {label:<LABEL$}"), text, max_rows);
    }

    /// Text over several rows; what does not fit ends with dots.
    pub(super) fn wrapped(&mut self, style: Style, first: &str, text: &str, max_rows: usize) {
        let width = COLUMNS - first.len() - 1;
        let mut lines = wrap(&plain(text), width);
        if lines.len() > max_rows {
            lines.truncate(max_rows);
            if let Some(last) = lines.last_mut() {
                last.truncate(width - 3);
                last.push_str("...");
            }
        }
        for (at, line) in lines.iter().enumerate() {
            let indent = if at == 0 {
                first.to_owned()
            } else {
                " ".repeat(first.len())
            };
            self.push(style, &format!("{indent}{line}"));
        }
    }

    fn progress(&mut self, progress: &Snapshot) {
        let percent = progress.percent();
        self.push(
            Style::Bold,
            &format!("  [{}] {percent:3} %", bar(COLUMNS - 12, percent)),
        );
        self.blank();
        let left = match progress.seconds_left {
            Some(seconds) => format!("{} left", size::duration(seconds)),
            None => "time left not known yet".to_owned(),
        };
        self.push(
            Style::Plain,
            &format!(
                "  {} of {}    {}/s    {left}",
                size::bytes(progress.done),
                size::bytes(progress.total),
                size::bytes(progress.rate)
            ),
        );
        let over = size::bytes(progress.wire);
        let elapsed = size::duration(progress.elapsed.as_secs());
        self.push(
            Style::Plain,
            &format!("  {over} over the network    {elapsed} in this step"),
        );
        self.blank();
    }
}

/// Breaks ASCII text at spaces; longer words are cut. Never gives no line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for mut word in text.split(' ').filter(|word| !word.is_empty()) {
        while let Some(line) = lines.last_mut() {
            let space = usize::from(!line.is_empty());
            if line.len() + space + word.len() <= width {
                line.push_str(&" "[..space]);
                line.push_str(word);
                break;
            }
            if line.is_empty() {
                let (part, rest) = word.split_at(width);
                line.push_str(part);
                word = rest;
            }
            lines.push(String::new());
        }
    }
    lines
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
