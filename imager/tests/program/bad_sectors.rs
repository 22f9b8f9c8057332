//! Disks that cannot be read, written or trusted everywhere: real block devices that
//! fail where the test wants it.
//!
//! Owns: the codes and addresses, what `--skip-bad` saves and says, and that nothing with
//! a bad range is ever called clean. Does not own: how reads get smaller (unit tests of
//! the reader).

use crate::disks::{self, Imaged, copy, folder, garbage, hash, peek};
use crate::imager;
use crate::run::{FAILED, Run};
use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use testkit::faulty_file::{FaultyFile, FileFault};
use testkit::loopdev::LoopDevice;

/// A copy of a disk as a block device with faults. Fields go in this order: the device
/// before the file that it is on.
pub struct FaultyDevice {
    device: LoopDevice,
    file: FaultyFile,
    backing: PathBuf,
}

impl FaultyDevice {
    pub fn new(of: &Path, folder: &Path, sector_size: u32) -> FaultyDevice {
        let backing = copy(of, folder.join("faulty.img"));
        // A disk that is healthy while the kernel looks at it first.
        let file = FaultyFile::new(&backing, &[]);
        let device = LoopDevice::attach(&file.path(), sector_size);
        FaultyDevice {
            device,
            file,
            backing,
        }
    }

    pub fn bad(self, sectors: &[Range<u64>], sector_size: u64) -> FaultyDevice {
        for range in sectors {
            let bytes = range.start * sector_size..range.end * sector_size;
            self.file.add(bytes, FileFault::Read);
        }
        self
    }

    pub fn path(&self) -> &Path {
        self.device.path()
    }
}

/// First sector and file system of partition `number` of a disk that was built.
fn first_sector(imaged: &Imaged, number: u32) -> u64 {
    let parts = &imaged.disk.partitions;
    let part = parts.iter().find(|part| part.number == number);
    part.expect("the partition").start / u64::from(imaged.disk.sector_size)
}

fn bad_ranges(run: &Run) -> Vec<Value> {
    let value = run.json()["bad_ranges"].clone();
    value.as_array().expect("a list").clone()
}

#[test]
fn unreadable_sectors_fail_a_backup_with_their_addresses() {
    let dir = folder();
    // Far from where anything has its signature.
    let noise = first_sector(disks::gpt(), 4) + 4200;
    let device = FaultyDevice::new(&disks::gpt().disk.path, dir.path(), 512)
        .bad(&[noise + 5..noise + 6, noise + 100..noise + 103], 512);
    let before = hash(&device.backing);
    let image = dir.path().join("image");
    let run = imager!["backup", "-q", "--json", device.path(), image].fails("read-error", FAILED);
    let found = run.json()["found"].as_str().unwrap().to_owned();
    let named = format!(
        "4 sectors of 512 bytes (2048 bytes): partition 4 (unknown content): {}, {}-{}",
        noise + 5,
        noise + 100,
        noise + 102
    );
    assert!(found.contains(&named), "{found}");
    assert!(!image.exists(), "an image of a disk that was not read");
    assert_eq!(hash(&device.backing), before);
}

