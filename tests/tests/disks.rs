//! The Debian test disks themselves: a restore can only be proved with disks that boot.

use e2e::built::Built;
use e2e::machines::boots_to_login;
use testkit::debian;
use testkit::debian_disk::{BIOS_DATA, BIOS_ROOT, UEFI_ESP, UEFI_ROOT};
use testkit::files;
use testkit::qemu::Firmware;

#[test]
fn bios_disk_boots_and_has_its_files() {
    let built = Built::find().unwrap();
    let disk = debian::disk(Firmware::Bios, built.cache()).unwrap();
    let before = files::digest(&disk).unwrap();
    let time = boots_to_login(
        "bios",
        Firmware::Bios,
        built.accelerator().unwrap(),
        &disk,
        &built.logs("disks"),
    )
    .unwrap();
    println!("login prompt after {time:?}");
    let root = files::ext4(&disk, BIOS_ROOT).unwrap();
    assert!(
        root.contains_key("etc/fstab") && root.len() > 3000,
        "{}",
        root.len()
    );
    let data = files::ext4(&disk, BIOS_DATA).unwrap();
    assert!(data.contains_key("notes"));
    assert_eq!(
        files::digest(&disk).unwrap(),
        before,
        "the cached disk changed"
    );
}

#[test]
fn uefi_disk_boots_and_has_its_files() {
    let built = Built::find().unwrap();
    let disk = debian::disk(Firmware::Uefi, built.cache()).unwrap();
    let time = boots_to_login(
        "uefi",
        Firmware::Uefi,
        built.accelerator().unwrap(),
        &disk,
        &built.logs("disks"),
    )
    .unwrap();
    println!("login prompt after {time:?}");
    let root = files::ext4(&disk, UEFI_ROOT).unwrap();
    assert!(root.contains_key("etc/fstab"));
    let esp = files::fat(&disk, UEFI_ESP).unwrap();
    assert!(esp.contains_key("EFI/BOOT/BOOTX64.EFI"), "{esp:?}");
}
