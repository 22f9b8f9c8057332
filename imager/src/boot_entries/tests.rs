//! A disk as it is after a restore, and a folder that stands for efivarfs.

use super::{Outcome, after, before_with};
use crate::progress::Silent;
use blockdev::Device;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wire::{Code, DiskState};

const GLOBAL: &str = "-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const ESP_START: u64 = 2048 * 512;
const OLD: &str = "0A0B0C0D-1111-4222-8333-444455556601";
const NEW: &str = "0A0B0C0D-1111-4222-8333-444455556602";

/// The entry of a network card, as OVMF writes it.
const NETWORK: &str = "010000003b0055004500460049002000500058004500000002010c00d041030a0000000001010600\
    0004030b25005254000010010000000000000000000000000000000000000000000000000000017f\
    ff0400";

struct Stage {
    folder: tempfile::TempDir,
}

fn run(command: &mut Command, package: &str) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}: apt-get install {package}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
}

impl Stage {
    /// Without entries of our own: network first, then a number without an entry.
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage { folder };
        fs::create_dir(stage.vars()).unwrap();
        stage.put("Boot0000", &hex::decode(NETWORK).unwrap());
        stage.put("BootOrder", &[0, 0, 9, 0]);
        stage.put("BootCurrent", &[0, 0]);
        stage
    }

    fn vars(&self) -> PathBuf {
        self.folder.path().join("efivars")
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn put(&self, name: &str, value: &[u8]) {
        let path = self.vars().join(format!("{name}{GLOBAL}"));
        fs::write(path, [&[7, 0, 0, 0], value].concat()).unwrap();
    }

    fn all(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(self.vars()).unwrap().map(Result::unwrap);
        files
            .map(|file| {
                let bytes = fs::read(file.path()).unwrap();
                assert_eq!(bytes[..4], [7, 0, 0, 0]);
                let name = file.file_name().into_string().unwrap();
                (name.replace(GLOBAL, ""), bytes[4..].to_vec())
            })
            .collect()
    }

    /// A disk with an ESP of this identity and these files.
    fn make_disk(&self, guid: &str, files: &[&str]) {
        let disk = self.disk();
        let _ = fs::remove_file(&disk);
        let file = fs::File::create(&disk).unwrap();
        file.set_len(24 << 20).unwrap();
        let script = self.folder.path().join("script");
        let text = format!("label: gpt\nstart=2048, size=32768, type=U, uuid={guid}\n");
        fs::write(&script, text).unwrap();
        let sfdisk = Command::new("sfdisk")
            .args(["--quiet", disk.to_str().unwrap()])
            .stdin(fs::File::open(&script).unwrap())
            .status();
        assert!(sfdisk.expect("apt-get install fdisk").success());
        let esp = self.folder.path().join("esp");
        fs::File::create(&esp)
            .unwrap()
            .set_len(32768 * 512)
            .unwrap();
        run(
            Command::new("mkfs.vfat").args(["-F", "16"]).arg(&esp),
            "dosfstools",
        );
        for file in files {
            let mut made = String::from("::");
            let parts: Vec<&str> = file.split('/').collect();
            for part in &parts[..parts.len() - 1] {
                made.push_str(&format!("/{part}"));
                // One that is there already is as good.
                let _ = Command::new("mmd")
                    .arg("-i")
                    .args([&esp])
                    .args(["-D", "s", &made])
                    .output();
            }
            let to = format!("::/{file}");
            let copy = &mut Command::new("mcopy");
            run(copy.arg("-i").args([&esp, &script]).arg(to), "mtools");
        }
        let bytes = fs::read(&esp).unwrap();
        file.write_all_at(&bytes, ESP_START).unwrap();
    }

    /// The disk becomes another one between the two looks, as in a restore.
    fn restore(&self, guid: &str, files: &[&str]) -> Outcome {
        let before = match self.disk().exists() {
            true => before_with(&Device::open_read(&self.disk()).unwrap(), Some(self.vars())),
            false => before_with(
                &Device::open_read(Path::new("/proc/self/exe")).unwrap(),
                Some(self.vars()),
            ),
        };
        self.make_disk(guid, files);
        after(&self.disk(), &before, &Silent)
    }
}

const DEBIAN: [&str; 3] = [
    "EFI/debian/grubx64.efi",
    "EFI/debian/shimx64.efi",
    "EFI/BOOT/BOOTX64.EFI",
];

