//! The checksums of ext4 (CRC-32C and CRC-16, and the CRC-32 of its old journals, all
//! without final inversion) and of UDF.
//!
//! Owns: the functions. Does not own: the CRC-32 of GPT, which is the common
//! one and comes from `crc32fast`.

/// Table of a reflected CRC with the given polynomial.
const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ polynomial
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

/// Table of a CRC with the given polynomial whose bits come in order.
const fn forward_table(polynomial: u32) -> [u32; 256] {
    let mut table = [0u32; 256];
    let mut i = 0;
    while i < 256 {
        let mut value = (i as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = if value >> 31 == 1 {
                (value << 1) ^ polynomial
            } else {
                value << 1
            };
            bit += 1;
        }
        table[i] = value;
        i += 1;
    }
    table
}

static CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);
static ANSI: [u32; 256] = table(0xa001);
static FORWARD: [u32; 256] = forward_table(0x04c1_1db7);

/// CRC-32C (Castagnoli) that goes on from `seed`, neither input nor output inverted.
pub(crate) fn crc32c(seed: u32, data: &[u8]) -> u32 {
    data.iter().fold(seed, |crc, &byte| {
        (crc >> 8) ^ CASTAGNOLI[usize::from(crc as u8 ^ byte)]
    })
}

/// CRC-16 (polynomial 0x8005, reflected) that goes on from `seed`.
pub(crate) fn crc16(seed: u16, data: &[u8]) -> u16 {
    data.iter().fold(seed, |crc, &byte| {
        (crc >> 8) ^ ANSI[usize::from(crc as u8 ^ byte)] as u16
    })
}

/// CRC-16 with polynomial 0x1021, not reflected, starting from 0 (ECMA-167 7.2.6).
pub(crate) fn crc_itu_t(data: &[u8]) -> u16 {
    data.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            (crc << 1) ^ if crc & 0x8000 != 0 { 0x1021 } else { 0 }
        })
    })
}

/// CRC-32 (polynomial 0x04c11db7, most significant bit first) that goes on from `seed`.
pub(crate) fn crc32_be(seed: u32, data: &[u8]) -> u32 {
    data.iter().fold(seed, |crc, &byte| {
        (crc << 8) ^ FORWARD[usize::from((crc >> 24) as u8 ^ byte)]
    })
}

#[cfg(test)]
mod tests {
    use super::{crc_itu_t, crc16, crc32_be, crc32c};

    #[test]
    fn known_values() {
        // Check values of the two CRCs' catalogue entries (iSCSI and MODBUS).
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc16(!0, b"123456789"), 0x4b37);
        assert_eq!(crc_itu_t(b"123456789"), 0x31c3);
        // The same of MPEG-2.
        assert_eq!(crc32_be(!0, b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn goes_on_where_it_stopped() {
        assert_eq!(
            crc32c(crc32c(!0, b"1234"), b"56789"),
            crc32c(!0, b"123456789")
        );
        assert_eq!(crc16(crc16(!0, b"1234"), b"56789"), crc16(!0, b"123456789"));
    }
}
