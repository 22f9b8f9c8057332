//! `imager media create`: files and a stick, of a kit of which nothing starts.
//!
//! Owns: options, refusals, what a device holds afterwards. Does not own: what stands where
//! (`crates/medium`), what starts (`tests/tests/media.rs`).

use crate::disks::{self, MIB, folder, garbage, hash};
use crate::imager;
use crate::run::{FAILED, Run, USAGE};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::loopdev::LoopDevice;

fn kit(folder: &Path) -> PathBuf {
    let kit = folder.join("kit");
    fs::create_dir_all(kit.join("efi/BOOT")).unwrap();
    for (name, text) in [
        ("VERSION", "0.1.0\n"),
        ("vmlinuz", "a kernel"),
        ("initramfs.img", "an initramfs"),
        (
            "medium.cfg",
            "{{arguments}} {{id}} {{version}} {{initrds}}\n",
        ),
        ("efi.cfg", "{{marker}}\n"),
        ("efi/BOOT/BOOTX64.EFI", "a program"),
    ] {
        fs::write(kit.join(name), text).unwrap();
    }
    kit
}

fn create(kit: &Path, out: &Path, more: &[&str]) -> Run {
    let args = ["media", "create", "-q", "--json", "--kit"];
    let mut command = crate::run::command(args);
    command.arg(kit).arg(out).args(more);
    crate::run::finish(command)
}

fn read(stick: &Path, name: &str) -> String {
    let run = Command::new("mtype")
        .arg("-i")
        .arg(format!("{}@@1M", stick.display()))
        .arg(format!("::{name}"))
        .output()
        .expect("mtools is installed");
    assert!(run.status.success(), "{name}");
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn a_stick_is_written_after_a_yes_and_read_back() {
    let dir = folder();
    let kit = kit(dir.path());
    let backing = garbage(dir.path().join("stick"), 96 * MIB);
    let stick = LoopDevice::attach(&backing, 512);
    let before = hash(&backing);
    create(&kit, stick.path(), &[])
        .refused("not-confirmed")
        .disk("untouched");
    assert_eq!(hash(&backing), before, "the stick was written");
    let run = create(&kit, stick.path(), &["--yes"]).ok();
    assert_eq!(run.json()["format"], "usb");
    assert_eq!(run.json()["media"][0]["size_bytes"], 96 * MIB);
    drop(stick);
    assert_eq!(read(&backing, "deploy-os/vmlinuz"), "a kernel");
    let about: serde_json::Value =
        serde_json::from_str(&read(&backing, "deploy-os/medium.json")).unwrap();
    assert_eq!(about["id"], run.json()["id"]);
}

#[test]
fn disks_that_must_not_be_written_are_not() {
    let dir = folder();
    let kit = kit(dir.path());
    let yes = ["--yes"];
    let backing = garbage(dir.path().join("large-sectors"), 96 * MIB);
    let before = hash(&backing);
    let large = LoopDevice::attach(&backing, 4096);
    create(&kit, large.path(), &yes).refused("sector-size-unsupported");
    drop(large);
    let held = LoopDevice::attach(&backing, 512);
    let top = LoopDevice::attach(held.path(), 512);
    create(&kit, held.path(), &yes).refused("disk-in-use");
    drop((top, held));
    assert_eq!(hash(&backing), before);
    let small = garbage(dir.path().join("small"), 32 * MIB);
    let before = hash(&small);
    let stick = LoopDevice::attach(&small, 512);
    create(&kit, stick.path(), &yes).fails("no-space", FAILED);
    let free = LoopDevice::attach(&backing, 512);
    let iso = ["--yes", "--format", "iso"];
    create(&kit, free.path(), &iso).fails("usage", USAGE);
    let large = ["--yes", "--volume-size", "1G"];
    create(&kit, free.path(), &large).fails("no-space", FAILED);
    drop(free);
    assert_eq!(hash(&small), before);
    create(&kit, Path::new("/dev/no-such-stick"), &yes).refused("disk-not-found");
    assert!(!Path::new("/dev/no-such-stick").exists());
}

#[test]
fn files_are_made_once_and_the_same_each_time() {
    let dir = folder();
    let kit = kit(dir.path());
    for (name, format) in [("a.iso", "iso"), ("a.img", "usb"), ("b", "usb")] {
        let out = dir.path().join(name);
        let run = create(&kit, &out, &[]).ok();
        assert_eq!(run.json()["format"], format);
        let first = hash(&out);
        create(&kit, &out, &[]).refused("image-exists");
        let again = create(&kit, &out, &["--overwrite"]).ok();
        assert_eq!(again.json()["id"], run.json()["id"]);
        assert_eq!(hash(&out), first);
        assert!(!dir.path().join(format!("{name}.partial")).exists());
    }
}

#[test]
fn an_image_goes_on_several_media_after_it_was_checked() {
    let dir = folder();
    let kit = kit(dir.path());
    let image = &disks::gpt().image;
    let size = fs::metadata(image).unwrap().len();
    let out = dir.path().join("set.iso");
    let volume = (size / 2 + 9 * MIB).to_string();
    let name = image.to_str().unwrap();
    let set = [
        "--image",
        name,
        "--volume-size",
        &volume,
        "--name",
        "office",
    ];
    let run = create(&kit, &out, &set).ok();
    let media = run.json()["media"].as_array().unwrap().clone();
    assert!(media.len() > 1, "{media:?}");
    let first = dir.path().join("set-1.iso");
    assert_eq!(media[0]["path"], first.to_str().unwrap());
    // One of them again, alone.
    let before = hash(&dir.path().join("set-2.iso"));
    fs::remove_file(dir.path().join("set-2.iso")).unwrap();
    let mut second = set.to_vec();
    second.extend(["--medium", "2"]);
    create(&kit, &out, &second).ok();
    assert_eq!(hash(&dir.path().join("set-2.iso")), before);
    second[7] = "77";
    create(&kit, &out, &second).fails("usage", USAGE);

    let damaged = disks::copy(image, dir.path().join("damaged"));
    disks::flip(&damaged, size / 2);
    let out = dir.path().join("damaged.iso");
    let options = ["--image", damaged.to_str().unwrap()];
    create(&kit, &out, &options).fails("image-damaged", FAILED);
    assert!(!out.exists());
}

#[test]
fn a_kit_has_to_be_one() {
    let dir = folder();
    let out = dir.path().join("a.iso");
    create(&dir.path().join("none"), &out, &[]).fails("usage", USAGE);
    let kit = kit(dir.path());
    for (option, value) in [
        ("--append", "a b"),
        ("--settings", "/nonexistent"),
        ("--volume-size", "x"),
    ] {
        let run = create(&kit, &out, &[option, value]);
        assert_eq!(run.exit, Some(USAGE), "{}", run.stderr);
    }
    assert!(!out.exists());
    imager!["media", "create", "--help"].ok();
}
