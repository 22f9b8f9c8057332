//! The media of the Deploy-OS that are in this machine's drives.
//!
//! Owns: looking for them on every drive, mounting, writing to one for a moment. Does not
//! own: what stands on them (`medium`), what is done with it.
//!
//! Media are mounted read-only below `/run/medium`; a mounted one is a disk in use, so that
//! it can never become the target of a restore. Only file systems that show the mark of
//! ISO 9660 or FAT are mounted, for as long as it takes to see whether
//! `deploy-os/medium.json` is there.

use ::medium::{ABOUT_FILE, About};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const MOUNTS: &str = "/run/medium";
/// Drives that appear late (USB takes seconds) are looked for this often.
const POLL: Duration = Duration::from_millis(250);
/// Nothing on a medium is a program or a device to us.
const FLAGS: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);
/// Devices that carry no media: made by the kernel, or out of other devices.
const NO_DRIVES: [&str; 7] = ["loop", "ram", "zram", "dm-", "md", "nbd", "fd"];

/// A medium, mounted read-only until it is released.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Medium {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its device: a drive, or a partition of one.
    pub device: PathBuf,
    /// Whether files can be written to it.
    pub writable: bool,
    /// What it says of itself.
    pub about: About,
}

impl Medium {
    /// A file on the medium, named as from its root.
    pub fn file(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// Makes the medium writable for as long as `work` runs, which is given the mount
    /// point; what it wrote is on the medium when this returns.
    ///
    /// # Errors
    /// The medium cannot be written to, or what `work` gives.
    pub fn with_writable<T>(&self, work: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(io::Error::new(
                io::ErrorKind::ReadOnlyFilesystem,
                format!("{} is write-protected", self.device.display()),
            ));
        }
        remount(&self.mount, MsFlags::empty())?;
        let worked = work(&self.mount);
        // What cannot be made read-only again is at least written out.
        let written = File::open(&self.mount).and_then(|root| Ok(nix::unistd::syncfs(root)?));
        let closed = remount(&self.mount, MsFlags::MS_RDONLY);
        let value = worked?;
        written?;
        closed?;
        Ok(value)
    }

    /// Unmounts it, so that it can be taken out.
    pub fn release(self) {
        unmount(&self.mount);
    }
}

/// Looks for media until there is one or `wait` is over. Gives all that are there, mounted:
/// CD drives first, then sticks and disks. What an earlier call found is given again if it is
/// there still.
pub fn find(wait: Duration) -> Vec<Medium> {
    let began = Instant::now();
    loop {
        let found = look();
        if !found.is_empty() || began.elapsed() >= wait {
            return found;
        }
        std::thread::sleep(POLL);
    }
}

/// Drives that can be taken out or hold media, in words: for a person who has to insert one.
pub fn drives() -> Vec<String> {
    let told = |drive: &Drive| {
        let device = Path::new("/dev").join(&drive.name);
        let content = match signature(&device) {
            Ok(Some(kind)) => format!("{kind}, not the medium that is looked for"),
            Ok(None) => "no CD and no FAT file system".to_owned(),
            Err(_) => "empty".to_owned(),
        };
        format!("{} ({content})", device.display())
    };
    let all = candidates(Path::new("/sys/class/block"));
    all.iter()
        .filter(|drive| drive.partition_of.is_none() && drive.removable)
        .map(told)
        .collect()
}

fn look() -> Vec<Medium> {
    let table = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mounted = mounted_media(&table);
    let mut found: Vec<Medium> = Vec::new();
    let mut whole: Vec<String> = Vec::new();
    for drive in candidates(Path::new("/sys/class/block")) {
        // Of a CD's image on a stick both the stick and its first partition show the same.
        if drive
            .partition_of
            .as_ref()
            .is_some_and(|disk| whole.contains(disk))
        {
            continue;
        }
        let device = Path::new("/dev").join(&drive.name);
        let kept = mounted
            .iter()
            .find(|(source, _)| Path::new(source) == device)
            .and_then(|(_, at)| again(&device, Path::new(at)));
        if let Some(medium) = kept.or_else(|| try_mount(&device)) {
            whole.push(drive.name);
            found.push(Medium {
                writable: medium.writable && !drive.read_only,
                ..medium
            });
        }
    }
    found
}

