//! Metadata of LVM2 that must not be believed, and where it may stand.

mod common;

use common::lvm::{Group, area, linear, put_header, put_text, text_of, text_place, volume};
use common::{MIB, Numbers, peek, poke, whole, whole_used};
use diskmap::{Method, WarningKind};
use std::path::Path;

/// A disk that must be copied whole, and why.
fn refusal(disk: &Path, said: &str) -> Vec<WarningKind> {
    let (region, map) = whole(disk);
    assert_eq!(region.method, Method::Full, "{}", region.reason);
    assert_eq!(region.used.total(), region.size);
    assert_eq!(region.file_system, "lvm2");
    assert!(region.reason.contains(said), "{}", region.reason);
    map.warnings.iter().map(|w| w.kind).collect()
}

#[test]
fn physical_volumes_that_do_not_say_what_is_free() {
    let group = Group::empty(2, 32);
    let devices = group.devices();
    group.lvm("pvcreate", &["-y", &devices[0]]);
    assert_eq!(refusal(&group.disks[0], "belongs to no volume group"), []);
    group.lvm(
        "pvcreate",
        &["-ff", "-y", "--metadatacopies", "0", &devices[0]],
    );
    group.lvm("pvcreate", &["-y", &devices[1]]);
    group.lvm("vgcreate", &["vg0", &devices[0], &devices[1]]);
    assert_eq!(refusal(&group.disks[0], "no metadata of its own"), []);
    whole_used(&group.disks[1]);
}

#[test]
fn groups_in_an_unusual_state() {
    type Change = (&'static str, &'static str, &'static str);
    let cases: &[Change] = &[
        (
            "status = [\"RESIZEABLE\", ",
            "status = [\"RESIZEABLE\", \"CLUSTERED\", ",
            "unusual state",
        ),
        (
            "format = \"lvm2\"",
            "format = \"lvm2\"\nlock_type = \"sanlock\"\nlock_args = \"1.0.0:lvmlock\"",
            "shared by several",
        ),
    ];
    for (old, new, said) in cases {
        let group = Group::new(1, 32, &[]);
        group.create("data", 2, &[]);
        group.edit(|text| text.replacen(old, new, 1));
        assert_eq!(refusal(&group.disks[0], said), []);
    }
    // An exported group is a group.
    let group = Group::new(1, 32, &[]);
    group.create("data", 2, &[]);
    group.lvm("vgexport", &["vg0"]);
    whole_used(&group.disks[0]);
}

/// Metadata that no tool of today writes, with right checksums.
#[test]
fn what_is_not_known_is_not_believed() {
    let group = Group::new(1, 32, &["--metadatacopies", "2"]);
    group.create("data", 2, &[]);
    let disk = &group.disks[0];
    let text = text_of(disk, 0);
    let cases = [
        ("ALLOCATABLE", "ALLOCATABLY", "has it in an unusual state"),
        ("RESIZEABLE", "RESIZEABLY", "in an unusual state"),
        ("lvm2", "lvm9", "not of LVM2's own format"),
        ("version = 1", "version = 2", "unknown kind"),
        ("striped", "newtype", "volumes of type newtype"),
        (
            "stripe_count = 1",
            "stripe_count = 2",
            "another number of areas",
        ),
        ("extent_count = 2", "extent_count = 9", "reaches beyond"),
        (
            "extent_count = 2",
            "extent_count = 0",
            "do not fit together",
        ),
        (
            "start_extent = 0",
            "start_extent = 1",
            "do not fit together",
        ),
        (
            "segment_count = 1",
            "segment_count = 2",
            "number of segments",
        ),
        ("pe_start = 2048", "pe_start = 2047", "at another place"),
        (
            "pe_start = 2048",
            "pe_start = -204",
            "where its extents are",
        ),
        (
            "extent_size = 8192",
            "extent_size = 0   ",
            "where its extents are",
        ),
        (
            "extent_size = 8192",
            "extent_size = 9223372036854775807",
            "where its extents are",
        ),
        ("pe_count = ", "pe_count = 9", "at another place"),
        (
            "physical_volumes {",
            "physical_volumez {",
            "does not have it",
        ),
        ("logical_volumes {", "logical_volumes [", "not a text"),
    ];
    for (old, new, said) in cases {
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text, "{old}");
        put_text(disk, 0, &changed);
        put_text(disk, 1, &changed);
        refusal(disk, said);
    }
    // The same extent twice.
    let again = volume("again", true, &[(1, "striped", &linear(1))]);
    let twice = text.replacen(
        "logical_volumes {",
        &format!("logical_volumes {{\n{again}"),
        1,
    );
    put_text(disk, 0, &twice);
    put_text(disk, 1, &twice);
    refusal(disk, "two logical volumes have the same extent");
    // Two areas that do not say the same.
    put_text(disk, 0, &text);
    refusal(disk, "the copies of its metadata differ");
    put_text(disk, 1, &text);
    whole_used(disk);
    // A step that was not finished, a new flag.
    for (field, said) in [(40 + 24, "was not finished"), (40 + 20, "unknown flags")] {
        let mut header: [u8; 512] = peek(disk, 4096);
        header[field + 1] = 2;
        put_header(disk, 4096, &header);
        refusal(disk, said);
        header[field + 1] = 0;
        put_header(disk, 4096, &header);
        whole_used(disk);
    }
}

