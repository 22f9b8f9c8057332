//! Virtual machines: their description, and the QEMU command line that it becomes.
//!
//! Does not own: the running machine (`machine`), networks (`netns`), what is on the
//! disks (`debian`), the choice between KVM and emulation (`accel`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::accel::Accelerator;
use crate::machine::Machine;

const QEMU: &str = "qemu-system-x86_64";
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The machine's firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, with QEMU's own iPXE in the card's option ROM.
    Bios,
    /// OVMF without Secure Boot and with its own network boot (the card's ROM is off).
    Uefi,
}

/// How a disk is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// virtio-blk, seen as `/dev/vda`.
    Virtio,
    /// AHCI, seen as `/dev/sda`.
    Ahci,
    /// NVMe, seen as `/dev/nvme0n1`.
    Nvme,
}

/// A raw image file as a disk.
#[derive(Debug, Clone)]
pub struct Disk {
    /// The image file.
    pub path: PathBuf,
    /// Serial number that the guest sees (at most 20 characters).
    pub serial: String,
    /// How it is attached.
    pub bus: Bus,
    /// Logical sector size in bytes: what is addressed.
    pub sector_size: u32,
    /// Physical sector size in bytes: what the disk writes at once. AHCI disks here have
    /// 512 of both.
    pub physical_size: u32,
    /// Writes go to a temporary file and are lost with the machine.
    pub discard_writes: bool,
    /// Reads and writes are slowed down to this, so that a test can meet the middle of a
    /// transfer on a fast host too.
    pub bytes_per_second: Option<u64>,
}

impl Disk {
    /// A virtio disk with 512-byte sectors.
    pub fn new(path: &Path, serial: &str) -> Disk {
        Disk {
            path: path.to_owned(),
            serial: serial.to_owned(),
            bus: Bus::Virtio,
            sector_size: 512,
            physical_size: 512,
            discard_writes: false,
            bytes_per_second: None,
        }
    }
}

/// A network card on a tap that exists in the namespace where the machine is started.
#[derive(Debug, Clone)]
pub struct Nic {
    /// The tap's name.
    pub tap: String,
    /// The card's MAC address.
    pub mac: String,
    /// QEMU's model, as `virtio-net-pci` or `e1000`.
    pub model: String,
}

impl Nic {
    /// A virtio card.
    pub fn new(tap: &str, mac: &str) -> Nic {
        Nic {
            tap: tap.to_owned(),
            mac: mac.to_owned(),
            model: "virtio-net-pci".to_owned(),
        }
    }
}

/// Description of a virtual machine.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Name for messages and the log's file name.
    pub name: String,
    /// BIOS or UEFI.
    pub firmware: Firmware,
    /// Memory in MiB. OVMF's network boot wants 768.
    pub memory_mib: u32,
    /// SMBIOS UUID.
    pub uuid: Option<String>,
    /// Disks, in boot order after the network cards.
    pub disks: Vec<Disk>,
    /// Network cards, first in the boot order.
    pub nics: Vec<Nic>,
    /// A kernel to start directly: kernel, initramfs, command line.
    pub kernel: Option<(PathBuf, PathBuf, String)>,
    /// An ISO as a CD drive, last in the boot order.
    pub cdrom: Option<PathBuf>,
    /// A raw image file as a stick, before the disks in the boot order.
    pub usb: Option<PathBuf>,
    /// Hardware virtualisation or emulation.
    pub accelerator: Accelerator,
    /// File in which UEFI firmware keeps its variables from one start to the next; made at the
    /// first. They are forgotten if not given.
    pub vars: Option<PathBuf>,
}

impl Spec {
    /// A machine with 768 MiB and nothing attached.
    pub fn new(name: &str, firmware: Firmware, accelerator: Accelerator) -> Spec {
        Spec {
            name: name.to_owned(),
            firmware,
            memory_mib: 768,
            uuid: None,
            disks: Vec::new(),
            nics: Vec::new(),
            kernel: None,
            cdrom: None,
            usb: None,
            accelerator,
            vars: None,
        }
    }