/// A medium that was mounted before, unless another one is in the drive by now.
fn again(device: &Path, at: &Path) -> Option<Medium> {
    let here = about(at).filter(|_| matches!(signature(device), Ok(Some(_))));
    if here.is_none() {
        unmount(at);
    }
    Some(Medium {
        writable: signature(device).ok()? == Some("vfat"),
        about: here?,
        mount: at.to_owned(),
        device: device.to_owned(),
    })
}

fn try_mount(device: &Path) -> Option<Medium> {
    let kind = signature(device).ok()??;
    let at = free_place(Path::new(MOUNTS))?;
    let none: Option<&str> = None;
    mount(
        Some(device),
        &at,
        Some(kind),
        FLAGS | MsFlags::MS_RDONLY,
        none,
    )
    .ok()?;
    let Some(about) = about(&at) else {
        unmount(&at);
        return None;
    };
    Some(Medium {
        writable: kind == "vfat",
        about,
        mount: at,
        device: device.to_owned(),
    })
}

fn about(mount: &Path) -> Option<About> {
    let file = File::open(mount.join(ABOUT_FILE)).ok()?;
    let mut bytes = Vec::new();
    let limit = ::medium::about::MAX_BYTES as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).ok()?;
    About::parse(&bytes).ok()
}

/// The first name below `dir` that is not taken, as a folder.
fn free_place(dir: &Path) -> Option<PathBuf> {
    fs::create_dir_all(dir).ok()?;
    (0..100)
        .map(|number| dir.join(number.to_string()))
        .find(|place| fs::create_dir(place).is_ok())
}

fn unmount(at: &Path) {
    // A medium that was pulled out is still mounted; nobody can do more about it.
    let _ = umount2(at, MntFlags::MNT_DETACH);
    let _ = fs::remove_dir(at);
}

fn remount(at: &Path, mode: MsFlags) -> io::Result<()> {
    let none: Option<&str> = None;
    mount(none, at, none, FLAGS | MsFlags::MS_REMOUNT | mode, none)?;
    Ok(())
}

/// Device and mount point of the media that are mounted, from the kernel's table.
fn mounted_media(table: &str) -> Vec<(String, String)> {
    let ours = |line: &str| {
        let mut words = line.split(' ');
        let (source, at) = (words.next()?, words.next()?);
        let inside = Path::new(at).parent() == Some(Path::new(MOUNTS));
        inside.then(|| (source.to_owned(), at.to_owned()))
    };
    table.lines().filter_map(ours).collect()
}

/// The kernel's name of the file system that a device seems to hold, if it is one of media.
fn signature(device: &Path) -> io::Result<Option<&'static str>> {
    let file = File::open(device)?;
    let mut volume = [0; 8];
    // ECMA-119, 8.4: the first volume descriptor is at byte 32768.
    if file.read_exact_at(&mut volume, 32 << 10).is_ok() && volume.get(1..6) == Some(b"CD001") {
        return Ok(Some("iso9660"));
    }
    let mut boot = [0; 512];
    file.read_exact_at(&mut boot, 0)?;
    Ok(is_fat(&boot).then_some("vfat"))
}

/// FAT: the type is named in the boot sector (for people, but every formatter does), and a
/// partition table is none.
fn is_fat(boot: &[u8; 512]) -> bool {
    let jump = boot[0] == 0xEB || boot[0] == 0xE9;
    let named = boot[54..57] == *b"FAT" || boot[82..85] == *b"FAT";
    jump && named && boot[510..] == [0x55, 0xAA]
}

/// A drive, or a partition of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Drive {
    name: String,
    /// The disk's name.
    partition_of: Option<String>,
    removable: bool,
    read_only: bool,
}

/// Where media may be, in the order in which they are looked for.
fn candidates(class: &Path) -> Vec<Drive> {
    let names = fs::read_dir(class).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<Drive> = names
        .filter(|name| !NO_DRIVES.iter().any(|prefix| name.starts_with(prefix)))
        .filter_map(|name| candidate(class, name))
        .collect();
    let place = |drive: &Drive| {
        let disk = drive.partition_of.as_ref().unwrap_or(&drive.name).clone();
        let is_cd = disk.starts_with("sr");
        let own = (drive.partition_of.is_some(), drive.name.len());
        (
            !is_cd,
            !drive.removable,
            disk.len(),
            disk,
            own,
            drive.name.clone(),
        )
    };
    found.sort_by_key(place);
    found
}

