//! Btrfs made by mkfs.btrfs and the kernel, against what btrfs-progs say of it.
//!
//! Three oracles: the extent and chunk trees as `btrfs inspect-internal dump-tree`
//! prints them, mapped by other code than ours, must be matched byte by byte; a
//! restore by the map onto garbage must pass `btrfs check` with the checksums of all
//! data; and the kernel must read every file in it with the same content.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod groups;
mod image;
mod kinds;
mod oracle;
mod unclean;

use common::{ok, restore_onto_garbage, s, whole, whole_used};
use diskmap::{Extent, Extents, Method};
use image::Image;
use oracle::{assert_matches, matches, oracle};

/// Made, aged by the kernel, mapped, restored and compared.
fn verify(mib: u64, args: &[&str]) {
    let image = Image::new(mib, args);
    let files = image.age();
    let region = whole_used(&image.path);
    assert_eq!((&*region.file_system, &*region.label), ("btrfs", "mylabel"));
    let dump = ok("btrfs", &["inspect-internal", "dump-super", s(&image.path)]);
    assert!(dump.contains(&format!("fsid\t\t\t{}\n", region.uuid)));
    assert_matches(&region.used, &oracle(&image.path));
    image.assert_restores(&region.used, &files);
}

/// Made, mapped, restored and checked.
fn verify_new(mib: u64, args: &[&str]) {
    let image = Image::new(mib, args);
    let used = whole_used(&image.path).used;
    assert_matches(&used, &oracle(&image.path));
    let target = image.work.join("restored");
    restore_onto_garbage(&image.path, &used, &target);
    image::check(&target);
}

macro_rules! recipes {
    ($($name:ident: $verify:ident $mib:expr, [$($arg:expr),*];)*) => {
        $(#[test]
        fn $name() {
            $verify($mib, &[$($arg),*]);
        })*
    };
}

recipes! {
    defaults: verify 128, [];
    single: verify 128, ["-d", "single", "-m", "single"];
    mixed_groups: verify 128, ["-M", "-n", "4096"];
    nodes_of_64k: verify 256, ["-n", "65536"];
    old_features: verify 128, ["-O", "^skinny-metadata,^no-holes,^extref", "-R", "^free-space-tree"];
    mixed_groups_duplicated: verify_new 256, ["-M", "-d", "dup", "-m", "dup"];
    striped_over_one_device: verify_new 110, ["-d", "raid0", "-m", "raid0"];
    nodes_of_4k: verify_new 110, ["-n", "4096"];
    quotas: verify_new 110, ["-R", "quota"];
    sum_xxhash: verify_new 110, ["--csum", "xxhash"];
    sum_sha256: verify_new 110, ["--csum", "sha256"];
    sum_blake2: verify_new 110, ["--csum", "blake2"];
}

/// After a balance the chunks are at other places, in another order, than they were.
#[test]
fn balanced() {
    let image = Image::new(192, &[]);
    image.age();
    let files = image.mounted("rw", |at| {
        ok("btrfs", &["balance", "start", "--full-balance", s(at)]);
        ok("sync", &[]);
        image::files(at)
    });
    let used = whole_used(&image.path).used;
    let oracle = oracle(&image.path);
    assert!(
        oracle.chunks.windows(2).any(|w| w[0].place > w[1].place),
        "the balance has moved nothing: {:?}",
        oracle.chunks
    );
    assert_matches(&used, &oracle);
    image.assert_restores(&used, &files);
}

/// The checks above must notice a single sector that is lost, and one too many.
#[test]
fn the_oracles_notice_one_sector() {
    let image = Image::new(128, &[]);
    image.age();
    let oracle = oracle(&image.path);
    let used = whole_used(&image.path).used;
    for extent in used.iter() {
        let last = Extent::between(extent.end() - 4096, extent.end());
        let less = used.subtract(&Extents::from_iter([last]));
        assert!(matches(&less, &oracle).is_err());
        let next = Extent {
            start: extent.end(),
            len: 4096,
        };
        let more = used.union(&Extents::from_iter([next]));
        assert!(matches(&more, &oracle).is_err());
    }
}

/// Other tools lose the second copies, so that the restored file system has errors which
/// show when the first copies fail.
#[test]
fn second_copies_are_restored() {
    let image = Image::new(128, &["-d", "dup", "-m", "dup"]);
    let files = image.age();
    let used = whole_used(&image.path).used;
    let target = image.assert_restores(&used, &files);
    assert!(oracle(&image.path).second_copies.total() > 1 << 20);
    assert_eq!(image::scrub(&target), "no errors found");
    for lost in &oracle(&image.path).second_copies {
        common::poke(&target, lost.start, &[0xa5; 4096]);
    }
    assert_ne!(image::scrub(&target), "no errors found");
}

/// The tools' own way from logical to physical addresses agrees with the oracle's.
#[test]
fn the_oracle_maps_as_btrfs_map_logical_does() {
    let image = Image::new(128, &[]);
    image.age();
    let oracle = oracle(&image.path);
    for chunk in &oracle.chunks {
        let at = chunk.logical + 65536;
        let text = ok(
            "btrfs-map-logical",
            &["-l", &at.to_string(), "-b", "4096", s(&image.path)],
        );
        let place = format!("physical {} device", chunk.place + 65536);
        // It prints nothing for what is not allocated.
        assert!(
            text.trim().is_empty() || text.contains(&place),
            "{text} {place}"
        );
    }
}

#[test]
fn a_file_system_smaller_than_its_partition() {
    let image = Image::new(200, &["-b", "134217728"]);
    let used = whole_used(&image.path).used;
    // The last MiB is kept; other layers have their labels there.
    let behind = used.intersect(128 << 20..200 << 20);
    assert_eq!(behind.as_slice(), [Extent::between(199 << 20, 200 << 20)]);
}

#[test]
fn devices_of_a_larger_file_system_are_copied_in_full() {
    let image = Image::new(128, &[]);
    let second = image.work.join("second");
    common::sparse(&second, 128 << 20);
    ok("mkfs.btrfs", &["-q", "-f", s(&image.path), s(&second)]);
    for path in [&image.path, &second] {
        let (region, map) = whole(path);
        assert_eq!((region.method, map.warnings.len()), (Method::Full, 0));
        let words = "it is one of 2 devices of a file system";
        assert!(region.reason.contains(words), "{}", region.reason);
    }
}
