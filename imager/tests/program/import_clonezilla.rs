//! `imager import` of Clonezilla folders, made by the same commands that Clonezilla uses: dd,
//! sfdisk, partclone, a compressor and split.
//!
//! Owns: whole disks of them, and that nothing of one is left out silently. Does not own:
//! single partclone images (`import_partclone`), names and texts (`crates/foreign`).

use crate::compare::{map, partition_difference};
use crate::disks::{MIB, copy, flip, folder, peek, poke};
use crate::import::{fails, imported};
use crate::import_partclone::{run, text};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use testkit::build::{DiskBuilder, Tree};

fn gpt(dir: &Path) -> PathBuf {
    let tree = Tree::new(21, 20, 90_000);
    let disk = dir.join("gpt.img");
    let _ = fs::remove_file(&disk);
    let plan = DiskBuilder::gpt(64 * MIB, 512).boot_code(1);
    let plan = plan.fat32(36 * MIB, &tree).ext4(12 * MIB, &tree);
    plan.swap(4 * MIB).raw(3 * MIB, 7).build(&disk);
    disk
}

pub fn mbr(dir: &Path) -> PathBuf {
    let tree = Tree::new(22, 20, 90_000);
    let disk = dir.join("mbr.img");
    let _ = fs::remove_file(&disk);
    let plan = DiskBuilder::mbr(56 * MIB, 512).boot_code(3);
    let plan = plan.ext("ext2", 1024, 12 * MIB, &tree).logical();
    let plan = plan.ext4(16 * MIB, &tree).swap(4 * MIB);
    plan.fat(16, 8 * MIB, &tree).raw(2 * MIB, 9).build(&disk);
    disk
}

/// The dump of the table, as of a disk `/dev/sda`.
pub fn dump(disk: &Path) -> String {
    run("sfdisk", &["-d", text(disk)]).replace(text(disk), "/dev/sda")
}

/// Saves a disk as `sda` into a folder as Clonezilla does, with pieces of 1 MiB.
pub fn save(disk: &Path, dir: &Path, packer: &str) -> PathBuf {
    let to = dir.join("folder");
    let _ = fs::remove_dir_all(&to);
    fs::create_dir(&to).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(to.join(name), bytes).unwrap();
    let found = map(disk, 512);
    let parts = found["partitions"].as_array().unwrap();
    let number = |part: &Value, key: &str| part[key].as_u64().unwrap();
    let size = number(&found, "size_bytes");
    write("disk", b"sda\n");
    write("sda-pt.sf", dump(disk).as_bytes());
    let parted = format!(
        "Model: ATA DISK (scsi)\nDisk /dev/sda: {}s\nSector size (logical/physical): 512B/512B\n",
        size / 512
    );
    write("sda-pt.parted", parted.as_bytes());
    write("sda-mbr", &peek(disk, 0, 512));
    if found["table"] == "gpt" {
        write("sda-gpt-1st", &peek(disk, 0, 34 * 512));
        write("sda-gpt-2nd", &peek(disk, size - 33 * 512, 33 * 512));
    } else {
        let first = parts
            .iter()
            .map(|part| number(part, "start_bytes"))
            .min()
            .unwrap();
        let hidden = peek(disk, 512, first as usize - 512);
        write("sda-hidden-data-after-mbr", &hidden);
    }
    let mut saved = Vec::new();
    for part in parts {
        let name = format!("sda{}", part["number"]);
        let (start, size) = (number(part, "start_bytes"), number(part, "size_bytes"));
        let file = dir.join(&name);
        fs::write(&file, peek(disk, start, size as usize)).unwrap();
        let kind = match part["file_system"].as_str().unwrap() {
            "swap" => {
                let info = format!("UUID={}\nLABEL=\n", part["uuid"]);
                write(&format!("swappt-{name}.info"), info.as_bytes());
                continue;
            }
            "" => "dd",
            kind if kind.starts_with("fat") => "vfat",
            kind => kind,
        };
        let (save, suffix) = match kind {
            "dd" => (format!("cat {}", file.display()), "dd-img"),
            _ => {
                let log = dir.join("log");
                let clone = format!(
                    "partclone.{kind} -c -q -L {} -s {} -o -",
                    log.display(),
                    file.display()
                );
                (clone, &*format!("{kind}-ptcl-img").leak())
            }
        };
        let (pack, ending) = match packer {
            "gzip" => ("| gzip -1", ".gz"),
            "zstd" => ("| zstd -q -1", ".zst"),
            "xz" => ("| xz -0 -T2 --block-size=2MiB", ".xz"),
            "lz4" => ("| lz4 -q -1", ".lz4"),
            "bzip2" => ("| bzip2 -1", ".bz2"),
            _ => ("", ""),
        };
        let place = to.join(format!("{name}.{suffix}{ending}."));
        let line = format!(
            "set -o pipefail; {save} {pack} | split -b 1M - {}",
            place.display()
        );
        run("bash", &["-c", &line]);
        saved.push(name);
    }
    write("parts", format!("{}\n", saved.join(" ")).as_bytes());
    to
}

