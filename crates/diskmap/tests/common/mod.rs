//! Shared by the tests that use other people's tools as oracles.
//!
//! Owns: running tools (a missing one fails the test and names its Debian
//! package), files as disks, and restoring by a map onto garbage.

#![allow(dead_code)] // each test program uses a part

pub mod partclone;

use diskmap::{
    DiskMap, DiskRead, Extents, Geometry, Method, Region, RegionKind, ScanError, ScanOptions, scan,
};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

pub mod lvm;
pub mod md;

/// Debian package of every tool that the tests run.
const PACKAGES: &[(&str, &str)] = &[
    ("mke2fs", "e2fsprogs"),
    ("dumpe2fs", "e2fsprogs"),
    ("debugfs", "e2fsprogs"),
    ("e2fsck", "e2fsprogs"),
    ("mkfs.fat", "dosfstools"),
    ("fsck.fat", "dosfstools"),
    ("mcopy", "mtools"),
    ("mdel", "mtools"),
    ("mmd", "mtools"),
    ("sgdisk", "gdisk"),
    ("sfdisk", "fdisk"),
    ("mkswap", "util-linux"),
    ("partclone.fat", "partclone"),
    ("partclone.ntfs", "partclone"),
    ("partclone.xfs", "partclone"),
    ("partclone.btrfs", "partclone"),
    ("partclone.exfat", "partclone"),
    ("partclone.f2fs", "partclone"),
    ("partclone.extfs", "partclone"),
    ("mkntfs", "ntfs-3g"),
    ("ntfsinfo", "ntfs-3g"),
    ("ntfscat", "ntfs-3g"),
    ("ntfscluster", "ntfs-3g"),
    ("ntfscp", "ntfs-3g"),
    ("ntfsfix", "ntfs-3g"),
    ("ntfsresize", "ntfs-3g"),
    ("ntfs-3g", "ntfs-3g"),
    ("ntfs-3g.probe", "ntfs-3g"),
    ("mkfs.xfs", "xfsprogs"),
    ("xfs_db", "xfsprogs"),
    ("xfs_repair", "xfsprogs"),
    ("xfs_io", "xfsprogs"),
    ("xfs_admin", "xfsprogs"),
    ("xfs_freeze", "xfsprogs"),
    ("xfs_growfs", "xfsprogs"),
    ("xfs_logprint", "xfsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("btrfs", "btrfs-progs"),
    ("btrfs-map-logical", "btrfs-progs"),
    ("btrfs-convert", "btrfs-progs"),
    ("btrfstune", "btrfs-progs"),
    ("mkfs.exfat", "exfatprogs"),
    ("fsck.exfat", "exfatprogs"),
    ("dump.exfat", "exfatprogs"),
    ("tune.exfat", "exfatprogs"),
    ("mount.exfat-fuse", "exfat-fuse"),
    ("mkfs.f2fs", "f2fs-tools"),
    ("fsck.f2fs", "f2fs-tools"),
    ("dump.f2fs", "f2fs-tools"),
    ("sload.f2fs", "f2fs-tools"),
    ("lvm", "lvm2"),
    ("mdadm", "mdadm"),
    ("ldmtool", "ldmtool"),
    ("mksquashfs", "squashfs-tools"),
    ("mkudffs", "udftools"),
    ("genisoimage", "genisoimage"),
    ("xorriso", "xorriso"),
    ("isoinfo", "genisoimage"),
    ("unsquashfs", "squashfs-tools"),
    ("mount", "mount"),
    ("losetup", "mount"),
    ("xfs_io", "xfsprogs"),
    ("partclone.info", "partclone"),
];

/// Runs a tool and returns what it printed, whatever its exit code.
pub fn run(tool: &str, args: &[&str]) -> Output {
    run_with_input(tool, args, "")
}

/// As [`run`], with standard input.
pub fn run_with_input(tool: &str, args: &[&str], input: &str) -> Output {
    use std::io::Write;
    use std::process::Stdio;
    let path = format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    );
    let child = Command::new(tool)
        .args(args)
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        let package = PACKAGES
            .iter()
            .find(|(name, _)| *name == tool)
            .map_or("?", |(_, p)| p);
        panic!("cannot run {tool}: {error}; install it with: apt-get install {package}")
    });
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// Runs a tool that must succeed; its standard output.
pub fn ok(tool: &str, args: &[&str]) -> String {
    ok_with_input(tool, args, "")
}

/// As [`ok`], with standard input.
pub fn ok_with_input(tool: &str, args: &[&str], input: &str) -> String {
    let output = run_with_input(tool, args, input);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{tool} {args:?}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// A file as a disk.
pub struct FileDisk(pub File);

impl FileDisk {
    pub fn open(path: &Path) -> FileDisk {
        FileDisk(File::open(path).unwrap())
    }
    pub fn size(&self) -> u64 {
        self.0.metadata().unwrap().len()
    }
}

impl DiskRead for FileDisk {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buf, offset)
    }
}

/// A new sparse file.
pub fn sparse(path: &Path, size: u64) -> PathBuf {
    File::create(path).unwrap().set_len(size).unwrap();
    path.to_path_buf()
}

