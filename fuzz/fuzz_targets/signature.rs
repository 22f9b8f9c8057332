//! Signatures: any body of the section.
#![no_main]

use image::{Hash, Signature};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(signature) = Signature::decode(data, 0) else {
        return;
    };
    assert_eq!(signature.encode(), data);
    // Nobody signed this.
    assert!(!signature.is_of(Hash::of(data)));
});
