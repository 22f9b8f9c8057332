//! Files in logical volumes of LVM2, made by LVM2's own tools without the kernel's help.

use super::{assert_same_contents, noise, tool};
use crate::disks::{MIB, copy, folder};
use crate::imager;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::loopdev::{LoopDevice, Mounted};

/// Runs a command of LVM2 that sees this device only; what it prints.
fn lvm(dir: &Path, device: &LoopDevice, args: &[&str]) -> String {
    let filter = format!("[\"a|^{}$|\",\"r|.*|\"]", device.path().display());
    let config = format!(
        "devices {{ dir=\"/dev\" scan=[\"/dev\"] use_devicesfile=0 scan_lvs=0 filter={filter} \
         global_filter={filter} external_device_info_source=\"none\" }} \
         global {{ locking_dir=\"{}\" event_activation=0 }} \
         activation {{ monitoring=0 udev_sync=0 udev_rules=0 }} backup {{ backup=0 archive=0 }}",
        dir.display()
    );
    let fixed = ["lvm", args[0], "--config", &config, "--driverloaded", "n"];
    let command = [&fixed[1..], &args[1..]].concat();
    let output = Command::new("lvm").args(command).output();
    let output = output.expect("lvm is missing: apt-get install lvm2");
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Writes a volume's content to where LVM2 says that its pieces lie.
fn fill(dir: &Path, device: &LoopDevice, disk: &Path, volume: &str, content: &Path) {
    const EXTENT: u64 = 4 * MIB;
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let report = ["--noheadings", "--units", "b", "--nosuffix", "-o"];
    let start = lvm(
        dir,
        device,
        &[&["pvs"], &report[..], &["pe_start"]].concat(),
    );
    let name = format!("vg0/{volume}");
    let columns = ["seg_pe_ranges", "--segments", "--sort", "seg_start", &name];
    let ranges = lvm(dir, device, &[&["lvs"], &report[..], &columns].concat());
    let (content, disk) = (
        fs::read(content).unwrap(),
        File::options().write(true).open(disk),
    );
    let (disk, mut left) = (disk.unwrap(), &content[..]);
    for line in ranges.lines() {
        let (_, range) = line.trim().split_once(':').unwrap();
        let (first, last) = range.split_once('-').unwrap();
        let bytes = (number(last) + 1 - number(first)) * EXTENT;
        let (now, later) = left.split_at(bytes as usize);
        let at = number(&start) + number(first) * EXTENT;
        disk.write_all_at(now, at).unwrap();
        left = later;
    }
    assert!(left.is_empty());
}

/// A file system with files in a file of its own; the folder with what is in it.
fn file_system(dir: &Path, name: &str, size: u64, mkfs: &[&str]) -> (PathBuf, PathBuf) {
    let (disk, copy) = (dir.join(name), dir.join(format!("{name} files")));
    File::create(&disk).unwrap().set_len(size).unwrap();
    tool(mkfs, &[&disk]);
    let mounted = Mounted::new(&disk, "loop");
    for n in 0..40u64 {
        let folder = mounted.path().join(format!("folder {}", n % 3));
        fs::create_dir_all(&folder).unwrap();
        let seed = n + size;
        fs::write(
            folder.join(format!("{name} {n}")),
            noise(seed, (n * n * 400) as usize),
        )
        .unwrap();
    }
    tool(&["cp", "-a", "-T"], &[mounted.path(), &copy]);
    drop(mounted);
    (disk, copy)
}

#[test]
fn files_of_logical_volumes_in_pieces() {
    let dir = folder();
    let dir = dir.path();
    let disk = dir.join("disk");
    File::create(&disk).unwrap().set_len(96 * MIB).unwrap();
    let device = LoopDevice::attach(&disk, 512);
    let run = |args: &[&str]| drop(lvm(dir, &device, args));
    let path = device.path().to_str().unwrap();
    run(&["pvcreate", "-y", path]);
    run(&["vgcreate", "vg0", path]);
    let create = |name: &str, extents: &str| {
        let fixed = [
            "lvcreate", "-y", "-an", "-Zn", "-Wn", "-n", name, "-l", extents, "vg0",
        ];
        run(&fixed);
    };
    create("root", "4");
    create("home", "4");
    run(&["lvextend", "-l", "+3", "vg0/root"]);
    let (root, root_files) = file_system(dir, "root", 28 * MIB, &["mkfs.ext4", "-q"]);
    fill(dir, &device, &disk, "root", &root);

    // The one that can be looked into needs no name.
    let (image, taken) = (dir.join("image"), dir.join("taken"));
    // The device still holds the disk itself.
    imager!["backup", "-q", copy(&disk, taken.clone()), image].ok();
    let out = dir.join("out");
    imager!["extract", "-q", image, "/", out].ok();
    assert_same_contents(&root_files, &out, true);
    let json = imager!["ls", "--json", image, "/"].ok().json();
    assert_eq!(
        (&json["volume"], &json["file_system"]),
        (&"root".into(), &"ext4".into())
    );
    let lone = imager!["cat", "--volume", "home", image, "/x"];
    lone.fails("file-unreadable", 1);

    let (home, home_files) = file_system(dir, "home", 16 * MIB, &["mkfs.ntfs", "-q", "-F"]);
    fill(dir, &device, &disk, "home", &home);
    imager!["backup", "-q", "--overwrite", copy(&disk, taken), image].ok();
    let run = imager!["ls", image].refused("partition-not-found");
    for part in ["--volume", "root (28.0 MiB, ext4)", "home (16.0 MiB, ntfs)"] {
        assert!(run.stderr.contains(part), "{}", run.stderr);
    }
    imager!["ls", "--volume", "none", image].refused("partition-not-found");
    for (name, files) in [("root", &root_files), ("home", &home_files)] {
        let out = dir.join(format!("{name} out"));
        imager!["extract", "-q", "--volume", name, image, "/", out].ok();
        assert_same_contents(files, &out, true);
    }
}
