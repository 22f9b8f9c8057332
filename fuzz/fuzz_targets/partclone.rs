//! partclone images, packed or not: any bytes, with a knob that makes the header's checksum
//! right.
#![no_main]

use foreign::partclone::Partclone;
use libfuzzer_sys::fuzz_target;
use std::io::Read;

/// Bytes that are unpacked at most: a few bytes can be packed from very many.
const LONGEST: u64 = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if knobs & 1 == 1 && bytes.len() >= 110 {
        let sum = !crc32fast::hash(&bytes[..106]);
        bytes[106..110].copy_from_slice(&sum.to_le_bytes());
    }
    let Ok((_, unpacked)) = foreign::unpack(&bytes[..]) else {
        return;
    };
    let Ok(image) = Partclone::open(unpacked.take(LONGEST), u64::MAX) else {
        return;
    };
    let (size, held) = (image.header().size, image.held().clone());
    assert!(held.end() <= size);
    let mut end = 0;
    let mut total = 0;
    let copied = image.copy(&mut |at, part| {
        assert!(at >= end && at + part.len() as u64 <= size);
        end = at + part.len() as u64;
        total += part.len() as u64;
        Ok(())
    });
    if copied.is_ok() {
        assert_eq!(total, held.total(), "all or an error");
    }
});
