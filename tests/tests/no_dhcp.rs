//! A machine in a network without DHCP: settings from a stick, changed at the console, saved
//! on the stick.
//!
//! One boot: the stick has the address of a server that is gone, and a VLAN that nobody else is
//! in; Esc opens the settings, which are corrected on the serial console. Two cards have a
//! link, and only one leads anywhere.
//!
//! Owns: that story; that the kernel makes the interfaces of a VLAN (the build host's may have
//! none). Does not own: the six sources (`imager/tests/discover.rs`), forms of settings
//! (unit tests).

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::built::Built;
use e2e::machines::LIMIT;
use e2e::matrix::content::{ok, s};
use e2e::site::{SERVER, Site};
use testkit::build::DiskBuilder;
use testkit::machine::Machine;
use testkit::qemu::{Disk, Firmware, Nic, Spec};

const MAC: &str = "52:54:00:00:0d:01";
const ADDRESS: &str = "10.99.0.57";
/// On a loaded host the emulated timer ticks too late for the kernel's check of it.
const COMMAND_LINE: &str = "console=ttyS0 no_timer_check deploy.after=poweroff";
const ABOUT: &str = r#"{"format":1,"version":"test","id":"00112233445566778899aabbccddeeff"}"#;

#[test]
fn settings_of_a_stick_are_used_and_changed() {
    let built = Built::find().unwrap();
    let site = Site::without_dhcp(&built, "no-dhcp").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let stick = folder.path().join("stick.img");
    let gone = "server = 10.99.0.99:26501\naddress = 10.99.0.57/24\nvlan = 7\ncolour = red\n";
    make_stick(&stick, gone);
    let disk = DiskBuilder::gpt(16 << 20, 512)
        .raw(8 << 20, 5)
        .build(&folder.path().join("disk.img"))
        .path;

    let mut spec = Spec::new("no-dhcp", Firmware::Bios, built.accelerator().unwrap());
    let pxe = built.pxe();
    spec.kernel = Some((
        pxe.join("vmlinuz"),
        pxe.join("initramfs.img"),
        COMMAND_LINE.to_owned(),
    ));
    spec.disks = vec![Disk::new(&disk, "disk"), Disk::new(&stick, "stick")];
    // The first card's cable ends in a switch with nothing else on it.
    ok_in(&site, &["link", "add", "nowhere", "type", "bridge"]);
    ok_in(&site, &["link", "set", "tap1", "master", "nowhere"]);
    ok_in(&site, &["link", "set", "nowhere", "up"]);
    spec.nics = vec![Nic::new("tap1", "52:54:00:00:0d:02"), Nic::new("tap0", MAC)];
    let mut machine = spec.start(|qemu| site.command(qemu), site.logs()).unwrap();

    let wait = |machine: &mut Machine, marker: &str| {
        machine.wait_for(marker, LIMIT).unwrap();
    };
    wait(
        &mut machine,
        "note deploy-os/settings on /dev/vdb: line 4: \"colour\" is no setting",
    );
    wait(
        &mut machine,
        "settings of deploy-os/settings on /dev/vdb are used; press Esc",
    );
    wait(&mut machine, "network address v");
    wait(&mut machine, &format!(".7 {ADDRESS}/24 from the settings"));
    machine.type_text("\x1b").unwrap();
    let pin = site.pin().unwrap();
    for (question, answer) in [
        ("settings: e: edit", "e"),
        ("settings: Network card", ""),
        ("settings: VLAN [7]", "-"),
        (
            "settings: Address of this machine (nothing: by DHCP) [10.99.0.57]",
            "",
        ),
        ("settings: Network mask [255.255.255.0]", ""),
        ("settings: Gateway", ""),
        ("settings: Name servers", ""),
        ("settings: Domain", ""),
        (
            "settings: Server (nothing: it is looked for) [10.99.0.99:26501]",
            SERVER,
        ),
        ("settings: Protocol", ""),
        ("settings: Port [26501]", ""),
        ("settings: Pin of the server's key (64 hex digits): ", "12"),
        ("note a pin has 64", ""),
        (
            "settings: Pin of the server's key (64 hex digits): ",
            pin.as_str(),
        ),
        ("settings: Save them on /dev/vdb", "y"),
    ] {
        wait(&mut machine, question);
        if question.starts_with("settings: ") {
            type_in(&machine, &format!("{answer}\r"));
        }
    }
    wait(&mut machine, "note saved on /dev/vdb");
    wait(
        &mut machine,
        &format!("server https://{SERVER}:26501 answers by way of eth"),
    );
    wait(&mut machine, "server found by settings");
    wait(&mut machine, "deploy-os: machine ");
    let status = site
        .wait_status("the machine is known", LIMIT, &mut machine, |status| {
            status.machine(MAC).is_some()
        })
        .unwrap();
    assert!(status.machine(MAC).is_some());
    machine.wait_exit(LIMIT).unwrap();
    let console = machine.console().unwrap();
    for nic in ["eth0", "eth1"] {
        let line = format!("network address {nic} {ADDRESS}/24 from the settings");
        assert!(console.contains(&line), "{line}: {console}");
    }

    let saved = folder.path().join("saved");
    ok(
        "mcopy",
        &["-i", s(&stick), "::deploy-os/settings", s(&saved)],
    );
    let text = fs::read_to_string(&saved).unwrap();
    let (_, lines) = text.split_once('\n').unwrap();
    assert_eq!(
        lines,
        format!(
            "server = {SERVER}\nprotocol = https\nport = 26501\npin = {pin}\n\
             address = {ADDRESS}\nmask = 255.255.255.0\n"
        )
    );
    ok("fsck.fat", &["-n", s(&stick)]);
}

/// Types a few characters at a time, as the emulated port holds no more, and waits until they
/// are echoed.
fn type_in(machine: &Machine, text: &str) {
    let end = Instant::now() + LIMIT;
    for piece in text.as_bytes().chunks(4) {
        let echoed = machine.console().unwrap().len() + piece.len();
        machine
            .type_text(std::str::from_utf8(piece).unwrap())
            .unwrap();
        while machine.console().unwrap().len() < echoed {
            assert!(Instant::now() < end, "{text:?} is not echoed");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn ok_in(site: &Site, arguments: &[&str]) {
    let status = site.command("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

/// A stick without partitions, with the mark of a medium and settings.
fn make_stick(path: &std::path::Path, settings: &str) {
    fs::File::create(path).unwrap().set_len(64 << 20).unwrap();
    ok("mkfs.fat", &["-F", "32", s(path)]);
    let folder = tempfile::tempdir().unwrap();
    ok("mmd", &["-i", s(path), "::deploy-os"]);
    for (name, text) in [("medium.json", ABOUT), ("settings", settings)] {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let to = format!("::deploy-os/{name}");
        let status = Command::new("mcopy")
            .args(["-i", s(path), s(&file), &to])
            .status()
            .unwrap();
        assert!(status.success(), "mcopy {name}");
    }
}
