//! Partitions that the guest's kernel uses while their disk is to be restored, and its
//! table afterwards.
//!
//! Owns: this disk, its steps and what must hold. Does not own: the guest.

use super::{Guest, Results, host_backup, warns};
use std::path::Path;
use testkit::build::{BuiltDisk, DiskBuilder, Tree};
use testkit::qemu::{Bus, Disk};

const MIB: u64 = 1 << 20;

/// What was made for the guest: the disk as it is in the end, and what must be on it.
pub struct Prepared {
    path: std::path::PathBuf,
    old: BuiltDisk,
    new: BuiltDisk,
}

fn trees() -> [Tree; 3] {
    [41, 42, 43].map(|seed| Tree::new(seed, 15, 200_000))
}

const STEPS: &str = r#"
disk=$(node claims)
p1=$(part $disk 1) p2=$(part $disk 2) p3=$(part $disk 3)
restore() { imager restore --yes --quiet --json --save-tables none "$@" "$disk"; }
# The tables, and the heads of what is not mounted: where a restore writes first.
fingerprint() {
    { dd if=$disk bs=1M count=1; dd if=$p2 bs=1M count=2; dd if=$p3 bs=1M count=2; } 2>/dev/null | sha256sum
}

run claims-table-old table $disk
run claims-mount mount -t ext4 $p1 /a
run claims-fingerprint fingerprint
run claims-whole restore /mnt/claims-new.image
run claims-kept restore --keep 1 /mnt/claims-old.image
run claims-mounted restore --partition 1 /mnt/claims-old.image
run claims-backup imager backup --quiet --json $disk /mnt/claims-none.image
run claims-untouched fingerprint
(run claims-files files /a /mnt/claims-1.list)

# The partition beside it can be restored; what the kernel still holds of it must not win.
dd if=/dev/zero of=$p2 bs=1M count=6 2>/dev/null
run claims-beside restore --partition 2 /mnt/claims-old.image
run claims-beside-files mounted ext4 ro $p2 /mnt/claims-2.list
(run claims-files-again files /a /mnt/claims-1.list)
run claims-umount umount /a

losetup /dev/loop7 $p2
run claims-loop restore /mnt/claims-new.image
losetup -d /dev/loop7

# A partition that is only open keeps nobody from writing, but the kernel from looking.
sleep 100000 <$p1 &
run claims-open restore /mnt/claims-old.image
kill $!
wait $! 2>/dev/null

# Old blocks of all partitions are in memory now.
cat $p1 $p2 >/dev/null
run claims-free restore /mnt/claims-new.image
run claims-table-new table $disk
run claims-new-files mounted ext4 ro $p1 /mnt/claims-3.list
"#;

/// Makes images and disk and adds the steps.
///
/// # Panics
/// If that fails.
pub fn prepare(imager: &Path, folder: &Path, guest: &mut Guest) -> Prepared {
    let trees = trees();
    for (number, tree) in (1..).zip(&trees) {
        guest.carry_hashes(&format!("claims-{number}"), tree);
    }
    let [first, second, third] = &trees;
    let path = folder.join("claims.img");
    let old = DiskBuilder::gpt(72 * MIB, 512)
        .ext4(24 * MIB, first)
        .ext4(24 * MIB, second)
        .swap(8 * MIB)
        .build(&path);
    let new = DiskBuilder::gpt(72 * MIB, 512)
        .gap(3 * MIB)
        .ext4(36 * MIB, third)
        .fat(16, 24 * MIB, third)
        .build(&folder.join("claims-new.img"));
    for (name, disk) in [("old", &old), ("new", &new)] {
        let image = guest.store().join(format!("claims-{name}.image"));
        host_backup(imager, &disk.path, 512, &image);
    }
    let mut disk = Disk::new(&path, "claims");
    disk.bus = Bus::Nvme;
    guest.attach(disk);
    guest.script(STEPS);
    Prepared { path, old, new }
}

/// Looks at what the guest did.
///
/// # Panics
/// If anything is not as it must be.
pub fn check(prepared: &Prepared, results: &Results) {
    let places = |disk: &BuiltDisk| -> Vec<(u32, u64, u64)> {
        let parts = disk.partitions.iter();
        parts
            .map(|part| (part.number, part.start, part.size))
            .collect()
    };
    assert_eq!(results.table("claims-table-old"), places(&prepared.old));
    results.ok("claims-mount");
    for (step, disk) in [
        ("claims-whole", "untouched"),
        ("claims-kept", "untouched"),
        ("claims-mounted", "untouched"),
        ("claims-backup", "not-involved"),
    ] {
        let found = results.refused(step, "disk-in-use", disk);
        assert!(
            found.contains("mounted read-write at /a"),
            "{step}: {found}"
        );
    }
    assert_eq!(
        results.ok("claims-fingerprint"),
        results.ok("claims-untouched"),
        "a refused restore wrote something"
    );
    for step in ["claims-beside", "claims-free"] {
        assert_eq!(results.json(step)["verified"], true, "{step}");
    }
    results.ok("claims-umount");
    for (step, number) in [
        ("claims-files", 0),
        ("claims-beside-files", 1),
        ("claims-files-again", 0),
        ("claims-new-files", 2),
    ] {
        let wanted = trees()[number].files().count();
        assert_eq!(results.ok(step).matches(": OK").count(), wanted, "{step}");
    }
    let found = results.refused("claims-loop", "disk-in-use", "untouched");
    assert!(found.contains("/dev/loop7"), "{found}");
    let open = results.json("claims-open");
    assert!(warns(&open, "table-not-reread"), "{open}");
    let free = results.json("claims-free");
    assert!(!warns(&free, "table-not-reread"), "{free}");
    assert_eq!(
        results.table("claims-table-new"),
        places(&prepared.new),
        "the kernel has not read the new table"
    );
    prepared.new.verify(&prepared.path);
}
