//! GUIDs as firmware stores them and as people write them.
//!
//! Owns: the two forms (UEFI 2.10, appendix A: the first three groups are little-endian).

/// The stored bytes of a GUID that is written in groups, in either letter case.
pub fn guid_of(text: &str) -> Option<[u8; 16]> {
    let lengths = [8, 4, 4, 4, 12];
    if text.split('-').map(str::len).ne(lengths) {
        return None;
    }
    let digits: Vec<u8> = text.bytes().filter(|&b| b != b'-').collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).ok()?;
        if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(swapped(bytes))
}

/// A stored GUID in groups, upper case.
pub fn guid_text(stored: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in swapped(*stored).iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02X}"));
    }
    text
}

/// From one order of bytes to the other.
fn swapped(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use super::{guid_of, guid_text};

    #[test]
    fn both_forms_are_one_guid() {
        let text = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
        let stored = guid_of(text).unwrap();
        assert_eq!(
            stored[..8],
            [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]
        );
        assert_eq!(guid_text(&stored), text);
        assert_eq!(guid_of(&text.to_lowercase()), Some(stored));
    }

    #[test]
    fn what_is_no_guid_is_none() {
        for text in [
            "",
            "C12A7328-F81F-11D2-BA4B-00A0C93EC93",
            "C12A7328F81F-11D2-BA4B-00A0C93EC93B-",
            "G12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            "+12A7328-F81F-11D2-BA4B-00A0C93EC93B",
            "éé2A7328-F81F-11D2-BA4B-00A0C93EC93B",
        ] {
            assert_eq!(guid_of(text), None, "{text}");
        }
    }
}
