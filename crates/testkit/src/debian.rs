//! Small, real, bootable Debian disks, made by recipe and kept in a cache.
//!
//! Owns: the tree that debootstrap makes, and the cache with its key and lock. Does
//! not own: partitions, boot loaders and file systems (`debian_disk`).
//!
//! The mirror comes from this machine's own apt sources, the suite from its
//! `/etc/os-release`.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::{Flock, FlockArg};

use crate::debian_disk;
use crate::netns::require;
use crate::qemu::Firmware;

/// Counts up when the recipe changes: old disks are then made anew.
const RECIPE: &str = "3";
const PACKAGES: &str = "systemd-sysv,udev,linux-image-cloud-amd64";
/// What a test does not need and an emulated processor would have to hash.
const REMOVED: [&str; 12] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log/apt",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/i18n",
    "usr/share/zoneinfo",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "var/log/bootstrap.log",
];

/// The text on the serial console when the system is up.
pub const LOGIN_PROMPT: &str = "debian login:";

/// A raw disk image (2 GiB, sparse, about 280 MiB used) with Debian on it: for UEFI a
/// GPT with ESP, ext4 and swap; for BIOS an MBR with ext4 and, in an extended
/// partition, ext4 and swap. Made at the first call, kept in `cache`. Never write to it.
///
/// # Errors
/// A program is missing (the text names its package), the mirror cannot be reached, or
/// this is not root.
pub fn disk(firmware: Firmware, cache: &Path) -> io::Result<PathBuf> {
    let folder = cache.join("debian").join(key()?);
    let path = folder.join(match firmware {
        Firmware::Bios => "bios.img",
        Firmware::Uefi => "uefi.img",
    });
    fs::create_dir_all(cache.join("debian"))?;
    let lock = File::create(cache.join("debian/lock"))?;
    let _held = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if !path.exists() {
        eprintln!("making the Debian test disks (about a minute; kept in the cache)");
        build(&folder)?;
    }
    Ok(path)
}

/// A private, sparse copy of a disk, for a machine that may write to it.
///
/// # Errors
/// `cp` fails, as for a full disk.
pub fn copy(disk: &Path, to: &Path) -> io::Result<()> {
    run(Command::new("cp")
        .args(["--sparse=always", "--reflink=auto"])
        .args([disk, to]))
}

/// Builds beside the final place and renames: a broken run leaves no half disk.
fn build(folder: &Path) -> io::Result<()> {
    for (program, package) in [
        ("debootstrap", "debootstrap"),
        ("mke2fs", "e2fsprogs"),
        ("mkfs.vfat", "dosfstools"),
        ("mcopy", "mtools"),
        ("sfdisk", "fdisk"),
        ("grub-mkimage", "grub-common grub-pc-bin grub-efi-amd64-bin"),
    ] {
        require(program, package)?;
    }
    let parent = folder.parent().unwrap_or(folder);
    let work = tempfile::Builder::new()
        .prefix("making-")
        .tempdir_in(parent)?;
    let root = work.path().join("root");
    let (suite, mirror) = source()?;
    run(Command::new("debootstrap")
        .arg("--variant=minbase")
        .arg(format!("--include={PACKAGES}"))
        .arg(suite)
        .arg(&root)
        .arg(mirror))?;
    trim(&root)?;
    let made = work.path().join("disks");
    fs::create_dir(&made)?;
    debian_disk::uefi(&root, work.path(), &made.join("uefi.img"))?;
    debian_disk::bios(&root, work.path(), &made.join("bios.img"))?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&made, folder)
}

fn trim(root: &Path) -> io::Result<()> {
    for path in REMOVED {
        let path = root.join(path);
        if path.is_dir() {
            fs::remove_dir_all(path)?;
        } else if path.exists() {
            fs::remove_file(path)?;
        }
    }
    fs::write(root.join("etc/hostname"), "debian\n")?;
    // Empty: every machine that boots from a copy makes its own.
    fs::write(root.join("etc/machine-id"), "")?;
    for folder in ["boot/grub", "boot/efi", "data"] {
        fs::create_dir_all(root.join(folder))?;
    }
    Ok(())
}

fn key() -> io::Result<String> {
    let (suite, _) = source()?;
    let mut hasher = DefaultHasher::new();
    (RECIPE, PACKAGES, REMOVED, suite, debian_disk::RECIPE).hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

/// This machine's suite and mirror.
fn source() -> io::Result<(String, String)> {
    let release = fs::read_to_string("/etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .ok_or_else(|| io::Error::other("/etc/os-release names no suite (is this Debian?)"))?
        .trim_matches('"')
        .to_owned();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    for file in files {
        let text = fs::read_to_string(file).unwrap_or_default();
        if let Some(mirror) = mirror_in(&text, &suite) {
            return Ok((suite, mirror));
        }
    }
    Err(io::Error::other(format!(
        "no apt source of this machine offers the suite {suite}"
    )))
}

/// The mirror of `suite` in one sources file, in the one-line or the deb822 form.
fn mirror_in(text: &str, suite: &str) -> Option<String> {
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        if let (Some(uris), Some(suites)) = (field("URIs:"), field("Suites:"))
            && suites.split_whitespace().any(|word| word == suite)
        {
            return uris.split_whitespace().next().map(str::to_owned);
        }
    }
    text.lines().find_map(|line| {
        let mut words = line
            .strip_prefix("deb ")?
            .split_whitespace()
            .skip_while(|word| word.starts_with('[') || word.ends_with(']'));
        let mirror = words.next()?;
        (words.next()? == suite).then(|| mirror.to_owned())
    })
}

/// Runs a program to its end; what it said is in the error.
pub(crate) fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output().map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}", command.get_program().display()),
        )
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let tail: Vec<&str> = said.lines().rev().take(20).collect();
    Err(io::Error::other(format!(
        "{command:?} failed ({}): {}",
        output.status,
        tail.into_iter().rev().collect::<Vec<_>>().join("\n")
    )))
}

#[cfg(test)]
mod tests {
    use super::{mirror_in, run};
    use std::process::Command;

    #[test]
    fn both_forms_of_apt_sources_are_read() {
        let stanzas = "Types: deb\nURIs: http://a.example/security\nSuites: sid-security\n\n\
            Types: deb\nURIs: http://b.example/debian\nSuites: sid sid-updates\n";
        assert_eq!(
            mirror_in(stanzas, "sid").as_deref(),
            Some("http://b.example/debian")
        );
        let lines = "# deb http://no.example sid main\ndeb [arch=amd64 trusted=yes] http://c.example/debian sid main\n";
        assert_eq!(
            mirror_in(lines, "sid").as_deref(),
            Some("http://c.example/debian")
        );
        assert_eq!(mirror_in(lines, "woody"), None);
    }

    #[test]
    fn a_failing_program_s_words_are_in_the_error() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("broken"), "{error}");
    }
}
