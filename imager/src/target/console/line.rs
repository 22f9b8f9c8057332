//! A line that is typed on the consoles: what is asked, the keys, how it looks.
//!
//! Owns: editing (Backspace, Ctrl-U, Enter, Esc), the screen. Does not own: what is asked
//! for ([`crate::target::form`]), the devices.

use super::choice::is_escape;
use super::view::{Frame, ROWS, Style};
use std::time::Duration;

/// Longest line; a list of servers fits.
const MAX_LINE: usize = 400;

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// What it is about.
    pub title: String,
    /// What was answered before, and what can be chosen.
    pub lines: Vec<String>,
    /// What is wanted now.
    pub label: String,
    /// What an empty line means.
    pub default: String,
    /// What was wrong with the last answer.
    pub problem: String,
    /// How long no key is waited for.
    pub patience: Option<Duration>,
}

/// What became of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A line, without its end.
    Line(String),
    /// The Esc key.
    Escape,
    /// No key was pressed in the time.
    Idle,
}

/// The line that is being typed on one console.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Editor {
    /// So far.
    pub typed: String,
}

impl Editor {
    /// Takes what was typed: gives what a serial line shows of it, and the answer once
    /// there is one.
    pub fn press(&mut self, bytes: &[u8]) -> (String, Option<Answer>) {
        let mut echo = String::new();
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            match byte {
                b'\r' | b'\n' => {
                    echo.push('\n');
                    return (echo, Some(Answer::Line(std::mem::take(&mut self.typed))));
                }
                0x7f | 0x08 if self.typed.pop().is_some() => echo.push_str("\x08 \x08"),
                0x15 => {
                    echo.push_str(&"\x08 \x08".repeat(self.typed.len()));
                    self.typed.clear();
                }
                0x1b => rest = after_sequence(after),
                b' '..=b'~' if self.typed.len() < MAX_LINE => {
                    self.typed.push(char::from(byte));
                    echo.push(char::from(byte));
                }
                _ => {}
            }
        }
        if is_escape(bytes) {
            echo.push('\n');
            return (echo, Some(Answer::Escape));
        }
        (echo, None)
    }
}

/// What stands after a cursor or function key, whose first byte was taken.
fn after_sequence(bytes: &[u8]) -> &[u8] {
    match bytes {
        [b'[' | b'O', sequence @ ..] => {
            let end = sequence.iter().position(|b| (0x40..=0x7e).contains(b));
            let after = end.map_or(sequence.len(), |end| end.saturating_add(1));
            sequence.get(after..).unwrap_or_default()
        }
        _ => bytes,
    }
}

/// What a serial line shows before the cursor.
pub fn serial(prompt: &Prompt) -> String {
    let default = match prompt.default.as_str() {
        "" => String::new(),
        default => format!(" [{default}]"),
    };
    format!("settings: {}{default}: ", prompt.label)
}

/// The screen.
pub fn frame(prompt: &Prompt, typed: &str) -> Frame {
    let mut frame = Frame::titled(Style::Title, "settings");
    frame.blank();
    frame.wrapped(Style::Plain, "  ", &prompt.title, 4);
    frame.blank();
    // The newest lines fit.
    let most = ROWS - 15;
    for line in prompt
        .lines
        .iter()
        .skip(prompt.lines.len().saturating_sub(most))
    {
        frame.push(Style::Plain, &format!("  {line}"));
    }
    frame.blank();
    let first = format!("  {}: ", prompt.label);
    // Of a long line the end is shown: there the cursor is.
    let room = super::view::COLUMNS.saturating_sub(first.len() + 2);
    let tail = typed
        .get(typed.len().saturating_sub(room)..)
        .unwrap_or(typed);
    frame.push(Style::Bold, &format!("{first}{tail}_"));
    if !prompt.default.is_empty() {
        frame.wrapped(Style::Plain, "  Enter alone: ", &prompt.default, 2);
    }
    if !prompt.problem.is_empty() {
        frame.wrapped(Style::Notice, "  ! ", &prompt.problem, 2);
    }
    frame.rows.truncate(ROWS - 2);
    while frame.rows.len() < ROWS - 2 {
        frame.blank();
    }
    frame.push(Style::Plain, &"-".repeat(super::view::COLUMNS));
    frame.push(
        Style::Plain,
        " Enter: next   -: nothing   Backspace: correct   Esc: leave, nothing is changed",
    );
    frame
}

#[cfg(test)]
mod tests {
    use super::{Answer, Editor, Prompt, frame, serial};
    use crate::target::console::view::{COLUMNS, ROWS};
    use proptest::prelude::*;

    fn line(typed: &[u8]) -> Option<Answer> {
        Editor::default().press(typed).1
    }

    #[test]
    fn a_line_is_typed_and_corrected() {
        let said = |text: &str| Some(Answer::Line(text.to_owned()));
        assert_eq!(line(b"10.0.0.1\r"), said("10.0.0.1"));
        assert_eq!(line(b"ab\x7f\x08\x08c\n"), said("c"));
        assert_eq!(line(b"wrong\x15right\r"), said("right"));
        assert_eq!(line(b"a\x1b[3~b\x1b[Ac\x1bOPd\r"), said("abcd"));
        assert_eq!(line(b"\r"), said(""));
        assert_eq!(line(b"abc"), None);
        assert_eq!(line(b"abc\x1b"), Some(Answer::Escape));
        assert_eq!(line("\u{e4}\x01\t\r".as_bytes()), said(""));
    }

    #[test]
    fn a_serial_line_sees_what_is_typed() {
        let mut editor = Editor::default();
        assert_eq!(editor.press(b"ab\x7f"), ("ab\x08 \x08".to_owned(), None));
        assert_eq!(editor.press(b"\x15"), ("\x08 \x08".to_owned(), None));
        let prompt = Prompt {
            label: "Gateway".to_owned(),
            default: "10.0.0.1".to_owned(),
            ..Prompt::default()
        };
        assert_eq!(serial(&prompt), "settings: Gateway [10.0.0.1]: ");
    }

    proptest! {
        #[test]
        fn any_prompt_fits_the_screen(
            texts in proptest::collection::vec("\\PC{0,200}", 4),
            lines in proptest::collection::vec("\\PC{0,120}", 0..30),
            typed in "[ -~]{0,400}",
        ) {
            let [title, label, default, problem] = texts.try_into().unwrap();
            let frame = frame(&Prompt { title, lines, label, default, problem, patience: None }, &typed);
            prop_assert_eq!(frame.rows.len(), ROWS);
            for (_, row) in &frame.rows {
                prop_assert!(row.len() <= COLUMNS, "{}", row);
            }
        }

        #[test]
        fn any_keys_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut editor = Editor::default();
            editor.press(&bytes);
            prop_assert!(editor.typed.bytes().all(|b| (32..127).contains(&b)));
        }
    }
}
