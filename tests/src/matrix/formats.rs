//! The file systems of the matrix: how each is made, left unclean and looked at again.
//!
//! Owns: recipes with the file systems' own tools. Does not own: partition tables,
//! backup and restore ([`super::trip`]).

use super::State;
use super::content::{self, Mounted, compare, expected, ok, run, s, write_and_sync};
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use testkit::build::Random;

/// What is left open until the disk was copied.
pub type Open = Option<Mounted>;

/// A file system, with tools that make and check it.
#[derive(Debug)]
pub struct Format {
    /// Name in this matrix.
    pub name: &'static str,
    /// Name that the map gives it.
    pub file_system: &'static str,
    /// Size of the volume in MiB.
    pub mib: u64,
    /// Makes it on a device of the given sector size, with files where that is possible,
    /// and leaves it in the given state.
    pub make: fn(&Path, u32, State) -> Open,
    /// Looks at it on the restored disk: the tool that checks it, and all files.
    pub check: fn(&Path, State),
    /// `used` or `full`, for a clean one.
    pub clean: &'static str,
    /// The same for an unclean one; `None`: there is no such state.
    pub unclean: Option<&'static str>,
}

impl Format {
    /// Whether there is such a thing.
    pub fn exists(&self, _sector: u32, state: State) -> bool {
        state == State::Clean || self.unclean.is_some()
    }

    /// The method that the map must choose.
    pub fn method(&self, state: State) -> &'static str {
        match state {
            State::Clean => self.clean,
            State::Unclean => self.unclean.unwrap_or("full"),
        }
    }
}

/// All of them.
pub const FORMATS: &[Format] = &[
    ext("ext2", |d, n, s| ext_make("ext2", d, n, s), Some("full")),
    ext("ext3", |d, n, s| ext_make("ext3", d, n, s), Some("used")),
    ext("ext4", |d, n, s| ext_make("ext4", d, n, s), Some("used")),
    Format {
        name: "xfs",
        file_system: "xfs",
        mib: 96,
        make: |device, sector, state| xfs_make(device, sector, state, true),
        check: |device, state| xfs_check(device, state, true),
        clean: "used",
        unclean: Some("full"),
    },
    Format {
        name: "xfs v4",
        file_system: "xfs",
        mib: 96,
        make: |device, sector, state| xfs_make(device, sector, state, false),
        check: |device, state| xfs_check(device, state, false),
        clean: "used",
        unclean: None,
    },
    Format {
        name: "btrfs",
        file_system: "btrfs",
        mib: 160,
        make: |device, _, state| btrfs_make(device, state, &[]),
        check: btrfs_check,
        clean: "used",
        unclean: Some("used"),
    },
    Format {
        name: "btrfs mixed",
        file_system: "btrfs",
        mib: 64,
        make: |device, _, state| btrfs_make(device, state, &["-M"]),
        check: btrfs_check,
        clean: "used",
        unclean: Some("used"),
    },
    Format {
        name: "ntfs",
        file_system: "ntfs",
        mib: 48,
        make: ntfs_make,
        check: ntfs_check,
        clean: "used",
        unclean: Some("full"),
    },
    fat("fat12", 6, |d, n, s| fat_make("12", d, n, s), None),
    fat("fat16", 48, |d, n, s| fat_make("16", d, n, s), Some("full")),
    fat(
        "fat32",
        300,
        |d, n, s| fat_make("32", d, n, s),
        Some("full"),
    ),
    Format {
        name: "exfat",
        file_system: "exfat",
        mib: 32,
        make: exfat_make,
        check: |device, state| {
            if state == State::Clean {
                ok("fsck.exfat", &["-n", s(device)]);
            }
        },
        clean: "used",
        unclean: Some("full"),
    },
    Format {
        name: "f2fs",
        file_system: "f2fs",
        mib: 128,
        make: f2fs_make,
        check: |device, _| {
            let (clean, text) = run("fsck.f2fs", &["--dry-run", s(device)]);
            assert!(clean && !text.contains("[FIX]"), "{text}");
        },
        clean: "used",
        unclean: None,
    },
    Format {
        name: "swap",
        file_system: "swap",
        mib: 16,
        make: swap_make,
        check: |device, state| {
            if state == State::Clean {
                let text = ok("blkid", &["-p", s(device)]);
                assert!(text.contains("LABEL=\"spare\""), "{text}");
            }
        },
        clean: "used",
        unclean: Some("full"),
    },
    Format {
        name: "squashfs",
        file_system: "squashfs",
        mib: 24,
        make: |device, _, _| {
            from_tree(device, |tree, image| {
                ok("mksquashfs", &[tree, image, "-quiet", "-no-progress"]);
            })
        },
        check: |device, _| {
            let mounted = Mounted::new("mount", &["-t", "squashfs", "-o", "ro"], device);
            compare(mounted.path(), &expected(false));
        },
        clean: "used",
        unclean: None,
    },
    Format {
        name: "iso9660",
        file_system: "iso9660",
        mib: 24,
        make: |device, _, _| {
            from_tree(device, |tree, image| {
                ok("genisoimage", &["-quiet", "-R", "-o", image, tree]);
            })
        },
        check: |device, _| {
            let out = tempfile::tempdir().expect("a folder");
            let to = out.path().join("out");
            let from = format!("stdio:{}", s(device));
            ok(
                "xorriso",
                &["-osirrox", "on", "-indev", &from, "-extract", "/", s(&to)],
            );
            compare(&to, &expected(false));
        },
        clean: "used",
        unclean: None,
    },
    Format {
        name: "udf",
        file_system: "udf",
        mib: 16,
        make: |device, sector, _| {
            let block = sector.max(2048).to_string();
            ok("mkudffs", &["-b", &block, "-l", "disc", s(device)]);
            None
        },
        check: |device, _| {
            assert!(ok("udfinfo", &[s(device)]).contains("label=disc"));
        },
        clean: "used",
        unclean: None,
    },
    Format {
        name: "luks",
        file_system: "luks",
        mib: 8,
        make: |device, _, _| {
            noise(device);
            poke(device, 0, b"LUKS\xba\xbe\0\x02");
            None
        },
        check: |_, _| {},
        clean: "full",
        unclean: None,
    },
    Format {
        name: "unknown",
        file_system: "",
        mib: 8,
        make: |device, _, _| {
            noise(device);
            None
        },
        check: |_, _| {},
        clean: "full",
        unclean: None,
    },
];

