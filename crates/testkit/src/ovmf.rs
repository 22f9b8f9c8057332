//! Variables of OVMF, as they lie in the file of its flash.
//!
//! Owns: reading them from the outside, when the machine is off. Does not own: what they mean.
//!
//! The form is EDK II's: a firmware volume with one store of authenticated variables
//! (`MdeModulePkg/Include/Guid/VariableFormat.h`).

use std::io;
use std::path::Path;

/// Bytes of the store's header, behind that of the volume.
const STORE_HEADER: usize = 28;
/// Bytes of a variable's header.
const HEADER: usize = 60;
/// State of a variable that counts: written whole, and not replaced or deleted.
const ADDED: u8 = 0x3f;

/// Names and values of all variables, in the order in which they were written.
///
/// # Errors
/// The file cannot be read, or is no flash of OVMF's.
pub fn variables(flash: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let bytes = std::fs::read(flash)?;
    let broken = |what: &str| io::Error::other(format!("{}: {what}", flash.display()));
    read(&bytes).ok_or_else(|| broken("not a flash of OVMF's variables"))
}

fn read(bytes: &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    if bytes.get(40..44)? != b"_FVH" {
        return None;
    }
    let number = |at: usize, len: usize| {
        let field = bytes.get(at..at + len)?;
        let digits = field.iter().rev();
        Some(digits.fold(0usize, |sum, &byte| sum << 8 | usize::from(byte)))
    };
    let mut at = number(48, 2)? + STORE_HEADER;
    let mut found = Vec::new();
    while number(at, 2) == Some(0x55aa) {
        let (name_len, data_len) = (number(at + 36, 4)?, number(at + 40, 4)?);
        let name_at = at + HEADER;
        let name = bytes.get(name_at..name_at + name_len)?;
        let data = bytes.get(name_at + name_len..name_at + name_len + data_len)?;
        if bytes.get(at + 2) == Some(&ADDED) {
            let units: Vec<u16> = name
                .chunks_exact(2)
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .take_while(|&unit| unit != 0)
                .collect();
            found.push((String::from_utf16_lossy(&units), data.to_vec()));
        }
        at = (name_at + name_len + data_len).next_multiple_of(4);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{HEADER, read};

    fn variable(state: u8, name: &str, data: &[u8]) -> Vec<u8> {
        let name: Vec<u8> = name
            .encode_utf16()
            .chain([0])
            .flat_map(u16::to_le_bytes)
            .collect();
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[0xaa, 0x55, state]);
        bytes[36..40].copy_from_slice(&u32::try_from(name.len()).unwrap().to_le_bytes());
        bytes[40..44].copy_from_slice(&u32::try_from(data.len()).unwrap().to_le_bytes());
        bytes.extend(name);
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0xff);
        bytes
    }

    #[test]
    fn what_was_replaced_does_not_count() {
        let mut flash = vec![0; 72 + 28];
        flash[40..44].copy_from_slice(b"_FVH");
        flash[48] = 72;
        flash.extend(variable(0x3c, "BootOrder", &[1, 0]));
        flash.extend(variable(0x3f, "BootOrder", &[2, 0, 1, 0, 7]));
        flash.extend(variable(0x3f, "Boot0001", &[]));
        flash.extend([0xff; 64]);
        let wanted = vec![
            ("BootOrder".to_owned(), vec![2, 0, 1, 0, 7]),
            ("Boot0001".to_owned(), vec![]),
        ];
        assert_eq!(read(&flash), Some(wanted));
        flash.truncate(110);
        assert_eq!(read(&flash), None);
        assert_eq!(read(&[0; 100]), None);
    }
}
