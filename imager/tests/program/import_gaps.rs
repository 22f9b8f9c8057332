//! `imager import` of folders and images that lack something, and of good ones that look
//! unusual.
//!
//! Owns: that what a source lacks is told or refused, and that what is good is not refused.
//! Does not own: files that are torn or gone altogether (`import_clonezilla`,
//! `import_partclone`).

use crate::compare::partition_difference;
use crate::disks::{MIB, flip, folder, peek, poke};
use crate::import::{fails, imported};
use crate::import_clonezilla::{dump, mbr, save};
use crate::import_partclone::{KINDS, clone, make, run, text};
use std::fs;
use std::path::Path;
use testkit::build::{DiskBuilder, Tree};

/// Leaves out the lines of a file that hold a word.
fn without(file: &Path, word: &str) -> String {
    let before = fs::read_to_string(file).unwrap();
    let kept: Vec<&str> = before.lines().filter(|l| !l.contains(word)).collect();
    assert!(kept.len() < before.lines().count(), "{word} in {before}");
    fs::write(file, kept.join("\n") + "\n").unwrap();
    before
}

#[test]
fn every_partition_of_the_table_is_in_the_folder() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "gzip");
    let list = saved.join("sda-pt.sf");
    // Swap space is in no list of what was saved; without the list nothing else is.
    let before = without(&list, "/dev/sda6");
    let said = fails(&saved, dir.path(), &[], "image-damaged").stderr;
    assert!(said.contains("sda6"), "{said}");
    fs::remove_file(saved.join("swappt-sda6.info")).unwrap();
    fails(&saved, dir.path(), &[], "image-damaged");
    fs::write(&list, &before).unwrap();
    fs::write(
        saved.join("swappt-sda6.info"),
        "UUID=\"0a1b2c3d-0000-4000-8000-00000000beef\"\nLABEL=\"\"\n",
    )
    .unwrap();
    imported(&saved, dir.path(), &[]);
    // Nothing but the table in the MBR tells of this one.
    fs::remove_file(saved.join("parts")).unwrap();
    without(&list, "/dev/sda1 ");
    for entry in fs::read_dir(&saved).unwrap() {
        let path = entry.unwrap().path();
        if text(&path).contains("/sda1.") {
            fs::remove_file(path).unwrap();
        }
    }
    let said = fails(&saved, dir.path(), &[], "image-damaged").stderr;
    assert!(said.contains("partition 1 "), "{said}");
    // A file of a partition that the table does not know.
    fs::write(&list, &before).unwrap();
    fs::write(saved.join("sda12.ext4-ptcl-img.gz.aa"), "x").unwrap();
    fails(&saved, dir.path(), &[], "image-damaged");
}

#[test]
fn boot_code_behind_the_mbr_that_is_not_there_is_told() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "gzip");
    let file = saved.join("sda-hidden-data-after-mbr");
    let hidden = fs::read(&file).unwrap();
    let (whole, _) = imported(&saved, dir.path(), &["--strict"]);
    assert!(!whole.stderr.contains("boot"), "{}", whole.stderr);
    for len in [100 << 10, 100_001, 0] {
        fs::write(&file, &hidden[..len]).unwrap();
        let (told, _) = imported(&saved, dir.path(), &[]);
        let told = told.warns("import-incomplete");
        let missing = wire::size::bytes((hidden.len() - len / 512 * 512) as u64);
        assert!(told.stderr.contains(&missing), "{missing}: {}", told.stderr);
        fails(&saved, dir.path(), &["--strict"], "import-incomplete");
    }
    fs::remove_file(&file).unwrap();
    imported(&saved, dir.path(), &[])
        .0
        .warns("import-incomplete");
    fails(&saved, dir.path(), &["--strict"], "import-incomplete");
}

