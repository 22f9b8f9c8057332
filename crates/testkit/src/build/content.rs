//! What stands in a partition: made by the system's own tools, and checked by them.
//!
//! Owns: making one partition's bytes in a file and comparing a copy of it with
//! what was put in. Does not own: where partitions lie.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use super::tree::{FILE_TIME, Random, Tree, hashes_of, set_times};
use crate::tool::run;

/// Contents of a partition.
#[derive(Clone, Debug)]
pub enum Content {
    /// ext2, ext3 or ext4 with files.
    Ext {
        /// `ext2`, `ext3` or `ext4`.
        version: &'static str,
        /// Block size in bytes.
        block_size: u32,
        /// The files.
        tree: Tree,
    },
    /// FAT12, FAT16 or FAT32 with files.
    Fat {
        /// 12, 16 or 32.
        bits: u8,
        /// The files.
        tree: Tree,
    },
    /// Swap space with garbage in its pages, which need not be kept.
    Swap,
    /// Random bytes from a seed: no file system.
    Raw {
        /// The seed.
        seed: u64,
    },
    /// Zeros.
    Empty,
}

impl Content {
    /// Makes a file of `size` bytes with these contents.
    pub(super) fn make(&self, file: &Path, size: u64, sector_size: u32, serial: u8, stale: bool) {
        let handle = File::create_new(file).expect("a file for the partition");
        handle.set_len(size).expect("space for the partition");
        if stale {
            fill(&handle, size, u64::from(serial) ^ 0xdead_beef);
        }
        let uuid = format!("5eed0000-0000-4000-8000-0000000000{serial:02x}");
        match self {
            Content::Ext {
                version,
                block_size,
                tree,
            } => {
                let extended =
                    format!("hash_seed={uuid},root_owner=0:0,nodiscard,lazy_itable_init=0");
                let block_size = block_size.to_string();
                run(e2fs("mke2fs")
                    .args([
                        "-q",
                        "-F",
                        "-t",
                        version,
                        "-b",
                        &block_size,
                        "-U",
                        &uuid,
                        "-E",
                        &extended,
                    ])
                    .arg(file));
                write_into_ext(file, tree);
            }
            Content::Fat { bits, tree } => {
                let id = format!("5eed00{serial:02x}");
                let (bits, sector) = (bits.to_string(), sector_size.to_string());
                run(Command::new("mkfs.fat")
                    .args(["-F", &bits, "-S", &sector, "-s", "1", "-i", &id])
                    .arg(file));
                let files = tempfile::tempdir().expect("a directory for the files");
                tree.write_to(files.path());
                let passing = passing_file(files.path(), FILLER_BYTES / 4);
                let mut names = Vec::new();
                for (number, entry) in entries(files.path()).iter().enumerate() {
                    run(mtools("mcopy", file).arg("-smQ").arg(entry).arg("::"));
                    let name = format!("::passing-{number}");
                    run(mtools("mcopy", file)
                        .arg("-mQ")
                        .arg(passing.path())
                        .arg(&name));
                    names.push(name);
                }
                run(mtools("mdel", file).args(names));
            }
            Content::Swap => {
                run(Command::new("mkswap")
                    .args(["-q", "-p", "4096", "-U", &uuid])
                    .arg(file));
                let garbage = Random::new(u64::from(serial)).bytes(64 << 10);
                handle
                    .write_all_at(&garbage, size / 2)
                    .expect("swapped pages");
            }
            Content::Raw { seed } => fill(&handle, size, *seed),
            Content::Empty => handle
                .set_len(0)
                .and_then(|()| handle.set_len(size))
                .expect("zeros"),
        }
    }

