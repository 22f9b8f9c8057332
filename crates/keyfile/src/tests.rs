//! Round trips, wrong openers, damage; the age program itself is asked by the tests of
//! `imager`.

use crate::{Error, Identity, Lock, Opener, Recipient, Wants, new_secret, unwrap, wants, wrap};
use proptest::prelude::*;
use std::sync::OnceLock;

/// One file with a passphrase for all tests: each costs some work.
fn with_passphrase() -> &'static (crate::Secret, String) {
    static FILE: OnceLock<(crate::Secret, String)> = OnceLock::new();
    FILE.get_or_init(|| {
        let secret = new_secret().unwrap();
        let text = wrap(&secret, &Lock::Passphrase("correct horse")).unwrap();
        (secret, text)
    })
}

#[test]
fn a_passphrase_opens_its_file_and_no_other() {
    let (secret, text) = with_passphrase();
    assert_eq!(wants(text), Ok(Wants::Passphrase));
    let file = crate::format::parse(text).unwrap();
    assert_eq!(file.stanzas[0].arguments[1], "17", "work of a guess");
    assert_eq!(
        unwrap(text, &Opener::Passphrase("correct horse")).unwrap(),
        *secret
    );
    let wrong = unwrap(text, &Opener::Passphrase("correct hors"));
    assert_eq!(wrong, Err(Error::Wrong("this passphrase")));
    let identity = [Identity::generate().unwrap()];
    assert!(matches!(
        unwrap(text, &Opener::Identities(&identity)),
        Err(Error::Wrong(_))
    ));
}

#[test]
fn each_recipient_opens_the_file_and_nobody_else() {
    let secret = new_secret().unwrap();
    let identities: Vec<Identity> = (0..3).map(|_| Identity::generate().unwrap()).collect();
    let recipients = [identities[0].recipient(), identities[1].recipient()];
    let text = wrap(&secret, &Lock::Recipients(&recipients)).unwrap();
    assert_eq!(wants(&text), Ok(Wants::Identity));
    for (at, identity) in identities.iter().enumerate() {
        let opened = unwrap(&text, &Opener::Identities(std::slice::from_ref(identity)));
        assert_eq!(opened.is_ok_and(|opened| opened == secret), at < 2);
    }
    assert!(wrap(&secret, &Lock::Recipients(&[])).is_err());
}

#[test]
fn texts_of_keys_are_those_of_age() {
    let identity = Identity::generate().unwrap();
    let text = identity.to_text();
    assert!(
        text.starts_with("AGE-SECRET-KEY-1") && text.len() == 74,
        "{}",
        text.len()
    );
    let file = format!("# made today\n\n{}\n", *text);
    assert_eq!(
        Identity::parse(&file).unwrap().recipient(),
        identity.recipient()
    );
    let public = identity.recipient().to_text();
    assert!(public.starts_with("age1") && public.len() == 62, "{public}");
    assert_eq!(Recipient::parse(&public).unwrap(), identity.recipient());
    assert!(Recipient::parse(&text).is_err() && Identity::parse(&public).is_err());
    assert!(Recipient::parse(&public.replace("age1", "agf1")).is_err());
}

#[test]
fn no_flipped_bit_opens() {
    let identity = Identity::generate().unwrap();
    let secret = new_secret().unwrap();
    let text = wrap(&secret, &Lock::Recipients(&[identity.recipient()])).unwrap();
    let opener = Opener::Identities(std::slice::from_ref(&identity));
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] ^= 1;
        let Ok(changed) = String::from_utf8(bytes) else {
            continue;
        };
        if let Ok(opened) = unwrap(&changed, &opener) {
            // White space between lines of the armor means nothing.
            assert_eq!(opened, secret, "byte {at}");
            assert!(text.as_bytes()[at].is_ascii_whitespace(), "byte {at}");
        }
    }
}

#[test]
fn too_much_work_is_refused() {
    let (_, text) = with_passphrase();
    let file = crate::format::parse(text).unwrap();
    for work in ["20", "40", "0", "-1", "256"] {
        let stanza = crate::format::Stanza {
            kind: "scrypt".to_owned(),
            arguments: vec![file.stanzas[0].arguments[0].clone(), work.to_owned()],
            body: vec![0; 32],
        };
        let header = crate::format::header(&[stanza]);
        let text = crate::format::armored(&header, &[0; 32], &[0; 64]);
        let refused = unwrap(&text, &Opener::Passphrase("x"));
        assert!(matches!(refused, Err(Error::NotAKeyFile(_))), "{work}");
    }
}

proptest! {
    #[test]
    fn any_text_is_taken_apart_without_harm(inner in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = crate::format::armored(&String::from_utf8_lossy(&inner), &[1; 32], &[2; 64]);
        let _ = wants(&text);
        let stanza = format!("age-encryption.org/v1\n-> {}", String::from_utf8_lossy(&inner));
        let _ = wants(&crate::format::armored(&stanza, &[1; 32], &[2; 64]));
    }
}
