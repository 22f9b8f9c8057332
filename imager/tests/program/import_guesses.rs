//! `imager import` of files of which nobody said what they are: no disk at all, and disks of
//! sectors that nobody named.
//!
//! Owns: that nothing is taken for a disk that it is not. Does not own: signatures of formats
//! (`crates/foreign`), what tables say (`crates/diskmap`).

use crate::compare::assert_same;
use crate::disks::{self, MIB, copy, folder, garbage, poke};
use crate::import::{convert, fails, imported};
use crate::import_partclone::{run, text};
use std::fs;
use testkit::build::{DiskBuilder, Tree};

#[test]
fn what_is_no_disk_is_not_taken_for_one() {
    let dir = folder();
    let at = |name: &str| dir.path().join(name);
    // An archive with the image of a virtual machine in it.
    let inside = convert(&[], &disks::bare().disk.path, at("disk.qcow2"));
    let archive = at("machine.ova");
    let create = [
        "--format=ustar",
        "-C",
        text(dir.path()),
        "-cf",
        text(&archive),
    ];
    run("tar", &[&create[..], &["disk.qcow2"]].concat());
    let said = fails(&archive, dir.path(), &[], "import-unsupported").stderr;
    assert!(said.contains("tar"), "{said}");
    // A later piece of a file that was split, and one that was never written.
    run("gzip", &["-kf", text(&inside)]);
    let packed = fs::read(at("disk.qcow2.gz")).unwrap();
    let piece = at("disk.gz.ab");
    fs::write(&piece, &packed[MIB as usize..2 * MIB as usize]).unwrap();
    let zeros = at("zeros");
    fs::write(&zeros, vec![0; MIB as usize]).unwrap();
    let noise = garbage(at("noise"), 2 * MIB + 512);
    for file in [&piece, &zeros, &noise] {
        let said = fails(file, dir.path(), &[], "import-unsupported").stderr;
        assert!(said.contains("--format raw"), "{said}");
        fails(file, dir.path(), &["--full"], "import-unsupported");
        let (_, restored) = imported(file, dir.path(), &["--format", "raw"]);
        assert!(fs::read(file).unwrap() == fs::read(restored).unwrap());
    }
    // What is known needs no word, whatever else is asked for.
    imported(&disks::bare().disk.path, dir.path(), &["--full"]);
}

#[test]
fn an_mbr_of_large_sectors_is_not_read_as_one_of_small_ones() {
    let dir = folder();
    let disk = dir.path().join("mbr-4k");
    let tree = Tree::new(31, 20, 90_000);
    let plan = DiskBuilder::mbr(64 * MIB, 4096);
    plan.ext4(40 * MIB, &tree)
        .fat(16, 20 * MIB, &tree)
        .build(&disk);
    let qcow2 = convert(&[], &disk, dir.path().join("mbr-4k.qcow2"));
    for source in [&disk, &qcow2] {
        let said = fails(source, dir.path(), &[], "sector-size-mismatch").stderr;
        assert!(said.contains("--sector-size 4096"), "{said}");
        let (_, restored) = imported(source, dir.path(), &["--sector-size", "4096"]);
        assert_same(&disk, &restored, 4096);
        // Somebody who says so knows better.
        imported(source, dir.path(), &["--sector-size", "512"]);
    }
    let image = dir.path().join("not-made");
    crate::imager!["backup", "-q", "--json", disk, image].refused("sector-size-mismatch");
    assert!(!image.exists());
    crate::imager!["backup", "-q", "--sector-size", "4096", disk, image].ok();
}

#[test]
fn what_is_left_of_a_gpt_does_not_say_how_large_sectors_are() {
    let dir = folder();
    let disk = copy(&disks::mbr().disk.path, dir.path().join("disk"));
    // In the space in front of the first partition.
    poke(&disk, 4096, b"EFI PART");
    let (run, restored) = imported(&disk, dir.path(), &[]);
    assert_eq!(run.json()["sector_size"], 512);
    assert_same(&disk, &restored, 512);
    // The first copy of a good one may be damaged.
    let disk = copy(&disks::gpt_4k().disk.path, dir.path().join("disk"));
    disks::flip(&disk, 4096 + 40);
    let (run, _) = imported(&disk, dir.path(), &[]);
    assert_eq!(run.json()["sector_size"], 4096);
    run.warns("gpt-damaged");
}
