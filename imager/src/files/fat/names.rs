//! Names in a directory: short ones, and long ones in the entries before them.
//!
//! Owns: joining them. Does not own: finding the entries.

use super::{is_file, le16};
use crate::files::bytes::utf16;

/// Attributes of an entry that holds a part of a long name.
const LONG: u8 = 0x0f;
/// UTF-16 units of such a part, and their places.
const PLACES: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// The upper half of code page 437, in which names are where nothing else is known.
const UPPER: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
    └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// What stands for a name that is none.
const UNNAMED: &str = "\u{fffd}";

/// Takes the entries of a directory in their order.
#[derive(Default)]
pub(super) struct Names {
    /// Units of the long name so far, its last part first, in backward order by parts.
    parts: Vec<[u16; 13]>,
    /// Number of the part that comes next; 0 if the name is complete.
    next: u8,
    sum: u8,
}

impl Names {
    /// The name of a file or directory, if the entry is one's.
    pub fn take(&mut self, entry: &[u8]) -> Option<Vec<u8>> {
        if entry[0] != 0xe5 && entry[11] & 0x3f == LONG {
            self.part(entry);
            return None;
        }
        let complete = !self.parts.is_empty() && self.next == 0 && self.sum == sum(&entry[..11]);
        let parts = std::mem::take(&mut self.parts);
        let is_dot = matches!(&entry[..11], b".          " | b"..         ");
        if !is_file(entry) || is_dot {
            return None;
        }
        let name = match complete {
            true => long(&parts),
            false => short(entry).into_bytes(),
        };
        // No system writes these; as a path they would lead elsewhere.
        let leads_away = matches!(&name[..], b"" | b"." | b"..")
            || name.iter().any(|&byte| byte == 0 || byte == b'/');
        Some(if leads_away { UNNAMED.into() } else { name })
    }

    fn part(&mut self, entry: &[u8]) {
        let number = entry[0] & 0x1f;
        if entry[0] & 0x40 != 0 && (1..=20).contains(&number) {
            self.parts.clear();
            self.next = number;
            self.sum = entry[13];
        }
        // A part without those before it belongs to no name.
        if number == 0 || number != self.next || entry[13] != self.sum {
            self.parts.clear();
            self.next = 0;
            return;
        }
        self.parts.push(PLACES.map(|place| le16(entry, place)));
        self.next -= 1;
    }
}

fn long(parts: &[[u16; 13]]) -> Vec<u8> {
    let units = parts.iter().rev().flatten().copied();
    utf16(units.take_while(|&unit| unit != 0))
}

fn short(entry: &[u8]) -> String {
    let part = |raw: &[u8], lower: bool| {
        let text: String = raw.iter().map(|&byte| character(byte)).collect();
        let text = text.trim_end_matches(' ').to_owned();
        if lower { text.to_lowercase() } else { text }
    };
    let mut base = entry[..8].to_vec();
    // The mark of a deleted entry, in a name that begins with it.
    if base[0] == 0x05 {
        base[0] = 0xe5;
    }
    let name = part(&base, entry[12] & 0x08 != 0);
    let extension = part(&entry[8..11], entry[12] & 0x10 != 0);
    if extension.is_empty() {
        name
    } else {
        format!("{name}.{extension}")
    }
}

fn character(byte: u8) -> char {
    match byte.checked_sub(0x80) {
        None => char::from(byte),
        Some(index) => UPPER.chars().nth(usize::from(index)).unwrap_or('?'),
    }
}

/// What parts of a long name have of the short one.
fn sum(short: &[u8]) -> u8 {
    short
        .iter()
        .fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_none() {
        let taken = |raw: &[u8; 11]| Names::default().take(&entry(raw, 0x20, 0));
        for raw in [
            b"        .  ",
            b".        . ",
            b"           ",
            b"../X    TXT",
        ] {
            let name = taken(raw).unwrap();
            assert!(!matches!(&name[..], b"" | b"." | b".."), "{raw:?}");
            assert!(!name.contains(&b'/'), "{raw:?}");
        }
        assert_eq!(taken(b"        .  ").unwrap(), UNNAMED.as_bytes());
        assert_eq!(taken(b"..         "), None, "the directory above");
        // A long name of two dots, for a file with a short name of its own.
        let mut names = Names::default();
        let mut part = vec![0xff; 32];
        (part[0], part[11], part[12], part[13]) = (0x41, LONG, 0, sum(b"A       TXT"));
        part[1..7].copy_from_slice(&[b'.', 0, b'.', 0, 0, 0]);
        assert_eq!(names.take(&part), None);
        let taken = names.take(&entry(b"A       TXT", 0x20, 0)).unwrap();
        assert_eq!(taken, UNNAMED.as_bytes());
    }

    fn entry(name: &[u8; 11], attributes: u8, lower: u8) -> Vec<u8> {
        let mut raw = vec![0; 32];
        raw[..11].copy_from_slice(name);
        (raw[11], raw[12]) = (attributes, lower);
        raw
    }

    fn part(number: u8, sum: u8, text: &str) -> Vec<u8> {
        let mut raw = vec![0xff; 32];
        (raw[0], raw[11], raw[12], raw[13]) = (number, LONG, 0, sum);
        let units = text.encode_utf16().chain([0]);
        for (place, unit) in PLACES.into_iter().zip(units) {
            raw[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        raw
    }

    #[test]
    fn short_names() {
        let take = |name: &[u8; 11], attributes, lower| {
            let name = Names::default().take(&entry(name, attributes, lower))?;
            String::from_utf8(name).ok()
        };
        assert_eq!(take(b"README  TXT", 0x20, 0), Some("README.TXT".into()));
        assert_eq!(take(b"README  TXT", 0x20, 0x18), Some("readme.txt".into()));
        assert_eq!(take(b"KERNEL     ", 0x10, 0x08), Some("kernel".into()));
        assert_eq!(take(b"\x05\x9aM     A  ", 0x20, 0), Some("σÜM.A".into()));
        for hidden in [b".          ", b"..         ", b"\xe5ONE    TXT"] {
            assert_eq!(take(hidden, 0x10, 0), None);
        }
        assert_eq!(take(b"LABEL      ", 0x08, 0), None);
    }

    #[test]
    fn long_names_belong_to_the_entry_with_their_sum() {
        let name = b"ALONGN~1TXT";
        let run = |parts: &[Vec<u8>]| {
            let mut names = Names::default();
            for part in parts {
                assert_eq!(names.take(part), None);
            }
            String::from_utf8(names.take(&entry(name, 0x20, 0)).unwrap()).unwrap()
        };
        let good = sum(name);
        let (second, first) = (part(0x42, good, "e ✓.txt"), part(1, good, "A long name h"));
        assert_eq!(
            run(&[second.clone(), first.clone()]),
            "A long name he ✓.txt"
        );
        // Parts that are missing, of another entry, or out of order.
        for broken in [
            vec![second.clone()],
            vec![first.clone()],
            vec![second.clone(), part(1, good ^ 1, "A long name h")],
            vec![first, second],
        ] {
            assert_eq!(run(&broken), "ALONGN~1.TXT");
        }
        assert_eq!(UPPER.chars().count(), 128);
    }
}
