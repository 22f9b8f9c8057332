//! `imager diff --files`, held against what the kernel sees in both file systems.

use super::{Made, Seen, noise, seen, tool};
use crate::disks::{MIB, copy, folder};
use crate::imager;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::loopdev::Mounted;

/// Done, and there is a difference.
const DIFFERENT: i32 = 4;

fn files(root: &Path) {
    for n in 0..200 {
        let folder = root.join(format!("many/{}", n % 7));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{n}")), noise(n as u64, n * n)).unwrap();
    }
    for name in [
        "grown",
        "shrunk",
        "rewritten",
        "touched",
        "kept",
        "moved",
        "gone",
        "turned",
    ] {
        fs::write(root.join(name), noise(9, 300_000)).unwrap();
    }
    fs::write(root.join("copied"), noise(10, 6_000_000)).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&noise(5, 5000), 3 * MIB + 17).unwrap();
    sparse.set_len(6 * MIB).unwrap();
    fs::create_dir_all(root.join("old folder/below")).unwrap();
    fs::write(root.join("old folder/below/file"), b"x").unwrap();
}

/// Copies a file so that everything but its place is as before.
fn elsewhere(root: &Path, name: &str) {
    let (old, new) = (root.join(name), root.join("new place"));
    tool(&["cp", "-p", "--sparse=never"], &[&old, &new]);
    fs::rename(new, old).unwrap();
}

fn change(root: &Path) {
    let open = |name: &str| File::options().write(true).open(root.join(name)).unwrap();
    open("grown").set_len(300_001).unwrap();
    open("shrunk").set_len(5).unwrap();
    // Only the bytes tell.
    let reference = root.join("reference");
    tool(&["touch", "-r"], &[&root.join("rewritten"), &reference]);
    open("rewritten").write_all_at(b"!", 150_000).unwrap();
    tool(&["touch", "-r"], &[&reference, &root.join("rewritten")]);
    fs::remove_file(reference).unwrap();
    tool(&["touch", "-d", "@1000000000"], &[&root.join("touched")]);
    elsewhere(root, "moved");
    elsewhere(root, "sparse");
    // What it was stays where it was, under another name.
    let original = root.join("original");
    fs::rename(root.join("copied"), &original).unwrap();
    tool(&["cp", "-p"], &[&original, &root.join("copied")]);
    fs::remove_file(root.join("gone")).unwrap();
    fs::remove_file(root.join("turned")).unwrap();
    fs::create_dir_all(root.join("turned/into a folder")).unwrap();
    fs::remove_dir_all(root.join("old folder")).unwrap();
    fs::create_dir_all(root.join("new folder/below")).unwrap();
    fs::write(root.join("new folder/below/file"), b"x").unwrap();
}

/// What is to be told: path, and in what it differs.
fn expected(
    before: &BTreeMap<PathBuf, Seen>,
    after: &BTreeMap<PathBuf, Seen>,
) -> BTreeSet<(String, String)> {
    let mut all = BTreeSet::new();
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    for name in names {
        let what = match (before.get(name), after.get(name)) {
            (Some(_), None) => "removed".to_owned(),
            (None, _) => "added".to_owned(),
            (Some(a), Some(b)) if a.mode >> 12 != b.mode >> 12 => "kind".to_owned(),
            (Some(a), Some(b)) => {
                let is_folder = a.mode >> 12 == 0o4;
                let is_file = a.mode >> 12 == 0o10;
                let found = [
                    ("size", is_file && a.size != b.size),
                    ("time", !is_folder && a.modified != b.modified),
                    ("mode", a.mode != b.mode),
                    ("owner", a.owner != b.owner),
                    ("content", a.content != b.content),
                ];
                let found = found.iter().filter(|(_, differs)| *differs);
                found.map(|(name, _)| *name).collect::<Vec<_>>().join(",")
            }
        };
        if !what.is_empty() {
            all.insert((format!("/{}", name.display()), what));
        }
    }
    all
}

fn told(json: &Value) -> BTreeSet<(String, String)> {
    let files = json["files"].as_array().unwrap();
    let told = files.iter().map(|file| {
        let what = match file["changed"].as_array() {
            Some(list) => list
                .iter()
                .map(|w| w.as_str().unwrap())
                .collect::<Vec<_>>()
                .join(","),
            None => file["change"].as_str().unwrap().to_owned(),
        };
        (file["path"].as_str().unwrap().to_owned(), what)
    });
    told.collect()
}

/// Changes a copy of the disk, and compares both images in both directions.
fn assert_differs(made: &Made, change: impl FnOnce(&Path)) {
    let disk = copy(&made.disk, made.path("after"));
    let mounted = Mounted::new(&disk, "loop");
    change(mounted.path());
    drop(mounted);
    let image = made.path("after.image");
    imager!["backup", "-q", disk, image].ok();
    let look = |disk: &Path| seen(Mounted::new(disk, "loop,ro").path());
    let (before, after) = (look(&made.disk), look(&disk));
    for (one, other, there) in [
        (&made.image, &image, expected(&before, &after)),
        (&image, &made.image, expected(&after, &before)),
    ] {
        let run = imager!["diff", "--files", "--json", one, other];
        assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
        let json = run.json();
        assert_eq!(told(&json), there);
        assert_eq!(json["files_complete"], true, "{json}");
        assert_eq!(json["result"], "different");
        assert_eq!(json["files_of"][0]["compared"], true);
        let run = imager!["diff", "--files", one, other];
        assert_eq!(run.exit, Some(DIFFERENT));
        let marks = ["+ /", "- /", "* /"];
        let said = run.said();
        let lines = said
            .lines()
            .filter(|l| marks.iter().any(|m| l.starts_with(m)));
        assert_eq!(lines.count(), there.len(), "{said}");
    }
    let same = imager!["diff", "--files", "--json", made.image, made.image].ok();
    assert_eq!(told(&same.json()), BTreeSet::new());
}

