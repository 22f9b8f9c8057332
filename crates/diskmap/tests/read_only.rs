//! SquashFS, ISO 9660 and UDF, in files that are larger than they are.
//!
//! Oracles: the tools that made them say how long they are; what is copied onto garbage
//! must hold the same files.

mod common;

use common::{
    FileDisk, fill, ok, peek, poke, restore_onto_garbage, s, scan_file, sparse, whole, whole_used,
};
use diskmap::{Method, RegionKind, WarningKind};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Made {
    _dir: TempDir,
    path: PathBuf,
    tree: PathBuf,
    work: PathBuf,
}

fn made() -> Made {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fill(&tree, 40, 30_000);
    Made {
        path: dir.path().join("image"),
        tree,
        work: dir.path().to_path_buf(),
        _dir: dir,
    }
}

/// Makes a file longer, as if the image stood in a larger partition.
fn grow(path: &Path, size: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(size)
        .unwrap();
}

fn squashfs(block: &str) -> (Made, u64) {
    let made = made();
    ok(
        "mksquashfs",
        &[
            s(&made.tree),
            s(&made.path),
            "-quiet",
            "-no-progress",
            "-b",
            block,
        ],
    );
    let len = made.path.metadata().unwrap().len();
    (made, len)
}

fn iso(args: &[&str]) -> (Made, u64) {
    let made = made();
    let mut all = vec!["-quiet", "-V", "MYDISC", "-o", s(&made.path)];
    all.extend(args);
    all.push(s(&made.tree));
    ok("genisoimage", &all);
    let len = made.path.metadata().unwrap().len();
    (made, len)
}

#[test]
fn squashfs_is_copied_to_its_end() {
    for block in ["4096", "131072", "1048576"] {
        let (made, len) = squashfs(block);
        grow(&made.path, 64 << 20);
        let region = whole_used(&made.path);
        assert_eq!(region.file_system, "squashfs");
        // The last MiB of a region is always kept.
        assert_eq!(region.used.total(), len + (1 << 20), "{block}");
        let copy = made.work.join("copy");
        restore_onto_garbage(&made.path, &region.used, &copy);
        let out = made.work.join("out");
        ok("unsquashfs", &["-q", "-n", "-d", s(&out), s(&copy)]);
        common::assert_same_tree(&made.tree, &out);
        // One missing block is noticed.
        poke(&copy, len / 2 / 4096 * 4096, &[0xa5; 4096]);
        let again = made.work.join("again");
        let broken = common::run("unsquashfs", &["-q", "-n", "-d", s(&again), s(&copy)]);
        let differs = common::run("diff", &["-r", s(&made.tree), s(&again)]);
        assert!(!broken.status.success() || !differs.status.success());
    }
}

#[test]
fn what_stands_right_behind_an_image_is_copied_too() {
    let (made, len) = squashfs("131072");
    grow(&made.path, 64 << 20);
    poke(&made.path, len.next_multiple_of(64 << 10) + 1024, &[1]);
    let (region, map) = whole(&made.path);
    assert_eq!((region.method, map.warnings.len()), (Method::Full, 0));
    assert!(region.reason.contains("right behind"), "{}", region.reason);
    let (made, len) = iso(&["-R"]);
    grow(&made.path, 64 << 20);
    poke(&made.path, len + (1 << 20), &[1]);
    assert_eq!(whole(&made.path).0.method, Method::Full);
}

#[test]
fn squashfs_that_lies_is_copied_whole() {
    let (made, _) = squashfs("131072");
    grow(&made.path, 8 << 20);
    // Size larger than the region, block size, version, a table outside.
    for (offset, bytes) in [(44, &[1u8][..]), (12, &[7]), (28, &[3]), (71, &[0x7f])] {
        let before: [u8; 1] = peek(&made.path, offset);
        poke(&made.path, offset, bytes);
        let (region, map) = whole(&made.path);
        assert_eq!(region.method, Method::Full, "{offset}");
        assert_eq!(map.warnings[0].kind, WarningKind::FsDamaged, "{offset}");
        poke(&made.path, offset, &before);
    }
    whole_used(&made.path);
}

/// Bytes that isoinfo says the volume has.
fn isoinfo_size(path: &Path) -> u64 {
    let text = ok("isoinfo", &["-d", "-i", s(path)]);
    let blocks = text
        .lines()
        .find_map(|line| line.strip_prefix("Volume size is: "))
        .unwrap();
    blocks.trim().parse::<u64>().unwrap() * 2048
}

#[test]
fn discs_are_copied_to_their_end() {
    for args in [&["-R"][..], &["-J", "-R"], &["-udf", "-R", "-J"]] {
        let (made, len) = iso(args);
        grow(&made.path, 64 << 20);
        let region = whole_used(&made.path);
        assert_eq!(
            (&*region.file_system, &*region.label),
            ("iso9660", "MYDISC")
        );
        assert_eq!(region.uuid.len(), 22, "{}", region.uuid);
        let needed = isoinfo_size(&made.path);
        let extra = region.used.iter().next().unwrap().len - needed;
        assert!(needed >= len - (300 << 10) && extra <= 300 << 10, "{extra}");
        let copy = made.work.join("copy");
        restore_onto_garbage(&made.path, &region.used, &copy);
        let out = made.work.join("out");
        ok(
            "xorriso",
            &[
                "-osirrox",
                "on",
                "-indev",
                s(&copy),
                "-extract",
                "/",
                s(&out),
            ],
        );
        common::assert_same_tree(&made.tree, &out);
    }
}