#[test]
fn a_first_partition_far_behind_is_no_damage() {
    let dir = folder();
    let disk = dir.path().join("far.img");
    let tree = Tree::new(23, 10, 50_000);
    let plan = DiskBuilder::mbr(40 * MIB, 512).boot_code(5);
    plan.gap(8 * MIB)
        .ext("ext2", 1024, 12 * MIB, &tree)
        .build(&disk);
    let saved = save(&disk, dir.path(), "none");
    let len = fs::metadata(saved.join("sda-hidden-data-after-mbr"))
        .unwrap()
        .len();
    assert!(len > 8 * MIB - 513, "{len}");
    let (run_of, restored) = imported(&saved, dir.path(), &["--strict"]);
    assert!(
        !run_of.stderr.contains("import-incomplete"),
        "{}",
        run_of.stderr
    );
    assert_eq!(partition_difference(&disk, &restored, 512), None);
    assert!(peek(&disk, 0, 8 << 20) == peek(&restored, 0, 8 << 20));
}

#[test]
fn logical_partitions_need_not_follow_the_disk() {
    let dir = folder();
    let disk = dir.path().join("mixed.img");
    fs::File::create(&disk).unwrap().set_len(48 * MIB).unwrap();
    // As sfdisk makes it of partitions that were deleted and made again.
    let script = "label: dos\n/dev/x1 : start=2048, size=2048, type=83\n\
        /dev/x2 : start=6144, size=80000, type=5\n/dev/x5 : start=40960, size=8192, type=83\n\
        /dev/x6 : start=10240, size=8192, type=83\n/dev/x7 : start=59392, size=4096, type=83\n\
        /dev/x8 : start=20481, size=8191, type=83\n";
    let list = dir.path().join("script");
    fs::write(&list, script).unwrap();
    let line = format!("sfdisk -q {} < {}", text(&disk), text(&list));
    run("bash", &["-c", &line]);
    for (start, byte) in [
        (2048u64, 1u8),
        (40_960, 5),
        (10_240, 6),
        (59_392, 7),
        (20_481, 8),
    ] {
        poke(&disk, start * 512, &[byte; 4096]);
    }
    let saved = save(&disk, dir.path(), "none");
    let (_, restored) = imported(&saved, dir.path(), &[]);
    assert_eq!(dump(&disk), dump(&restored));
    assert_eq!(partition_difference(&disk, &restored, 512), None);
}

#[test]
fn what_is_held_is_not_called_every_sector() {
    let dir = folder();
    let part = make(&KINDS[3], dir.path());
    let image = dir.path().join("image.ptcl");
    clone("ntfs", &part, &image, &[]);
    for options in [&["--full"][..], &["--full", "--strict"]] {
        let said = fails(&image, dir.path(), options, "usage").stderr;
        assert!(said.contains("--full"), "{said}");
    }
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    fails(&saved, dir.path(), &["--full"], "usage");
    // A map that our own scan does not believe: what is missing cannot be told.
    let part = make(&KINDS[0], dir.path());
    clone("ext4", &part, &image, &["-a", "0"]);
    let bytes = fs::read(&image).unwrap();
    let name = peek(&part, 1024, 64);
    let at = bytes.windows(64).position(|w| w == name).unwrap() as u64;
    flip(&image, at + 4);
    let (run_of, _) = imported(&image, dir.path(), &[]);
    let run_of = run_of.warns("fs-damaged").warns("import-incomplete");
    assert!(
        run_of.stderr.contains("cannot be told"),
        "{}",
        run_of.stderr
    );
}

#[test]
fn swap_space_without_its_uuid_is_told_or_refused() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    let info = saved.join("swappt-sda6.info");
    fs::write(&info, "").unwrap();
    fails(&saved, dir.path(), &[], "image-damaged");
    fs::write(&info, "UUID=\"\"\nLABEL=\"\"\n").unwrap();
    let (told, _) = imported(&saved, dir.path(), &[]);
    let told = told.warns("import-incomplete");
    assert!(told.stderr.contains("UUID"), "{}", told.stderr);
    fails(&saved, dir.path(), &["--strict"], "import-incomplete");
}