/// Overwrites bytes of a file.
pub fn poke(path: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all_at(bytes, offset)
        .unwrap();
}

/// Bytes of a file.
pub fn peek<const N: usize>(path: &Path, offset: u64) -> [u8; N] {
    let mut bytes = [0; N];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, offset)
        .unwrap();
    bytes
}

/// Scans a file without special options.
pub fn scan_file(path: &Path, sector_size: u32) -> DiskMap {
    let disk = FileDisk::open(path);
    let geometry = Geometry {
        size_bytes: disk.size(),
        sector_size,
    };
    scan(&disk, geometry, &ScanOptions::default()).unwrap()
}

/// The only region of a file that holds a bare file system.
pub fn whole(path: &Path) -> (Region, DiskMap) {
    let map = scan_file(path, 512);
    assert_eq!(map.regions.len(), 1, "{map:?}");
    (map.regions[0].clone(), map)
}

/// As [`whole`]; it must have a used map.
pub fn whole_used(path: &Path) -> Region {
    let (region, map) = whole(path);
    assert_eq!(
        region.method,
        Method::Used,
        "{} {:?}",
        region.reason,
        map.warnings
    );
    assert_eq!(map.warnings, []);
    region
}

/// Copies the given bytes onto a file of the same size that is full of garbage.
pub fn restore_onto_garbage(source: &Path, used: &Extents, target: &Path) {
    let (source, size) = (
        File::open(source).unwrap(),
        source.metadata().unwrap().len(),
    );
    let target = File::create(target).unwrap();
    let garbage = vec![0xa5u8; 1 << 20];
    let mut at = 0;
    while at < size {
        let len = garbage.len().min((size - at) as usize);
        target.write_all_at(&garbage[..len], at).unwrap();
        at += len as u64;
    }
    for extent in used {
        let mut buf = vec![0u8; extent.len as usize];
        source.read_exact_at(&mut buf, extent.start).unwrap();
        target.write_all_at(&buf, extent.start).unwrap();
    }
}

/// A small generator of numbers, so that recipes give the same files every time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Fills a folder with `count` files in some folders, about `mean` bytes each.
pub fn fill(folder: &Path, count: u64, mean: u64) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for i in 0..count {
        let place = folder.join(format!("d{}", i % 5));
        std::fs::create_dir_all(&place).unwrap();
        let len = numbers.below(2 * mean) as usize;
        let bytes: Vec<u8> = (0..len / 8 + 1)
            .flat_map(|_| numbers.next().to_le_bytes())
            .collect();
        std::fs::write(place.join(format!("file{i}")), &bytes[..len]).unwrap();
    }
}

/// Asserts that two folders hold the same files.
pub fn assert_same_tree(left: &Path, right: &Path) {
    ok(
        "diff",
        &["-r", left.to_str().unwrap(), right.to_str().unwrap()],
    );
}

/// A path as text.
pub fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub const MIB: u64 = 1 << 20;

pub fn disk(mib: u64) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = sparse(&dir.path().join("disk"), mib * MIB);
    (dir, path)
}

/// A GPT with holes in its slots, names, attributes and a last sector in use.
pub fn gpt_disk() -> (TempDir, PathBuf) {
    let (dir, path) = disk(64);
    ok(
        "sgdisk",
        &[
            "-U",
            "11111111-2222-3333-4444-555555555555",
            "-n",
            "2:2048:+8M",
            "-t",
            "2:ef00",
            "-c",
            "2:EFI f\u{f6}r alle",
            "-u",
            "2:aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "-n",
            "5:32768:+16M",
            "-t",
            "5:8300",
            "-A",
            "5:set:2",
            "-n",
            "11:81920:0",
            "-t",
            "11:0700",
            "-A",
            "11:set:62",
            s(&path),
        ],
    );
    (dir, path)
}

pub fn partitions(map: &DiskMap) -> Vec<&Region> {
    map.regions
        .iter()
        .filter(|r| r.kind == RegionKind::Partition)
        .collect()
}

pub fn try_scan(path: &Path, options: ScanOptions) -> Result<DiskMap, ScanError> {
    let disk = FileDisk::open(path);
    scan(
        &disk,
        Geometry {
            size_bytes: disk.size(),
            sector_size: 512,
        },
        &options,
    )
}

/// Regions and blobs are in order, within the disk, and share no byte.
pub fn assert_disjoint(map: &DiskMap) {
    let mut spans: Vec<(u64, u64)> = map
        .regions
        .iter()
        .map(|r| (r.start, r.start + r.size))
        .collect();
    spans.extend(map.blobs.iter().map(|b| (b.offset, b.end())));
    spans.sort_unstable();
    assert!(spans.windows(2).all(|w| w[0].1 <= w[1].0), "{spans:?}");
    assert!(
        spans
            .last()
            .is_none_or(|last| last.1 <= map.geometry.size_bytes)
    );
    assert!(map.regions.windows(2).all(|w| w[0].start < w[1].start));
    assert!(map.regions.iter().all(|r| r.used.end() <= r.size));
}