#[test]
fn what_changed_in_ext4() {
    let made = Made::new(
        96 * MIB,
        &["mkfs.ext4", "-q", "-O", "^has_journal"],
        |root| {
            files(root);
            symlink("old", root.join("link")).unwrap();
            fs::write(root.join("mode"), b"m").unwrap();
            fs::write(root.join("owner"), b"o").unwrap();
        },
    );
    assert_differs(&made, |root| {
        change(root);
        fs::remove_file(root.join("link")).unwrap();
        symlink("new", root.join("link")).unwrap();
        fs::set_permissions(root.join("mode"), fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(root.join("owner"), Some(7), Some(8)).unwrap();
        fs::hard_link(root.join("kept"), root.join("many/second name")).unwrap();
    });
}

#[test]
fn what_changed_in_ntfs() {
    let made = Made::new(96 * MIB, &["mkfs.ntfs", "-q", "-F", "-f"], files);
    assert_differs(&made, change);
}

#[test]
fn what_changed_in_fat() {
    let dir = crate::disks::folder();
    let disk = dir.path().join("disk");
    File::create(&disk).unwrap().set_len(24 * MIB).unwrap();
    tool(&["mkfs.vfat"], &[&disk]);
    let put = |disk: &Path, name: &str, content: &[u8]| {
        let file = dir.path().join(name);
        fs::write(&file, content).unwrap();
        tool(&["touch", "-d", "@1000000000"], &[&file]);
        let target = format!("::{name}");
        let run = Command::new("mcopy")
            .args(["-o", "-m", "-i"])
            .args([disk, &file, Path::new(&target)])
            .output();
        let run = run.expect("mcopy is missing: apt-get install mtools");
        assert!(run.status.success(), "{run:?}");
    };
    for (name, seed) in [("kept", 1), ("gone", 2), ("rewritten", 3)] {
        put(&disk, name, &noise(seed, 100_000));
    }
    let after = copy(&disk, dir.path().join("after"));
    put(&after, "rewritten", &noise(4, 100_000));
    put(&after, "new", b"n");
    tool(&["mdel", "-i", after.to_str().unwrap(), "::gone"], &[]);
    let image = |disk: &Path| {
        let image = disk.with_extension("image");
        imager!["backup", "-q", disk, image].ok();
        image
    };
    let run = imager!["diff", "--files", "--json", image(&disk), image(&after)];
    assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
    let expected = [
        ("/gone", "removed"),
        ("/new", "added"),
        ("/rewritten", "content"),
    ];
    let expected = expected.map(|(path, what)| (path.to_owned(), what.to_owned()));
    assert_eq!(told(&run.json()), BTreeSet::from(expected));
}

#[test]
fn what_cannot_be_looked_into_is_said() {
    let made = Made::new(320 * MIB, &["mkfs.xfs", "-q"], |root| {
        fs::write(root.join("file"), b"one").unwrap();
    });
    let disk = copy(&made.disk, made.path("after"));
    let mounted = Mounted::new(&disk, "loop");
    fs::write(mounted.path().join("file"), b"other").unwrap();
    drop(mounted);
    let image = made.path("after.image");
    imager!["backup", "-q", disk, image].ok();
    let run = imager!["diff", "--files", "--json", made.image, image];
    assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
    let json = run.json();
    assert_eq!(json["files"], serde_json::json!([]));
    assert_eq!(json["files_complete"], false);
    assert_eq!(json["files_of"][0]["compared"], false);
    let said = imager!["diff", "--files", made.image, image].said();
    assert!(
        said.contains("Files are not compared: disk: xfs is not read"),
        "{said}"
    );
}

/// What is in them is not read: whether there are any is told, and that the rest is not.
#[test]
fn extended_attributes_are_seen_and_not_compared() {
    let dir = folder();
    let images = ["before", "after"].map(|name| {
        let [disk, image] = ["disk", "image"].map(|end| dir.path().join(format!("{name}.{end}")));
        fs::File::create(&disk).unwrap().set_len(16 * MIB).unwrap();
        let text = disk.to_str().unwrap();
        super::tool(&["mkfs.ext4", "-q", "-F", "-U", "clear"], &[&disk]);
        let mut requests = vec!["mkdir one", "mkdir two", "ea_set two user.x before"];
        if name == "after" {
            requests.extend(["ea_set one user.x y", "ea_set two user.x after"]);
        }
        for request in requests {
            super::tool(&["debugfs", "-w", "-R", request, text], &[]);
        }
        imager!["backup", "-q", disk, image].ok();
        image
    });
    let run = imager!["diff", "--files", "--json", images[0], images[1]];
    assert_eq!(run.exit, Some(DIFFERENT), "{}", run.stderr);
    let json = run.json();
    let expected = ("/one".to_owned(), "attributes".to_owned());
    assert_eq!(told(&json), BTreeSet::from([expected]), "{json}");
    assert_eq!(json["files_of"][0]["besides_not_compared"], 1, "{json}");
    let run = imager!["diff", "--files", images[0], images[1]];
    let said = run.said();
    assert!(said.contains("Not compared: what streams"), "{said}");
}
