//! A network without a DHCP server: `deployd` leases the addresses, and a UEFI machine comes
//! by way of GRUB to its first check-in. Only with `--long`.
//!
//! Owns: lease, GRUB's scripts, the kernel started by GRUB. Does not own: the other boot
//! loader and the other firmware (`bios`, `uefi`), leasing as such (the server's tests).

use std::fs;

use e2e::built::Built;
use e2e::machines::Pc;
use e2e::site::{Site, TAPS};
use e2e::story::Story;
use testkit::qemu::Firmware;

const PC: Pc = Pc {
    name: "closed",
    mac: "52:54:00:00:70:01",
    uuid: "4c4c4544-0007-4010-8010-b1c04f000001",
    tap: TAPS[0],
    firmware: Firmware::Uefi,
};

#[test]
fn a_machine_boots_by_grub_with_an_address_of_ours() {
    if !std::env::var("DEPLOY_LONG").is_ok_and(|value| !value.is_empty()) {
        return println!("only with --long");
    }
    let built = Built::find().unwrap();
    let story = Story::begin(
        "UEFI by GRUB, addresses by deployd",
        built.accelerator().unwrap(),
    );
    let site = Site::closed(&built, "closed", &["--boot-loader", "grub"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::File::create(&disk).unwrap().set_len(16 << 20).unwrap();
    story.register(&site, &PC, &disk).unwrap();

    let log = site.server_log().unwrap();
    for words in [
        "file=grubnetx64.efi bytes=",
        "boot script fetched: the Deploy-OS",
    ] {
        assert!(log.contains(words), "{words}: {log}");
    }
    let network = site.ctl(&["network"]).unwrap();
    let lease = network
        .lines()
        .find(|line| line.contains(PC.mac))
        .expect(&network);
    assert!(
        lease.starts_with("10.99.0.100 ") && lease.contains("leased"),
        "{network}"
    );
    assert!(!network.contains("dhcp-conflict"), "{network}");
}
