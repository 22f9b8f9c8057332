//! Draws a frame on a text screen with VT100 escape codes.
//!
//! Owns: escape codes, and sending only the rows that have changed. Does not own: what
//! the rows say ([`super::view`]) or the device.

use super::view::{Frame, ROWS, Style};

/// What is on the screen now.
#[derive(Debug, Default)]
pub struct Screen {
    shown: Option<Frame>,
}

impl Screen {
    /// The bytes that bring the screen from what it shows to this frame.
    pub fn draw(&mut self, frame: &Frame) -> String {
        let mut out = String::new();
        if self.shown.is_none() {
            // UTF-8 off or on does not matter for ASCII. No blanking: a screen that is
            // black after ten minutes looks like a dead machine. No cursor.
            out.push_str("\x1b[0m\x1b[9;0]\x1b[14;0]\x1b[?25l\x1b[2J");
        }
        for at in 0..ROWS {
            // The row is emptied before it is written: afterwards the cursor may stand on
            // its last character.
            let row = frame.rows.get(at);
            if self
                .shown
                .as_ref()
                .is_some_and(|shown| shown.rows.get(at) == row)
            {
                continue;
            }
            let (style, text) = row.cloned().unwrap_or_default();
            out.push_str(&format!(
                "\x1b[{};1H\x1b[0m\x1b[K{}{text}\x1b[0m",
                at + 1,
                code(style)
            ));
        }
        self.shown = Some(frame.clone());
        out
    }

    /// Somebody else has written to the screen: the next frame is drawn completely.
    pub fn forget(&mut self) {
        self.shown = None;
    }

    /// The bytes that give the screen to somebody else: cursor on, everything cleared.
    pub fn leave() -> &'static str {
        "\x1b[0m\x1b[?25h\x1b[2J\x1b[H"
    }
}

fn code(style: Style) -> &'static str {
    match style {
        Style::Plain => "\x1b[0m",
        Style::Title => "\x1b[1;37;44m",
        Style::Alarm => "\x1b[1;37;41m",
        Style::Bold => "\x1b[1m",
        Style::Notice => "\x1b[1;33m",
    }
}

#[cfg(test)]
mod tests {
    use super::Screen;
    use crate::target::console::view::{Frame, Style};

    fn frame(rows: &[&str]) -> Frame {
        Frame {
            rows: rows
                .iter()
                .map(|row| (Style::Plain, (*row).to_owned()))
                .collect(),
        }
    }

    #[test]
    fn only_changed_rows_are_sent() {
        let mut screen = Screen::default();
        let first = screen.draw(&frame(&["one", "two"]));
        assert!(first.contains("\x1b[2J") && first.contains("\x1b[1;1H") && first.contains("two"));
        assert_eq!(screen.draw(&frame(&["one", "two"])), "");
        let second = screen.draw(&frame(&["one", "2"]));
        assert_eq!(second, "\x1b[2;1H\x1b[0m\x1b[K\x1b[0m2\x1b[0m");
        // A row that is gone is emptied.
        assert_eq!(
            screen.draw(&frame(&["one"])),
            "\x1b[2;1H\x1b[0m\x1b[K\x1b[0m\x1b[0m"
        );
        screen.forget();
        assert!(screen.draw(&frame(&["one"])).contains("\x1b[2J"));
    }
}
