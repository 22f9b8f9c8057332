//! `imager import` where the new image is written beside, or in the place of, what is read.
//!
//! Owns: that a folder takes its own image, and that no file that is read is emptied or
//! replaced. Does not own: the same of other commands (`export`).

use crate::disks::{self, copy, folder, hash};
use crate::imager;
use crate::import::{convert, tool};
use crate::import_clonezilla::{mbr, save};
use std::fs;
use std::os::unix::fs::symlink;

#[test]
fn a_folder_takes_the_image_of_itself() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    let image = saved.join("pc1.image");
    let partial = saved.join("pc1.image.partial");
    imager!["import", "-q", "--json", saved, image].ok();
    assert!(!partial.exists());
    // Both what it made before and what a killed run left there are no part of the source.
    fs::write(&partial, b"left").unwrap();
    imager!["import", "-q", "--json", saved, image].refused("image-exists");
    imager!["import", "-q", "--json", "--overwrite", saved, image].ok();
    assert!(!partial.exists());
    imager!["verify", "-q", image].ok();
}

#[test]
fn no_file_of_a_folder_is_emptied_or_replaced() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    let mbr = saved.join("sda-mbr");
    let before = fs::read(&mbr).unwrap();
    for force in [&[][..], &["--force"]] {
        let refused = |name: &std::path::Path| {
            let start = ["import", "-q", "--json", "--overwrite"].map(AsRef::as_ref);
            let args = start.into_iter().chain(force.iter().map(AsRef::as_ref));
            let args = args.chain([saved.as_os_str(), name.as_os_str()]);
            let run = crate::run::finish(crate::run::command(args)).refused("image-exists");
            let found = run.json()["found"].to_string();
            assert!(found.contains("sda-mbr"), "{found}");
        };
        refused(&mbr);
        assert_eq!(fs::read(&mbr).unwrap(), before);
        // It stands elsewhere, under the name that the image has while it is written.
        let partial = dir.path().join("new.partial");
        fs::rename(&mbr, &partial).unwrap();
        symlink(&partial, &mbr).unwrap();
        refused(&dir.path().join("new"));
        assert_eq!(fs::read(&partial).unwrap(), before);
        assert!(!dir.path().join("new").exists());
        fs::rename(&partial, &mbr).unwrap();
    }
}

#[test]
fn no_file_behind_a_qcow2_file_is_emptied_or_replaced() {
    let dir = folder();
    for (name, out) in [("base.qcow2", "base.qcow2"), ("new.partial", "new")] {
        let base = convert(&[], &disks::bare().disk.path, dir.path().join(name));
        let out = dir.path().join(out);
        let before = hash(&base);
        let top = dir.path().join("top.qcow2");
        let create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", name];
        tool("qemu-img", &create, &[&top]);
        let aside = copy(&base, dir.path().join("aside"));
        for force in ["--backing", "--force"] {
            let options = ["-q", "--json", "--overwrite", "--backing", force];
            let mut command = crate::run::command(["import"]);
            command.args(&options[..if force == "--force" { 5 } else { 4 }]);
            command.args([&top, &out]);
            let run = crate::run::finish(command).refused("image-exists");
            let found = run.json()["found"].to_string();
            assert!(found.contains(name), "{found}");
            assert_eq!(hash(&base), before);
            fs::copy(&aside, &base).unwrap();
        }
        assert!(name == "base.qcow2" || !out.exists());
    }
}
