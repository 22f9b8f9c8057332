//! Signed images: whose word is taken for them, and what other people's tools say.
//!
//! Owns: the options for keys as users meet them. Does not own: the format's own cases
//! (`image::signature`), the server's signatures (`server`).

use crate::disks::{self, MIB, copy, folder, garbage, hash, peek, poke};
use crate::imager;
use crate::run::{REFUSED, USAGE, finish};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Makes a signing key and returns its file and its public half.
fn key(folder: &Path, name: &str) -> (PathBuf, String) {
    let file = folder.join(name);
    let made = imager!["key", "new", "--signing", "--json", file].ok();
    let public = made.json()["public_key"].as_str().unwrap().to_owned();
    (file, public)
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn a_signed_image_is_taken_and_another_is_refused_before_anything_is_written() {
    let dir = folder();
    let (own, public) = key(dir.path(), "own.pem");
    let (_, other) = key(dir.path(), "other.pem");
    let image = copy(&disks::bare().image, dir.path().join("image.dpl"));
    let old = garbage(dir.path().join("old.img"), 40 * MIB);
    let before = hash(&old);

    // Not signed yet.
    imager!["info", "--trusted-key", public, image].refused("image-untrusted");
    imager!["verify", "-q", "--json", "--trusted-key", public, image].refused("image-untrusted");
    imager![
        "restore",
        "-q",
        "--json",
        "--trusted-key",
        public,
        image,
        old
    ]
    .refused("image-untrusted")
    .disk("untouched");
    assert_eq!(hash(&old), before);

    let signed = imager!["sign", "-q", "--json", "--key", own, image].ok();
    assert_eq!(signed.json()["signed_by"], public.as_str());
    let after = bytes(&image);
    let again = imager!["sign", "-q", "--key", own, image].ok();
    assert!(again.said().contains("before"), "{}", again.said());
    assert_eq!(bytes(&image), after, "signed twice by one key");

    for run in [
        imager!["info", "--json", "--trusted-key", public, image],
        imager!["info", "--json", image],
        imager!["verify", "-q", "--json", "--trusted-key", public, image],
    ] {
        assert_eq!(run.ok().json()["signed_by"][0], public.as_str());
    }
    let file = dir.path().join("own.pub");
    std::fs::write(&file, format!("{public}\n")).unwrap();
    let text = imager!["info", "--trusted-key", file, image].ok();
    assert!(
        text.said()
            .contains(&format!("Signed by {public}, which is trusted"))
    );

    for wrong in [
        imager![
            "restore",
            "-q",
            "--json",
            "--trusted-key",
            other,
            image,
            old
        ],
        imager![
            "restore",
            "-q",
            "--json",
            "--plan",
            "--trusted-key",
            other,
            image,
            old
        ],
    ] {
        wrong.refused("image-untrusted").disk("untouched");
    }
    assert_eq!(hash(&old), before);
    let target = dir.path().join("target.img");
    imager!["restore", "-q", "--trusted-key", public, image, target].ok();
    disks::bare().disk.verify(&target);
    imager!["restore", "-q", "--trusted-key", "12", image, target].fails("usage", USAGE);
}

/// Through a pipe the signature comes last: then data is written, and neither heads nor
/// tables.
#[test]
fn a_stream_that_the_key_did_not_sign_never_becomes_a_disk() {
    let dir = folder();
    let (_, public) = key(dir.path(), "own.pem");
    let target = dir.path().join("target.img");
    let args = [
        "restore",
        "-q",
        "--json",
        "--trusted-key",
        public.as_str(),
        "-",
    ];
    let mut restore = crate::run::command(args);
    restore.arg(&target);
    restore.stdin(std::fs::File::open(&disks::bare().image).unwrap());
    finish(restore).fails("image-untrusted", crate::run::FAILED);
    assert!(!target.exists(), "half a disk stayed");
}

#[test]
fn a_signature_that_was_changed_or_is_of_another_image_is_damage() {
    let dir = folder();
    let (own, _) = key(dir.path(), "own.pem");
    let image = copy(&disks::bare().image, dir.path().join("image.dpl"));
    imager!["sign", "-q", "--key", own, image].ok();
    let (signed, section) = (bytes(&image), b"DSec\x05");
    let at = signed.windows(5).rposition(|w| w == section).unwrap();
    // The body: scheme, key, signature. Its checksums are made right again, so that only
    // the signature itself can tell.
    for place in [4, 35, 36, 99] {
        let changed = copy(&image, dir.path().join("changed.dpl"));
        let mut body = peek(&changed, (at + 32) as u64, 100);
        body[place] ^= 1;
        poke(&changed, (at + 32) as u64, &body);
        let mut head = peek(&changed, at as u64, 32);
        head[16..20].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
        let crc = crc32fast::hash(&head[..28]);
        head[28..].copy_from_slice(&crc.to_le_bytes());
        poke(&changed, at as u64, &head);
        let run = imager!["info", "--json", changed];
        run.fails("image-damaged", crate::run::FAILED);
        let target = dir.path().join("target.img");
        imager!["restore", "-q", "--json", changed, target]
            .fails("image-damaged", REFUSED)
            .disk("untouched");
        assert!(!target.exists());
    }
}

#[test]
fn keys_are_for_their_owner_only_and_never_overwritten() {
    let dir = folder();
    let (own, public) = key(dir.path(), "own.pem");
    let mode = own.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(imager!["key", "show", own].ok().said().trim(), public);
    let before = bytes(&own);
    imager!["key", "new", "--signing", own].refused("image-exists");
    assert_eq!(bytes(&own), before);
    imager!["key", "show", disks::bare().image].fails("usage", USAGE);
}

fn openssl(args: &[&str]) -> bool {
    let run = Command::new("openssl")
        .args(args)
        .stdout(Stdio::null())
        .output();
    let run = run.expect("openssl is needed (package openssl)");
    eprintln!("{}", String::from_utf8_lossy(&run.stderr));
    run.status.success()
}

/// OpenSSL takes our keys and signatures, and we take its keys.
#[test]
fn openssl_agrees() {
    let dir = folder();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let pem = file("theirs.pem");
    assert!(openssl(&["genpkey", "-algorithm", "ed25519", "-out", &pem]));
    let image = copy(&disks::bare().image, file("image.dpl").into());
    let signed = imager!["sign", "-q", "--json", "--key", pem, image].ok();
    let root = signed.json()["root"].as_str().unwrap().to_owned();

    let all = bytes(&image);
    let at = all.windows(5).rposition(|w| w == b"DSec\x05").unwrap() + 32;
    let mut message = b"deploy-os image signature v1\0".to_vec();
    message.extend_from_slice(&hex::decode(root).unwrap());
    std::fs::write(file("message"), &message).unwrap();
    std::fs::write(file("signature"), &all[at + 36..at + 100]).unwrap();
    let (own, _) = key(dir.path(), "own.pem");
    for (key, agrees) in [(pem.as_str(), true), (own.to_str().unwrap(), false)] {
        let public = file("public.pem");
        assert!(openssl(&["pkey", "-in", key, "-pubout", "-out", &public]));
        let verified = openssl(&[
            "pkeyutl",
            "-verify",
            "-pubin",
            "-inkey",
            &public,
            "-rawin",
            "-in",
            &file("message"),
            "-sigfile",
            &file("signature"),
        ]);
        assert_eq!(verified, agrees, "{key}");
    }
}