/// The texts stand in a ring: every place of it comes by, also the one where a text goes
/// on at the start.
#[test]
fn metadata_that_wraps_around() {
    let group = Group::new(1, 32, &["--dataalignment", "64k", "--metadatasize", "32k"]);
    group.create("data", 2, &[]);
    let (outside, allocated) = group.outside_and_allocated(0);
    let mut wrapped = 0;
    for i in 0..40 {
        let tag = format!("tag{i}");
        group.lvm("lvchange", &["--addtag", &tag, "vg0/data"]);
        let disk = &group.disks[0];
        let (offset, len) = text_place(disk, 4096);
        wrapped += u32::from(offset + len > u64::from_le_bytes(peek(disk, 4096 + 32)));
        assert!(text_of(disk, 0).contains(&tag));
        assert_eq!(whole_used(disk).used, outside.union(&allocated));
    }
    assert!(wrapped > 0, "the ring is too large for the test");
}

#[test]
fn every_byte_of_the_metadata_is_checked() {
    let group = Group::new(1, 32, &["--metadatacopies", "2"]);
    group.create("data", 2, &[]);
    let disk = &group.disks[0];
    whole_used(disk);
    let (offset, len) = text_place(disk, 4096);
    let last = area(disk, 1);
    let mut numbers = Numbers(0x1357_9bdf_0246_8ace);
    for (start, len, rounds) in [
        // The label behind its magic number, the headers of both areas, the text.
        (512 + 8, 16, 16),
        (512 + 32, 480, 100),
        (4096, 512, 50),
        (last, 512, 50),
        (4096 + offset, len, 100),
    ] {
        for round in 0..rounds {
            let at = start
                + if rounds == 16 {
                    round
                } else {
                    numbers.below(len)
                };
            let [old] = peek::<1>(disk, at);
            poke(disk, at, &[old ^ (1 << numbers.below(8))]);
            let warnings = refusal(disk, "damaged");
            assert_eq!(warnings, [WarningKind::FsDamaged], "byte {at}");
            poke(disk, at, &[old]);
        }
    }
    // A second label.
    let label: [u8; 512] = peek(disk, 512);
    poke(disk, 1024, &label);
    refusal(disk, "several labels");
    poke(disk, 1024, &[0; 512]);
    whole_used(disk);
    // The end is cut off.
    let file = std::fs::OpenOptions::new().write(true).open(disk).unwrap();
    file.set_len(32 * MIB - 512).unwrap();
    refusal(disk, "the physical volume says it has");
}