fn candidate(class: &Path, name: String) -> Option<Drive> {
    let dir = fs::canonicalize(class.join(&name)).ok()?;
    let flag = |dir: &Path, attribute: &str| {
        fs::read_to_string(dir.join(attribute)).is_ok_and(|text| text.trim() == "1")
    };
    let disk = if dir.join("partition").exists() {
        dir.parent()
    } else {
        None
    };
    let whole = disk.unwrap_or(&dir);
    // What hangs on USB can be taken out, whether it says so of itself or not.
    let on_usb = whole
        .components()
        .any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    Some(Drive {
        partition_of: disk
            .and_then(Path::file_name)
            .map(|disk| disk.to_string_lossy().into_owned()),
        removable: on_usb || flag(whole, "removable"),
        read_only: flag(&dir, "ro"),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::{candidates, is_fat, mounted_media, signature};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn file_systems_are_told_by_their_marks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut bytes = vec![0; 64 << 10];
        fs::write(&path, &bytes).unwrap();
        assert_eq!(signature(&path).unwrap(), None);
        bytes[..3].copy_from_slice(&[0xEB, 0x58, 0x90]);
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(signature(&path).unwrap(), None, "a boot sector is no FAT");
        bytes[82..90].copy_from_slice(b"FAT32   ");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(signature(&path).unwrap(), Some("vfat"));
        bytes[32768..32774].copy_from_slice(b"\x01CD001");
        fs::write(&path, &bytes).unwrap();
        assert_eq!(signature(&path).unwrap(), Some("iso9660"));
        fs::write(&path, b"short").unwrap();
        assert!(signature(&path).is_err());
        let mut boot = [0; 512];
        boot[..3].copy_from_slice(&[0xEB, 0x3C, 0x90]);
        boot[54..59].copy_from_slice(b"FAT16");
        assert!(!is_fat(&boot));
        boot[510..].copy_from_slice(&[0x55, 0xAA]);
        assert!(is_fat(&boot));
    }

    #[test]
    fn drives_come_in_an_order_and_partitions_after_their_disk() {
        let dir = tempfile::tempdir().unwrap();
        let class = dir.path().join("class");
        fs::create_dir(&class).unwrap();
        let add = |path: &str, removable: &str, is_partition: bool| {
            let device = dir.path().join("devices").join(path);
            fs::create_dir_all(&device).unwrap();
            if is_partition {
                fs::write(device.join("partition"), "1\n").unwrap();
            } else {
                fs::write(device.join("removable"), removable).unwrap();
            }
            fs::write(
                device.join("ro"),
                if path.contains("sr0") { "1\n" } else { "0\n" },
            )
            .unwrap();
            symlink(&device, class.join(device.file_name().unwrap())).unwrap();
        };
        add("pci/nvme0n1", "0\n", false);
        add("pci/nvme0n1/nvme0n1p1", "", true);
        add("pci/ata/sda", "0\n", false);
        add("pci/usb2/sdb", "0\n", false);
        add("pci/usb2/sdb/sdb10", "", true);
        add("pci/usb2/sdb/sdb2", "", true);
        add("pci/ata/sr0", "1\n", false);
        add("virtual/loop0", "0\n", false);
        add("virtual/dm-0", "0\n", false);
        let found = candidates(&class);
        let names: Vec<&str> = found.iter().map(|drive| drive.name.as_str()).collect();
        assert_eq!(
            names,
            ["sr0", "sdb", "sdb2", "sdb10", "sda", "nvme0n1", "nvme0n1p1"]
        );
        assert!(found[0].read_only && found[0].removable && !found[1].read_only);
        assert_eq!(found[2].partition_of.as_deref(), Some("sdb"));
        assert!(found[1].removable && found[2].removable && !found[4].removable);
    }

    #[test]
    fn only_our_mounts_are_media() {
        let table = "/dev/sda1 / ext4 rw 0 0\n/dev/sr0 /run/medium/0 iso9660 ro 0 0\n\
                     tmpfs /run tmpfs rw 0 0\n/dev/sdb1 /run/medium/x/y vfat ro 0 0\nbroken\n";
        let found = mounted_media(table);
        assert_eq!(found, [("/dev/sr0".to_owned(), "/run/medium/0".to_owned())]);
    }
}
