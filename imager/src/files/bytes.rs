//! Little-endian numbers and UTF-16 of raw structures.
//!
//! Owns: reading them; zero beyond the end, which every structure's own checks find. Does
//! not own: structures.

/// Two bytes.
pub fn le16(raw: &[u8], at: usize) -> u16 {
    let bytes = raw.get(at..at.saturating_add(2));
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u16::from_le_bytes)
}

/// Four bytes.
pub fn le32(raw: &[u8], at: usize) -> u32 {
    let bytes = raw.get(at..at.saturating_add(4));
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// Eight bytes.
pub fn le64(raw: &[u8], at: usize) -> u64 {
    let bytes = raw.get(at..at.saturating_add(8));
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}

/// UTF-16 as UTF-8. Names may hold halves of pairs, which are no text: each becomes the three
/// bytes that its number would have in UTF-8, so that different names stay different.
pub fn utf16(units: impl Iterator<Item = u16>) -> Vec<u8> {
    let mut all = Vec::new();
    for unit in char::decode_utf16(units) {
        match unit {
            Ok(c) => all.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            Err(half) => {
                let half = half.unpaired_surrogate();
                let six = |shift: u32| 0x80 | (half >> shift & 0x3f) as u8;
                all.extend([0xe0 | (half >> 12) as u8, six(6), six(0)]);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::utf16;

    #[test]
    fn names_of_any_units() {
        let text = "Größe ✓ 𝄞";
        assert_eq!(utf16(text.encode_utf16()), text.as_bytes());
        let halves = [0x41, 0xd800, 0x42, 0xdfff, 0xdbff];
        let bytes = utf16(halves.into_iter());
        assert_eq!(bytes, b"A\xed\xa0\x80B\xed\xbf\xbf\xed\xaf\xbf");
        assert!(std::str::from_utf8(&bytes).is_err());
    }
}
