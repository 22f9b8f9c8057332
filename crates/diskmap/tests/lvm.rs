//! LVM2 physical volumes made by LVM2, with file systems of mke2fs in their logical
//! volumes, against what LVM2 prints.

mod common;

use common::lvm::{Group, extract, linear, placed, put_text, text_of, volume};
use common::{
    MIB, assert_same_tree, fill, ok, ok_with_input, poke, restore_onto_garbage, s, scan_file,
    sparse, whole, whole_used,
};
use diskmap::{Extents, Method, Region, WarningKind};
use std::path::{Path, PathBuf};

/// An ext4 of `mib` MiB with files, and the folder they came from.
fn ext4(dir: &Path, mib: u64) -> (PathBuf, PathBuf) {
    let tree = dir.join("tree");
    fill(&tree, 30, mib << 12);
    let path = sparse(&dir.join("ext4"), mib << 20);
    let args = ["-q", "-F", "-t", "ext4", "-d", s(&tree), s(&path)];
    ok("mke2fs", &args);
    (path, tree)
}

/// Restores by the map and checks the file system in a volume, and the group.
fn check_restored(group: &Group, region: &Region, volume: &str, tree: &Path) {
    let dir = group.dir.path();
    let (restored, inside, out) = (dir.join("restored"), dir.join("inside"), dir.join("out"));
    restore_onto_garbage(&group.disks[0], &region.used, &restored);
    let pieces = group.pieces(volume);
    extract(&restored, &pieces, &inside);
    ok("e2fsck", &["-f", "-n", s(&inside)]);
    std::fs::create_dir(&out).unwrap();
    ok(
        "debugfs",
        &["-R", &format!("rdump / {}", s(&out)), s(&inside)],
    );
    std::fs::remove_dir(out.join("lost+found")).unwrap();
    assert_same_tree(tree, &out);
    // LVM2 finds the same group there.
    let report = [
        "--noheadings",
        "-o",
        "vg_name,vg_seqno,lv_name,seg_pe_ranges",
        "--segments",
    ];
    let before = group.lvm("lvs", &report);
    std::fs::copy(&restored, &group.disks[0]).unwrap();
    group.lvm("vgck", &["vg0"]);
    assert_eq!(group.lvm("lvs", &report), before);
    assert_eq!(group.pieces(volume), pieces);
}

#[test]
fn linear_volumes_are_copied_by_what_is_inside() {
    // One area of metadata in front; two, the other at the end.
    for copies in ["1", "2"] {
        let group = Group::new(1, 96, &["--metadatacopies", copies]);
        group.create("root", 4, &[]);
        group.create("gone", 2, &[]);
        group.create("swap", 3, &[]);
        group.lvm("lvextend", &["-l", "+5", "vg0/root"]);
        group.create("secret", 2, &[]);
        group.create("raw", 1, &[]);
        group.lvm("lvremove", &["-y", "vg0/gone"]);
        let dir = group.dir.path();
        let (fs, tree) = ext4(dir, 36);
        group.fill("root", &fs);
        let swap = sparse(&dir.join("swap"), 12 * MIB);
        ok("mkswap", &["-q", s(&swap)]);
        group.fill("swap", &swap);
        let secret = sparse(&dir.join("secret"), 8 * MIB);
        poke(&secret, 0, b"LUKS\xba\xbe");
        group.fill("secret", &secret);

        let region = whole_used(&group.disks[0]);
        assert_eq!(region.file_system, "lvm2");
        let uuid = group.lvm("pvs", &["--noheadings", "-o", "pv_uuid"]);
        assert_eq!(region.uuid, uuid.trim());
        assert_eq!(
            region.reason,
            "LVM2: volume group vg0: root (ext4) by used sectors, swap (swap) by used sectors, \
             secret (luks) every sector, raw (unknown) every sector; free extents left out."
        );
        let (outside, allocated) = group.outside_and_allocated(0);
        let mut expected = outside;
        for (volume, inner) in [
            ("root", whole_used(&fs).used),
            ("swap", whole_used(&swap).used),
            ("secret", Extents::whole(8 * MIB)),
            ("raw", Extents::whole(4 * MIB)),
        ] {
            let placed = placed(&group.pieces(volume), &inner);
            assert!(placed.subtract(&allocated).is_empty());
            expected = expected.union(&placed);
        }
        assert_eq!(region.used, expected);
        assert_eq!(group.pieces("root").len(), 2);
        // LVM2 counts in 512 bytes, whatever the disk does.
        let large = scan_file(&group.disks[0], 4096).regions.remove(0);
        assert_eq!(large.used, expected.aligned(4096, large.size));
        check_restored(&group, &region, "root", &tree);
    }
}

