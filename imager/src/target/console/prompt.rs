//! A question that a person answers with a line of text.
//!
//! Owns: the question, the lines that are being typed, which bytes mean what. Does not own:
//! reading them ([`super::thread`]), the look of it ([`super::view`]).

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};

/// Longest answer in characters.
const MAX_LINE: usize = 60;
const ESCAPE: u8 = 0x1B;

/// What a person is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// What it is about, in a word or two.
    pub title: String,
    /// What has to be known to answer: lines.
    pub text: String,
    /// The question.
    pub question: String,
}

/// A question that is open.
pub(super) struct Asking {
    pub prompt: Prompt,
    pub answer: Answer,
    /// The part of a long text that screens show.
    pub page: usize,
}

/// Where the answer goes: into the place, then the word that it is there.
pub struct Answer {
    pub place: Arc<Mutex<String>>,
    pub given: Sender<()>,
}

/// A line that is being typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typing {
    line: String,
    /// Within the bytes of a key that has several.
    in_key: bool,
}

/// What a byte did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// Nothing.
    Nothing,
    /// A character came to the line.
    Added(char),
    /// The last character went.
    Removed,
    /// The next part of the text is wanted.
    Next,
    /// This is the answer.
    Line(String),
}

impl Typing {
    /// What was typed so far.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// A byte was typed. Keys of several bytes (arrows) do nothing.
    pub fn press(&mut self, byte: u8) -> Pressed {
        if self.in_key {
            // They end with a letter or ~; [ and O stand behind the escape.
            self.in_key = matches!(byte, b'[' | b'O' | b'0'..=b'9' | b';');
            return Pressed::Nothing;
        }
        match byte {
            b'\r' | b'\n' => Pressed::Line(std::mem::take(&mut self.line)),
            b'\t' => Pressed::Next,
            ESCAPE => {
                self.in_key = true;
                Pressed::Nothing
            }
            0x7F | 0x08 => match self.line.pop() {
                Some(_) => Pressed::Removed,
                None => Pressed::Nothing,
            },
            b' '..=b'~' if self.line.len() < MAX_LINE => {
                self.line.push(char::from(byte));
                Pressed::Added(char::from(byte))
            }
            _ => Pressed::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_LINE, Pressed, Typing};

    fn lines(text: &str) -> Vec<String> {
        let mut typing = Typing::default();
        let answers = text.bytes().filter_map(|byte| match typing.press(byte) {
            Pressed::Line(line) => Some(line),
            _ => None,
        });
        answers.collect()
    }

    #[test]
    fn lines_are_typed_and_corrected() {
        assert_eq!(lines("yes\r"), ["yes"]);
        assert_eq!(lines("0\nyes\n"), ["0", "yes"]);
        assert_eq!(lines("nx\x7f\x08\x08yes\n"), ["yes"]);
        assert_eq!(lines("\n"), [""]);
        assert_eq!(lines("no end"), [""; 0]);
    }

    #[test]
    fn keys_of_several_bytes_and_odd_bytes_do_nothing() {
        assert_eq!(lines("a\x1b[Ab\x1b[3~c\x1bOPd\x00\x01\n"), ["abcd"]);
        assert_eq!(lines("\u{e4}x\n"), ["x"]);
        let long = lines(&("x".repeat(1000) + "\n"));
        assert_eq!(long, ["x".repeat(MAX_LINE)]);
    }

    #[test]
    fn a_tab_turns_the_page() {
        let mut typing = Typing::default();
        assert_eq!(typing.press(b'a'), Pressed::Added('a'));
        assert_eq!(typing.press(b'\t'), Pressed::Next);
        assert_eq!(typing.press(0x7F), Pressed::Removed);
        assert_eq!(typing.press(0x7F), Pressed::Nothing);
        assert_eq!(typing.line(), "");
    }
}
