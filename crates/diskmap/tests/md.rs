//! Members of Linux software RAID: superblocks by recipe, checked by mdadm, around file
//! systems of mke2fs.

mod common;

use common::md::{Recipe, UUID, examine};
use common::{
    MIB, assert_same_tree, fill, ok, ok_with_input, peek, poke, restore_onto_garbage, s, sparse,
    whole, whole_used,
};
use diskmap::{Extent, Extents, Method, WarningKind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const VERSIONS: [&str; 4] = ["0.90", "1.0", "1.1", "1.2"];

/// An ext4 with files, the folder they came from, and where both are.
fn ext4() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fill(&tree, 40, 60_000);
    let path = sparse(&dir.path().join("fs"), 24 * MIB);
    let args = ["-q", "-F", "-t", "ext4", "-L", "inside", "-d"];
    ok("mke2fs", &[&args[..], &[s(&tree), s(&path)]].concat());
    (dir, path, tree)
}

/// Bytes to copy of a member whose content has the used bytes `inner`.
fn expected(member: &Path, recipe: &Recipe, len: u64, inner: &Extents) -> Extents {
    let size = member.metadata().unwrap().len();
    let data = Extent {
        start: recipe.data(),
        len,
    };
    let outside = Extents::whole(size).subtract(&Extents::from_iter([data]));
    let moved = inner.iter().map(|e| Extent {
        start: e.start + recipe.data(),
        len: e.len,
    });
    outside.union(&moved.collect())
}

#[test]
fn a_mirror_of_every_version_is_copied_by_what_is_inside() {
    let (dir, path, tree) = ext4();
    let inner = whole_used(&path);
    let len = inner.size;
    for version in VERSIONS {
        let recipe = Recipe::new(version);
        let member = recipe.wrap(&path);
        let told = examine(&member);
        assert_eq!(told("Raid Level"), "raid1");
        assert!(told("Checksum").ends_with("correct"), "{version}");
        assert!(["clean", "active"].contains(&told("State").as_str()));

        let region = whole_used(&member);
        assert_eq!(region.file_system, "md");
        let uuid = region.uuid.replace('-', "");
        assert_eq!(uuid, hex::encode(UUID));
        if version == "0.90" {
            assert_eq!(told("UUID").replace(':', ""), uuid);
        } else {
            assert_eq!(told("Array UUID").replace(':', ""), uuid);
            assert_eq!(region.label, "host:mirror");
            assert_eq!(told("Internal Bitmap"), "8 sectors from superblock");
            assert!(told("Bad Block Log").starts_with("512 entries"));
        }
        assert_eq!(
            region.reason,
            "RAID1 member. ext4: only the space in use is copied."
        );
        assert_eq!(region.used, expected(&member, &recipe, len, &inner.used));

        // What was copied is a working member with a working file system.
        let restored = dir.path().join("restored");
        restore_onto_garbage(&member, &region.used, &restored);
        assert!(examine(&restored)("Checksum").ends_with("correct"));
        let bytes = std::fs::read(&restored).unwrap();
        let content = &bytes[recipe.data() as usize..][..len as usize];
        let inside = dir.path().join("inside");
        std::fs::write(&inside, content).unwrap();
        ok("e2fsck", &["-f", "-n", s(&inside)]);
        let out = dir.path().join(format!("out-{version}"));
        std::fs::create_dir(&out).unwrap();
        ok(
            "debugfs",
            &["-R", &format!("rdump / {}", s(&out)), s(&inside)],
        );
        std::fs::remove_dir(out.join("lost+found")).unwrap();
        assert_same_tree(&tree, &out);

        // One used block less, and the comparison notices.
        let missing = region.used.iter().last().copied().into_iter().collect();
        assert_ne!(
            region.used.subtract(&missing),
            expected(&member, &recipe, len, &inner.used)
        );
    }
}

/// A member with a small file system, changed by `change`: why it is copied whole, and
/// the warnings.
fn refused(
    version: &'static str,
    change: impl FnOnce(&mut Recipe),
) -> (String, Vec<(WarningKind, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), 4 * MIB);
    ok("mke2fs", &["-q", "-F", "-t", "ext2", s(&path)]);
    let mut recipe = Recipe::new(version);
    change(&mut recipe);
    let member = recipe.wrap(&path);
    assert!(
        examine(&member)("Checksum").contains("correct"),
        "the recipe is not valid for mdadm"
    );
    refusal(&member)
}

