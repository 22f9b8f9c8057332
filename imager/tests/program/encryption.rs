//! Encrypted images: who can read them, what shows, and what a wrong key leads to.
//!
//! Owns: the options for keys of encrypted images as users meet them. Does not own: the
//! format's own cases (`image::seal`, `image::encryption`), key files (`keyfile`).

use crate::compare::assert_same;
use crate::disks::{self, MIB, copy, flip, folder, garbage, hash};
use crate::imager;
use crate::run::{FAILED, REFUSED, USAGE};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A key for a new identity: key file, identity file.
fn key(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (identity, key) = (folder.join(format!("{name}.id")), folder.join(name));
    let made = imager!["key", "new", "--identity", "--json", identity].ok();
    let recipient = made.json()["recipient"].as_str().unwrap().to_owned();
    imager!["key", "new", "--recipient", recipient, key].ok();
    (key, identity)
}

fn backup(disk: &Path, image: &Path, key: &Path, identity: &Path) {
    imager![
        "backup",
        "-q",
        "--overwrite",
        "--key",
        key,
        "--identity",
        identity,
        disk,
        image
    ]
    .ok();
}

fn contains(image: &Path, needle: &[u8]) -> bool {
    let all = std::fs::read(image).unwrap();
    all.windows(needle.len()).any(|part| part == needle)
}

#[test]
fn an_encrypted_image_comes_back_with_its_key_and_shows_nothing() {
    let dir = folder();
    let (key, identity) = key(dir.path(), "fleet");
    for imaged in [disks::gpt(), disks::bare()] {
        let image = dir.path().join("image.dpl");
        backup(&imaged.disk.path, &image, &key, &identity);
        let plain = imager!["info", "--json", imaged.image].ok().json();
        let shown = imager!["info", "--json", image].ok().json();
        assert_eq!(shown["format_version"], 3);
        assert!(shown["encrypted_with"].is_string() && plain["encrypted_with"].is_null());
        assert_ne!(shown["root"], plain["root"]);
        // The image itself carries the key, for whoever has the identity.
        let opened = imager!["info", "--json", "--identity", identity, image]
            .ok()
            .json();
        assert_eq!(opened["regions"], plain["regions"]);
        for region in plain["regions"].as_array().unwrap() {
            for hidden in ["label", "uuid", "guid"] {
                let text = region[hidden].as_str().unwrap();
                assert!(
                    text.len() < 6 || !contains(&image, text.as_bytes()),
                    "{text}"
                );
            }
        }
        let run = imager!["verify", "-q", "--json", "--identity", identity, image];
        assert_eq!(run.ok().json()["used_bytes"], plain["used_bytes"]);
        let target = dir.path().join("target.img");
        let options = ["--identity", identity.to_str().unwrap()];
        imager!["restore", "-q", options[0], options[1], image, target].ok();
        assert_same(&imaged.disk.path, &target, 512);
        imaged.disk.verify(&target);
        // What the disk holds is found by its keyed names.
        let before = hash(&target);
        let again = imager![
            "restore", "-q", "--json", "--reuse", options[0], options[1], image, target
        ];
        assert_eq!(hash(&target), before);
        let again = again.ok().json();
        assert!(
            again["skipped_bytes"].as_u64() > again["used_bytes"].as_u64().map(|n| n / 2),
            "{again}"
        );
        std::fs::remove_file(&target).unwrap();
        imager!["export", "-q", image, target].fails("image-locked", REFUSED);
        imager!["export", "-q", options[0], options[1], image, target].ok();
        assert_same(&imaged.disk.path, &target, 512);
        std::fs::remove_file(&target).unwrap();
    }
}

#[test]
fn what_is_imported_may_be_encrypted_at_once() {
    let dir = folder();
    let (key, identity) = key(dir.path(), "fleet");
    let imaged = disks::gpt();
    let (image, other) = (dir.path().join("image.dpl"), dir.path().join("other.dpl"));
    let options = [
        "--key",
        key.to_str().unwrap(),
        "--identity",
        identity.to_str().unwrap(),
    ];
    let [k, file, i, id] = options;
    let from = &imaged.disk.path;
    imager!["import", "-q", k, file, from, other].fails("image-locked", REFUSED);
    assert!(!other.exists());
    imager!["import", "-q", k, file, i, id, from, image].ok();
    let shown = imager!["info", "--json", image].ok().json();
    assert!(shown["encrypted_with"].is_string(), "{shown}");
    imager!["verify", "-q", image].fails("image-locked", REFUSED);
    // The same chunks as a backup with that key makes.
    backup(from, &other, &key, &identity);
    imager!["diff", i, id, image, other].ok();
    let target = dir.path().join("target.img");
    imager!["restore", "-q", i, id, image, target].ok();
    assert_same(from, &target, 512);
}