#[test]
fn whole_disks_come_back() {
    let dir = folder();
    for (disk, packer) in [
        (gpt(dir.path()), "gzip"),
        (mbr(dir.path()), "zstd"),
        (mbr(dir.path()), "none"),
        (mbr(dir.path()), "xz"),
        (gpt(dir.path()), "lz4"),
        (mbr(dir.path()), "bzip2"),
    ] {
        let saved = save(&disk, dir.path(), packer);
        let (run_of, restored) = imported(&saved, dir.path(), &[]);
        let said = run_of.json();
        assert_eq!(said["format"], "clonezilla");
        assert_eq!(said["disk_bytes"], fs::metadata(&disk).unwrap().len());
        assert!(
            !run_of.stderr.contains("that the source does not hold"),
            "{}",
            run_of.stderr
        );
        assert_eq!(
            partition_difference(&disk, &restored, 512),
            None,
            "{packer}"
        );
        assert_eq!(dump(&disk), dump(&restored));
        let before = if disk.ends_with("mbr.img") {
            MIB as usize
        } else {
            34 * 512
        };
        assert!(
            peek(&disk, 0, before) == peek(&restored, 0, before),
            "{packer}"
        );
        for part in map(&disk, 512)["partitions"].as_array().unwrap() {
            let out = dir.path().join("part");
            let number = |key: &str| part[key].as_u64().unwrap();
            let bytes = peek(
                &restored,
                number("start_bytes"),
                number("size_bytes") as usize,
            );
            fs::write(&out, bytes).unwrap();
            match part["file_system"].as_str().unwrap() {
                "ext2" | "ext4" => drop(run("e2fsck", &["-fn", text(&out)])),
                name if name.starts_with("fat") => drop(run("fsck.fat", &["-n", text(&out)])),
                _ => {}
            }
        }
    }
}

#[test]
fn a_disk_among_several_is_chosen_by_name() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "gzip");
    fs::write(saved.join("disk"), "sda sdb\n").unwrap();
    fails(&saved, dir.path(), &[], "import-unsupported");
    fails(&saved, dir.path(), &["--disk", "sdc"], "import-unsupported");
    fails(&saved, dir.path(), &["--disk", "sdb"], "image-damaged");
    imported(&saved, dir.path(), &["--disk", "sda"]);
}

