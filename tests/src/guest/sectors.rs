//! Disks with sectors of 4096 bytes (4Kn), and with 512 on 4096 (512e), as real block
//! devices: there and back inside a guest.
//!
//! Owns: these disks, their steps and what must hold. Does not own: the guest.

use super::{Guest, Results};
use std::path::{Path, PathBuf};
use testkit::build::{BuiltDisk, DiskBuilder, Tree};
use testkit::files;
use testkit::loopdev::LoopDevice;
use testkit::qemu::{Bus, Disk};

use crate::matrix::content::{run, s};
use crate::matrix::trip::garbage;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
const FILES: &str = "sector-files";

/// One kind of disk.
struct Kind {
    name: &'static str,
    bus: Bus,
    logical: u32,
    physical: u32,
    mbr: bool,
}

const KINDS: [Kind; 4] = [
    Kind {
        name: "virtio-4kn",
        bus: Bus::Virtio,
        logical: 4096,
        physical: 4096,
        mbr: false,
    },
    Kind {
        name: "virtio-512e",
        bus: Bus::Virtio,
        logical: 512,
        physical: 4096,
        mbr: true,
    },
    Kind {
        name: "nvme-4kn",
        bus: Bus::Nvme,
        logical: 4096,
        physical: 4096,
        mbr: true,
    },
    Kind {
        name: "nvme-512e",
        bus: Bus::Nvme,
        logical: 512,
        physical: 4096,
        mbr: false,
    },
];

/// Image and disk that do not fit, as (image's kind, kind of the other disk).
const MISFITS: [(usize, usize); 2] = [(0, 1), (3, 2)];

/// What was made for the guest.
pub struct Prepared {
    sources: Vec<BuiltDisk>,
    targets: Vec<PathBuf>,
    /// Disks that nothing may be written to, and their digests.
    misfits: Vec<(PathBuf, String)>,
}

fn tree() -> Tree {
    Tree::new(21, 20, 300_000)
}

/// Makes the disks and adds the steps.
///
/// # Panics
/// If that fails.
pub fn prepare(folder: &Path, guest: &mut Guest) -> Prepared {
    let mut prepared = Prepared {
        sources: Vec::new(),
        targets: Vec::new(),
        misfits: Vec::new(),
    };
    guest.carry_hashes(FILES, &tree());
    for kind in &KINDS {
        let name = kind.name;
        let at = |what: &str| folder.join(format!("{name}-{what}.img"));
        let source = kind.build(&at("source"));
        let target = at("target");
        garbage(&target, SIZE);
        guest.attach(kind.disk(&source.path, "from"));
        guest.attach(kind.disk(&target, "to"));
        guest.script(&format!(
            "from=$(node {name}-from) to=$(node {name}-to)
            run {name}-sizes cat /sys/block/${{to##*/}}/queue/logical_block_size /sys/block/${{to##*/}}/queue/physical_block_size
            run {name}-backup imager backup --quiet --json $from /mnt/{name}.image
            run {name}-restore imager restore --yes --quiet --json --save-tables none /mnt/{name}.image $to
            run {name}-table table $to
            run {name}-files mounted ext4 ro $(part $to 1) /mnt/{FILES}.list"
        ));
        prepared.sources.push(source);
        prepared.targets.push(target);
    }
    for (image, other) in MISFITS {
        let (image, other) = (&KINDS[image], &KINDS[other]);
        let path = folder.join(format!("{}-misfit.img", other.name));
        garbage(&path, SIZE);
        let digest = files::digest(&path).expect("a digest");
        guest.attach(other.disk(&path, "no"));
        guest.script(&format!(
            "run {0}-misfit imager restore --yes --quiet --json --save-tables none /mnt/{1}.image $(node {0}-no)",
            other.name, image.name
        ));
        prepared.misfits.push((path, digest));
    }
    prepared
}

impl Kind {
    fn build(&self, path: &Path) -> BuiltDisk {
        let tree = tree();
        let (ext, fat, swap) = (24 * MIB, 20 * MIB, 4 * MIB);
        let builder = if self.mbr {
            let builder = DiskBuilder::mbr(SIZE, self.logical).boot_code(5);
            builder.stale().ext4(ext, &tree).logical()
        } else {
            DiskBuilder::gpt(SIZE, self.logical)
                .stale()
                .ext4(ext, &tree)
        };
        builder.fat(16, fat, &tree).swap(swap).build(path)
    }

    fn disk(&self, path: &Path, role: &str) -> Disk {
        let mut disk = Disk::new(path, &format!("{}-{role}", self.name));
        disk.bus = self.bus;
        disk.sector_size = self.logical;
        disk.physical_size = self.physical;
        disk
    }
}

/// Looks at what the guest did.
///
/// # Panics
/// If anything is not as it must be.
pub fn check(prepared: &Prepared, results: &Results) {
    let trips = prepared.sources.iter().zip(&prepared.targets);
    for (kind, (source, target)) in KINDS.iter().zip(trips) {
        let name = kind.name;
        let sizes = results.ok(&format!("{name}-sizes"));
        let mut sizes = sizes.lines();
        assert_eq!(sizes.next(), Some(kind.logical.to_string().as_str()));
        if kind.bus == Bus::Virtio {
            // NVMe has no word for it; the kernel guesses.
            assert_eq!(sizes.next(), Some(kind.physical.to_string().as_str()));
        }
        results.json(&format!("{name}-backup"));
        let restored = results.json(&format!("{name}-restore"));
        assert_eq!(restored["verified"], true, "{name}: {restored}");
        source.verify(target);
        let known = results.table(&format!("{name}-table"));
        for part in &source.partitions {
            let found = known.iter().find(|known| known.0 == part.number);
            let wanted = (part.number, part.start, part.size);
            assert_eq!(found, Some(&wanted), "{name}: the kernel's table {known:?}");
        }
        let files = results.ok(&format!("{name}-files"));
        assert_eq!(files.matches(": OK").count(), tree().files().count());
        if !kind.mbr {
            let device = LoopDevice::attach(target, kind.logical);
            let (_, verdict) = run("sgdisk", &["--verify", s(device.path())]);
            // Of a copy that is not valid it says so, and then that it found no problems.
            let valid = !verdict.contains("invalid") && verdict.contains("No problems found");
            assert!(valid, "{name}: {verdict}");
        }
    }
    for ((image, other), (path, digest)) in MISFITS.into_iter().zip(&prepared.misfits) {
        let (image, other) = (&KINDS[image], &KINDS[other]);
        let found = results.refused(
            &format!("{}-misfit", other.name),
            "sector-size-mismatch",
            "untouched",
        );
        let says = |size: u32| found.contains(&format!("{size} bytes"));
        assert!(says(image.logical) && says(other.logical), "{found}");
        let after = files::digest(path).expect("a digest");
        assert_eq!(&after, digest, "{} was changed", other.name);
    }
}