fn refusal(member: &Path) -> (String, Vec<(WarningKind, String)>) {
    let (region, map) = whole(member);
    assert_eq!(region.method, Method::Full, "{}", region.reason);
    assert_eq!(region.used.total(), region.size);
    assert_eq!(region.file_system, "md");
    let warnings = map.warnings.into_iter().map(|w| (w.kind, w.detail));
    (region.reason, warnings.collect())
}

#[test]
fn other_levels_are_copied_whole_and_named() {
    for version in VERSIONS {
        for (level, name) in [
            (0, "RAID0"),
            (4, "RAID4"),
            (5, "RAID5"),
            (6, "RAID6"),
            (10, "RAID10"),
            (-1, "linear"),
            (-4, "multipath"),
        ] {
            let (reason, warnings) = refused(version, |recipe| recipe.level = level);
            let said =
                format!("md: every sector is copied, because it is a member of a {name} array.");
            assert_eq!(reason, said);
            assert_eq!(warnings, []);
        }
    }
}

#[test]
fn members_that_cannot_be_read_alone_are_copied_whole() {
    type Change = fn(&mut Recipe);
    let cases: &[(&[&'static str], Change, &str)] = &[
        (&VERSIONS[1..], |r| r.features |= 2, "it is being rebuilt"),
        (&VERSIONS[1..], |r| r.features |= 4, "being reshaped"),
        (&VERSIONS[1..], |r| r.features |= 16, "replacement"),
        (&VERSIONS[1..], |r| r.features |= 256, "several machines"),
        (&VERSIONS[1..], |r| r.features |= 1 << 30, "0x40000000"),
        (&VERSIONS[1..], |r| r.role = 0xffff, "it is a spare"),
        (&VERSIONS[1..], |r| r.role = 0xfffe, "marked as failed"),
        (&VERSIONS[1..], |r| r.role = 0xfffd, "it is a journal"),
        (&VERSIONS[1..], |r| r.flags = 4, "unknown flags"),
        (&VERSIONS[1..], |r| r.bad_block = 0x2001, "recorded as bad"),
        (&VERSIONS[..1], |r| r.device_state = 0, "it is a spare"),
        (&VERSIONS[..1], |r| r.device_state = 7, "marked as failed"),
        (&VERSIONS[..1], |r| r.device_state = 6 | 1 << 18, "flags"),
        (&VERSIONS[..1], |r| r.state |= 1 << 4, "unknown (0x11)"),
        (&VERSIONS[..1], |r| r.minor = 91, "being reshaped"),
    ];
    for (versions, change, said) in cases {
        for version in *versions {
            let (reason, warnings) = refused(version, change);
            assert!(reason.contains(said), "{version}: {reason}");
            assert_eq!(warnings, []);
        }
    }
}

#[test]
fn an_array_that_was_not_stopped_is_told() {
    let (reason, warnings) = refused("0.90", |recipe| recipe.state = 0);
    assert!(reason.contains("not stopped cleanly"), "{reason}");
    assert_eq!(warnings[0].0, WarningKind::FsDirty);
    for version in &VERSIONS[1..] {
        for resync in [0, 12345] {
            let (reason, warnings) = refused(version, |recipe| recipe.resync = resync);
            assert!(reason.contains("not stopped cleanly"), "{reason}");
            assert_eq!(warnings[0].0, WarningKind::FsDirty);
        }
    }
}

#[test]
fn every_bit_of_a_superblock_is_covered_by_its_checksum() {
    let (_dir, path, _) = ext4();
    for version in VERSIONS {
        let recipe = Recipe::new(version);
        let member = recipe.wrap(&path);
        let place = recipe.place(member.metadata().unwrap().len());
        // Level, size, places, roles.
        for at in [28, 32, 72, 80, 128, 136, 144, 160, 208, 216, 220, 258, 500] {
            let [old] = peek::<1>(&member, place + at);
            poke(&member, place + at, &[old ^ 4]);
            let (reason, warnings) = refusal(&member);
            assert!(reason.contains("damaged"), "{version} {at}: {reason}");
            assert_eq!(warnings[0].0, WarningKind::FsDamaged);
            poke(&member, place + at, &[old]);
        }
        whole_used(&member);
    }
}

#[test]
fn what_is_inside_decides() {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("fs"), 4 * MIB);
    // Encrypted.
    poke(&path, 0, b"LUKS\xba\xbe");
    let (reason, _) = refusal(&Recipe::new("1.2").wrap(&path));
    assert_eq!(
        reason,
        "md: every sector is copied, because of what is inside. LUKS: every sector is copied, \
         because its content is encrypted."
    );
    // Damaged, and told.
    ok("mke2fs", &["-q", "-F", "-t", "ext4", s(&path)]);
    poke(&path, 1024 + 0x78, b"x");
    for version in VERSIONS {
        let (reason, warnings) = refusal(&Recipe::new(version).wrap(&path));
        assert!(reason.contains("ext4"), "{reason}");
        assert_eq!(warnings.len(), 1, "{reason}");
    }
    // A mirror of mirrors.
    ok("mke2fs", &["-q", "-F", "-t", "ext4", s(&path)]);
    let inner = Recipe::new("1.2").wrap(&path);
    let region = whole_used(&Recipe::new("1.1").wrap(&inner));
    assert!(region.used.total() < region.size - 2 * MIB, "{region:?}");
    assert!(
        region
            .reason
            .starts_with("RAID1 member. RAID1 member. ext4")
    );
}

/// The array was a file system once and is a partitioned disk now: the old superblock is
/// still there, between the table and the first partition.
#[test]
fn a_partitioned_array_is_not_taken_for_the_file_system_it_was() {
    let (_dir, path, _) = ext4();
    ok_with_input(
        "sfdisk",
        &["-q", s(&path)],
        "label: dos\nstart=2048, type=83\n",
    );
    for version in VERSIONS {
        let member = Recipe::new(version).wrap(&path);
        // The table of a mirror with its superblock at the end is the disk's own.
        if ["1.1", "1.2"].contains(&version) {
            let (reason, _) = refusal(&member);
            assert!(
                reason.contains("ext4 and a partition table at once"),
                "{reason}"
            );
        }
    }
}

#[test]
fn two_superblocks_at_once_are_no_mirror() {
    let (_dir, path, _) = ext4();
    let member = Recipe::new("1.2").wrap(&path);
    Recipe::new("0.90").write(&member, 16 * MIB);
    let (reason, _) = refusal(&member);
    assert!(reason.contains("0.90 and 1.2 at once"), "{reason}");
}

/// The superblock of a former array at the end of a partition that is an ext4 now.
#[test]
fn an_old_superblock_at_the_end_never_makes_a_smaller_map() {
    let (dir, path, _) = ext4();
    for version in ["0.90", "1.0"] {
        let recipe = Recipe::new(version);
        // The file system covers less than the former array, or more.
        for (array, used) in [(25 * MIB, true), (20 * MIB, false)] {
            let member = dir.path().join("member");
            std::fs::copy(&path, &member).unwrap();
            std::fs::OpenOptions::new()
                .write(true)
                .open(&member)
                .unwrap()
                .set_len(26 * MIB)
                .unwrap();
            let plain = whole_used(&member);
            recipe.write(&member, array);
            let (region, map) = whole(&member);
            assert_eq!(region.method == Method::Used, used, "{}", region.reason);
            assert_eq!(map.warnings.is_empty(), used);
            assert!(plain.used.subtract(&region.used).is_empty());
        }
    }
}

#[test]
fn what_a_mirror_holds_is_told_with_its_place() {
    let (_dir, path, _) = ext4();
    let len = path.metadata().unwrap().len();
    let inner = |member: &Path| {
        let disk = common::FileDisk::open(member);
        let size = member.metadata().unwrap().len();
        diskmap::inner_volumes(&disk, 0, size).unwrap()
    };
    for version in VERSIONS {
        let recipe = Recipe::new(version);
        let found = inner(&recipe.wrap(&path));
        let [only] = found.volumes.as_slice() else {
            panic!("{version}: {found:?}");
        };
        let start = recipe.data();
        assert_eq!(only.parts, [Extent { start, len }], "{version}");
        assert_eq!(only.file_system, "ext4");
        // A member that may be behind the others is not looked into.
        let unsure = Recipe {
            resync: 5,
            state: 0,
            ..recipe
        };
        let found = inner(&unsure.wrap(&path));
        assert_eq!(found.volumes, [], "{version}");
        assert_eq!(found.others.len(), 1);
    }
    // Bare: no volumes.
    assert_eq!(inner(&path).volumes, []);
}