    /// QEMU's arguments; sockets and firmware variables lie in `folder`.
    fn arguments(&self, folder: &Path, log: &Path) -> Vec<String> {
        let at = |name: &str| folder.join(name).display().to_string();
        let mut args: Vec<String> = words("-M q35 -nodefaults -display none -vga std -no-reboot");
        args.extend(words(match self.accelerator {
            Accelerator::Kvm => "-accel kvm -cpu host -smp 2",
            Accelerator::Emulation => "-accel tcg,thread=multi -cpu max -smp 2",
        }));
        args.extend(words(&format!("-m {}", self.memory_mib)));
        args.extend(words("-device virtio-rng-pci -device qemu-xhci"));
        if let Some(uuid) = &self.uuid {
            args.extend(words(&format!("-uuid {uuid}")));
        }
        let serial = at("serial");
        let log = log.display();
        args.push("-chardev".to_owned());
        args.push(format!(
            "socket,id=serial,path={serial},server=on,wait=off,logfile={log},logappend=off"
        ));
        args.extend(words("-serial chardev:serial"));
        args.push("-qmp".to_owned());
        args.push(format!("unix:{},server=on,wait=off", at("qmp")));
        if self.firmware == Firmware::Uefi {
            args.push("-drive".to_owned());
            args.push(format!(
                "if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"
            ));
            args.push("-drive".to_owned());
            let vars = self.vars.as_ref().map(|path| path.display().to_string());
            let vars = vars.unwrap_or_else(|| at("vars"));
            args.push(format!("if=pflash,format=raw,unit=1,file={vars}"));
            // Nobody answers IPv6 in the laboratories: OVMF would wait for its time-outs
            // between the network and the disk.
            args.extend(words(
                "-fw_cfg name=opt/org.tianocore/IPv6PXESupport,string=n",
            ));
        }
        // A kernel that is started directly takes index 0 itself.
        let mut boot_index = usize::from(self.kernel.is_some());
        for (number, nic) in self.nics.iter().enumerate() {
            args.push("-netdev".to_owned());
            args.push(format!(
                "tap,id=n{number},ifname={},script=no,downscript=no",
                nic.tap
            ));
            // With the ROM on UEFI, QEMU's iPXE would answer in place of the firmware,
            // and the server's boot file would never be fetched.
            let rom = if self.firmware == Firmware::Uefi {
                ",romfile="
            } else {
                ""
            };
            args.push("-device".to_owned());
            args.push(format!(
                "{},netdev=n{number},mac={},bootindex={boot_index}{rom}",
                nic.model, nic.mac
            ));
            boot_index += 1;
        }
        if let Some(stick) = &self.usb {
            args.push("-drive".to_owned());
            args.push(format!(
                "if=none,id=usb,format=raw,file={}",
                stick.display()
            ));
            args.extend(words(&format!(
                "-device usb-storage,drive=usb,removable=on,bootindex={boot_index}"
            )));
            boot_index += 1;
        }
        for (number, disk) in self.disks.iter().enumerate() {
            args.extend(disk_arguments(disk, number, boot_index));
            boot_index += 1;
        }
        if let Some(iso) = &self.cdrom {
            args.push("-drive".to_owned());
            args.push(format!(
                "if=none,id=cd,media=cdrom,readonly=on,format=raw,file={}",
                iso.display()
            ));
            args.extend(words(&format!(
                "-device ide-cd,drive=cd,bootindex={boot_index}"
            )));
        }
        if let Some((kernel, initramfs, line)) = &self.kernel {
            args.extend(["-kernel".to_owned(), kernel.display().to_string()]);
            args.extend(["-initrd".to_owned(), initramfs.display().to_string()]);
            args.extend(["-append".to_owned(), line.clone()]);
        }
        args
    }

