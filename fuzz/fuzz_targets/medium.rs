//! `medium.json` of a medium that somebody put into a drive.
#![no_main]

use libfuzzer_sys::fuzz_target;
use medium::About;

fuzz_target!(|data: &[u8]| {
    let Ok(about) = About::parse(data) else {
        return;
    };
    assert_eq!(About::parse(about.to_json().as_bytes()).as_ref(), Ok(&about));
    let Some(restore) = about.restore else { return };
    assert!(restore.start < restore.end() && restore.end() <= restore.size_bytes);
    assert!((1..=restore.media).contains(&restore.medium));
    for part in &restore.parts {
        // Nothing outside of the folder can be named.
        assert!(!part.file.contains('/') && !part.file.starts_with('.'));
    }
});