#[test]
fn udf_alone_and_udf_that_fills_its_disk() {
    // With a boot area of "mbr" it lists itself as a partition from sector 0.
    for (block, area) in [
        ("512", "erase"),
        ("2048", "mbr"),
        ("4096", "erase"),
        ("4096", "mbr"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = sparse(&dir.path().join("udf"), 32 << 20);
        let area = format!("--bootarea={area}");
        ok("mkudffs", &["-b", block, &area, "-l", "stick", s(&path)]);
        let (region, map) = whole(&path);
        assert_eq!(region.file_system, "udf", "{block}");
        assert_eq!(map.warnings, [], "{block}");
        assert_eq!(region.method, Method::Used, "{block} {}", region.reason);
        // A volume for rewritable media reaches to the end: all of it is in use.
        assert!(region.used.total() > (31 << 20), "{block}");
        // A later partition end than the descriptor's own checksum allows.
        let at = (256 * block.parse::<u64>().unwrap()) + 16;
        poke(&path, at, &[0xff]);
        assert_eq!(whole(&path).1.warnings[0].kind, WarningKind::FsDamaged);
    }
}

#[test]
fn a_disc_whose_two_byte_orders_differ_is_copied_whole() {
    let (made, _) = iso(&["-R"]);
    poke(&made.path, (32 << 10) + 80, &[1, 0, 0, 0]);
    let (region, map) = whole(&made.path);
    assert_eq!(region.method, Method::Full);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDamaged);
}

/// Sticks written from an image that is both disc and disk: whichever way it is read,
/// every byte of the image is copied.
#[test]
fn hybrid_images_lose_nothing() {
    for args in [
        &["-isohybrid-gpt-basdat", "-appended_part_as_gpt"][..],
        &["-partition_offset", "16"],
        &["-part_like_isohybrid"],
        &[],
    ] {
        let made = made();
        let esp = sparse(&made.work.join("esp"), 2 << 20);
        ok("mkfs.fat", &["-F", "12", s(&esp)]);
        let mut all = vec![
            "-as",
            "mkisofs",
            "-quiet",
            "-R",
            "-V",
            "HYBRID",
            "-o",
            s(&made.path),
        ];
        all.extend(["-append_partition", "2", "0xef", s(&esp)]);
        all.extend(args);
        all.push(s(&made.tree));
        ok("xorriso", &all);
        let len = made.path.metadata().unwrap().len();
        grow(&made.path, 64 << 20);
        let map = match std::panic::catch_unwind(|| scan_file(&made.path, 512)) {
            Ok(map) => map,
            Err(_) => panic!("{args:?}"),
        };
        let mut kept = vec![false; (len / 512) as usize];
        let spans = map.regions.iter().flat_map(|r| {
            r.used
                .iter()
                .map(|e| (r.start + e.start, r.start + e.end()))
        });
        let blobs = map.blobs.iter().map(|b| (b.offset, b.end()));
        for (from, to) in spans.chain(blobs) {
            for sector in from / 512..(to / 512).min(len / 512) {
                kept[sector as usize] = true;
            }
        }
        let disk = FileDisk::open(&made.path);
        for (sector, kept) in kept.iter().enumerate() {
            let mut bytes = [0u8; 512];
            diskmap::DiskRead::read_exact_at(&disk, sector as u64 * 512, &mut bytes).unwrap();
            assert!(
                *kept || bytes == [0; 512],
                "{args:?}: sector {sector} of {} is lost: {:?}",
                len / 512,
                map.regions
                    .iter()
                    .map(|r| (
                        r.kind == RegionKind::Gap,
                        r.number,
                        r.start,
                        r.size,
                        &r.reason
                    ))
                    .collect::<Vec<_>>()
            );
        }
    }
}

/// A partition that was added behind a disc image on a stick is not lost with the table.
#[test]
fn partitions_behind_a_disc_image_make_it_full_sector() {
    let (made, len) = iso(&["-R"]);
    grow(&made.path, 64 << 20);
    let mut entry = [0u8; 66];
    entry[4] = 0x83;
    entry[12..16].copy_from_slice(&((len / 512) as u32).to_le_bytes());
    entry[64..].copy_from_slice(&[0x55, 0xaa]);
    poke(&made.path, 446, &entry);
    let region = whole_used(&made.path);
    assert_eq!(region.file_system, "iso9660");
    entry[20] = 0x83;
    entry[24..28].copy_from_slice(&(40u32 << 11).to_le_bytes());
    entry[28..32].copy_from_slice(&2048u32.to_le_bytes());
    poke(&made.path, 446, &entry);
    let (region, _) = whole(&made.path);
    assert_eq!(region.method, Method::Full, "{}", region.reason);
    assert!(region.reason.contains("partitions behind"));
}