#[test]
fn a_restored_system_gets_one_entry_behind_the_network() {
    let stage = Stage::new();
    let outcome = stage.restore(NEW, &DEBIAN);
    assert_eq!(outcome.warning, None);
    assert_eq!(
        outcome.changed,
        [
            "boot entry 0001 \"debian\" made: \\EFI\\debian\\shimx64.efi on partition 1",
            "boot order 0000,0009 became 0000,0001,0009",
        ]
    );
    let all = stage.all();
    assert_eq!(all["BootOrder"], [0, 0, 1, 0, 9, 0]);
    let made = efi::LoadOption::decode(&all["Boot0001"]).unwrap();
    let drive = made.path.hard_drive().unwrap();
    assert_eq!(
        (drive.partition, drive.start, drive.sectors),
        (1, 2048, 32768)
    );
    assert_eq!(
        drive.signature,
        efi::Signature::Gpt(efi::guid_of(NEW).unwrap())
    );
    // Again, onto the same disk: everything is as it should be.
    assert_eq!(stage.restore(NEW, &DEBIAN), Outcome::default());
    // From an image with other identities: the entry is not doubled.
    let moved = stage.restore(OLD, &DEBIAN);
    let corrected = "boot entry 0001 \"debian\" corrected: it leads to partition 1 as it is now";
    assert_eq!(
        (moved.changed, moved.warning),
        (vec![corrected.to_owned()], None)
    );
    // Of another system: the old entry goes.
    let windows = stage.restore(
        NEW,
        &["EFI/Microsoft/Boot/bootmgfw.efi", "EFI/OEM/tool.efi"],
    );
    assert_eq!(windows.changed.len(), 3, "{windows:?}");
    let all = stage.all();
    assert_eq!(all.len(), 4, "{:?}", all.keys());
    let windows = efi::LoadOption::decode(&all["Boot0002"]).unwrap();
    assert_eq!(windows.name(), "Windows Boot Manager");
    assert_eq!(windows.path.file(), "\\EFI\\Microsoft\\Boot\\bootmgfw.efi");
    assert_eq!(all["BootOrder"], [0, 0, 2, 0, 9, 0]);
}

#[test]
fn where_nothing_has_a_name_the_fallback_is_taken() {
    let stage = Stage::new();
    let outcome = stage.restore(NEW, &["EFI/BOOT/BOOTX64.EFI"]);
    let made = "boot entry 0001 \"UEFI OS\" made: \\EFI\\BOOT\\BOOTX64.EFI on partition 1";
    assert_eq!(outcome.changed.first().map(String::as_str), Some(made));
}

#[test]
fn an_esp_without_anything_to_start_gets_no_entry() {
    let stage = Stage::new();
    let before = stage.all();
    assert_eq!(
        stage.restore(NEW, &["notes.txt", "EFI/OEM/tool.efi"]),
        Outcome::default()
    );
    assert_eq!(stage.all(), before);
}

#[test]
fn a_shorter_value_leaves_nothing_of_the_longer_one() {
    let stage = Stage::new();
    let long = [0, 0, 8, 0, 9, 0, 10, 0];
    stage.put("BootOrder", &long);
    let vars = super::Vars::at(&stage.vars());
    vars.set_order(&[1]).unwrap();
    assert_eq!(stage.all()["BootOrder"], [1, 0]);
    vars.delete_entry(0).unwrap();
    vars.delete_entry(0).unwrap();
    assert!(!stage.all().contains_key("Boot0000"));
}

#[test]
fn what_fails_is_a_warning_and_the_disk_is_complete() {
    let stage = Stage::new();
    stage.make_disk(NEW, &DEBIAN);
    let before = before_with(
        &Device::open_read(&stage.disk()).unwrap(),
        Some(stage.vars()),
    );
    // A damaged boot sector.
    let file = fs::OpenOptions::new()
        .write(true)
        .open(stage.disk())
        .unwrap();
    file.write_all_at(&[0; 512], ESP_START).unwrap();
    let outcome = after(&stage.disk(), &before, &Silent);
    let warning = outcome.warning.unwrap();
    assert_eq!(
        (warning.code, warning.disk),
        (Code::BootEntryFailed, DiskState::Complete)
    );
    assert!(warning.found.contains("partition 1"), "{warning}");
    assert!(outcome.changed.is_empty());
    // A firmware that takes nothing: a folder stands where the variable would.
    stage.make_disk(NEW, &DEBIAN);
    fs::create_dir(stage.vars().join(format!("Boot0001{GLOBAL}"))).unwrap();
    let outcome = after(&stage.disk(), &before, &Silent);
    assert!(outcome.warning.unwrap().found.contains("Boot0001"));
}

#[test]
fn a_program_that_is_not_init_leaves_the_firmware_alone() {
    let stage = Stage::new();
    stage.make_disk(NEW, &DEBIAN);
    let before = super::before(&Device::open_read(&stage.disk()).unwrap());
    assert_eq!(after(&stage.disk(), &before, &Silent), Outcome::default());
    // Nor is there anything to do where the machine has no such firmware.
    let nowhere = stage.folder.path().join("none");
    let before = before_with(&Device::open_read(&stage.disk()).unwrap(), Some(nowhere));
    assert_eq!(after(&stage.disk(), &before, &Silent), Outcome::default());
}
