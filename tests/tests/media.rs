//! Media: the Deploy-OS starts from a CD and from sticks, on BIOS and on UEFI, and restores
//! an image that is on the medium, without a server and without a network card.
//!
//! Four machines, one for each kind of medium: the ISO image as a CD on both firmwares, the
//! same copied to a stick, and the image of a stick.

use e2e::built::Built;
use e2e::proof;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testkit::build::{DiskBuilder, Tree};
use testkit::files;
use testkit::machine::Machine;
use testkit::qemu::{Bus, Disk, Firmware, Spec};

/// Emulated machines on a loaded host: nothing here takes a tenth of it on a quiet one.
const LIMIT: Duration = Duration::from_secs(300);
const MIB: u64 = 1 << 20;

/// A small disk and its image, of which every sector counts.
struct Imaged {
    built: Built,
    folder: tempfile::TempDir,
    source: PathBuf,
    image: PathBuf,
}

impl Imaged {
    fn new() -> Imaged {
        let built = Built::find().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.img");
        DiskBuilder::gpt(40 * MIB, 512)
            .fat(16, 16 * MIB, &Tree::new(1, 20, 200_000))
            .raw(8 * MIB, 5)
            .boot_code(7)
            .build(&source);
        let image = folder.path().join("office.image");
        imager(&built, &["backup", "--quiet", "--full"], &[&source, &image]);
        Imaged {
            built,
            folder,
            source,
            image,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A disk full of old things.
    fn target(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        proof::dirty(&path, 40 * MIB).unwrap();
        path
    }

    /// Makes a medium with these options.
    fn medium(&self, name: &str, options: &[&str]) -> PathBuf {
        let path = self.path(name);
        let kit = self.built.kit();
        let mut args = vec!["media", "create", "--quiet", "--kit", kit.to_str().unwrap()];
        args.extend(options);
        imager(&self.built, &args, &[&path]);
        path
    }

    fn image(&self) -> &str {
        self.image.to_str().unwrap()
    }

    fn machine(&self, name: &str, firmware: Firmware) -> Spec {
        Spec::new(name, firmware, self.built.accelerator().unwrap())
    }

    fn start(&self, spec: &Spec) -> Machine {
        println!("  {}, with {}", spec.name, spec.accelerator.name());
        spec.start(|qemu| Command::new(qemu), &self.built.logs("media"))
            .unwrap()
    }
}

fn imager(built: &Built, args: &[&str], paths: &[&Path]) {
    let output = Command::new(built.program("imager"))
        .args(args)
        .args(paths)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "imager {args:?}: {said}");
}

fn wait(machine: &mut Machine, marker: &str) {
    let took = machine.wait_for(marker, LIMIT).unwrap();
    println!("    {:3} s  {marker}", took.as_secs());
}

fn same(a: &Path, b: &Path) -> bool {
    files::digest(a).unwrap() == files::digest(b).unwrap()
}

/// What a person does: the right disk's number after a wrong one, a look at the plan, yes.
#[test]
fn a_cd_on_bios_restores_its_image_when_a_person_says_yes() {
    let made = Imaged::new();
    let iso = made.medium("office.iso", &["--image", made.image()]);
    let target = made.target("target.img");
    let before = files::digest(&target).unwrap();
    let mut spec = made.machine("cd-bios", Firmware::Bios);
    spec.cdrom = Some(iso);
    spec.disks.push(Disk::new(&target, "TARGET"));
    let mut machine = made.start(&spec);
    wait(&mut machine, "deploy-os: medium /dev/sr0: ");
    wait(&mut machine, "note the image is good");
    wait(&mut machine, "/dev/vda, 40.0 MiB");
    wait(&mut machine, "asked: Number of the disk");
    let shot = |name: &str| made.built.logs("media").join(name);
    machine.screenshot(&shot("number.png")).unwrap();
    machine.type_text("7\n").unwrap();
    wait(&mut machine, "\"7\" is none of the numbers");
    wait(&mut machine, "asked: Number of the disk");
    machine.type_text("0\n").unwrap();
    wait(&mut machine, "EVERYTHING on this disk will be replaced");
    wait(&mut machine, "asked: Type yes to overwrite disk 0");
    machine.screenshot(&shot("plan.png")).unwrap();
    assert_eq!(
        files::digest(&target).unwrap(),
        before,
        "written before a yes"
    );
    machine.type_text("yes\n").unwrap();
    wait(&mut machine, "deploy-os: done");
    wait(&mut machine, "asked: Press Enter");
    machine.screenshot(&shot("done.png")).unwrap();
    machine.type_text("\n").unwrap();
    wait(&mut machine, "rebooting");
    machine.wait_exit(LIMIT).unwrap();
    assert!(same(&made.source, &target), "the disk is not the image");
}

#[test]
fn a_cd_on_uefi_starts_the_deploy_os() {
    let made = Imaged::new();
    let iso = made.medium("plain.iso", &["--append", "deploy.after=poweroff"]);
    let mut spec = made.machine("cd-uefi", Firmware::Uefi);
    spec.cdrom = Some(iso);
    let mut machine = made.start(&spec);
    wait(&mut machine, "deploy-os: medium /dev/sr0: ");
    // No card, no server: it says so.
    wait(&mut machine, "deploy-os: failed no-network-device");
}

/// One bit of the image on the stick is wrong: no byte of the disk changes.
#[test]
fn an_iso_image_on_a_stick_that_is_damaged_touches_no_disk() {
    let made = Imaged::new();
    let unattended = ["--image", made.image(), "--unattended"];
    let iso = made.medium("damaged.iso", &unattended);
    // The image is the last file: its middle lies before the end by half of its size.
    let length = fs::metadata(&iso).unwrap().len();
    let image = fs::metadata(&made.image).unwrap().len();
    let file = File::options().read(true).write(true).open(&iso).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, length - image / 2).unwrap();
    file.write_all_at(&[byte[0] ^ 1], length - image / 2)
        .unwrap();
    let target = made.target("target.img");
    let before = files::digest(&target).unwrap();
    let mut spec = made.machine("usb-iso-bios", Firmware::Bios);
    spec.usb = Some(iso);
    spec.disks.push(Disk::new(&target, "TARGET"));
    let mut machine = made.start(&spec);
    wait(&mut machine, "deploy-os: medium /dev/sda: ");
    wait(&mut machine, "deploy-os: failed image-damaged");
    wait(&mut machine, "Nothing was written to the disk.");
    wait(&mut machine, "keys: ");
    machine.kill().unwrap();
    assert_eq!(
        files::digest(&target).unwrap(),
        before,
        "the disk was written"
    );
}

