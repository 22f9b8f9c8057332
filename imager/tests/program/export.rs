//! `imager export`: the disk of an image as raw, qcow2 and VHDX, held against a restore of
//! the image by QEMU's own tools, and booted from each.
//!
//! Owns: what the exported files hold, and what is refused. Does not own: reading an image
//! at random (`crates/image`).

use crate::disks::{self, Imaged, MIB, copy, folder};
use crate::imager;
use crate::run::{FAILED, USAGE};
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a tool to its end.
fn tool(name: &str, args: &[&str], files: &[&Path]) -> Output {
    let mut command = Command::new(name);
    let output = command.args(args).args(files).output();
    output.unwrap_or_else(|e| panic!("{name} (package qemu-utils or libvhdi-utils): {e}"))
}

#[track_caller]
pub fn good(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// The disk as a restore writes it.
pub fn restored(image: &Path, dir: &Path) -> PathBuf {
    let raw = dir.join("restored");
    imager!["restore", "-q", image, raw].ok();
    raw
}

fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Exports in every format, and compares each with the restored disk.
fn export_all(imaged: &Imaged) -> (tempfile::TempDir, PathBuf) {
    let dir = folder();
    let disk = restored(&imaged.image, dir.path());
    for format in ["raw", "qcow2", "vhdx"] {
        let out = dir.path().join(format!("disk.{format}"));
        let run = imager!["export", "-q", "--json", imaged.image, out].ok();
        let said = run.json();
        assert_eq!(said["format"], format);
        assert_eq!(said["result"], "done");
        assert_eq!(said["file_bytes"], fs::metadata(&out).unwrap().len());
        let compared = tool(
            "qemu-img",
            &["compare", "-f", "raw", "-F", format],
            &[&disk, &out],
        );
        assert!(good(&compared).contains("identical"), "{format}");
        if format == "qcow2" {
            good(&tool("qemu-img", &["check", "-f", format], &[&out]));
        }
        assert!(!dir.path().join(format!("disk.{format}.partial")).exists());
    }
    let raw = fs::read(dir.path().join("disk.raw")).unwrap();
    assert!(
        raw == fs::read(&disk).unwrap(),
        "raw is the disk byte by byte"
    );
    (dir, disk)
}

#[test]
fn every_format_holds_the_disk() {
    for imaged in [disks::gpt(), disks::mbr(), disks::bare()] {
        let (dir, _) = export_all(imaged);
        let used = imager!["info", "--json", imaged.image].ok().json();
        let used = used["used_bytes"].as_u64().unwrap();
        let raw = allocated(&dir.path().join("disk.raw"));
        assert!(raw <= used + 2 * MIB, "{raw} bytes for {used} used");
        // Whole clusters of 64 KiB, of which what is zero takes no room.
        let qcow2 = allocated(&dir.path().join("disk.qcow2"));
        assert!(qcow2 <= used + 2 * MIB, "{qcow2} bytes for {used} used");
    }
}

/// VHDX can say that a disk has sectors of 4096 bytes. QEMU's driver knows only 512;
/// libvhdi reads both.
#[test]
fn a_vhdx_says_the_sector_size() {
    let dir = folder();
    let imaged = disks::gpt_4k();
    let disk = restored(&imaged.image, dir.path());
    let out = dir.path().join("disk.vhdx");
    imager!["export", "-q", imaged.image, out].ok();
    let info = good(&tool("vhdiinfo", &[], &[&out]));
    let said = |text: &str| info.lines().any(|line| line.contains(text));
    assert!(said("VHDX (version 2)") && said("4096 bytes"), "{info}");
    let size = fs::metadata(&disk).unwrap().len();
    assert!(said(&format!("({size} bytes)")), "{info}");

    let mounted = Mounted::new(&out, dir.path());
    assert!(fs::read(mounted.0.join("vhdi1")).unwrap() == fs::read(&disk).unwrap());
}

/// A VHDX as a raw file, by libvhdi.
struct Mounted(PathBuf);

impl Mounted {
    fn new(vhdx: &Path, dir: &Path) -> Mounted {
        let point = dir.join("mounted");
        fs::create_dir(&point).unwrap();
        good(&tool("vhdimount", &[], &[vhdx, &point]));
        Mounted(point)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("fusermount").arg("-u").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.0.display());
        }
    }
}

