//! Partitions that stay while the rest of the disk is replaced: not one byte of them
//! changes, and a valid table lists them wherever a restore is cut off.
//!
//! Owns: `--keep`. Does not own: the tables themselves (`diskmap`).

use crate::compare::map;
use crate::disks::{self, Imaged, MIB, copy, folder, garbage, hash, peek, poke};
use crate::imager;
use crate::run::{FAILED, REFUSED, Run, USAGE, command, finish};
use blockdev::Device;
use imager::restore::{self, Source, stream::ContainerSource};
use std::fs;
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::build::{BuiltDisk, BuiltPartition};
use testkit::loopdev::LoopDevice;
use wire::RestoreScope;

fn put_back(image: &Path, target: &Path, more: &[&str]) -> Run {
    let mut restore = command(["restore", "-q", "--json", "--yes", "--save-tables", "none"]);
    restore.args(more).arg(image).arg(target);
    finish(restore)
}

fn refused(image: &Path, target: &Path, more: &[&str], code: &str) -> String {
    let exit = if code == "usage" { USAGE } else { REFUSED };
    let before = hash(target);
    let said = put_back(image, target, more)
        .fails(code, exit)
        .disk("untouched")
        .stderr;
    put_back(image, target, &[&["--plan"], more].concat()).fails(code, exit);
    assert_eq!(hash(target), before, "{code}, but something was written");
    said
}

/// Whether the disk looks like a restore of that kind that was cut off.
pub fn is_unfinished(image: &Path, target: &Path, scope: &RestoreScope) -> bool {
    let file = BufReader::new(fs::File::open(image).unwrap());
    let source = ContainerSource::open(file, &imager::keyring::Keyring::default()).unwrap();
    let mut device = Device::open_read(target).unwrap();
    device.set_sector_size(source.layout().disk.sector_size);
    restore::is_unfinished(&device, source.layout(), scope).unwrap()
}

/// The imaged disk with other contents in one partition: the user's data since then.
fn with_data(imaged: &Imaged, at: usize, to: PathBuf) -> PathBuf {
    let disk = copy(&imaged.disk.path, to);
    poke(&disk, imaged.disk.partitions[at].start, &data(imaged, at));
    disk
}

fn data(imaged: &Imaged, at: usize) -> Vec<u8> {
    let size = imaged.disk.partitions[at].size;
    (0..size).map(|n| (n * n % 249) as u8 + 1).collect()
}

/// The partition holds the user's data, every other one what was imaged.
fn assert_kept(imaged: &Imaged, at: usize, disk: &Path) {
    let part = &imaged.disk.partitions[at];
    assert!(
        peek(disk, part.start, part.size as usize) == data(imaged, at),
        "it was changed"
    );
    let others = imaged.disk.partitions.iter();
    let others = others.filter(|other| other.number != part.number);
    let rest = BuiltDisk {
        partitions: others.cloned().collect::<Vec<BuiltPartition>>(),
        ..imaged.disk.clone()
    };
    rest.verify(disk);
}

/// All partitions with data, and where a restore may keep one.
fn cases() -> Vec<(&'static Imaged, usize)> {
    vec![
        (disks::gpt(), 1),
        (disks::gpt(), 3),
        (disks::gpt_4k(), 1),
        (disks::mbr(), 0),
        (disks::mbr(), 2),
        (disks::mbr(), 4),
    ]
}

#[test]
fn what_stays_is_not_touched_and_the_rest_is_the_image_s() {
    let dir = folder();
    for (imaged, at) in cases() {
        let number = imaged.disk.partitions[at].number.to_string();
        let backing = with_data(imaged, at, dir.path().join("disk.img"));
        for other in imaged
            .disk
            .partitions
            .iter()
            .filter(|p| p.number.to_string() != number)
        {
            poke(&backing, other.start, &vec![0xee; other.size as usize]);
        }
        let device = LoopDevice::attach(&backing, imaged.disk.sector_size);
        put_back(&imaged.image, device.path(), &["--keep", &number]).ok();
        assert_kept(imaged, at, &backing);
        let (was, is) = (
            map(&imaged.disk.path, imaged.disk.sector_size),
            map(device.path(), imaged.disk.sector_size),
        );
        assert_eq!(was["disk_id"], is["disk_id"]);
        assert!(
            is["warnings"].as_array().unwrap().is_empty(),
            "{}",
            is["warnings"]
        );
        assert_eq!(peek(&backing, 0, 440), peek(&imaged.disk.path, 0, 440));
    }
}

