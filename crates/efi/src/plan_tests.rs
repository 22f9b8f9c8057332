//! The rules, on entries in the form of real firmware.

use super::{Change, Esp, Firmware, Loader, Restored, plan};
use crate::load_option::LoadOption;
use crate::path::{DevicePath, HardDrive, Node, Signature};
use crate::samples::{OVMF_DISK, OVMF_NETWORK, WINDOWS, hex};
use proptest::prelude::*;
use std::collections::BTreeSet;

const SHIM: &str = "\\EFI\\debian\\shimx64.efi";

fn drive(guid: u8) -> HardDrive {
    HardDrive {
        partition: 1,
        start: 2048,
        sectors: 204_800,
        signature: Signature::Gpt([guid; 16]),
    }
}

fn loader(name: &str, file: &str) -> Loader {
    Loader {
        name: name.into(),
        file: file.into(),
    }
}

fn restored(guid: u8) -> Restored {
    Restored {
        esps: vec![Esp {
            place: drive(guid),
            loaders: vec![loader("debian", SHIM)],
        }],
        gone: vec![Signature::Gpt([0xee; 16])],
    }
}

fn entry(name: &str, place: &HardDrive, file: &str) -> Vec<u8> {
    let path = DevicePath::of(vec![place.node(), Node::file(file)]);
    LoadOption::new(name, path).encode().unwrap()
}

/// Entry 0: network; 1: a disk, as the firmware names it; then the given ones.
fn firmware(more: &[Vec<u8>], order: &[u16]) -> Firmware {
    let all = [hex(OVMF_NETWORK), hex(OVMF_DISK)];
    Firmware {
        entries: (0..).zip(all.into_iter().chain(more.to_vec())).collect(),
        order: order.to_vec(),
    }
}

fn has_debian(_: usize, file: &str) -> Option<bool> {
    Some(file.eq_ignore_ascii_case(SHIM))
}

fn apply(mut firmware: Firmware, changes: &[Change]) -> Firmware {
    for change in changes {
        match change {
            Change::Set { number, bytes, .. } => {
                firmware.entries.insert(*number, bytes.clone());
            }
            Change::Order { order, .. } => firmware.order = order.clone(),
            Change::Delete { number, .. } => {
                firmware.entries.remove(number);
            }
        }
    }
    firmware
}

fn after(before: &Firmware, restored: &Restored) -> Firmware {
    let changes = plan(before, restored, &has_debian);
    let after = apply(before.clone(), &changes);
    let again = plan(&after, restored, &has_debian);
    assert_eq!(again, [], "what is as it should be is left alone");
    after
}

fn name(firmware: &Firmware, number: u16) -> String {
    LoadOption::decode(&firmware.entries[&number])
        .unwrap()
        .name()
}

#[test]
fn a_missing_entry_is_made_behind_the_network() {
    let after = after(&firmware(&[], &[0, 1]), &restored(1));
    assert_eq!(after.order, [0, 2, 1]);
    let made = LoadOption::decode(&after.entries[&2]).unwrap();
    assert_eq!(
        (made.name().as_str(), made.path.file().as_str()),
        ("debian", SHIM)
    );
    assert_eq!(made.path.hard_drive(), Some(drive(1)));
    assert!(made.is_active() && made.optional.is_empty());
}

#[test]
fn without_a_network_entry_at_its_head_it_comes_first() {
    for (before, wanted) in [(&[1, 0][..], &[2, 1, 0][..]), (&[], &[2])] {
        assert_eq!(after(&firmware(&[], before), &restored(1)).order, wanted);
    }
}

#[test]
fn an_entry_that_is_right_is_left_alone() {
    // In other letters, as FAT has it.
    let there = entry("mine", &drive(1), "\\efi\\DEBIAN\\shimX64.efi");
    let before = firmware(&[there], &[0, 1, 2]);
    assert_eq!(plan(&before, &restored(1), &has_debian), []);
}

