//! The list of disks, and disks that are named by something else than a path.
//!
//! Owns: what `imager disks` shows of a real device. Does not own: disks of several paths,
//! which no test machine has (`blockdev`).

use crate::disks::{self, copy, folder};
use crate::imager;
use crate::run::USAGE;
use serde_json::{Value, json};
use std::path::Path;
use testkit::loopdev::LoopDevice;

/// What the list says of a device.
fn listed(device: &Path) -> Value {
    let list = imager!["disks", "--json"].ok().json();
    let disks = list.as_array().expect("a list");
    let mut found = disks
        .iter()
        .filter(|disk| disk["path"] == device.to_str().unwrap());
    found.next().expect("the device is listed").clone()
}

#[test]
fn a_device_is_listed_with_what_is_on_it() {
    let dir = folder();
    for (imaged, sector_size, table) in [
        (disks::gpt(), 512, "gpt"),
        (disks::gpt_4k(), 4096, "gpt"),
        (disks::mbr(), 512, "mbr"),
        (disks::bare(), 512, "none"),
    ] {
        let backing = copy(&imaged.disk.path, dir.path().join("disk.img"));
        let device = LoopDevice::attach(&backing, sector_size);
        let disk = listed(device.path());
        assert_eq!(disk["size_bytes"], imaged.disk.size);
        assert_eq!(disk["sector_size"], sector_size);
        assert_eq!(
            (&disk["bus"], &disk["table"]),
            (&json!("loop"), &json!(table))
        );
        assert_eq!(disk["model"], backing.to_str().unwrap());
        assert_eq!(
            (&disk["problem"], &disk["read_only"]),
            (&Value::Null, &json!(false))
        );
        assert_eq!(
            (&disk["paths"], &disk["in_use_by"]),
            (&json!([]), &json!([]))
        );
        let map = imager!["map", "--json", device.path()].ok().json();
        assert_eq!(disk["partitions"], map["partitions"]);
        assert_eq!(disk["used_bytes"], map["used_bytes"]);
        assert_eq!(disk["disk_id"], map["disk_id"]);

        let text = String::from_utf8(imager!["disks"].ok().stdout).unwrap();
        assert!(text.contains(device.path().to_str().unwrap()), "{text}");
    }
}

#[test]
fn a_device_without_contents_tells_why() {
    let dir = folder();
    let backing = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    // Both tables wrong: nothing can be told.
    let size = disks::gpt().disk.size;
    for offset in [512 + 20, size - 512 + 20] {
        disks::flip(&backing, offset);
    }
    let device = LoopDevice::attach_read_only(&backing, 512);
    let disk = listed(device.path());
    assert_eq!(disk["table"], Value::Null);
    assert_eq!(disk["problem"]["code"], "gpt-damaged");
    assert_eq!(disk["read_only"], true);
}

#[test]
fn names_that_are_none() {
    let dir = folder();
    let image = dir.path().join("image");
    for (name, code) in [
        ("number=4000000000", "disk-not-found"),
        ("serial=NO-SUCH-SERIAL", "disk-not-found"),
        ("wwn=naa.0000000000000000", "disk-not-found"),
        ("path=/dev/no-such-disk", "disk-not-found"),
        ("no-such-disk", "disk-not-found"),
    ] {
        imager!["backup", "-q", "--json", name, image].refused(code);
        assert!(!image.exists());
    }
    let run = imager!["map", "number=first"];
    assert_eq!(run.exit, Some(USAGE), "{}", run.stderr);
}

#[test]
fn a_file_comes_before_a_disk_of_its_name() {
    let dir = folder();
    let backing = copy(&disks::bare().disk.path, dir.path().join("disk.img"));
    let device = LoopDevice::attach(&backing, 512);
    let number = listed(device.path())["number"].to_string();
    std::fs::copy(&disks::gpt().disk.path, dir.path().join(&number)).unwrap();
    let mut command = crate::run::command(["map", "--json", &number]);
    command.current_dir(dir.path());
    let map = crate::run::finish(command).ok().json();
    assert_eq!(map["table"], "gpt", "the disk was taken for the file");
}
