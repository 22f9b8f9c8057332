//! Whose signatures count.
//!
//! Owns: the trusted key as users name it, and the refusal of an image that it did not
//! sign. Does not own: what a signature is (`image::signature`); one that does not fit its
//! image is damage and found by every reader.

use image::{PublicKey, Signature};
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Longest file with a public key.
const MAX_FILE: u64 = 4096;

/// The key that `text` means: 64 hexadecimal digits, or a file that holds them.
///
/// # Errors
/// `usage` for anything else.
pub fn named(text: &str) -> Result<PublicKey, Report> {
    if let Some(key) = PublicKey::from_hex(text) {
        return Ok(key);
    }
    let wrong = |found: String| {
        Report::new(Code::Usage, found, DiskState::NotInvolved).with_advice(
            "Give the public key as 64 hexadecimal digits, or the file that has them (sign.pub in \
             the server's state folder, or what imager key show prints).",
        )
    };
    let path = Path::new(text);
    let length = std::fs::metadata(path)
        .map_err(|e| wrong(format!("{text}: {e}")))?
        .len();
    if length > MAX_FILE {
        return Err(wrong(format!(
            "{text} has {length} bytes and is no public key"
        )));
    }
    let content = std::fs::read_to_string(path).map_err(|e| wrong(format!("{text}: {e}")))?;
    PublicKey::from_hex(&content).ok_or_else(|| wrong(format!("{text} holds no public key")))
}

/// Refuses an image that the trusted key, if there is one, did not sign. `disk` is what
/// happened to the disk until now.
///
/// # Errors
/// `image-untrusted`.
pub fn demand(
    trusted: Option<PublicKey>,
    signatures: &[Signature],
    disk: DiskState,
) -> Result<(), Report> {
    let Some(trusted) = trusted else {
        return Ok(());
    };
    if signatures.iter().any(|signature| signature.key == trusted) {
        return Ok(());
    }
    let found = match signatures {
        [] => format!("the image is not signed; {trusted} is trusted"),
        _ => format!(
            "the image is signed by {}; {trusted} is trusted",
            signers(signatures)
        ),
    };
    Err(Report::new(Code::ImageUntrusted, found, disk))
}

/// The keys of signatures, in words.
pub fn signers(signatures: &[Signature]) -> String {
    let keys: Vec<String> = signatures.iter().map(|s| s.key.to_string()).collect();
    keys.join(", ")
}

/// What a result says about signatures: a line for each, and whether its key is trusted.
pub fn lines(signatures: &[Signature], trusted: Option<PublicKey>) -> String {
    let line = |signature: &Signature| match trusted == Some(signature.key) {
        true => format!("Signed by {}, which is trusted\n", signature.key),
        false => format!("Signed by {}\n", signature.key),
    };
    signatures.iter().map(line).collect()
}

/// The keys of signatures, for JSON.
pub fn json(signatures: &[Signature]) -> serde_json::Value {
    signatures
        .iter()
        .map(|s| serde_json::Value::from(s.key.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{demand, named};
    use image::{Hash, SigningKey};
    use wire::{Code, DiskState};

    #[test]
    fn a_key_is_digits_or_a_file_with_them() {
        let key = SigningKey::from_seed(&[1; 32]).unwrap().public();
        assert_eq!(named(&key.to_string()).unwrap(), key);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key.pub");
        std::fs::write(&file, format!("{key}\n")).unwrap();
        assert_eq!(named(file.to_str().unwrap()).unwrap(), key);
        for content in ["", "zz"] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(named(file.to_str().unwrap()).unwrap_err().code, Code::Usage);
        }
        std::fs::write(&file, "0".repeat(5000)).unwrap();
        assert_eq!(named(file.to_str().unwrap()).unwrap_err().code, Code::Usage);
        assert_eq!(named("0123").unwrap_err().code, Code::Usage);
    }

    #[test]
    fn only_the_trusted_key_counts() {
        let key = |seed| SigningKey::from_seed(&[seed; 32]).unwrap();
        let signed = [key(1).sign(Hash::of(b"root"))];
        let demand = |trusted, list: &[_]| demand(trusted, list, DiskState::Untouched);
        assert!(demand(None, &[]).is_ok() && demand(None, &signed).is_ok());
        assert!(demand(Some(key(1).public()), &signed).is_ok());
        for list in [&signed[..], &[]] {
            let report = demand(Some(key(2).public()), list).unwrap_err();
            assert_eq!(report.code, Code::ImageUntrusted);
            assert!(report.found.contains(&key(2).public().to_string()));
        }
    }
}
