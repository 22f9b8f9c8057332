//! The main job on UEFI: a machine is backed up over the network, and a blank, larger
//! disk becomes its equal and boots.
//!
//! Its boot entries, which the firmware keeps from boot to boot, have the network first, and one
//! for the restored system.
//!
//! Firmware: OVMF's own network boot fetches snponly.efi by TFTP. GPT with ESP, ext4
//! and swap.

use e2e::built::Built;
use e2e::machines::Pc;
use e2e::proof;
use e2e::site::{Site, TAPS};
use e2e::story::Story;
use efi::LoadOption;
use std::collections::BTreeMap;
use testkit::qemu::Firmware;
use testkit::{debian, files, ovmf};

const PC: Pc = Pc {
    name: "office",
    mac: "52:54:00:00:10:01",
    uuid: "4c4c4544-0001-4010-8010-b1c04f000001",
    tap: TAPS[0],
    firmware: Firmware::Uefi,
};

#[test]
fn uefi_machine_is_backed_up_and_restored_to_a_larger_disk() {
    let built = Built::find().unwrap();
    let story = Story::begin(
        "UEFI: backup, restore to a larger disk, boot",
        built.accelerator().unwrap(),
    );
    let site = Site::new(&built, "uefi").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source.img");
    debian::copy(
        &debian::disk(Firmware::Uefi, built.cache()).unwrap(),
        &source,
    )
    .unwrap();
    let before = files::digest(&source).unwrap();

    let machine = story.register(&site, &PC, &source).unwrap();
    site.ctl(&["backup", &machine, "--image", "office-gold"])
        .unwrap();
    story
        .run_job(&site, &PC, &machine, "backup", &source)
        .unwrap();
    assert_eq!(site.status().unwrap().images(), ["office-gold"]);
    assert_eq!(
        files::digest(&source).unwrap(),
        before,
        "a backup changed its disk"
    );

    let target = folder.path().join("target.img");
    proof::dirty(&target, 3 << 30).unwrap();
    site.ctl(&["restore", &machine, "--image", "office-gold", "--yes"])
        .unwrap();
    assert!(entries_of_partitions(&entries(&site)).is_empty());
    story
        .run_job(&site, &PC, &machine, "restore", &target)
        .unwrap();
    story.step("looking at the firmware's boot entries");
    let after = entries(&site);
    assert!(
        after[0].1.is_network(),
        "the network is not first any more: {after:#?}"
    );
    let ours = entries_of_partitions(&after);
    assert_eq!(ours.len(), 1, "{after:#?}");
    assert_eq!(ours[0].path.file(), "\\EFI\\BOOT\\BOOTX64.EFI");
    let told = site.ctl(&["status"]).unwrap();
    assert!(
        told.contains("\"UEFI OS\" made: \\EFI\\BOOT\\BOOTX64.EFI on partition 1"),
        "{told}"
    );
    story.step("comparing every file of both disks");
    let differences = proof::differences(Firmware::Uefi, &source, &target).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");

    story.boots_through(&site, &PC, &target).unwrap();
    let console = std::fs::read_to_string(site.logs().join("office-login.serial")).unwrap();
    assert!(
        console.contains("\"UEFI OS\" from HD(1,GPT,"),
        "the disk came up another way: {console}"
    );
    assert_eq!(site.status().unwrap().count(&machine, "restore"), 1);
}

/// The boot entries that the firmware tries, in its order.
fn entries(site: &Site) -> Vec<(u16, LoadOption)> {
    let all = ovmf::variables(&PC.vars(site)).unwrap();
    let all: BTreeMap<String, Vec<u8>> = all.into_iter().collect();
    let order = efi::decode_order(&all["BootOrder"]);
    let entry = |number: u16| {
        let bytes = all.get(&efi::boot_name(number))?;
        Some((number, LoadOption::decode(bytes)?))
    };
    order.into_iter().filter_map(entry).collect()
}

/// Those that lead to a partition: the firmware's own lead to whole disks.
fn entries_of_partitions(entries: &[(u16, LoadOption)]) -> Vec<LoadOption> {
    let options = entries.iter().map(|(_, option)| option);
    options
        .filter(|o| o.path.hard_drive().is_some())
        .cloned()
        .collect()
}
