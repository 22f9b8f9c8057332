//! Names of boot entries, and their order.
//!
//! Owns: `Boot####` and the bytes of `BootOrder` (UEFI 2.10, 3.3). Does not own: the entries.

/// `Boot0001`
pub fn boot_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The number of an entry; none if the name is not one's. The digits are capital letters.
pub fn boot_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    let capital = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    if digits.len() != 4 || !digits.bytes().all(capital) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// The numbers of `BootOrder`, the first one first; a number that stands there again is left
/// out, and so is an odd byte at the end.
pub fn decode_order(bytes: &[u8]) -> Vec<u16> {
    let mut order = Vec::new();
    for pair in bytes.as_chunks::<2>().0 {
        let number = u16::from_le_bytes(*pair);
        if !order.contains(&number) {
            order.push(number);
        }
    }
    order
}

/// The bytes of `BootOrder`.
pub fn encode_order(order: &[u16]) -> Vec<u8> {
    order.iter().flat_map(|n| n.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::{boot_name, boot_number, decode_order, encode_order};

    #[test]
    fn names_have_four_capital_digits() {
        assert_eq!(boot_name(0xab), "Boot00AB");
        assert_eq!(boot_number("Boot00AB"), Some(0xab));
        for other in [
            "Boot00ab",
            "Boot0",
            "Boot00000",
            "BootOrder",
            "Boot+001",
            "boot0001",
            "",
        ] {
            assert_eq!(boot_number(other), None, "{other}");
        }
    }

    #[test]
    fn an_order_has_each_number_once() {
        assert_eq!(decode_order(&[1, 0, 0, 0, 1, 0, 0, 1, 9]), [1, 0, 256]);
        assert_eq!(decode_order(&encode_order(&[3, 2, 1])), [3, 2, 1]);
        assert!(decode_order(&[]).is_empty());
    }
}