#[test]
fn swap_space_need_not_be_whole_pages() {
    let dir = folder();
    let disk = dir.path().join("swap.img");
    fs::File::create(&disk).unwrap().set_len(20 * MIB).unwrap();
    let list = dir.path().join("script");
    let script = "label: gpt\n/dev/x1 : start=2048, size=8192, type=L\n\
        /dev/x2 : start=12288, size=8193, type=S\n";
    fs::write(&list, script).unwrap();
    let line = format!("sfdisk -q {} < {}", text(&disk), text(&list));
    run("bash", &["-c", &line]);
    poke(&disk, 2048 * 512, &[7; 4096]);
    let swap = dir.path().join("swap");
    fs::File::create(&swap)
        .unwrap()
        .set_len(8193 * 512)
        .unwrap();
    run("chmod", &["600", text(&swap)]);
    run("mkswap", &[text(&swap)]);
    poke(&disk, 12_288 * 512, &fs::read(&swap).unwrap());
    let saved = save(&disk, dir.path(), "gzip");
    let (run_of, restored) = imported(&saved, dir.path(), &["--strict"]);
    assert!(
        !run_of.stderr.contains("import-incomplete"),
        "{}",
        run_of.stderr
    );
    assert!(peek(&restored, 12_288 * 512, 4096) == peek(&disk, 12_288 * 512, 4096));
}

#[test]
fn what_is_not_read_is_not_called_damaged() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    let table = saved.join("sda-pt.sf");
    let before = fs::read_to_string(&table).unwrap();
    let gone: Vec<_> = fs::read_dir(&saved)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| text(path).contains("/sda5."))
        .collect();
    gone.iter().for_each(|path| fs::remove_file(path).unwrap());
    fails(&saved, dir.path(), &[], "image-damaged");
    let member = |line: &str| match line.contains("/dev/sda5") {
        true => line.replace("type=83", "type=fd"),
        false => line.to_owned(),
    };
    let lines: Vec<String> = before.lines().map(member).collect();
    fs::write(&table, lines.join("\n")).unwrap();
    let said = fails(&saved, dir.path(), &[], "import-unsupported").stderr;
    assert!(said.contains("RAID"), "{said}");
    fs::write(&table, &before).unwrap();
    fs::write(saved.join("luks-dev.list"), "/dev/sda5 x\n").unwrap();
    let said = fails(&saved, dir.path(), &[], "import-unsupported").stderr;
    assert!(said.contains("LUKS"), "{said}");
    fs::remove_file(&table).unwrap();
    fails(&saved, dir.path(), &[], "image-damaged");
    fs::write(saved.join("parts"), "sda\n").unwrap();
    fails(&saved, dir.path(), &[], "import-unsupported");
    // A file system that begins with the table of the disk that it once was.
    let part = make(&KINDS[0], dir.path());
    let mut entry = [0; 66];
    entry[..16].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 16, 0, 0]);
    entry[64..].copy_from_slice(&[0x55, 0xaa]);
    poke(&part, 446, &entry);
    let image = dir.path().join("image.ptcl");
    clone("ext4", &part, &image, &[]);
    fails(&image, dir.path(), &[], "import-unsupported");
}

#[test]
fn options_and_names_that_mean_nothing_are_told() {
    let dir = folder();
    let saved = save(&mbr(dir.path()), dir.path(), "none");
    fails(&saved, dir.path(), &["--sector-size", "4096"], "usage");
    let disk = &crate::disks::bare().disk.path;
    fails(disk, dir.path(), &["--disk", "sda"], "usage");
    let nowhere = dir.path().join("nowhere");
    for path in [&nowhere, disk] {
        let options = ["--format", "clonezilla"];
        fails(path, dir.path(), &options, "image-not-found");
    }
    fs::write(&nowhere, "").unwrap();
    fails(&nowhere, dir.path(), &[], "import-unsupported");
}
