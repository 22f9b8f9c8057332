//! Partition tables that are damaged, lie, or are unusual.
//!
//! Owns: what backup and restore do about them. Does not own: the parsers' own cases
//! (`diskmap`).

use crate::compare::assert_same;
use crate::disks::{self, MIB, copy, flip, folder, hash, peek, poke};
use crate::imager;
use std::path::Path;

/// Asserts that the disk is refused by all that reads tables, and that `--full` takes it.
fn assert_refused_but_for_full(disk: &Path, code: &str) {
    let dir = folder();
    let image = dir.path().join("image");
    imager!["map", disk, "--json"].refused(code);
    imager!["backup", disk, image, "--json"]
        .refused(code)
        .disk("not-involved");
    imager!["backup", disk, image].refused(code);
    assert!(!image.exists(), "a refused backup left a file");
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);

    imager!["backup", "-q", disk, image, "--full"].ok();
    let target = dir.path().join("target.img");
    imager!["restore", "-q", image, target].ok();
    assert_eq!(
        hash(&target),
        hash(disk),
        "a full copy is the same in every byte"
    );
}

#[test]
fn one_damaged_gpt_copy_is_a_warning_and_is_repaired_by_the_restore() {
    let dir = folder();
    let good = disks::gpt();
    let size = good.disk.size;
    // Headers and entries of both copies, each damaged alone.
    for place in [512 + 16, 1024 + 40, size - 512 + 60, size - 33 * 512 + 40] {
        let disk = copy(&good.disk.path, dir.path().join("disk.img"));
        flip(&disk, place);
        let image = dir.path().join("image");
        imager!["backup", "-q", "--overwrite", disk, image].warns("gpt-damaged");
        let json = imager!["backup", "-q", "--overwrite", "--json", disk, image]
            .warns("gpt-damaged")
            .json();
        assert_eq!(json["warnings"][0]["code"], "gpt-damaged");
        let map = imager!["map", disk, "--json"].ok().json();
        assert_eq!(map["warnings"][0]["code"], "gpt-damaged");
        assert_eq!(map["partitions"].as_array().unwrap().len(), 4);

        let target = dir.path().join("target.img");
        let _ = std::fs::remove_file(&target);
        imager!["restore", "-q", image, target].ok();
        // The restored disk is the undamaged one.
        assert_same(&good.disk.path, &target, 512);
    }
}

#[test]
fn both_gpt_copies_damaged() {
    let dir = folder();
    let disk = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    flip(&disk, 512 + 16);
    flip(&disk, disks::gpt().disk.size - 512 + 16);
    assert_refused_but_for_full(&disk, "gpt-damaged");
}

/// An MBR with these entries: type, first sector, sectors.
fn mbr(path: &Path, size: u64, entries: &[(u8, u32, u32)]) {
    std::fs::File::create(path)
        .and_then(|file| file.set_len(size))
        .unwrap();
    poke(path, 0, &mbr_sector(entries));
}