#[test]
fn one_that_is_in_no_order_is_put_there() {
    let there = entry("debian", &drive(1), SHIM);
    let after = after(&firmware(&[there], &[0, 1]), &restored(1));
    assert_eq!(after.order, [0, 2, 1]);
    assert_eq!(after.entries.len(), 3);
}

#[test]
fn one_of_the_disk_s_old_identity_is_corrected_and_not_doubled() {
    let stale = entry("my debian", &drive(0xee), SHIM);
    let after = after(&firmware(&[stale], &[0, 2, 1]), &restored(1));
    assert_eq!(after.order, [0, 2, 1]);
    assert_eq!(after.entries.len(), 3);
    assert_eq!(name(&after, 2), "my debian");
    let path = LoadOption::decode(&after.entries[&2]).unwrap().path;
    assert_eq!(path.hard_drive(), Some(drive(1)));
}

#[test]
fn a_partition_that_has_moved_is_corrected() {
    let moved = HardDrive {
        start: 4096,
        ..drive(1)
    };
    let before = firmware(&[entry("debian", &moved, SHIM)], &[0, 2, 1]);
    let changes = plan(&before, &restored(1), &has_debian);
    let [Change::Set { number: 2, why, .. }] = &changes[..] else {
        panic!("{changes:?}")
    };
    assert_eq!(
        why,
        "boot entry 0002 \"debian\" corrected: it leads to partition 1 as it is now"
    );
}

#[test]
fn doubles_go_and_the_first_in_the_order_stays() {
    let one = entry("debian", &drive(1), SHIM);
    let stale = entry("debian", &drive(0xee), SHIM);
    let after = after(
        &firmware(&[one.clone(), stale, one], &[0, 4, 1, 3, 2]),
        &restored(1),
    );
    assert_eq!(after.order, [0, 4, 1]);
    assert_eq!(after.entries.len(), 3);
}

#[test]
fn the_same_program_with_other_arguments_is_no_double() {
    let path = DevicePath::of(vec![drive(1).node(), Node::file(SHIM)]);
    let with = |text: &str| {
        let option = LoadOption::new("linux", path.clone());
        let optional = text.as_bytes().to_vec();
        LoadOption { optional, ..option }.encode().unwrap()
    };
    let before = firmware(&[with("quiet"), with("single")], &[0, 2, 3]);
    assert_eq!(plan(&before, &restored(1), &has_debian), []);
}

#[test]
fn one_whose_system_was_replaced_goes_and_the_new_one_gets_its_own() {
    // Windows was on the disk; its partition is not, and the image is of another system.
    let mut windows = LoadOption::decode(&hex(WINDOWS)).unwrap();
    windows.path = windows.path.moved_to(&drive(0xee));
    let before = firmware(&[windows.encode().unwrap()], &[2, 0, 1]);
    let after = after(&before, &restored(1));
    assert_eq!(after.order, [0, 3, 1]);
    assert!(!after.entries.contains_key(&2));
    assert_eq!(name(&after, 3), "debian");
}

#[test]
fn other_disks_entries_are_not_touched() {
    let elsewhere = entry("debian", &drive(7), "\\EFI\\none.efi");
    let after = after(
        &firmware(std::slice::from_ref(&elsewhere), &[2, 0, 1]),
        &restored(1),
    );
    assert_eq!(after.entries[&2], elsewhere);
    assert_eq!(after.order, [3, 2, 0, 1]);
}

#[test]
fn where_the_file_system_cannot_be_read_nothing_goes_and_nothing_is_made_twice() {
    let there = entry("debian", &drive(1), SHIM);
    let before = firmware(&[there], &[0, 2, 1]);
    assert_eq!(plan(&before, &restored(1), &|_, _| None), []);
}