const fn ext(
    name: &'static str,
    make: fn(&Path, u32, State) -> Open,
    unclean: Option<&'static str>,
) -> Format {
    Format {
        name,
        file_system: name,
        mib: 48,
        make,
        check: ext_check,
        clean: "used",
        unclean,
    }
}

const fn fat(
    name: &'static str,
    mib: u64,
    make: fn(&Path, u32, State) -> Open,
    unclean: Option<&'static str>,
) -> Format {
    Format {
        name,
        file_system: name,
        mib,
        make,
        check: fat_check,
        clean: "used",
        unclean,
    }
}

/// Mounts it, writes the files, and leaves it mounted if it is to be unclean.
fn filled(mounted: Mounted, state: State) -> Open {
    content::trees().0.write_to(mounted.path());
    if state == State::Clean {
        return None;
    }
    ok("sync", &["-f", s(mounted.path())]);
    write_and_sync(mounted.path());
    Some(mounted)
}

fn ext_make(kind: &str, device: &Path, sector: u32, state: State) -> Open {
    let block = if sector == 512 { "1024" } else { "4096" };
    ok("mke2fs", &["-q", "-F", "-t", kind, "-b", block, s(device)]);
    filled(Mounted::new("mount", &[], device), state)
}

fn ext_check(device: &Path, state: State) {
    if state == State::Unclean && !has_journal(device) {
        // Without a journal it is for the tool to make it consistent: 1 says it did.
        let (_, text) = run("e2fsck", &["-f", "-y", s(device)]);
        assert!(text.contains("FILE SYSTEM WAS MODIFIED"), "{text}");
    }
    // Mounting replays the journal; the check comes after it.
    let mounted = Mounted::new("mount", &[], device);
    compare(mounted.path(), &expected(state == State::Unclean));
    drop(mounted);
    ok("e2fsck", &["-f", "-n", s(device)]);
}

fn has_journal(device: &Path) -> bool {
    ok("dumpe2fs", &["-h", s(device)]).contains("has_journal")
}

fn xfs_make(device: &Path, sector: u32, state: State, v5: bool) -> Open {
    let sectors = format!("size={sector}");
    let version = if v5 { "crc=1" } else { "crc=0" };
    // Small ones are for tests only, which is what this is.
    let small = ["--unsupported", "-q", "-f", "-s", &sectors, "-m", version];
    ok("mkfs.xfs", &[&small[..], &[s(device)]].concat());
    if !v5 {
        // Kernels have begun to leave version 4 out.
        return None;
    }
    filled(Mounted::new("mount", &["-o", "nouuid"], device), state)
}