#[test]
fn a_striped_volume_on_one_disk() {
    let group = Group::new(1, 64, &[]);
    let device = group.devices().remove(0);
    group.create("first", 1, &[]);
    group.create(
        "striped",
        6,
        &["-i", "3", "-I", "8", "--alloc", "anywhere", &device],
    );
    let (fs, tree) = ext4(group.dir.path(), 24);
    group.fill("striped", &fs);
    let region = whole_used(&group.disks[0]);
    assert!(region.reason.contains("striped (ext4) by used sectors"));
    let pieces = group.pieces("striped");
    assert_eq!(pieces.len(), 24 * 128);
    let (outside, _) = group.outside_and_allocated(0);
    let first = Extents::from_iter(group.pieces("first"));
    let inner = placed(&pieces, &whole_used(&fs).used);
    assert_eq!(region.used, outside.union(&first).union(&inner));
    check_restored(&group, &region, "striped", &tree);
}

/// A group with an ext4 in `data` (the first six extents) and more volumes as text: the
/// map must have every allocated extent whole.
fn allocated_whole(volumes: &str, said: &[&str]) {
    let group = Group::new(1, 80, &[]);
    group.create("data", 6, &[]);
    let (fs, _) = ext4(group.dir.path(), 24);
    group.fill("data", &fs);
    let plain = whole_used(&group.disks[0]).used.total();
    group.add(volumes);
    let region = whole_used(&group.disks[0]);
    let (outside, allocated) = group.outside_and_allocated(0);
    assert_eq!(region.used, outside.union(&allocated), "{}", region.reason);
    assert!(plain < region.used.total());
    for said in said {
        assert!(region.reason.contains(said), "{}", region.reason);
    }
}

#[test]
fn the_origin_of_a_snapshot_is_copied_whole() {
    let snapshot = "chunk_size = 8\norigin = \"data\"\ncow_store = \"snap\"";
    let volumes = volume("snap", true, &[(2, "striped", &linear(6))])
        + &volume("snapshot0", true, &[(6, "snapshot", snapshot)]);
    allocated_whole(
        &volumes,
        &[
            "data (used by another volume) every sector",
            "snap (used by another volume) every sector",
        ],
    );
}

#[test]
fn the_parts_of_a_thin_pool_are_copied_whole() {
    // The external origin of a thin volume is read where the thin one has nothing.
    let pool = "metadata = \"pool_tmeta\"\npool = \"pool_tdata\"\ntransaction_id = 1\n\
        chunk_size = 128\ndiscards = \"passdown\"\nzero_new_blocks = 1";
    let thin =
        "thin_pool = \"pool\"\ntransaction_id = 0\ndevice_id = 1\nexternal_origin = \"data\"";
    let volumes = volume("pool", true, &[(4, "thin-pool", pool)])
        + &volume("pool_tmeta", false, &[(1, "striped", &linear(6))])
        + &volume("pool_tdata", false, &[(4, "striped", &linear(7))])
        + &volume("thin", true, &[(6, "thin", thin)]);
    allocated_whole(
        &volumes,
        &[
            "data (used by another volume) every sector",
            "pool_tdata (used by another volume) every sector",
            "pool_tmeta (used by another volume) every sector",
        ],
    );
}

#[test]
fn a_volume_that_is_locked_by_a_move_is_copied_whole() {
    let group = Group::new(1, 80, &[]);
    group.create("data", 6, &[]);
    let (fs, _) = ext4(group.dir.path(), 24);
    group.fill("data", &fs);
    let mirror = "mirror_count = 2\nregion_size = 1024\nextents_moved = 0\nmirrors = [\"pv0\", 0, \"pv0\", 8]";
    let moved = volume("pvmove0", false, &[(6, "mirror", mirror)])
        .replace(
            "[\"READ\", \"WRITE\"]",
            "[\"READ\", \"WRITE\", \"PVMOVE\", \"LOCKED\"]",
        )
        .replace(
            "flags = []",
            "flags = []\nallocation_policy = \"contiguous\"",
        );
    group.edit(|text| {
        text.replace("\"pv0\", 0", "\"pvmove0\", 0")
            .replace(
                "\"WRITE\", \"VISIBLE\"]",
                "\"WRITE\", \"VISIBLE\", \"LOCKED\"]",
            )
            .replace("logical_volumes {", &format!("logical_volumes {{\n{moved}"))
    });
    let region = whole_used(&group.disks[0]);
    let (outside, allocated) = group.outside_and_allocated(0);
    assert_eq!(allocated.total(), 12 * 4 * MIB);
    assert_eq!(region.used, outside.union(&allocated), "{}", region.reason);
    assert!(
        region
            .reason
            .contains("pvmove0 (used by another volume) every sector")
    );
}

