//! A machine with nothing to do boots its own disk, with network boot first in its boot
//! order: BIOS by the first disk, UEFI by the firmware's next entry.
//!
//! Owns: the way from the boot script to the disk's first words. How long it takes is
//! printed; on an emulated machine beside others no clock decides here. With `--long` also
//! the way for UEFI firmware that does not go on by itself.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use e2e::built::Built;
use e2e::machines::{LIMIT, Pc};
use e2e::site::{Site, TAPS};
use testkit::netns::require;
use testkit::qemu::Firmware;

const WORDS: &str = "THE-LOCAL-DISK-BOOTS";
const BIOS: Pc = Pc {
    name: "idle-bios",
    mac: "52:54:00:00:60:01",
    uuid: "4c4c4544-0006-4010-8010-b1c04f000001",
    tap: TAPS[0],
    firmware: Firmware::Bios,
};
const UEFI: Pc = Pc {
    name: "idle-uefi",
    mac: "52:54:00:00:60:02",
    uuid: "4c4c4544-0006-4010-8010-b1c04f000002",
    tap: TAPS[0],
    firmware: Firmware::Uefi,
};

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {output:?}"
    );
}

/// A boot sector that writes to the first serial port and halts.
fn bios_disk(path: &Path) {
    let mut code = vec![0xba, 0xf8, 0x03]; // mov dx, 0x3f8
    for letter in WORDS.bytes() {
        code.extend([0xb0, letter, 0xee]); // mov al, letter; out dx, al
    }
    code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp back to it
    code.resize(510, 0);
    code.extend([0x55, 0xaa]);
    code.resize(1 << 20, 0);
    fs::write(path, code).unwrap();
}

/// A GPT with an EFI system partition, and GRUB as its fallback boot loader.
fn uefi_disk(path: &Path, folder: &Path) {
    for (program, package) in [
        ("grub-mkstandalone", "grub-common"),
        ("sgdisk", "gdisk"),
        ("mformat", "mtools"),
    ] {
        require(program, package).unwrap();
    }
    let text = |path: &Path| path.display().to_string();
    let (config, loader) = (folder.join("grub.cfg"), folder.join("loader.efi"));
    fs::write(&config, format!("echo {WORDS}\nsleep 3600\n")).unwrap();
    let embedded = format!("boot/grub/grub.cfg={}", text(&config));
    run(
        "grub-mkstandalone",
        &[
            "--format=x86_64-efi",
            "--install-modules=normal echo sleep",
            "--themes=",
            "--fonts=",
            "--locales=",
            &format!("--output={}", text(&loader)),
            &embedded,
        ],
    );
    fs::File::create(path).unwrap().set_len(64 << 20).unwrap();
    run("sgdisk", &["-n", "1:2048:0", "-t", "1:ef00", &text(path)]);
    let partition = format!("{}@@1M", text(path));
    run("mformat", &["-i", &partition, "-F", "-T", "126000", "::"]);
    for made in ["::/EFI", "::/EFI/BOOT"] {
        run("mmd", &["-i", &partition, made]);
    }
    run(
        "mcopy",
        &["-i", &partition, &text(&loader), "::/EFI/BOOT/BOOTX64.EFI"],
    );
}

/// Makes a machine known that has nothing to do: as if it had checked in once.
fn known(site: &Site, pc: &Pc) -> String {
    let mut stream = TcpStream::connect(site.page().unwrap()).unwrap();
    write!(
        stream,
        "GET /boot/machine.ipxe?mac={}&uuid={} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        pc.mac, pc.uuid
    )
    .unwrap();
    let mut script = String::new();
    stream.read_to_string(&mut script).unwrap();
    assert!(
        script.contains("inventory of"),
        "a new machine is looked at: {script}"
    );
    require("sqlite3", "sqlite3").unwrap();
    let database = site.state().join("deployd.sqlite").display().to_string();
    let firmware = "UPDATE machines SET firmware = 'known';";
    run("sqlite3", &["-cmd", ".timeout 10000", &database, firmware]);
    let list = site.ctl(&["machines", "list", "--json"]).unwrap();
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    list[0]["name"].as_str().unwrap().to_owned()
}

/// Boots the machine and waits for its disk's words; returns what the server logged.
fn boots_its_disk(site: &Site, pc: &Pc, boot: &str, disk: &Path, built: &Built) -> String {
    let mut machine = pc
        .boot(site, built.accelerator().unwrap(), boot, disk)
        .unwrap();
    // The screen of a BIOS machine is not on its serial port: the server tells.
    let fetched = |site: &Site| {
        let log = site.server_log().unwrap();
        log.matches("boot script fetched: its local disk").count()
    };
    let before = fetched(site);
    let end = Instant::now() + LIMIT;
    while fetched(site) == before {
        assert!(Instant::now() < end, "no boot script was fetched");
        assert!(machine.is_running().unwrap(), "the machine ended");
        thread::sleep(Duration::from_millis(50));
    }
    let script = Instant::now();
    machine.wait_for(WORDS, LIMIT).unwrap();
    println!(
        "{} ({boot}): {:.1} s from the boot script to the disk",
        pc.name,
        script.elapsed().as_secs_f64()
    );
    site.server_log().unwrap()
}

#[test]
fn a_bios_machine_without_a_job_boots_its_disk() {
    let built = Built::find().unwrap();
    let site = Site::new(&built, "idle-bios").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    bios_disk(&disk);
    known(&site, &BIOS);
    let log = boots_its_disk(&site, &BIOS, "auto", &disk, &built);
    assert!(log.contains("boot script fetched: its local disk"), "{log}");
}

#[test]
fn a_uefi_machine_without_a_job_boots_its_disk() {
    let built = Built::find().unwrap();
    let site = Site::new(&built, "idle-uefi").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    uefi_disk(&disk, folder.path());
    let name = known(&site, &UEFI);
    let log = boots_its_disk(&site, &UEFI, "auto", &disk, &built);
    assert!(log.contains("boot script fetched: its local disk"), "{log}");
    if std::env::var_os("DEPLOY_LONG").is_some_and(|long| !long.is_empty()) {
        site.ctl(&["machines", "local-boot", &name, "search"])
            .unwrap();
        boots_its_disk(&site, &UEFI, "search", &disk, &built);
    }
}
