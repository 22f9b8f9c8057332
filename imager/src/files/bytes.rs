//! Little-endian numbers of raw structures.
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