#[test]
fn nothing_is_left_out_silently() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "gzip");
    let names: Vec<String> = fs::read_dir(&saved)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let aside = dir.path().join("aside");
    for name in &names {
        let file = saved.join(name);
        fs::rename(&file, &aside).unwrap();
        // Boot code behind the MBR may not be there; the list is not needed.
        match name.as_str() {
            "sda-hidden-data-after-mbr" | "parts" => {}
            "disk" => drop(fails(&saved, dir.path(), &[], "import-unsupported")),
            _ => drop(fails(&saved, dir.path(), &[], "image-damaged")),
        }
        fs::rename(&aside, &file).unwrap();
        // Cut off, and changed in the middle.
        if name.contains("-img.gz.") {
            let whole = copy(&file, aside.clone());
            let len = fs::metadata(&file).unwrap().len();
            let cut = fs::File::options().write(true).open(&file).unwrap();
            cut.set_len(len - 1).unwrap();
            fails(&saved, dir.path(), &[], "image-damaged");
            fs::copy(&whole, &file).unwrap();
            flip(&file, len / 2);
            fails(&saved, dir.path(), &[], "image-damaged");
            fs::copy(&whole, &file).unwrap();
        }
    }
    let change = |name: &str, from: &str, to: &str, code: &str| {
        let file = saved.join(name);
        let before = fs::read_to_string(&file).unwrap();
        assert!(before.contains(from), "{name}: {before}");
        fs::write(&file, before.replace(from, to)).unwrap();
        fails(&saved, dir.path(), &[], code);
        fs::write(&file, before).unwrap();
    };
    change(
        "sda-pt.sf",
        "label: dos",
        "label: sun",
        "import-unsupported",
    );
    change("sda-pt.sf", "start=", "start=1", "image-damaged");
    change("sda-pt.parted", "512B/512B", "520B/520B", "image-damaged");
    change("parts", "sda1", "sda1 sda9", "image-damaged");
    let more = |name: &str, code: &str| {
        fs::write(saved.join(name), "/dev/vg /dev/sda9 x\n").unwrap();
        fails(&saved, dir.path(), &[], code);
        fs::remove_file(saved.join(name)).unwrap();
    };
    more("lvm_vg_dev.list", "import-unsupported");
    more("ecryptfs.info", "import-unsupported");
    more("sda1.ntfs-img.gz.aa", "image-damaged");
    // The table in the MBR is not the one that was saved beside it.
    flip(&saved.join("sda-mbr"), 446 + 13);
    let text = fails(&saved, dir.path(), &[], "image-damaged").stderr;
    assert!(text.contains("partition table"), "{text}");
    flip(&saved.join("sda-mbr"), 446 + 13);
    imported(&saved, dir.path(), &[]);
}

/// Lists and decoders of all partitions at once would be as much memory as a folder likes.
#[test]
fn partitions_are_opened_one_after_another() {
    let dir = folder();
    let disk = dir.path().join("many.img");
    let plan = (0..40).fold(DiskBuilder::gpt(64 * MIB, 512), |plan, seed| {
        plan.raw(MIB, seed)
    });
    plan.build(&disk);
    let saved = save(&disk, dir.path(), "gzip");
    let image = dir.path().join("image");
    let line = format!(
        "ulimit -n 32; exec {} import -q {} {}",
        env!("CARGO_BIN_EXE_imager"),
        text(&saved),
        text(&image)
    );
    run("bash", &["-c", &line]);
}

/// Kernel partitions of boards begin with what they are packed with.
#[test]
fn a_partition_that_begins_as_a_packed_file_does_is_no_packed_file() {
    let dir = folder();
    let disk = gpt(dir.path());
    let found = map(&disk, 512);
    let parts = found["partitions"].as_array().unwrap();
    let raw = parts.iter().find(|part| part["number"] == 4).unwrap();
    let start = raw["start_bytes"].as_u64().unwrap();
    for head in [&b"\x1f\x8b\x08\0"[..], b"\xfd7zXZ\0", b"\x5d\0\0\x80\0"] {
        poke(&disk, start, head);
        for packer in ["none", "zstd"] {
            let saved = save(&disk, dir.path(), packer);
            let (_, restored) = imported(&saved, dir.path(), &[]);
            assert_eq!(partition_difference(&disk, &restored, 512), None);
        }
    }
    // The other way round its name is believed, too.
    let saved = save(&disk, dir.path(), "gzip");
    flip(&saved.join("sda4.dd-img.gz.aa"), 0);
    let said = fails(&saved, dir.path(), &[], "image-damaged").stderr;
    assert!(said.contains("compressed by its name"), "{said}");
}
