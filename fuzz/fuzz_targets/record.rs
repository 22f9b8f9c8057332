//! Records one after another: any bytes, any codec. One knob makes the checksums right.
#![no_main]

mod framing;

use image::{Hash, ImageKey, seal};
use std::sync::Arc;
use image::record::{Decoder, HEADER_LEN, RecordHeader, RecordReader};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&knobs, rest)) = data.split_first() else {
        return;
    };
    let mut bytes = rest.to_vec();
    if knobs & 1 != 0 {
        framing::repair_from(&mut bytes, 0);
    }
    let mut reader = RecordReader::new(&bytes[..], 0);
    let mut decoder = Decoder::new();
    let key = Arc::new(ImageKey::new(&[8; 32]));
    let mut sealed = Decoder::new().opened_with(Some(Arc::clone(&key)));
    let (mut payload, mut plain) = (Vec::new(), Vec::new());
    let mut total = 0;
    loop {
        let at = reader.position() as usize;
        let Ok(Some(header)) = reader.next_record(&mut payload) else {
            return;
        };
        assert_eq!(header.encode()[..], bytes[at..at + HEADER_LEN]);
        assert_eq!(
            RecordHeader::decode(&header.encode(), 0).expect("our own header"),
            header
        );
        assert_eq!(
            payload,
            bytes[at + HEADER_LEN..at + header.record_len() as usize]
        );
        total += header.plain_len as usize;
        if total > framing::PLAIN_BUDGET {
            return;
        }
        match sealed.decode(&header, &payload, at as u64, &mut plain) {
            Ok(()) => assert_eq!(seal::name(Some(&key), &plain), header.name),
            Err(_) => assert!(plain.is_empty(), "bytes of a damaged record"),
        }
        match decoder.decode(&header, &payload, at as u64, &mut plain) {
            Ok(()) => {
                assert!(header.seal.is_none());
                assert_eq!(plain.len(), header.plain_len as usize);
                assert_eq!(Hash::of(&plain), header.name);
            }
            Err(_) => assert!(plain.is_empty(), "bytes of a damaged record"),
        }
    }
});