#[test]
fn without_the_key_nothing_is_written() {
    let dir = folder();
    let (own, identity) = key(dir.path(), "own");
    let (other, stranger) = key(dir.path(), "other");
    let image = dir.path().join("image.dpl");
    backup(&disks::bare().disk.path, &image, &own, &identity);
    let old = garbage(dir.path().join("old.img"), 40 * MIB);
    let before = hash(&old);
    for run in [
        imager!["restore", "-q", "--json", image, old],
        imager![
            "restore",
            "-q",
            "--json",
            "--identity",
            stranger,
            image,
            old
        ],
        imager![
            "restore",
            "-q",
            "--json",
            "--key",
            other,
            "--identity",
            stranger,
            image,
            old
        ],
        imager![
            "restore",
            "-q",
            "--json",
            "--key",
            dir.path().join("none"),
            image,
            old
        ],
    ] {
        run.fails("image-locked", REFUSED).disk("untouched");
    }
    assert_eq!(hash(&old), before);
    imager!["verify", "-q", "--json", image].fails("image-locked", REFUSED);
    // A backup that cannot be encrypted is not made.
    let new = dir.path().join("new.dpl");
    imager!["shrink", "-q", "--json", image, new].fails("image-locked", REFUSED);
    assert!(!new.exists());
    imager!["backup", "-q", "--key", own, disks::bare().disk.path, new].refused("image-locked");
    assert!(!new.exists());
}

/// Without the key nobody can make an image that takes the place of an encrypted one.
#[test]
fn an_image_in_the_clear_or_of_another_key_is_not_taken_for_an_encrypted_one() {
    let dir = folder();
    let (own, identity) = key(dir.path(), "own");
    let plain = &disks::bare().image;
    let old = garbage(dir.path().join("old.img"), 40 * MIB);
    let before = hash(&old);
    let opener = ["--key", own.to_str().unwrap(), "--identity"];
    let [option, file, id] = opener;
    for run in [
        imager![
            "restore", "-q", "--json", option, file, id, identity, plain, old
        ],
        imager!["verify", "-q", "--json", option, file, id, identity, plain],
        imager!["info", "--json", option, file, id, identity, plain],
        imager![
            "export",
            "-q",
            "--json",
            option,
            file,
            id,
            identity,
            plain,
            dir.path().join("raw.img")
        ],
    ] {
        run.fails("image-not-encrypted", REFUSED);
    }
    // Recipients are no secret: a stranger who knows ours makes an image that our identity
    // opens. Only the key file tells that it is none of ours.
    let recipient = imager![
        "key",
        "new",
        "--identity",
        "--json",
        dir.path().join("me.id")
    ]
    .ok();
    let recipient = recipient.json()["recipient"].as_str().unwrap().to_owned();
    let (mine, me) = (dir.path().join("mine"), dir.path().join("me.id"));
    let forged = dir.path().join("forged");
    imager!["key", "new", "--recipient", recipient, mine].ok();
    imager!["key", "new", "--recipient", recipient, forged].ok();
    let image = dir.path().join("forged.dpl");
    backup(&disks::bare().disk.path, &image, &forged, &me);
    imager!["verify", "-q", "--identity", me, image].ok();
    imager!["restore", "-q", "--json", option, mine, id, me, image, old]
        .fails("image-locked", REFUSED);
    assert_eq!(hash(&old), before);
    imager![
        "restore",
        "-q",
        "--allow-plain",
        option,
        file,
        id,
        identity,
        plain,
        old
    ]
    .ok();
    disks::bare().disk.verify(&old);
}

#[test]
fn a_passphrase_opens_its_key_and_a_signature_fits_on_top() {
    let dir = folder();
    let file = |name: &str| dir.path().join(name);
    std::fs::write(file("right"), "correct horse\n").unwrap();
    std::fs::write(file("wrong"), "correct hors\n").unwrap();
    std::fs::write(file("empty"), "\n").unwrap();
    let new = ["key", "new", "--passphrase", "--passphrase-file"];
    let make = |pass: &str| imager![new[0], new[1], new[2], new[3], file(pass), file("fleet")];
    make("empty").fails("usage", USAGE);
    make("right").ok();
    make("right").refused("image-exists");
    let (disk, image) = (&disks::bare().disk.path, file("image.dpl"));
    let pass = |name: &str| {
        [
            "--passphrase-file".to_owned(),
            file(name).display().to_string(),
        ]
    };
    let [option, right] = pass("right");
    imager![
        "backup",
        "-q",
        "--key",
        file("fleet"),
        option,
        right,
        disk,
        image
    ]
    .ok();
    let [_, wrong] = pass("wrong");
    imager!["verify", "-q", "--json", option, wrong, image].fails("image-locked", REFUSED);
    imager!["key", "new", "--signing", file("sign.pem")].ok();
    let signed = imager![
        "sign",
        "-q",
        "--json",
        "--key",
        file("sign.pem"),
        option,
        right,
        image
    ];
    let signer = signed.ok().json()["signed_by"].as_str().unwrap().to_owned();
    imager![
        "verify",
        "-q",
        "--trusted-key",
        signer,
        option,
        right,
        image
    ]
    .ok();
    let target = file("target.img");
    imager![
        "restore",
        "-q",
        "--trusted-key",
        signer,
        option,
        right,
        image,
        target
    ]
    .ok();
    disks::bare().disk.verify(&target);
}