/// The partitions as their numbers, starts and sizes.
fn partitions(map: &serde_json::Value) -> Vec<(u64, u64, u64)> {
    let list = map["partitions"].as_array().unwrap();
    let number = |part: &serde_json::Value, key: &str| part[key].as_u64().unwrap();
    list.iter()
        .map(|p| {
            (
                number(p, "number"),
                number(p, "start_bytes"),
                number(p, "size_bytes"),
            )
        })
        .collect()
}

#[test]
fn wherever_it_is_cut_a_valid_table_lists_what_stays() {
    let dir = folder();
    // Early and late in the stream.
    let cases = [
        (disks::gpt(), 1, &[3, 1][..]),
        (disks::gpt_4k(), 1, &[1]),
        (disks::mbr(), 2, &[1]),
        (disks::mbr(), 4, &[3]),
    ];
    for (imaged, at, cuts) in cases {
        let part = &imaged.disk.partitions[at];
        let number = part.number.to_string();
        let image = fs::read(&imaged.image).unwrap();
        let size = imaged.disk.sector_size.to_string();
        for cut in cuts.iter().map(|cut| (image.len() - 1) / cut) {
            let target = with_data(imaged, at, dir.path().join("target.img"));
            let mut child = command([
                "restore",
                "--json",
                "--keep",
                &number,
                "--sector-size",
                &size,
            ]);
            let mut child = child
                .arg("-")
                .arg(&target)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            let _ = child.stdin.take().unwrap().write_all(&image[..cut]);
            let run = Run::from(child.wait_with_output().unwrap());
            run.fails("image-damaged", FAILED)
                .disk("partitions-incomplete");
            let between = map(&target, imaged.disk.sector_size);
            let wanted = (u64::from(part.number), part.start, part.size);
            assert!(partitions(&between).contains(&wanted), "{between}");
            assert!(
                between["warnings"].as_array().unwrap().is_empty(),
                "{between}"
            );
            // Nothing else is there that could be mounted, and nothing boots.
            for other in imaged
                .disk
                .partitions
                .iter()
                .filter(|p| p.number != part.number)
            {
                let head = peek(&target, other.start, other.size.min(MIB) as usize);
                assert!(
                    head.iter().all(|&b| b == 0),
                    "partition {} has a head",
                    other.number
                );
            }
            assert!(
                peek(&target, 0, 440).iter().all(|&b| b == 0),
                "boot code is there"
            );
            let scope = RestoreScope {
                keep: vec![part.number.into()],
                ..RestoreScope::default()
            };
            assert!(is_unfinished(&imaged.image, &target, &scope));
            // Tables are written sector by sector: one of them may be the last one already.
            let place = u64::from(imaged.disk.sector_size);
            if peek(&target, place, 8) == b"EFI PART" {
                let sector = place as usize;
                let (interim, first) =
                    (peek(&target, 0, sector), peek(&imaged.disk.path, 0, sector));
                poke(&target, 0, &first);
                assert!(is_unfinished(&imaged.image, &target, &scope));
                // Neither the one nor the other: somebody was here.
                poke(&target, 100, &[first[100] ^ 1]);
                assert!(!is_unfinished(&imaged.image, &target, &scope));
                poke(&target, 0, &interim);
            }
            // The next run goes on from there.
            put_back(
                &imaged.image,
                &target,
                &["--keep", &number, "--sector-size", &size],
            )
            .ok();
            assert!(!is_unfinished(&imaged.image, &target, &scope));
            assert_kept(imaged, at, &target);
        }
    }
}

#[test]
fn a_larger_disk_keeps_a_partition_and_grows_another_one() {
    let dir = folder();
    let imaged = disks::gpt();
    let target = with_data(imaged, 1, dir.path().join("disk.img"));
    fs::File::options()
        .write(true)
        .open(&target)
        .unwrap()
        .set_len(100 * MIB)
        .unwrap();
    let run = put_back(&imaged.image, &target, &["--keep", "2", "--grow", "last"]).ok();
    assert!(
        run.json()["grown"]
            .as_str()
            .unwrap()
            .contains("partition 4")
    );
    assert_kept(imaged, 1, &target);
    let output = Command::new("sgdisk")
        .arg("-v")
        .arg(&target)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("No problems found") && !said.contains("corrupt GPT"),
        "{said}"
    );
    refused(
        &imaged.image,
        &target,
        &["--keep", "2", "--grow", "2"],
        "usage",
    );
}