#[test]
fn volumes_on_several_disks() {
    let group = Group::new(2, 80, &[]);
    let devices = group.devices();
    group.create("data", 6, &[&devices[0]]);
    group.create("both", 4, &["-i", "2"]);
    group.create("other", 3, &[&devices[1]]);
    let (fs, _) = ext4(group.dir.path(), 24);
    group.fill("data", &fs);
    let region = whole_used(&group.disks[0]);
    let (outside, allocated) = group.outside_and_allocated(0);
    let data = group.pieces("data");
    let inner = placed(&data, &whole_used(&fs).used);
    let both = allocated.subtract(&Extents::from_iter(data));
    assert_eq!(both.total(), 2 * 4 * MIB);
    assert_eq!(region.used, outside.union(&both).union(&inner));
    assert_eq!(
        region.reason,
        "LVM2: volume group vg0: data (ext4) by used sectors, both (not on this disk alone) \
         every sector; free extents left out."
    );
    let region = whole_used(&group.disks[1]);
    let (outside, allocated) = group.outside_and_allocated(1);
    assert_eq!(region.used, outside.union(&allocated));
    // Metadata that nobody keeps up to date any more.
    group.lvm("pvchange", &["--metadataignore", "y", &devices[0]]);
    let (region, _) = whole(&group.disks[0]);
    assert_eq!(region.method, Method::Full);
    assert!(region.reason.contains("kept on other disks"));
}

/// A volume of an unknown type that names no physical volume, and one that mentions a
/// volume in a way that is not known: what is mentioned is copied whole.
#[test]
fn unknown_types_make_what_they_mention_whole() {
    let group = Group::new(1, 64, &[]);
    group.create("data", 6, &[]);
    let (fs, _) = ext4(group.dir.path(), 24);
    group.fill("data", &fs);
    let disk = &group.disks[0];
    let text = text_of(disk, 0);
    let (outside, allocated) = group.outside_and_allocated(0);
    for (fields, whole) in [
        ("something = [\"x\", 3]", false),
        ("something = [1, \"data\"]", true),
        ("deep { something = \"data\" }", true),
    ] {
        let new = volume("new", true, &[(3, "newtype", fields)]);
        let changed = text.replacen(
            "logical_volumes {",
            &format!("logical_volumes {{\n{new}"),
            1,
        );
        put_text(disk, 0, &changed);
        let region = whole_used(disk);
        let all = outside.union(&allocated);
        assert_eq!(region.used == all, whole, "{fields}: {}", region.reason);
        assert!(region.used.subtract(&all).is_empty());
    }
}

#[test]
fn trouble_inside_is_told_with_the_name_of_the_volume() {
    let group = Group::new(1, 64, &[]);
    group.create("data", 6, &[]);
    group.create("swap", 2, &[]);
    let (fs, _) = ext4(group.dir.path(), 24);
    poke(&fs, 1024 + 0x78, b"x");
    group.fill("data", &fs);
    let (region, map) = whole(&group.disks[0]);
    assert_eq!(region.method, Method::Used);
    let (outside, allocated) = group.outside_and_allocated(0);
    assert_eq!(region.used, outside.union(&allocated));
    assert_eq!(map.warnings.len(), 1);
    assert_eq!(map.warnings[0].kind, WarningKind::FsDamaged);
    assert!(
        map.warnings[0].detail.starts_with("vg0/data: "),
        "{:?}",
        map.warnings
    );
    // A system that is suspended to a volume knows more than any disk.
    let swap = sparse(&group.dir.path().join("swap"), 8 * MIB);
    ok("mkswap", &["-q", s(&swap)]);
    poke(&swap, 4086, b"S1SUSPEND\0");
    group.fill("swap", &swap);
    let (region, map) = whole(&group.disks[0]);
    assert_eq!(region.method, Method::Full);
    assert!(
        map.warnings
            .iter()
            .any(|w| w.detail.starts_with("vg0/swap: "))
    );
}

/// A guest's disk with a partition table, in a volume that was a file system before.
#[test]
fn the_disk_of_a_guest_is_copied_whole() {
    let group = Group::new(1, 64, &[]);
    group.create("guest", 6, &[]);
    let (fs, _) = ext4(group.dir.path(), 24);
    ok_with_input("sfdisk", &["-q", s(&fs)], "label: gpt\nstart=2048\n");
    group.fill("guest", &fs);
    let region = whole_used(&group.disks[0]);
    let (outside, allocated) = group.outside_and_allocated(0);
    assert_eq!(region.used, outside.union(&allocated));
}

#[test]
fn volumes_inside_are_told_with_their_places() {
    let group = Group::new(1, 96, &[]);
    group.create("root", 4, &[]);
    group.create("home", 2, &[]);
    group.lvm("lvextend", &["-l", "+3", "vg0/root"]);
    group.create("raw", 1, &[]);
    let (fs, _) = ext4(group.dir.path(), 28);
    group.fill("root", &fs);
    let fat = sparse(&group.dir.path().join("fat"), 8 * MIB);
    ok("mkfs.vfat", &[s(&fat)]);
    group.fill("home", &fat);
    let disk = common::FileDisk::open(&group.disks[0]);
    let size = group.disks[0].metadata().unwrap().len();
    let found = diskmap::inner_volumes(&disk, 0, size).unwrap();
    assert_eq!(found.others, []);
    let told = found.volumes.iter().map(|v| (&*v.name, &*v.file_system));
    let told: Vec<_> = told.collect();
    assert_eq!(told, [("root", "ext4"), ("home", "fat12"), ("raw", "")]);
    for volume in &found.volumes {
        assert_eq!(volume.parts, group.pieces(&volume.name), "{}", volume.name);
    }
}