#[test]
fn no_change_of_an_encrypted_image_becomes_a_disk() {
    let dir = folder();
    let (key, identity) = key(dir.path(), "fleet");
    let image = dir.path().join("image.dpl");
    backup(&disks::bare().disk.path, &image, &key, &identity);
    let length = image.metadata().unwrap().len();
    for part in 0..24 {
        let changed = copy(&image, dir.path().join("changed.dpl"));
        flip(&changed, part * (length / 24) + 17);
        let run = imager!["verify", "-q", "--json", "--identity", identity, changed];
        assert!(matches!(run.exit, Some(FAILED | REFUSED)), "part {part}");
    }
}

/// The age program opens our key files and makes ones that we open.
#[test]
fn age_agrees() {
    let dir = folder();
    let (ours, identity) = key(dir.path(), "fleet");
    let file = |name: &str| dir.path().join(name);
    let age = |program: &str, args: &[&std::ffi::OsStr]| {
        let run = Command::new(program).args(args).output();
        let run = run.expect("age is needed (package age)");
        assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        );
        run.stdout
    };
    let secret = age(
        "age",
        &[
            "-d".as_ref(),
            "-i".as_ref(),
            identity.as_ref(),
            ours.as_ref(),
        ],
    );
    assert_eq!(secret.len(), 32);

    let theirs = file("theirs.id");
    age("age-keygen", &["-o".as_ref(), theirs.as_ref()]);
    let recipient = age("age-keygen", &["-y".as_ref(), theirs.as_ref()]);
    let recipient = String::from_utf8(recipient).unwrap();
    std::fs::write(file("secret"), &secret).unwrap();
    let wrapped = file("wrapped");
    age(
        "age",
        &[
            "-a".as_ref(),
            "-r".as_ref(),
            recipient.trim().as_ref(),
            "-o".as_ref(),
            wrapped.as_ref(),
            file("secret").as_ref(),
        ],
    );
    // The same key for somebody else: images of either are images of both.
    let image = file("image.dpl");
    backup(&disks::bare().disk.path, &image, &wrapped, &theirs);
    imager!["verify", "-q", "--identity", theirs, image].ok();
    imager!["verify", "-q", "--key", ours, "--identity", identity, image].ok();
}

/// Files inside, and what differs: with the key as from a plain image, without it nothing.
#[test]
fn files_of_an_encrypted_image_are_read_with_its_key() {
    let dir = folder();
    let (own, identity) = key(dir.path(), "own");
    let (_, stranger) = key(dir.path(), "other");
    let image = dir.path().join("image.dpl");
    let imaged = disks::bare();
    backup(&imaged.disk.path, &image, &own, &identity);
    let again = dir.path().join("again.dpl");
    let disk = copy(&imaged.disk.path, dir.path().join("disk"));
    flip(&disk, imaged.disk.size - 4096);
    backup(&disk, &again, &own, &identity);
    let tree = testkit::build::Tree::new(4, 24, 150_000);
    let (name, contents) = tree.files().next().unwrap();
    let out = dir.path().join("out");
    let run = |verb: &str, paths: &[&Path], more: &[&Path]| {
        let mut command = crate::run::command([verb]);
        command.args(more).args(paths);
        crate::run::finish(command)
    };
    let (by, key_by) = (Path::new("--identity"), Path::new("--key"));
    let file = Path::new(&name);
    for keys in [&[by, &identity][..], &[key_by, &own, by, &identity]] {
        let plain = imager!["ls", "-lR", imaged.image].ok().said();
        let told = run("ls", &[Path::new("-lR"), &image], keys).ok().said();
        assert_eq!(told, plain);
        assert!(run("cat", &[&image, file], keys).ok().stdout == contents);
        run(
            "extract",
            &[Path::new("-q"), &image, Path::new("/"), &out],
            keys,
        )
        .ok();
        assert_eq!(testkit::build::hashes_of(&out), tree.hashes());
        std::fs::remove_dir_all(&out).unwrap();
        run("diff", &[&image, &image], keys).ok();
        let differ = run("diff", &[&image, &again], keys);
        assert!(matches!(differ.exit, Some(0 | 4)), "{}", differ.stderr);
    }
    for keys in [&[][..], &[by, &stranger]] {
        let all: [(&str, &[&Path]); 4] = [
            ("ls", &[&image]),
            ("cat", &[&image, file]),
            ("extract", &[&image, Path::new("/"), &out]),
            ("diff", &[&image, &again]),
        ];
        for (verb, paths) in all {
            let ended = run(verb, paths, keys).fails("image-locked", REFUSED);
            assert!(ended.stdout.is_empty(), "{verb}: {}", ended.said());
        }
    }
    assert!(!out.exists());
}
