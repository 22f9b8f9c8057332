//! File systems that grow while the guest's kernel has them mounted, after a restore to a
//! larger disk.
//!
//! Owns: these disks, their steps and what must hold. Does not own: the guest. (No tool of
//! any file system is in the guest, so that nothing but the kernel can have done it.)

use super::{Guest, Results, host_backup, warns};
use crate::matrix::content::{Mounted, compare, ok, s};
use crate::matrix::trip::garbage;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use testkit::build::Tree;
use testkit::loopdev::LoopDevice;
use testkit::qemu::{Bus, Disk};

const MIB: u64 = 1 << 20;

/// One file system on its way to a larger disk.
struct Growing {
    name: &'static str,
    mkfs: &'static [&'static str],
    /// Tool that must find nothing, with its arguments.
    fsck: &'static [&'static str],
    bus: Bus,
    sector: u32,
    /// Sizes of the partition that is made and of the larger disk, in MiB.
    small: u64,
    large: u64,
}

const GROWING: [Growing; 3] = [
    Growing {
        name: "ext4",
        mkfs: &["mke2fs", "-q", "-F", "-t", "ext4"],
        fsck: &["e2fsck", "-f", "-n"],
        bus: Bus::Virtio,
        sector: 4096,
        small: 40,
        large: 200,
    },
    Growing {
        name: "xfs",
        mkfs: &["mkfs.xfs", "--unsupported", "-q", "-f"],
        fsck: &["xfs_repair", "-n"],
        bus: Bus::Nvme,
        sector: 512,
        small: 64,
        large: 240,
    },
    Growing {
        name: "btrfs",
        mkfs: &["mkfs.btrfs", "-q", "-f"],
        fsck: &["btrfs", "check", "--readonly"],
        bus: Bus::Virtio,
        sector: 512,
        small: 160,
        large: 320,
    },
];

fn tree() -> Tree {
    Tree::new(31, 20, 400_000)
}

fn list(name: &str) -> String {
    format!("grow-{name}")
}

/// Makes images and disks and adds the steps; gives the larger disks.
///
/// # Panics
/// If that fails.
pub fn prepare(imager: &Path, folder: &Path, guest: &mut Guest) -> Vec<PathBuf> {
    guest.carry_hashes("grow-files", &tree());
    let mut targets = Vec::new();
    for one in &GROWING {
        let name = one.name;
        let source = folder.join(format!("grow-{name}-source.img"));
        one.make(&source);
        let image = guest.store().join(format!("{}.image", list(name)));
        host_backup(imager, &source, one.sector, &image);
        fs::remove_file(&source).expect("the source goes");
        let target = folder.join(format!("grow-{name}.img"));
        garbage(&target, one.large * MIB);
        let mut disk = Disk::new(&target, &list(name));
        disk.bus = one.bus;
        disk.sector_size = one.sector;
        disk.physical_size = 4096;
        guest.attach(disk);
        guest.script(&format!(
            "disk=$(node grow-{name})
            run grow-{name} imager restore --grow last --yes --quiet --json --save-tables none /mnt/grow-{name}.image $disk
            run grow-{name}-table table $disk
            run grow-{name}-files mounted {name} ro $(part $disk 1) /mnt/grow-files.list"
        ));
        targets.push(target);
    }
    targets
}

impl Growing {
    /// A disk with a GPT and one partition that fills it.
    fn make(&self, path: &Path) {
        let file = File::create_new(path).expect("a file for the disk");
        file.set_len((self.small + 2) * MIB).expect("its size");
        {
            let disk = LoopDevice::attach(path, self.sector);
            let (first, length) = (
                MIB / u64::from(self.sector),
                self.small * MIB / u64::from(self.sector),
            );
            let script = format!("label: gpt\\nstart={first}, size={length}\\n");
            let command = format!(
                "printf '{script}' | sfdisk -q --no-reread --no-tell-kernel {}",
                s(disk.path())
            );
            ok("sh", &["-c", &command]);
        }
        let part = LoopDevice::attach_at(path, MIB, self.small * MIB, self.sector);
        ok(self.mkfs[0], &[&self.mkfs[1..], &[s(part.path())]].concat());
        let mounted = Mounted::new("mount", &["-t", self.name], part.path());
        tree().write_to(mounted.path());
    }
}

/// Looks at what the guest did.
///
/// # Panics
/// If anything is not as it must be.
pub fn check(targets: &[PathBuf], results: &Results) {
    for (one, target) in GROWING.iter().zip(targets) {
        let name = one.name;
        let restored = results.json(&list(name));
        let grown = restored["grown"].as_str().unwrap_or_default();
        assert!(
            grown.contains("its file system fills it"),
            "{name}: {restored}"
        );
        assert!(!warns(&restored, "fs-not-grown"), "{name}: {restored}");
        let table = results.table(&format!("grow-{name}-table"));
        let &[(1, start, size)] = table.as_slice() else {
            panic!("{name}: the kernel's table {table:?}");
        };
        // All of the disk but the first MiB and the table at its end.
        let wanted = (one.large - 3) * MIB;
        assert!(start == MIB && size >= wanted, "{name}: {table:?}");
        let files = results.ok(&format!("grow-{name}-files"));
        assert_eq!(files.matches(": OK").count(), tree().files().count());
        if name == "btrfs" {
            // The source had the same identity; the host's kernel must forget it.
            ok("btrfs", &["device", "scan", "--forget"]);
        }
        let part = LoopDevice::attach_at(target, start, size, one.sector);
        ok(one.fsck[0], &[&one.fsck[1..], &[s(part.path())]].concat());
        let mounted = Mounted::new("mount", &["-t", name, "-o", "ro"], part.path());
        compare(mounted.path(), &tree().hashes());
        let text = ok("df", &["-B1", "--output=size", s(mounted.path())]);
        let shown = text
            .lines()
            .last()
            .and_then(|line| line.trim().parse().ok());
        let shown: u64 = shown.unwrap_or_else(|| panic!("df: {text}"));
        // Inode tables, the journal or the log are not counted.
        assert!(
            shown > size / 100 * 80,
            "{name} has {shown} of {size} bytes"
        );
    }
}