#[test]
fn every_system_of_the_disk_gets_an_entry_and_a_disabled_one_counts_for_none() {
    let mut two = restored(1);
    two.esps[0]
        .loaders
        .push(loader("Windows Boot Manager", "\\w.efi"));
    let mut disabled = LoadOption::decode(&entry("debian", &drive(1), SHIM)).unwrap();
    disabled.attributes = 0;
    let before = firmware(&[disabled.encode().unwrap()], &[0, 1, 2]);
    let changes = plan(&before, &two, &|_, _| Some(true));
    let after = apply(before, &changes);
    assert_eq!(plan(&after, &two, &|_, _| Some(true)), []);
    assert_eq!(after.order, [0, 3, 4, 1, 2]);
    assert_eq!(
        [name(&after, 3), name(&after, 4)],
        ["debian", "Windows Boot Manager"]
    );
}

#[test]
fn a_disk_without_an_esp_only_loses_what_leads_nowhere() {
    let before = firmware(&[entry("old", &drive(0xee), SHIM)], &[0, 2, 1]);
    let data = Restored {
        esps: Vec::new(),
        gone: vec![Signature::Gpt([0xee; 16])],
    };
    let after = apply(before.clone(), &plan(&before, &data, &has_debian));
    assert_eq!(after.order, [0, 1]);
    assert_eq!(after.entries.len(), 2);
}

#[test]
fn an_mbr_disk_s_partitions_are_told_apart_by_number() {
    let of = |partition| HardDrive {
        partition,
        signature: Signature::Mbr([1, 2, 3, 4]),
        ..drive(1)
    };
    let mut mbr = restored(1);
    mbr.esps[0].place = of(1);
    let other = entry("other", &of(2), "\\other.efi");
    let after = after(&firmware(&[other], &[0, 2]), &mbr);
    assert_eq!(after.order, [0, 3, 2]);
}

#[test]
fn the_numbers_can_run_out() {
    let full = Firmware {
        entries: (0..=u16::MAX).map(|n| (n, Vec::new())).collect(),
        order: vec![0],
    };
    assert_eq!(plan(&full, &restored(1), &has_debian), []);
}

proptest! {
    /// Whatever the firmware holds: foreign entries stay, and a second run changes nothing.
    #[test]
    fn any_firmware_is_brought_to_rest(
        kinds in prop::collection::vec((0u8..8, any::<bool>()), 0..12),
        order in prop::collection::vec(0u16..14, 0..14),
        noise in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let entries = (0u16..).zip(kinds.iter().map(|(kind, alike)| {
            let file = if *alike { SHIM } else { "\\x.efi" };
            match kind {
                0 => hex(OVMF_NETWORK),
                1 => hex(OVMF_DISK),
                2 => noise.clone(),
                3 => entry("elsewhere", &drive(7), file),
                4 | 5 => entry("stale", &drive(0xee), file),
                _ => entry("here", &drive(1), file),
            }
        }));
        let mut seen = BTreeSet::new();
        let order: Vec<u16> = order.into_iter().filter(|n| seen.insert(*n)).collect();
        let before = Firmware { entries: entries.collect(), order };
        let after = after(&before, &restored(1));
        for (number, (kind, _)) in (0u16..).zip(&kinds) {
            if *kind < 4 {
                prop_assert_eq!(before.entries.get(&number), after.entries.get(&number));
            }
        }
        let starts = |n: &u16| {
            let option = after.entries.get(n).and_then(|b| LoadOption::decode(b));
            option.is_some_and(|o| o.path.hard_drive() == Some(drive(1)) && o.path.file() == SHIM)
        };
        prop_assert_eq!(after.entries.keys().filter(|n| starts(n)).count(), 1);
        prop_assert!(after.order.iter().any(starts));
        // The others of the order stay in it as they were.
        let foreign = |order: &[u16]| -> Vec<u16> {
            let is = |n: &u16| kinds.get(usize::from(*n)).is_none_or(|(kind, _)| *kind < 4);
            order.iter().copied().filter(|n| is(n) && !starts(n)).collect()
        };
        prop_assert_eq!(foreign(&before.order), foreign(&after.order));
    }
}
