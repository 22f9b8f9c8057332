use super::{DiskBuilder, Tree};
use crate::loopdev::{LoopDevice, Mounted};
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

fn sample(sector_size: u32) -> DiskBuilder {
    let tree = Tree::new(7, 20, 60_000);
    let fat_size = if sector_size == 512 {
        40 << 20
    } else {
        270 << 20
    };
    DiskBuilder::mbr(512 << 20, sector_size)
        .boot_code(1)
        .ext4(32 << 20, &tree)
        .fat32(fat_size, &tree)
        .logical()
        .ext(
            "ext3",
            if sector_size == 512 { 1024 } else { 4096 },
            32 << 20,
            &tree,
        )
        .swap(8 << 20)
        .gap(3 << 20)
        .raw(2 << 20, 9)
}

#[test]
fn a_disk_is_what_was_asked_for_and_says_so_when_it_is_not() {
    for sector_size in [512, 4096] {
        let dir = tempfile::tempdir().unwrap();
        let disk = sample(sector_size).build(&dir.path().join("disk"));
        let numbers: Vec<u32> = disk.partitions.iter().map(|p| p.number).collect();
        assert_eq!(numbers, [1, 2, 5, 6, 7]);
        disk.verify(&disk.path);

        // One byte of a file, and the disk is another one.
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&disk.path)
            .unwrap();
        let raw = &disk.partitions[4];
        let mut byte = [0];
        file.read_exact_at(&mut byte, raw.start + 5000).unwrap();
        file.write_all_at(&[byte[0] ^ 1], raw.start + 5000).unwrap();
        let verified = std::panic::catch_unwind(|| disk.verify(&disk.path));
        assert!(verified.is_err(), "a changed byte was not seen");
    }
}

#[test]
fn two_builds_are_one_disk() {
    let dir = tempfile::tempdir().unwrap();
    let build = |name: &str| {
        let tree = Tree::new(3, 10, 9000);
        let builder = DiskBuilder::gpt(96 << 20, 512)
            .fat(16, 8 << 20, &tree)
            .ext4(24 << 20, &tree)
            .swap(1 << 20);
        fs::read(builder.stale().build(&dir.path().join(name)).path).unwrap()
    };
    let (first, second) = (build("a"), build("b"));
    let difference = first.iter().zip(&second).position(|(a, b)| a != b);
    assert_eq!(difference, None, "first differing byte");
}

#[test]
fn the_kernel_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let disk = sample(4096).build(&dir.path().join("disk"));
    let whole = LoopDevice::attach(&disk.path, 4096);
    let table = Command::new("sfdisk")
        .arg("--dump")
        .arg(whole.path())
        .output()
        .unwrap();
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(
        table.contains("sector-size: 4096") && table.contains("type=82"),
        "{table}"
    );
    let root = &disk.partitions[0];
    let device = LoopDevice::attach_at(&disk.path, root.start, root.size, 4096);
    let mounted = Mounted::new(device.path(), "ro");
    assert!(mounted.path().join("file-0.bin").exists());
}