    /// Starts the machine. `command` makes the command in the right namespace, as
    /// `|qemu| lab.command(qemu)`; the serial log is written to `logs/NAME.serial`.
    ///
    /// # Errors
    /// QEMU or OVMF is missing, or QEMU ends at once; its words are in the error.
    pub fn start(&self, command: impl FnOnce(&str) -> Command, logs: &Path) -> io::Result<Machine> {
        crate::netns::require(QEMU, "qemu-system-x86")?;
        fs::create_dir_all(logs)?;
        let folder = TempDir::new()?;
        let vars = match &self.vars {
            Some(path) => path.clone(),
            None => folder.path().join("vars"),
        };
        if self.firmware == Firmware::Uefi && !vars.exists() {
            fs::copy(OVMF_VARS, vars).map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("{OVMF_VARS}: {error}; apt-get install ovmf"),
                )
            })?;
        }
        let log = logs.join(format!("{}.serial", self.name));
        let mut command = command(QEMU);
        command.args(self.arguments(folder.path(), &log));
        Machine::start(&self.name, command, folder, log)
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn disk_arguments(disk: &Disk, number: usize, boot_index: usize) -> Vec<String> {
    let snapshot = if disk.discard_writes {
        ",snapshot=on"
    } else {
        ""
    };
    let pace = disk
        .bytes_per_second
        .map(|rate| format!(",throttling.bps-total={rate}"))
        .unwrap_or_default();
    let drive = format!(
        "if=none,id=d{number},format=raw,discard=unmap,file={}{snapshot}{pace}",
        disk.path.display()
    );
    let device = match disk.bus {
        Bus::Virtio => "virtio-blk-pci",
        Bus::Ahci => "ide-hd",
        Bus::Nvme => "nvme",
    };
    // ide-hd takes 512 bytes only, and refuses the words.
    let sectors = match disk.bus {
        Bus::Ahci => String::new(),
        Bus::Virtio | Bus::Nvme => format!(
            ",logical_block_size={},physical_block_size={}",
            disk.sector_size, disk.physical_size
        ),
    };
    let device = format!(
        "{device},drive=d{number},serial={},bootindex={boot_index}{sectors}",
        disk.serial
    );
    ["-drive".to_owned(), drive, "-device".to_owned(), device].to_vec()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;
    use std::time::Duration;

    use super::{Bus, Disk, Firmware, Nic, Spec};
    use crate::accel::Accelerator;

    /// Real-mode code that writes "HELLO" to the first serial port and halts.
    fn boot_sector() -> Vec<u8> {
        let mut code = vec![0xba, 0xf8, 0x03]; // mov dx, 0x3f8
        for letter in b"HELLO" {
            code.extend([0xb0, *letter, 0xee]); // mov al, letter; out dx, al
        }
        code.extend([0xf4, 0xeb, 0xfd]); // hlt; jmp back to it
        code.resize(510, 0);
        code.extend([0x55, 0xaa]);
        code.resize(1 << 20, 0);
        code
    }

    #[test]
    fn a_machine_boots_its_disk_and_is_killed_on_drop() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        std::fs::write(&image, boot_sector()).unwrap();
        let mut spec = Spec::new("hello", Firmware::Bios, Accelerator::Emulation);
        spec.memory_mib = 64;
        spec.disks.push(Disk::new(&image, "one"));
        let mut machine = spec
            .start(|qemu| Command::new(qemu), folder.path())
            .unwrap();
        machine.wait_for("HELLO", Duration::from_secs(120)).unwrap();
        machine
            .screenshot(&folder.path().join("screen.png"))
            .unwrap();
        let png = std::fs::read(folder.path().join("screen.png")).unwrap();
        assert_eq!(&png[1..4], b"PNG");

        // What was found once is not found again, and the error shows the console.
        let error = machine
            .wait_for("HELLO", Duration::from_millis(1))
            .unwrap_err();
        assert!(error.to_string().contains("| HELLO"), "{error}");
        let pid = machine.id();
        drop(machine);
        assert!(!Path::new("/proc").join(pid.to_string()).exists());
    }

    #[test]
    fn qemu_s_own_words_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut spec = Spec::new("bad", Firmware::Bios, Accelerator::Emulation);
        spec.disks
            .push(Disk::new(Path::new("/nowhere/disk"), "one"));
        let error = spec
            .start(|qemu| Command::new(qemu), folder.path())
            .unwrap_err();
        assert!(error.to_string().contains("/nowhere/disk"), "{error}");
    }

    #[test]
    fn uefi_keeps_the_card_s_rom_off_and_boots_cards_before_disks() {
        let mut spec = Spec::new("args", Firmware::Uefi, Accelerator::Emulation);
        spec.nics.push(Nic::new("tap0", "52:54:00:00:00:01"));
        let mut disk = Disk::new(Path::new("/x"), "one");
        disk.bus = Bus::Nvme;
        disk.sector_size = 512;
        disk.physical_size = 4096;
        spec.disks.push(disk);
        spec.usb = Some("/stick".into());
        let line = spec.arguments(Path::new("/f"), Path::new("/l")).join(" ");
        assert!(line.contains("mac=52:54:00:00:00:01,bootindex=0,romfile="));
        assert!(
            line.contains("file=/stick -device usb-storage,drive=usb,removable=on,bootindex=1")
        );
        assert!(line.contains(
            "nvme,drive=d0,serial=one,bootindex=2,logical_block_size=512,physical_block_size=4096"
        ));
        assert!(line.contains("if=pflash,format=raw,unit=1,file=/f/vars"));
    }
}
