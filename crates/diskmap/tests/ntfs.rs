//! NTFS made by mkntfs and filled through ntfs-3g, against what ntfs-3g's tools and
//! partclone say of it.
//!
//! The map must hold the clusters that $Bitmap marks and no other, and what is behind
//! the last cluster. A restore by it onto garbage must pass the check of ntfsresize, and
//! every file in it must be the same.

mod common;
#[path = "common/ntfs.rs"]
mod image;

use common::{ok, partclone, poke, restore_onto_garbage, s, scan_file, whole_used};
use diskmap::{Extent, Extents, Method, WarningKind};
use image::{Image, Sizes, assert_holds, bitmap, bytes, empty, filled, is_consistent, sizes};
use std::path::Path;

/// What must be in a map of a file that is a volume.
fn expected(path: &Path) -> Extents {
    let (sizes, size) = (sizes(path), path.metadata().unwrap().len());
    let behind = Extent::between(sizes.clusters * sizes.cluster, size);
    bitmap(path).union(&Extents::from_iter([behind]))
}

fn verify(image: &Image, sector_size: u32) -> Sizes {
    let sizes = sizes(&image.path);
    let map = scan_file(&image.path, sector_size);
    let region = &map.regions[0];
    assert_eq!(region.method, Method::Used, "{}", region.reason);
    assert_eq!(map.warnings, []);
    assert_eq!(region.file_system, "ntfs");
    assert_eq!(region.label, "MyL\u{e4}bel");
    let serial: [u8; 8] = common::peek(&image.path, 72);
    assert_eq!(region.uuid, format!("{:016X}", u64::from_le_bytes(serial)));
    assert_eq!(region.used, expected(&image.path));
    let in_clusters = region.used.intersect(0..sizes.clusters * sizes.cluster);
    let theirs = partclone::used("partclone.ntfs", &image.path, &image.work);
    assert_eq!(in_clusters, theirs);
    restored(image, &region.used).unwrap();
    sizes
}

/// Restores by a map onto garbage, and checks all that is there.
fn restored(image: &Image, used: &Extents) -> Result<(), String> {
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, used, &target);
    is_consistent(&target)?;
    let size = image.path.metadata().unwrap().len();
    for sector in [0, size - 512] {
        if bytes(&target, sector, 512) != bytes(&image.path, sector, 512) {
            return Err(format!("sector at {sector} differs"));
        }
    }
    assert_holds(&target, &image.tree, &image.work);
    Ok(())
}

macro_rules! variants {
    ($($test:ident: $sector:literal, $cluster:literal, $mib:literal;)*) => {
        $(#[test]
        fn $test() {
            let args = ["-s", stringify!($sector), "-c", stringify!($cluster)];
            let sizes = verify(&filled($mib, &args), $sector);
            assert_eq!((sizes.sector, sizes.cluster), ($sector, $cluster));
        })*
    };
}

variants! {
    sector_512_cluster_512: 512, 512, 24;
    sector_512_cluster_1024: 512, 1024, 24;
    sector_512_cluster_4096: 512, 4096, 24;
    sector_512_cluster_65536: 512, 65536, 64;
    sector_512_cluster_131072: 512, 131072, 64;
    sector_1024_cluster_4096: 1024, 4096, 24;
    sector_2048_cluster_2048: 2048, 2048, 24;
    sector_4096_cluster_4096: 4096, 4096, 24;
    sector_4096_cluster_65536: 4096, 65536, 64;
}

/// The last sector of a partition is a copy of the first. It belongs to no cluster, and
/// there may be sectors between it and the last cluster.
#[test]
fn the_copy_of_the_boot_sector_is_kept_wherever_it_is() {
    let image = filled(40, &["-c", "65536"]);
    let size = image.path.metadata().unwrap().len();
    let sizes = sizes(&image.path);
    assert_eq!(sizes.size, size - 512);
    assert_eq!(
        bytes(&image.path, 0, 512),
        bytes(&image.path, sizes.size, 512)
    );
    let behind = Extent::between(sizes.clusters * sizes.cluster, size);
    assert!(behind.len > 512 && behind.len <= 65536);
    assert!(whole_used(&image.path).used.contains_all(behind));
    // A partition that is larger than its volume: behind the volume, and at the end.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&image.path)
        .unwrap();
    file.set_len(size + (8 << 20)).unwrap();
    poke(
        &image.path,
        size + (8 << 20) - 512,
        &bytes(&image.path, 0, 512),
    );
    let used = whole_used(&image.path).used;
    assert!(used.contains_all(behind));
    assert!(used.contains(size + (8 << 20) - 1));
    assert!(!used.contains(size + (4 << 20)));
    restored(&image, &used).unwrap();
}

/// The checks above notice one cluster: of the file table, of a file, the last sector.
#[test]
fn one_missing_cluster_is_noticed() {
    let image = filled(16, &["-c", "4096"]);
    let used = whole_used(&image.path).used;
    let table = u64::from_le_bytes(common::peek(&image.path, 48)) * 4096;
    let content = std::fs::read(image.tree.join("d1/file1")).unwrap();
    let size = image.path.metadata().unwrap().len();
    let file = (0..size / 4096)
        .map(|cluster| cluster * 4096)
        .find(|&at| bytes(&image.path, at, 4096) == content[..4096])
        .unwrap();
    for hole in [table, file, size - 4096] {
        assert!(used.contains_all(Extent {
            start: hole,
            len: 4096
        }));
        let less = used.subtract(&Extents::from_iter([Extent {
            start: hole,
            len: 4096,
        }]));
        let noticed = std::panic::catch_unwind(|| restored(&image, &less));
        assert!(!matches!(noticed, Ok(Ok(()))), "without {hole}");
    }
    restored(&image, &used).unwrap();
}

/// Clusters of the largest size: a few files, for each takes 2 MiB and is filled up.
#[test]
fn sector_512_cluster_2097152() {
    let image = empty(480, &["-c", "2097152"]);
    image.change(|root| {
        for i in 0..6 {
            std::fs::write(root.join(format!("file{i}")), [i; 5000]).unwrap();
        }
        std::fs::remove_file(root.join("file2")).unwrap();
    });
    assert_eq!(sizes(&image.path).cluster, 2 << 20);
    assert_eq!(whole_used(&image.path).used, expected(&image.path));
}

/// A volume that was made smaller and larger again. The tool leaves the dirty flag behind,
/// so that Windows has a look at it; then its boot sector, bitmap and end must agree.
#[test]
fn a_resized_volume() {
    let image = filled(40, &["-c", "4096"]);
    let resize = |args: &[&str]| {
        let mut all = vec!["-f", "-f"];
        all.extend(args);
        all.push(s(&image.path));
        ok("ntfsresize", &all);
        let map = scan_file(&image.path, 512);
        assert_eq!(map.regions[0].method, Method::Full);
        assert_eq!(map.warnings[0].kind, WarningKind::FsDirty);
        ok("ntfsfix", &["-d", s(&image.path)]);
    };
    resize(&["-s", "28000000"]);
    let sizes = sizes(&image.path);
    assert!(sizes.size < 28_000_000);
    let used = whole_used(&image.path).used;
    let in_clusters = used.intersect(0..sizes.clusters * sizes.cluster);
    assert_eq!(in_clusters, bitmap(&image.path));
    // The volume's own copy of the boot sector, wherever the partition ends.
    assert!(used.contains_all(Extent {
        start: sizes.size,
        len: 512
    }));
    restored(&image, &used).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&image.path);
    file.unwrap().set_len(68 << 20).unwrap();
    resize(&[]);
    verify(&image, 512);
}
