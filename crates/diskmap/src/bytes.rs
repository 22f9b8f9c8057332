//! Checked access to little- and big-endian integers in foreign bytes.
//!
//! Owns: nothing but the access. A field past the end reads as `None`, so a
//! parser cannot index out of bounds.

/// `N` bytes at `offset`.
pub(crate) fn array<const N: usize>(data: &[u8], offset: usize) -> Option<[u8; N]> {
    let end = offset.checked_add(N)?;
    data.get(offset..end)?.try_into().ok()
}

/// Little-endian 16 bits.
pub(crate) fn le16(data: &[u8], offset: usize) -> Option<u16> {
    array(data, offset).map(u16::from_le_bytes)
}

/// Little-endian 32 bits.
pub(crate) fn le32(data: &[u8], offset: usize) -> Option<u32> {
    array(data, offset).map(u32::from_le_bytes)
}

/// Little-endian 64 bits.
pub(crate) fn le64(data: &[u8], offset: usize) -> Option<u64> {
    array(data, offset).map(u64::from_le_bytes)
}

/// Big-endian 16 bits.
pub(crate) fn be16(data: &[u8], offset: usize) -> Option<u16> {
    array(data, offset).map(u16::from_be_bytes)
}

/// Big-endian 32 bits.
pub(crate) fn be32(data: &[u8], offset: usize) -> Option<u32> {
    array(data, offset).map(u32::from_be_bytes)
}

/// Big-endian 64 bits.
pub(crate) fn be64(data: &[u8], offset: usize) -> Option<u64> {
    array(data, offset).map(u64::from_be_bytes)
}

/// Whether `data` holds `magic` at `offset`.
pub(crate) fn has(data: &[u8], offset: usize, magic: &[u8]) -> bool {
    offset
        .checked_add(magic.len())
        .and_then(|end| data.get(offset..end))
        .is_some_and(|found| found == magic)
}

/// Overwrites bytes at `offset`; what lies past the end is left out.
pub(crate) fn put(data: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(end) = offset.checked_add(value.len())
        && let Some(slot) = data.get_mut(offset..end)
    {
        slot.copy_from_slice(value);
    }
}

/// Text of a fixed-size field: up to the first NUL, outer spaces removed,
/// what is not UTF-8 replaced, control characters dropped.
pub(crate) fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end])
        .chars()
        .filter(|c| !c.is_control())
        .collect::<String>()
        .trim()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::{array, be16, be32, be64, has, le16, le32, le64, put, text};

    #[test]
    fn reads_inside_and_refuses_outside() {
        let data = [1u8, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(le16(&data, 0), Some(0x0201));
        assert_eq!(le32(&data, 4), Some(0x0807_0605));
        assert_eq!(be32(&data, 0), Some(0x0102_0304));
        assert_eq!(be16(&data, 6), Some(0x0708));
        assert_eq!(be64(&data, 0), Some(0x0102_0304_0506_0708));
        assert_eq!(le64(&data, 0), Some(0x0807_0605_0403_0201));
        assert_eq!(le64(&data, 1), None);
        assert_eq!(le16(&data, usize::MAX), None);
        assert_eq!(array::<3>(&data, 5), Some([6, 7, 8]));
        assert!(has(&data, 6, &[7, 8]) && !has(&data, 7, &[8, 9]));
    }

    #[test]
    fn put_never_writes_past_the_end() {
        let mut data = [0u8; 4];
        put(&mut data, 2, &[1, 2]);
        put(&mut data, 3, &[9, 9]);
        assert_eq!(data, [0, 0, 1, 2]);
    }

    #[test]
    fn text_stops_at_nul_and_drops_controls() {
        assert_eq!(text(b" root\x1b[2J \0junk"), "root[2J");
        assert_eq!(text(b"\xff\xfe"), "\u{fffd}\u{fffd}");
    }
}