    /// Compares a copy of the partition with what was put in: the file system's own
    /// checker, then every file.
    pub(super) fn verify(&self, copy: &Path, size: u64) {
        match self {
            Content::Ext { tree, .. } => {
                run(Command::new("e2fsck").arg("-fn").arg(copy));
                let out = tempfile::tempdir().expect("a directory for the files");
                let request = format!("rdump / {}", out.path().display());
                run(Command::new("debugfs").args(["-R", &request]).arg(copy));
                assert_eq!(
                    hashes_of(out.path()),
                    tree.hashes(),
                    "files of {}",
                    copy.display()
                );
            }
            Content::Fat { tree, .. } => {
                run(Command::new("fsck.fat").arg("-n").arg(copy));
                let out = tempfile::tempdir().expect("a directory for the files");
                run(mtools("mcopy", copy).arg("-smn").arg("::*").arg(out.path()));
                assert_eq!(
                    hashes_of(out.path()),
                    tree.hashes(),
                    "files of {}",
                    copy.display()
                );
            }
            Content::Swap => {
                let mut page = [0; 4096];
                File::open(copy)
                    .and_then(|mut f| f.read_exact(&mut page))
                    .expect("the first page");
                assert_eq!(
                    &page[4086..],
                    b"SWAPSPACE2",
                    "signature of {}",
                    copy.display()
                );
            }
            Content::Raw { seed } => {
                let expected = tempfile::NamedTempFile::new().expect("a file to compare with");
                fill(expected.as_file(), size, *seed);
                assert!(
                    fs::read(copy).ok() == fs::read(expected.path()).ok(),
                    "bytes of {}",
                    copy.display()
                );
            }
            Content::Empty => {
                let bytes = fs::read(copy).expect("the copy");
                assert!(bytes.iter().all(|&b| b == 0), "zeros of {}", copy.display());
            }
        }
    }

    /// Type of the partition as sfdisk spells it.
    pub(super) fn partition_type(&self, gpt: bool) -> &'static str {
        match (self, gpt) {
            (Content::Fat { .. }, true) => "U",
            (Content::Swap, true) => "S",
            (_, true) => "L",
            (Content::Fat { bits: 32, .. }, false) => "c",
            (Content::Fat { .. }, false) => "e",
            (Content::Swap, false) => "82",
            (_, false) => "83",
        }
    }
}

/// A program of e2fsprogs that takes a fixed time for now.
fn e2fs(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("E2FSPROGS_FAKE_TIME", FILE_TIME.to_string());
    command
}

/// Size of the files that come and go.
const FILLER_BYTES: usize = 20_000;

/// A file that is written between those of the tree and removed in the end, so that
/// what is used lies in many pieces, with old bytes between them. It stands beside
/// `tree`, not in it.
fn passing_file(tree: &Path, len: usize) -> tempfile::NamedTempFile {
    let mut file =
        tempfile::NamedTempFile::new_in(tree.parent().unwrap_or(tree)).expect("a file that passes");
    file.write_all(&Random::new(len as u64).bytes(len))
        .expect("space for it");
    set_times(file.path());
    file
}

/// Writes files by debugfs, which needs no mount and, unlike `mke2fs -d`, takes over
/// no time of change from this machine.
fn write_into_ext(image: &Path, tree: &Tree) {
    let work = tempfile::tempdir().expect("a directory for the files");
    tree.write_to(work.path());
    let passing = passing_file(work.path(), FILLER_BYTES);
    let mut passing_names = Vec::new();
    let mut made = BTreeSet::new();
    let mut script = String::new();
    for (path, _) in tree.files() {
        let parents: Vec<_> = Path::new(&path).ancestors().skip(1).collect();
        for parent in parents
            .iter()
            .rev()
            .filter(|parent| parent.parent().is_some())
        {
            if made.insert(parent.to_path_buf()) {
                script += &format!("mkdir \"{}\"\n", parent.display());
            }
        }
        script += &format!(
            "write \"{}\" \"{path}\"\n",
            work.path().join(&path).display()
        );
        let name = format!("passing-{}", passing_names.len());
        script += &format!("write \"{}\" {name}\n", passing.path().display());
        passing_names.push(name);
    }
    for name in passing_names {
        script += &format!("rm {name}\n");
    }
    let commands = work.path().join("commands");
    fs::write(&commands, script).expect("the commands");
    run(e2fs("debugfs").arg("-w").arg("-f").arg(commands).arg(image));
}

/// An mtools command on an image file, without its doubts about geometry.
fn mtools(name: &str, image: &Path) -> Command {
    let mut command = Command::new(name);
    command.env("MTOOLS_SKIP_CHECK", "1").arg("-i").arg(image);
    command
}

fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .expect("the tree")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.sort();
    paths
}

fn fill(mut file: &File, size: u64, seed: u64) {
    let mut random = Random::new(seed);
    let mut piece = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0)).expect("the start");
    let mut left = size;
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        random.fill(&mut piece[..len]);
        file.write_all(&piece[..len])
            .expect("space for random bytes");
        left -= len as u64;
    }
}
