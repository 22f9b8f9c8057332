//! Key files: any text, and any bytes inside of the armor.
#![no_main]

use keyfile::{Identity, Opener, Recipient};
use libfuzzer_sys::fuzz_target;

const IDENTITY: &str = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX";

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let _ = keyfile::wants(&text);
    let _ = Recipient::parse(&text);
    let _ = Identity::parse(&text);
    if let Ok(identity) = Identity::parse(IDENTITY) {
        // Passphrases are left out: their work is bounded, and much.
        let identities = [identity];
        let _ = keyfile::unwrap(&text, &Opener::Identities(&identities));
    }
});