#[test]
fn what_is_passed_over_is_recorded_and_never_called_clean() {
    let dir = folder();
    for (imaged, sector_size) in [(disks::gpt(), 512u64), (disks::gpt_4k(), 4096)] {
        let dir = folder_in(dir.path(), &sector_size.to_string());
        // Far from where anything has its signature.
        let noise = first_sector(imaged, 4) + (800 << 10) / sector_size;
        let bad = [noise + 5..noise + 6, noise + 10..noise + 13];
        let device =
            FaultyDevice::new(&imaged.disk.path, &dir, sector_size as u32).bad(&bad, sector_size);
        let image = dir.join("image");
        let run = imager!["backup", "-q", "--json", "--skip-bad", device.path(), image];
        let run = run.warns("read-error");
        assert_eq!(run.json()["result"], "done-with-bad-ranges");
        let expected: Vec<Value> = bad
            .iter()
            .map(|range| {
                json!({
                    "partition": 4,
                    "file_system": "",
                    "start_bytes": range.start * sector_size,
                    "size_bytes": (range.end - range.start) * sector_size,
                })
            })
            .collect();
        assert_eq!(bad_ranges(&run), expected);
        drop(device);

        let info = imager!["info", "--json", image].ok();
        assert_eq!(info.json()["format_version"], 2);
        assert_eq!(bad_ranges(&info), expected);
        let text = imager!["info", image].ok();
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("warning: read-error: "), "{text}");
        let verified = imager!["verify", "-q", "--json", image].warns("read-error");
        assert_eq!(verified.json()["result"], "done-with-bad-ranges");

        let size = std::fs::metadata(&imaged.disk.path).unwrap().len();
        let target = garbage(dir.join("target.img"), size);
        let sector_text = sector_size.to_string();
        let run = imager![
            "restore",
            "-q",
            "--json",
            "--sector-size",
            sector_text,
            image,
            target
        ];
        let run = run.warns("read-error");
        assert_eq!(run.json()["result"], "done-with-bad-ranges");
        assert_eq!(bad_ranges(&run), expected);
        let text = imager!["restore", "-q", "--sector-size", sector_text, image, target];
        let text = String::from_utf8(text.warns("read-error").stdout).unwrap();
        assert!(text.contains("not all of it was in the image"), "{text}");

        // The disk is what it was, with zeros where it could not be read.
        let truth = copy(&imaged.disk.path, dir.join("truth.img"));
        for range in &bad {
            let len = ((range.end - range.start) * sector_size) as usize;
            let was = peek(&truth, range.start * sector_size, len);
            assert!(was.iter().any(|&byte| byte != 0), "the test proves nothing");
            disks::poke(&truth, range.start * sector_size, &vec![0; len]);
        }
        let difference = crate::compare::difference(&truth, &target, sector_size as u32);
        assert_eq!(difference, None);
    }
}

fn folder_in(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir(&path).unwrap();
    path
}

#[test]
fn a_healthy_disk_has_no_bad_ranges() {
    let dir = folder();
    let image = dir.path().join("image");
    let disk = &disks::bare().disk.path;
    let run = imager!["backup", "-q", "--json", "--skip-bad", disk, image].ok();
    assert_eq!(run.json()["result"], "done");
    assert!(bad_ranges(&run).is_empty());
    let target = dir.path().join("target.img");
    let run = imager!["restore", "-q", "--json", image, target].ok();
    assert_eq!(run.json()["result"], "done");
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    disks::bare().disk.verify(&target);
}

/// First byte of the block bitmap of an ext4 in a partition.
fn block_bitmap(imaged: &Imaged, number: usize) -> u64 {
    let part = &imaged.disk.partitions[number];
    let place = format!("{}?offset={}", imaged.disk.path.display(), part.start);
    let out = Command::new("dumpe2fs").arg(place).output();
    let out = out.expect("dumpe2fs of e2fsprogs");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let field = |name: &str| -> u64 {
        let (_, rest) = text.split_once(name).expect(name);
        let digits = rest.trim_start().chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().expect(name)
    };
    part.start + field("Block bitmap at ") * field("Block size:")
}

