//! Names that devices give themselves, made fit to show and compare.
//!
//! Owns: trimming and escaping. Does not own: where the bytes come from.

/// Longest name kept, in bytes read.
const MAX_BYTES: usize = 256;

/// Trims padding (spaces, NULs) and escapes what is not printable ASCII as `\xNN`,
/// the backslash too, so that no two different names look alike and no terminal
/// takes a command from a disk.
pub(crate) fn clean(bytes: &[u8]) -> String {
    let is_padding = |b: &u8| b.is_ascii_whitespace() || *b == 0;
    let start = bytes
        .iter()
        .position(|b| !is_padding(b))
        .unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(|b| !is_padding(b))
        .map_or(start, |i| i + 1);
    let mut text = String::new();
    for &byte in bytes
        .get(start..end)
        .unwrap_or_default()
        .iter()
        .take(MAX_BYTES)
    {
        if matches!(byte, b' '..=b'~') && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .take(MAX_BYTES)
        .map(|b| format!("{b:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{clean, hex};

    #[test]
    fn padding_goes_and_hostile_bytes_are_escaped() {
        assert_eq!(clean(b"  WD-12 34 \0\0\n"), "WD-12 34");
        assert_eq!(clean(b"\0 \t"), "");
        assert_eq!(clean(b""), "");
        assert_eq!(clean(b"a\x1b[2J\\\xff"), "a\\x1b[2J\\x5c\\xff");
        assert_eq!(clean(&[b'x'; 1000]).len(), 256);
        assert_eq!(hex(&[0, 0xab]), "00ab");
    }
}