fn mbr_sector(entries: &[(u8, u32, u32)]) -> [u8; 512] {
    let mut sector = [0; 512];
    for (entry, &(kind, start, sectors)) in sector[446..510].chunks_mut(16).zip(entries) {
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

#[test]
fn overlapping_mbr_entries() {
    let dir = folder();
    let disk = dir.path().join("disk.img");
    mbr(&disk, 8 * MIB, &[(0x83, 2048, 4096), (0x83, 6143, 4096)]);
    assert_refused_but_for_full(&disk, "mbr-damaged");
    // One sector later they only touch.
    mbr(&disk, 8 * MIB, &[(0x83, 2048, 4096), (0x83, 6144, 4096)]);
    imager!["map", disk].ok();
}

#[test]
fn a_partition_beyond_the_disk() {
    let dir = folder();
    let disk = dir.path().join("disk.img");
    mbr(&disk, 8 * MIB, &[(0x83, 2048, 64 << 11)]);
    let run = imager!["map", disk, "--json"];
    let code = run.json()["code"].as_str().unwrap().to_owned();
    assert!(
        ["mbr-damaged", "disk-smaller-than-layout"].contains(&code.as_str()),
        "{code}"
    );
    assert_refused_but_for_full(&disk, &code);
}

#[test]
fn a_loop_in_the_chain_of_logical_partitions() {
    let dir = folder();
    let disk = dir.path().join("disk.img");
    mbr(&disk, 16 * MIB, &[(0x05, 2048, 28672)]);
    // The second link leads back to the first; then one that leads to itself.
    poke(
        &disk,
        MIB,
        &mbr_sector(&[(0x83, 64, 1000), (0x05, 4096, 4096)]),
    );
    let second = mbr_sector(&[(0x83, 64, 1000), (0x05, 0, 4096)]);
    poke(&disk, MIB + 4096 * 512, &second);
    assert_refused_but_for_full(&disk, "mbr-damaged");
    let second = mbr_sector(&[(0x83, 64, 1000), (0x05, 4096, 4096)]);
    poke(&disk, MIB + 4096 * 512, &second);
    assert_refused_but_for_full(&disk, "mbr-damaged");
    // Without the loop it is a disk with two logical partitions.
    poke(&disk, MIB + 4096 * 512, &mbr_sector(&[(0x83, 64, 1000)]));
    let map = imager!["map", disk, "--json"].ok().json();
    let numbers = map["partitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| part["number"].as_u64().unwrap());
    assert_eq!(numbers.collect::<Vec<_>>(), [5, 6]);
}

/// Gives both copies of a GPT another size of entry, the same partitions and right CRCs.
fn widen_entries(disk: &Path, entry_size: u32) {
    let size = disk.metadata().unwrap().len();
    let entries = peek(disk, 1024, 128 * 128);
    let count = 128 * 128 / entry_size;
    let mut wide = Vec::new();
    for entry in entries.chunks(128).take(count as usize) {
        wide.extend_from_slice(entry);
        wide.resize(wide.len() + entry_size as usize - 128, 0);
    }
    for (header_at, entries_at) in [(512, 1024), (size - 512, size - 33 * 512)] {
        let mut header = peek(disk, header_at, 512);
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&wide).to_le_bytes());
        header[16..20].fill(0);
        let crc = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        poke(disk, header_at, &header);
        poke(disk, entries_at, &wide);
    }
}

#[test]
fn gpt_entries_that_are_not_128_bytes_long() {
    let dir = folder();
    for entry_size in [256, 512] {
        let disk = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
        widen_entries(&disk, entry_size);
        let image = dir.path().join("image");
        let target = dir.path().join(format!("target-{entry_size}.img"));
        imager!["backup", "-q", "--overwrite", disk, image].ok();
        imager!["restore", "-q", image, target].ok();
        assert_same(&disk, &target, 512);
        disks::gpt().disk.verify(&target);
    }
}

#[test]
fn gpt_entry_sizes_that_no_table_has() {
    let dir = folder();
    for entry_size in [0_u32, 1, 100, 127, 1 << 31, u32::MAX] {
        let disk = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
        for header_at in [512, disks::gpt().disk.size - 512] {
            let mut header = peek(&disk, header_at, 512);
            header[84..88].copy_from_slice(&entry_size.to_le_bytes());
            header[16..20].fill(0);
            let crc = crc32fast::hash(&header[..92]);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            poke(&disk, header_at, &header);
        }
        imager!["map", disk, "--json"].refused("gpt-damaged");
    }
}

#[test]
fn a_disk_cut_short() {
    let dir = folder();
    let disk = copy(&disks::gpt().disk.path, dir.path().join("disk.img"));
    let file = std::fs::File::options().write(true).open(&disk).unwrap();
    file.set_len(30 * MIB).unwrap();
    assert_refused_but_for_full(&disk, "disk-smaller-than-layout");
    // So short that there is only the protective entry.
    file.set_len(513).unwrap();
    imager!["map", disk].refused("gpt-damaged");
    file.set_len(0).unwrap();
    imager!["backup", disk, dir.path().join("image")].refused("disk-not-found");
}