fn xfs_check(device: &Path, state: State, v5: bool) {
    if v5 {
        let mounted = Mounted::new("mount", &["-o", "nouuid"], device);
        compare(mounted.path(), &expected(state == State::Unclean));
    }
    ok("xfs_repair", &["-n", s(device)]);
}

fn btrfs_make(device: &Path, state: State, more: &[&str]) -> Open {
    ok(
        "mkfs.btrfs",
        &[&["-q", "-f"][..], more, &[s(device)]].concat(),
    );
    // Nothing is committed by time alone while the test looks.
    filled(Mounted::new("mount", &["-o", "commit=300"], device), state)
}

fn btrfs_check(device: &Path, state: State) {
    // The source had the same identity; the kernel must forget it.
    run("btrfs", &["device", "scan", "--forget"]);
    let mounted = Mounted::new("mount", &[], device);
    compare(mounted.path(), &expected(state == State::Unclean));
    drop(mounted);
    ok("btrfs", &["check", "--readonly", s(device)]);
}

fn ntfs_make(device: &Path, sector: u32, state: State) -> Open {
    let sector = sector.to_string();
    ok("mkntfs", &["-q", "-Q", "-F", "-s", &sector, s(device)]);
    let mounted = Mounted::new("ntfs-3g", &[], device);
    content::trees().0.write_to(mounted.path());
    drop(mounted);
    if state == State::Unclean {
        // The volume flag that Windows and the kernel set while it is mounted.
        ok("ntfsfix", &[s(device)]);
    }
    None
}

fn ntfs_check(device: &Path, _: State) {
    let mounted = Mounted::new("ntfs-3g", &["-o", "ro"], device);
    compare(mounted.path(), &expected(false));
}

fn fat_make(bits: &str, device: &Path, sector: u32, state: State) -> Open {
    let cluster = if sector == 512 { "4" } else { "1" };
    let sector = sector.to_string();
    ok(
        "mkfs.fat",
        &["-F", bits, "-S", &sector, "-s", cluster, s(device)],
    );
    let tree = tempfile::tempdir().expect("a folder");
    content::trees().0.write_to(tree.path());
    let listed = std::fs::read_dir(tree.path()).expect("the tree");
    let paths: Vec<_> = listed
        .map(|entry| entry.expect("an entry").path())
        .collect();
    let mut args = vec!["-s", "-i", s(device)];
    args.extend(paths.iter().map(|path| s(path)));
    args.push("::");
    ok("mcopy", &args);
    if state == State::Unclean {
        poke(device, if bits == "32" { 0x41 } else { 0x25 }, &[1]);
    }
    None
}

fn fat_check(device: &Path, state: State) {
    if state == State::Clean {
        ok("fsck.fat", &["-n", s(device)]);
    }
    let out = tempfile::tempdir().expect("a folder");
    ok("mcopy", &["-s", "-i", s(device), "::*", s(out.path())]);
    compare(out.path(), &expected(false));
}

fn exfat_make(device: &Path, _: u32, state: State) -> Open {
    ok("mkfs.exfat", &["-L", "stick", s(device)]);
    if state == State::Unclean {
        poke(device, 106, &[2]);
    }
    None
}

fn f2fs_make(device: &Path, sector: u32, _: State) -> Open {
    let sector = sector.to_string();
    ok("mkfs.f2fs", &["-f", "-q", "-w", &sector, s(device)]);
    let tree = tempfile::tempdir().expect("a folder");
    content::trees().0.write_to(tree.path());
    ok("sload.f2fs", &["-f", s(tree.path()), s(device)]);
    None
}

fn swap_make(device: &Path, _: u32, state: State) -> Open {
    ok("mkswap", &["-q", "-L", "spare", s(device)]);
    if state == State::Unclean {
        poke(device, 4086, b"S1SUSPEND\0");
    }
    None
}

/// Makes an image of the files by a tool and writes it to the device.
fn from_tree(device: &Path, make: fn(&str, &str)) -> Open {
    let work = tempfile::tempdir().expect("a folder");
    let (tree, image) = (work.path().join("tree"), work.path().join("image"));
    content::trees().0.write_to(&tree);
    make(s(&tree), s(&image));
    let bytes = std::fs::read(&image).expect("the image");
    poke(device, 0, &bytes);
    None
}

/// Random bytes from end to end.
fn noise(device: &Path) {
    let mut random = Random::new(77);
    for step in 0..8 {
        poke(device, step << 20, &random.bytes(1 << 20));
    }
}

fn poke(device: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().read(true).write(true).open(device);
    let file = file.expect("the device");
    file.write_all_at(bytes, offset).expect("written");
    file.sync_all().expect("flushed");
}
