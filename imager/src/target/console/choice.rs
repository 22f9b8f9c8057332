//! Keys at the error screen: a choice, then Enter. Nothing else does anything.
//!
//! Owns: which bytes mean what. Does not own: reading them or acting on them.

use std::time::Duration;

/// A choice that is not confirmed in this time is forgotten: the Enter of somebody who
/// comes by later must not confirm it.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(20);

/// What can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `p`
    PowerOff,
    /// `r`
    Reboot,
    /// `s`
    Shell,
    /// Esc, where settings can be changed. Needs no Enter: it changes nothing by itself.
    Settings,
}

/// The state of one keyboard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyboard {
    pending: Option<(Key, Duration)>,
}

impl Key {
    /// The name on the screen.
    pub fn name(self) -> &'static str {
        match self {
            Key::PowerOff => "power off",
            Key::Reboot => "reboot",
            Key::Shell => "rescue shell",
            Key::Settings => "settings",
        }
    }

    fn of(byte: u8) -> Option<Key> {
        match byte {
            b'p' | b'P' => Some(Key::PowerOff),
            b'r' | b'R' => Some(Key::Reboot),
            b's' | b'S' => Some(Key::Shell),
            _ => None,
        }
    }
}

/// Whether the Esc key is among what was typed. Cursor and function keys begin with the
/// same byte, and more follows at once.
pub fn is_escape(typed: &[u8]) -> bool {
    let last = typed.iter().rposition(|byte| *byte == 0x1b);
    last.is_some_and(|at| !matches!(typed.get(at.saturating_add(1)), Some(b'[' | b'O')))
}

impl Keyboard {
    /// A byte was typed: gives the choice that it confirms.
    pub fn press(&mut self, now: Duration, byte: u8) -> Option<Key> {
        let pending = self.pending(now);
        self.pending = None;
        match (pending, byte) {
            (Some(key), b'\r' | b'\n') => Some(key),
            _ => {
                self.pending = Key::of(byte).map(|key| (key, now));
                None
            }
        }
    }

    /// The choice that waits for Enter.
    pub fn pending(&self, now: Duration) -> Option<Key> {
        let (key, at) = self.pending?;
        (now.saturating_sub(at) < FORGOTTEN_AFTER).then_some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Keyboard};
    use std::time::Duration;

    const NOW: Duration = Duration::from_secs(100);

    fn typed(text: &str) -> Vec<Key> {
        let mut keyboard = Keyboard::default();
        text.bytes()
            .filter_map(|byte| keyboard.press(NOW, byte))
            .collect()
    }

    #[test]
    fn a_choice_counts_once_it_is_confirmed() {
        assert_eq!(typed("p\r"), [Key::PowerOff]);
        assert_eq!(typed("R\n"), [Key::Reboot]);
        assert_eq!(typed("ps\n"), [Key::Shell]);
        assert_eq!(typed("s\ns\n"), [Key::Shell, Key::Shell]);
        assert_eq!(typed("s\n\n"), [Key::Shell]);
    }

    #[test]
    fn stray_keys_do_nothing() {
        for text in [
            "", "\n\n", "p", "px\n", "p \n", "\x1b[A\n", "quit\n\n", "p\x1b\n",
        ] {
            assert_eq!(typed(text), [], "{text:?}");
        }
    }

    #[test]
    fn the_escape_key_is_told_from_cursor_keys() {
        for (typed, is) in [
            (&b"\x1b"[..], true),
            (b"abc\x1b", true),
            (b"\x1b\x1b", true),
            (b"\x1b[A\x1b", true),
            (b"\x1b[A", false),
            (b"\x1bOP", false),
            (b"", false),
            (b"e", false),
        ] {
            assert_eq!(super::is_escape(typed), is, "{typed:?}");
        }
    }

    #[test]
    fn an_old_choice_is_forgotten() {
        let mut keyboard = Keyboard::default();
        keyboard.press(NOW, b'p');
        assert_eq!(
            keyboard.pending(NOW + Duration::from_secs(19)),
            Some(Key::PowerOff)
        );
        let later = NOW + Duration::from_secs(21);
        assert_eq!(keyboard.pending(later), None);
        assert_eq!(keyboard.press(later, b'\n'), None);
    }
}