/// A disk that boots: its first sector reads sector 66,000, behind many clusters that are
/// not there, and says on the serial port what stands there.
fn bootable(path: &Path) {
    let message = b"It boots from sector 66000.\r\n\0";
    let code: &[u8] = &[
        0xfa, // cli
        0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, // ax, ds, ss = 0
        0xbc, 0x00, 0x7c, // mov sp, 0x7c00
        0xbe, 0x80, 0x7d, // mov si, packet
        0xb4, 0x42, // extended read
        0xcd, 0x13, // of the drive in dl
        0x72, 0x14, // jc end
        0xbe, 0x00, 0x80, // mov si, 0x8000
        0xfc, // cld
        0xac, // next: lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x0b, // jz end
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp next
        0x90, 0x90, 0x90, 0x90, 0x90, //
        0xba, 0xf4, 0x00, // end: mov dx, 0xf4
        0xb0, 0x10, // mov al, 0x10
        0xee, // out dx, al: QEMU ends
        0xf4, // hlt
    ];
    let mut sector = [0; 512];
    sector[..code.len()].copy_from_slice(code);
    // Packet of the extended read: one sector to 0x8000.
    sector[0x180..0x188].copy_from_slice(&[16, 0, 1, 0, 0, 0x80, 0, 0]);
    sector[0x188..0x190].copy_from_slice(&66_000u64.to_le_bytes());
    // One partition from 2048 on, which holds no file system: all of it is used.
    let entry = &mut sector[446..462];
    entry[0] = 0x80;
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&65_536u32.to_le_bytes());
    entry[12..16].copy_from_slice(&1024u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let disk = File::create(path).unwrap();
    disk.set_len(40 * MIB).unwrap();
    disk.write_all_at(&sector, 0).unwrap();
    disk.write_all_at(message, 66_000 * 512).unwrap();
}

#[test]
fn an_exported_disk_boots_from_every_format() {
    let dir = folder();
    let (disk, image) = (dir.path().join("disk.img"), dir.path().join("image"));
    bootable(&disk);
    imager!["backup", "-q", disk, image].ok();
    for format in ["raw", "qcow2", "vhdx"] {
        let out = dir.path().join(format!("out.{format}"));
        imager!["export", "-q", image, out].ok();
        let drive = format!("file={},format={format},if=virtio", out.display());
        let machine = ["-machine", "pc,accel=tcg", "-m", "32", "-nodefaults"];
        let ends = ["-display", "none", "-serial", "stdio", "-no-reboot"];
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(machine).args(ends);
        qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        let ended = qemu.args(["-drive", &drive]).output();
        let ended = ended.expect("qemu-system-x86_64 (package qemu-system-x86)");
        let serial = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(
            serial.contains("It boots from sector 66000."),
            "{format}: {serial}"
        );
        // What was written to the exit device, times two, plus one.
        assert_eq!(ended.status.code(), Some(0x21), "{format}");
    }
}

#[test]
fn the_format_is_that_of_the_name_or_of_the_option() {
    let dir = folder();
    let image = &disks::bare().image;
    let plain = dir.path().join("disk");
    imager!["export", "-q", "--json", image, plain].fails("usage", USAGE);
    assert!(!plain.exists());
    imager!["export", "-q", "--format", "qcow2", image, plain].ok();
    assert_eq!(fs::read(&plain).unwrap()[..4], *b"QFI\xfb");
    let img = dir.path().join("disk.IMG");
    imager!["export", "-q", image, img].ok();
    assert_eq!(fs::metadata(&img).unwrap().len(), 24 * MIB);
}

