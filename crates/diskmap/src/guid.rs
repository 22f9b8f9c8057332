//! GUIDs and UUIDs as text.
//!
//! Owns: the two byte orders. GPT stores the first three groups little-endian
//! (UEFI specification, appendix A); file systems store all bytes in order.

/// Upper-case text of a GUID as GPT stores it.
pub(crate) fn gpt(bytes: &[u8; 16]) -> String {
    let mut ordered = *bytes;
    ordered[0..4].reverse();
    ordered[4..6].reverse();
    ordered[6..8].reverse();
    plain(&ordered).to_uppercase()
}

/// Lower-case text of a UUID whose bytes are in order; empty if all are zero.
pub(crate) fn plain(bytes: &[u8; 16]) -> String {
    if bytes.iter().all(|&b| b == 0) {
        return String::new();
    }
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{gpt, plain};

    #[test]
    fn both_orders() {
        let mut bytes = [0u8; 16];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = i as u8 + 0xa0;
        }
        assert_eq!(plain(&bytes), "a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf");
        assert_eq!(gpt(&bytes), "A3A2A1A0-A5A4-A7A6-A8A9-AAABACADAEAF");
        assert_eq!(plain(&[0; 16]), "");
    }
}
