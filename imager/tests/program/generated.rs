//! Property: restore after backup gives the same used sectors, for any layout.
//!
//! Owns: generating layouts from a seed. Does not own: the comparison (`compare`).

use crate::compare::assert_same;
use crate::disks::{MIB, folder, garbage, hash};
use crate::imager;
use testkit::build::{DiskBuilder, Random, Tree};
use testkit::loopdev::LoopDevice;

/// A layout that follows from the seed alone.
fn layout(seed: u64) -> DiskBuilder {
    let mut random = Random::new(seed);
    let sector_size = if random.below(3) == 0 { 4096 } else { 512 };
    let count = 1 + random.below(4) as usize;
    // The largest of all contents is 16 MiB, with gaps and a table's place around it.
    let size = (count as u64 * 20 + 8) * MIB;
    let kind = random.below(5);
    let is_mbr = kind < 2;
    let mut plan = match kind {
        0 | 1 => DiskBuilder::mbr(size, sector_size),
        2 | 3 => DiskBuilder::gpt(size, sector_size),
        _ => {
            let plan = DiskBuilder::bare(16 * MIB, sector_size);
            return content(plan, &mut random, sector_size, true);
        }
    };
    if random.below(2) == 0 {
        plan = plan.boot_code(seed);
    }
    if random.below(2) == 0 {
        plan = plan.stale();
    }
    let logical_from = 1 + random.below(4) as usize;
    for number in 0..count {
        if is_mbr && number == logical_from.min(3) {
            plan = plan.logical();
        }
        if random.below(3) == 0 {
            plan = plan.gap((1 + random.below(2)) * MIB);
        }
        plan = content(plan, &mut random, sector_size, false);
    }
    plan
}

/// Adds a partition of any content; a bare disk is filled by it.
fn content(plan: DiskBuilder, random: &mut Random, sector_size: u32, fills: bool) -> DiskBuilder {
    let tree = Tree::new(random.next_u64(), 4 + random.below(20) as usize, 60_000);
    let unit = u64::from(sector_size);
    // Odd sizes: not every partition ends at a whole MiB, or at a whole block.
    let odd = |size: u64, random: &mut Random| match fills {
        true => 16 * MIB,
        false => size + random.below(64) * unit,
    };
    match random.below(if fills { 4 } else { 10 }) {
        0 => plan.ext4(odd(10 * MIB, random), &tree),
        1 => plan.ext("ext3", 4096, odd(12 * MIB, random), &tree),
        2 => {
            let block = if sector_size == 512 { 1024 } else { 4096 };
            plan.ext("ext2", block, odd(6 * MIB, random), &tree)
        }
        3 => plan.ext(
            "ext4",
            if sector_size == 512 { 2048 } else { 4096 },
            odd(9 * MIB, random),
            &tree,
        ),
        4 => plan.fat(12, 3000 * unit, &tree),
        5 if sector_size == 512 => plan.fat(16, odd(8 * MIB, random), &tree),
        6 => plan.raw(odd(2 * MIB, random), random.next_u64()),
        7 => plan.empty(odd(MIB, random)),
        _ => plan.swap((1 + random.below(3)) * MIB),
    }
}

fn round_trip(seed: u64) {
    let dir = folder();
    let source = dir.path().join("source.img");
    let disk = layout(seed).build(&source);
    let before = hash(&source);
    let sector_size = disk.sector_size.to_string();
    let image = dir.path().join("image");
    imager![
        "backup",
        "-q",
        source,
        image,
        "--strict",
        "--sector-size",
        sector_size
    ]
    .ok();
    assert_eq!(hash(&source), before, "a backup changes its source");
    imager!["verify", "-q", image].ok();

    // An equal disk by way of a file, a larger one by way of a device.
    let equal = garbage(dir.path().join("equal.img"), disk.size);
    imager!["restore", "-q", image, equal, "--sector-size", sector_size].ok();
    assert_same(&source, &equal, disk.sector_size);
    disk.verify(&equal);

    let backing = garbage(dir.path().join("larger.img"), disk.size + 2 * MIB);
    let device = LoopDevice::attach(&backing, disk.sector_size);
    imager![
        "restore",
        "-q",
        "--yes",
        "--save-tables",
        "none",
        image,
        device.path()
    ]
    .ok();
    assert_same(&source, device.path(), disk.sector_size);
    disk.verify(device.path());
}

/// One test for each part of the seeds, so that they run beside each other and a failure
/// names its seed.
macro_rules! seeds {
    ($($name:ident: $seeds:expr;)*) => {
        $(#[test]
        fn $name() {
            for seed in $seeds {
                eprintln!("seed {seed}: {:?}", layout(seed));
                round_trip(seed);
            }
        })*
    };
}

seeds! {
    seeds_1_to_4: 1..=4;
    seeds_5_to_8: 5..=8;
    seeds_9_to_12: 9..=12;
}

#[test]
fn the_seeds_cover_every_kind() {
    let all: String = (1..=12)
        .map(|seed| format!("{:?}\n", layout(seed)))
        .collect();
    for kind in [
        "Gpt",
        "Mbr",
        "Bare",
        "4096",
        "logical: true",
        "stale: true",
        "ext2",
        "ext3",
        "ext4",
        "bits: 12",
        "bits: 16",
        "Swap",
        "Raw",
        "boot_code: Some",
    ] {
        assert!(all.contains(kind), "no layout with {kind}:\n{all}");
    }
}