#[test]
fn unreadable_metadata_makes_one_partition_full_sector() {
    let dir = folder();
    let sector = block_bitmap(disks::gpt(), 1) / 512;
    let device = FaultyDevice::new(&disks::gpt().disk.path, dir.path(), 512)
        .bad(std::slice::from_ref(&(sector..sector + 1)), 512);
    let image = dir.path().join("image");
    let run = imager!["backup", "-q", "--json", device.path(), image].fails("read-error", FAILED);
    let found = run.json()["found"].to_string();
    assert!(found.contains(&format!("byte {}", sector * 512)), "{found}");
    assert!(!image.exists());

    let run = imager!["backup", "-q", "--json", "--skip-bad", device.path(), image];
    let run = run.warns("read-error");
    let warnings = run.json()["warnings"].to_string();
    assert!(warnings.contains("partition 2: "), "{warnings}");
    let info = imager!["info", "--json", image].ok().json();
    let method = |number: u32| {
        let regions = info["regions"].as_array().unwrap().iter();
        let mut of_number = regions.filter(|region| region["number"] == number);
        let region = of_number.next().unwrap();
        (
            region["method"].as_str().unwrap().to_owned(),
            region["file_system"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(method(2), ("full".into(), "ext4".into()));
    // It is known to be ext4, so no system is suspended to it, and the others' maps hold.
    assert_eq!(method(1), ("used".into(), "fat32".into()));
    assert_eq!(bad_ranges(&run)[0]["start_bytes"], sector * 512);
    assert_eq!(bad_ranges(&run).len(), 1);
}

#[test]
fn an_unreadable_copy_of_a_table_is_no_loss() {
    let dir = folder();
    let last = disks::gpt().disk.size / 512 - 1;
    for (number, sector) in [1, 3, last].into_iter().enumerate() {
        let dir = folder_in(dir.path(), &number.to_string());
        let device = FaultyDevice::new(&disks::gpt().disk.path, &dir, 512)
            .bad(std::slice::from_ref(&(sector..sector + 1)), 512);
        let image = dir.join("image");
        // RAID sets keep their mark in the last sector: without it only what nobody could
        // have spread over several disks is sure, which has to be asked for.
        let option = if sector == last { "--skip-bad" } else { "-q" };
        let run = imager!["backup", "--json", option, device.path(), image];
        let run = run.warns("gpt-damaged");
        let found = run.json()["warnings"].to_string();
        let place = format!("cannot read at byte {}", sector * 512);
        assert!(found.contains("cannot read at byte"), "{place}: {found}");
        assert!(
            bad_ranges(&run).is_empty(),
            "the table is whole in the image"
        );
        let target = dir.join("target");
        imager!["restore", "-q", image, target].ok();
        let difference = crate::compare::difference(&disks::gpt().disk.path, &target, 512);
        assert_eq!(difference, None);
    }
    // There is no second copy of the first sector.
    let first = std::slice::from_ref(&(0..1));
    let device = FaultyDevice::new(&disks::gpt().disk.path, dir.path(), 512).bad(first, 512);
    let image = dir.path().join("image");
    for option in ["--strict", "--skip-bad"] {
        let run = imager!["backup", "-q", "--json", option, device.path(), image];
        run.fails("read-error", FAILED);
        assert!(!image.exists());
    }
    // As a disk of which nothing is known, it can be saved all the same.
    let run = imager![
        "backup",
        "-q",
        "--json",
        "--full",
        "--skip-bad",
        device.path(),
        image
    ];
    assert_eq!(bad_ranges(&run.warns("read-error"))[0]["start_bytes"], 0);
}

#[test]
fn a_disk_that_answers_no_more_is_not_one_of_bad_sectors() {
    let dir = folder();
    let backing = copy(&disks::noise().disk.path, dir.path().join("faulty.img"));
    let file = FaultyFile::new(&backing, &[]);
    let out = dir.path().join("out");
    nix::unistd::mkfifo(&out, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut backup = crate::run::command([
        "backup".as_ref(),
        "-q".as_ref(),
        "--skip-bad".as_ref(),
        "--codec".as_ref(),
        "none".as_ref(),
        file.path().as_os_str(),
        out.as_os_str(),
    ]);
    let backup = backup.spawn().expect("imager starts");
    // It has read a part when its output begins, and waits for its reader.
    let mut reader = std::fs::File::open(&out).unwrap();
    std::io::Read::read_exact(&mut reader, &mut [0; 1 << 16]).unwrap();
    file.add(0..u64::MAX, FileFault::Read);
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    let run = Run::from(backup.wait_with_output().unwrap()).fails("read-error", FAILED);
    assert!(run.stderr.contains("answers no more"), "{}", run.stderr);
}

/// A restore to a device of which some bytes have a fault.
fn restore_to(fault: FileFault, range: Range<u64>, more: &[&str]) -> Run {
    let dir = folder();
    let backing = garbage(dir.path().join("faulty.img"), disks::gpt().disk.size);
    let file = FaultyFile::new(&backing, &[(range, fault)]);
    let device = LoopDevice::attach(&file.path(), 512);
    let image = disks::gpt().image.as_os_str();
    let mut command = crate::run::command(["restore".as_ref(), image, device.path().as_os_str()]);
    command.args(["-q", "--json", "--yes", "--save-tables", "none"]);
    command.args(more);
    crate::run::finish(command)
}

#[test]
fn a_write_that_fails_names_its_place() {
    let start = first_sector(disks::gpt(), 4) * 512 + (2 << 20);
    let run = restore_to(FileFault::Write, start..start + 512, &[]);
    run.fails("write-error", FAILED).disk("incomplete");
}

#[test]
fn what_reads_back_differently_names_its_place() {
    let start = first_sector(disks::gpt(), 4) * 512 + (2 << 20);
    let run = restore_to(FileFault::LostWrite, start..start + 512, &[]);
    let run = run.fails("verify-mismatch", FAILED).disk("incomplete");
    let found = run.json()["found"].to_string();
    let cell = start / (1 << 20) * (1 << 20);
    assert!(found.contains(&cell.to_string()), "{found}");
}