/// Nobody is there: the medium names the disk, and keeps the old tables.
#[test]
fn a_stick_on_uefi_restores_unattended() {
    let made = Imaged::new();
    // The image says that it was made on this host, whatever that starts with.
    let options = [
        "--image",
        made.image(),
        "--unattended",
        "--force",
        "--disk",
        "TARGET",
    ];
    let stick = made.medium("office.img", &options);
    let target = made.target("target.img");
    let other = made.target("other.img");
    let before = files::digest(&other).unwrap();
    let mut spec = made.machine("stick-uefi", Firmware::Uefi);
    spec.usb = Some(stick.clone());
    spec.disks.push(Disk::new(&other, "OTHER"));
    let mut disk = Disk::new(&target, "TARGET");
    disk.bus = Bus::Nvme;
    spec.disks.push(disk);
    let mut machine = made.start(&spec);
    wait(&mut machine, "deploy-os: medium /dev/sda1: ");
    wait(
        &mut machine,
        "the old partition tables are in deploy-os/old-tables-TARGET-",
    );
    wait(&mut machine, "deploy-os: done");
    wait(&mut machine, "powering off");
    machine.wait_exit(LIMIT).unwrap();
    assert!(same(&made.source, &target), "the disk is not the image");
    assert_eq!(
        files::digest(&other).unwrap(),
        before,
        "the other disk was written"
    );
    let list = Command::new("mdir")
        .args([
            "-b",
            "-i",
            &format!("{}@@1M", stick.display()),
            "::deploy-os",
        ])
        .output()
        .unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("/old-tables-TARGET-"), "{list}");
}
