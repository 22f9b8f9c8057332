//! The main job on UEFI: a machine is backed up over the network, and a blank, larger
//! disk becomes its equal and boots.
//!
//! Firmware: OVMF's own network boot fetches snponly.efi by TFTP. GPT with ESP, ext4
//! and swap.

use e2e::built::Built;
use e2e::machines::Pc;
use e2e::proof;
use e2e::site::{Site, TAPS};
use e2e::story::Story;
use testkit::qemu::Firmware;
use testkit::{debian, files};

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
    story
        .run_job(&site, &PC, &machine, "restore", &target)
        .unwrap();
    story.step("comparing every file of both disks");
    let differences = proof::differences(Firmware::Uefi, &source, &target).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");

    story.boots_through(&site, &PC, &target).unwrap();
    assert_eq!(site.status().unwrap().count(&machine, "restore"), 1);
}