#[test]
fn nothing_is_replaced_without_leave_and_nothing_half_made_stays() {
    let dir = folder();
    let imaged = disks::bare();
    let out = dir.path().join("disk.raw");
    fs::write(&out, b"mine").unwrap();
    imager!["export", "-q", "--json", imaged.image, out].refused("image-exists");
    assert_eq!(fs::read(&out).unwrap(), b"mine");
    imager!["export", "-q", "--overwrite", imaged.image, out].ok();
    assert_eq!(fs::metadata(&out).unwrap().len(), 24 * MIB);

    // A pipe, a folder, the image itself.
    imager![
        "export",
        "-q",
        "--json",
        "--format",
        "raw",
        imaged.image,
        dir.path()
    ]
    .refused("image-exists");
    imager![
        "export",
        "-q",
        "--json",
        "--overwrite",
        "--format",
        "raw",
        imaged.image,
        imaged.image
    ]
    .refused("image-exists");

    let damaged = dir.path().join("damaged");
    let damaged = disks::copy(&imaged.image, damaged);
    disks::flip(&damaged, fs::metadata(&damaged).unwrap().len() / 2);
    for format in ["raw", "qcow2", "vhdx"] {
        let out = dir.path().join(format!("torn.{format}"));
        imager!["export", "-q", "--json", damaged, out].fails("image-damaged", FAILED);
        let left = fs::read_dir(dir.path()).unwrap();
        let torn = left.filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().starts_with("torn")
        });
        assert_eq!(torn.count(), 0, "{format}");
    }
    imager![
        "export",
        "-q",
        "--json",
        dir.path().join("none"),
        dir.path().join("x.raw")
    ]
    .refused("image-not-found");
}

#[test]
fn what_the_image_lacks_is_said() {
    let dir = folder();
    let imaged = disks::gpt();
    let (image, out) = (dir.path().join("image"), dir.path().join("disk.qcow2"));
    imager!["backup", "-q", "--partition", "2", imaged.disk.path, image].ok();
    let run = imager!["export", "-q", "--json", image, out].warns("image-partial");
    assert!(run.stderr.contains("partition 1, "), "{}", run.stderr);
    let said: Value = run.json();
    assert_eq!(said["partial"], true);
    assert_eq!(said["warnings"][0]["code"], "image-partial");
    good(&tool("qemu-img", &["check"], &[&out]));
}

/// The name under which the new file is made on the way may be that of something else.
#[test]
fn what_is_read_is_never_emptied() {
    let dir = folder();
    let image = copy(&disks::bare().image, dir.path().join("x.raw.partial"));
    let out = dir.path().join("x.raw");
    let before = disks::hash(&image);
    imager!["export", "-q", "--json", image, out].refused("image-exists");
    assert_eq!(disks::hash(&image), before);
    // The same file by a link, and anybody's file by a link.
    for (name, other) in [("y.raw", &image), ("z.raw", &dir.path().join("mine"))] {
        fs::write(dir.path().join("mine"), b"mine").unwrap();
        let partial = dir.path().join(format!("{name}.partial"));
        for symbolic in [true, false] {
            let _ = fs::remove_file(&partial);
            if symbolic {
                std::os::unix::fs::symlink(other, &partial).unwrap();
            } else {
                fs::hard_link(other, &partial).unwrap();
            }
            let out = dir.path().join(name);
            imager!["export", "-q", "--json", image, out].refused("image-exists");
            imager!["backup", "-q", disks::bare().disk.path, out].refused("image-exists");
            assert_eq!(disks::hash(&image), before);
            assert_eq!(fs::read(dir.path().join("mine")).unwrap(), b"mine");
        }
    }
    // A disk in a file is read, too.
    let disk = copy(&disks::bare().disk.path, dir.path().join("disk.partial"));
    let before = disks::hash(&disk);
    imager!["backup", "-q", disk, dir.path().join("disk")].refused("image-exists");
    imager!["import", "-q", disk, dir.path().join("disk")].refused("image-exists");
    assert_eq!(disks::hash(&disk), before);
}
