//! Text as it is sent.
//!
//! Owns: cutting a log to its newest part, and ids as segments of a path. Does not own:
//! routes.

/// The last `limit` bytes of a text, cut at a character and, if there is one, a line.
pub(super) fn newest_part(text: &str, limit: usize) -> &str {
    let mut start = text.len().saturating_sub(limit);
    if start == 0 {
        return text;
    }
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let part = &text[start..];
    part.split_once('\n')
        .map_or(part, |(_, whole_lines)| whole_lines)
}

/// One segment of a path; execution ids are the server's, but a stray `/` in one must
/// not become another route.
pub(super) fn escape_segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}