#[test]
fn the_entry_of_what_stays_is_the_disk_s() {
    let dir = folder();
    let imaged = disks::gpt();
    let target = with_data(imaged, 1, dir.path().join("disk.img"));
    let sgdisk = |args: &[&str]| {
        let output = Command::new("sgdisk")
            .args(args)
            .arg(&target)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    sgdisk(&["-u", "2:R", "-c", "2:my data"]);
    let guid = map(&target, 512)["partitions"][1]["guid"].clone();
    put_back(&imaged.image, &target, &["--keep", "2"]).ok();
    let after = map(&target, 512);
    assert_eq!(
        (
            &after["partitions"][1]["guid"],
            &after["partitions"][1]["name"]
        ),
        (&guid, &"my data".into())
    );
    assert_kept(imaged, 1, &target);

    // One that the image does not know, in the space behind its partitions.
    sgdisk(&["-n", "7:0:0"]);
    let before = partitions(&map(&target, 512));
    let json = put_back(&imaged.image, &target, &["--plan", "--keep", "7"])
        .ok()
        .json();
    assert!(
        json["notes"].to_string().contains("not in the image"),
        "{json}"
    );
    put_back(&imaged.image, &target, &["--keep", "7", "--keep", "2"]).ok();
    assert_eq!(partitions(&map(&target, 512)), before);
    assert_kept(imaged, 1, &target);
}

/// An image that was made to harm: what it writes over partition 2 is called a whole disk,
/// which no table lists.
#[test]
fn no_image_is_written_over_what_stays() {
    let dir = folder();
    let target = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    let device = Device::open_read(&target).unwrap();
    let file = BufReader::new(fs::File::open(&disks::gpt().image).unwrap());
    let source = ContainerSource::open(file, &imager::keyring::Keyring::default()).unwrap();
    let mut layout = source.layout().clone();
    let scope = RestoreScope {
        keep: vec![2.into()],
        ..RestoreScope::default()
    };
    restore::plan(&layout, &device, &scope).unwrap();
    for region in &mut layout.regions {
        if region.number == Some(2) {
            (region.kind, region.number) = ("whole".into(), None);
        }
    }
    let report = restore::plan(&layout, &device, &scope).unwrap_err();
    assert_eq!(report.code, wire::Code::ImageDamaged, "{report}");
}

#[test]
fn what_image_and_disk_disagree_about_cannot_stay() {
    let dir = folder();
    let imaged = disks::gpt();
    let target = with_data(imaged, 1, dir.path().join("disk.img"));
    refused(
        &imaged.image,
        &target,
        &["--keep", "9"],
        "partition-not-found",
    );
    refused(
        &imaged.image,
        &target,
        &["--keep", "2,start=5"],
        "partition-identity",
    );
    refused(
        &disks::mbr().image,
        &target,
        &["--keep", "2"],
        "table-type-mismatch",
    );
    let all = ["--keep", "1", "--keep", "2", "--keep", "3", "--keep", "4"];
    refused(&imaged.image, &target, &all, "usage");
    let sgdisk = |args: &[&str]| {
        let output = Command::new("sgdisk")
            .args(args)
            .arg(&target)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    sgdisk(&["-t", "2:8200"]);
    refused(
        &imaged.image,
        &target,
        &["--keep", "2"],
        "partition-type-mismatch",
    );
    sgdisk(&["-t", "2:8300", "-d", "2", "-n", "2:75776:+8M"]);
    refused(
        &imaged.image,
        &target,
        &["--keep", "2"],
        "partition-size-mismatch",
    );
    sgdisk(&["-d", "2", "-n", "2:79872:+8M"]);
    let said = refused(
        &imaged.image,
        &target,
        &["--keep", "2"],
        "partition-identity",
    );
    assert!(said.contains(&(79872 * 512).to_string()), "{said}");
    // One that the image has no room for.
    sgdisk(&["-d", "2", "-n", "9:79872:+8M"]);
    refused(
        &imaged.image,
        &target,
        &["--keep", "9"],
        "partition-identity",
    );
    // No table that could be relied on.
    let empty = garbage(dir.path().join("garbage.img"), 80 * MIB);
    refused(
        &imaged.image,
        &empty,
        &["--keep", "2"],
        "table-type-mismatch",
    );
    let small = copy(&imaged.disk.path, dir.path().join("small.img"));
    fs::File::options()
        .write(true)
        .open(&small)
        .unwrap()
        .set_len(50 * MIB)
        .unwrap();
    refused(&imaged.image, &small, &["--keep", "2"], "disk-too-small");
    let both = imager![
        "restore",
        "--keep",
        "2",
        "--partition",
        "2",
        imaged.image,
        target
    ];
    assert_eq!(both.exit, Some(USAGE));
}
