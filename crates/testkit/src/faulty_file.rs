//! Files that misbehave as failing disks do, for programs that open them by a path: alone
//! or behind a loop device.
//!
//! Owns: a file system of one file, spoken with the kernel over `/dev/fuse`, whose bytes
//! are those of another file. Does not own: the faults of readers in this process
//! (`faulty`).
//!
//! Reads and writes are not cached, so that each one meets its fault, sector by sector.
//! Root is needed; without it the tests fail and say so.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// What happens to requests that touch a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFault {
    /// Reads fail: `EIO`.
    Read,
    /// Writes fail: `EIO`.
    Write,
    /// Writes succeed and change nothing.
    LostWrite,
    /// Holes can be punched there, and nothing is: what a disk is that takes a discard and
    /// does nothing. Without it there is no discard.
    LostDiscard,
}

type Rules = Arc<Mutex<Vec<(Range<u64>, FileFault)>>>;

/// A file with faults; dropping it takes it away. Loop devices on it go first.
#[derive(Debug)]
pub struct FaultyFile {
    directory: tempfile::TempDir,
    rules: Rules,
    server: Option<JoinHandle<()>>,
}

/// Name of the only file, and its inode; the directory's is 1.
const NAME: &str = "disk";
const FILE: u64 = 2;

impl FaultyFile {
    /// The bytes of `backing`, which writes change, with faults at byte ranges.
    ///
    /// # Panics
    /// If it cannot be mounted: not root, or a kernel without FUSE.
    pub fn new(backing: &Path, faults: &[(Range<u64>, FileFault)]) -> FaultyFile {
        let directory = tempfile::tempdir().expect("a directory to mount on");
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .expect("/dev/fuse: this test needs root and a kernel with FUSE");
        let options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
            device.as_raw_fd()
        );
        mount(
            Some("faulty"),
            directory.path(),
            Some("fuse"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some(options.as_str()),
        )
        .expect("mounting: this test needs root and a kernel with FUSE");
        let file = File::options()
            .read(true)
            .write(true)
            .open(backing)
            .expect("the file behind");
        let rules: Rules = Arc::new(Mutex::new(faults.to_vec()));
        let server = Server {
            device,
            file,
            rules: Arc::clone(&rules),
        };
        FaultyFile {
            directory,
            rules,
            server: Some(std::thread::spawn(move || server.run())),
        }
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(NAME)
    }

    /// Adds a fault.
    pub fn add(&self, range: Range<u64>, fault: FileFault) {
        lock(&self.rules).push((range, fault));
    }

    /// Takes all faults away.
    pub fn heal(&self) {
        lock(&self.rules).clear();
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        if let Err(error) = umount2(self.directory.path(), MntFlags::MNT_DETACH) {
            eprintln!(
                "could not unmount {}: {error}",
                self.directory.path().display()
            );
            return; // the thread would wait for ever
        }
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

fn lock(rules: &Rules) -> MutexGuard<'_, Vec<(Range<u64>, FileFault)>> {
    rules.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers the kernel. Numbers are in its byte order, in the layout of
/// `include/uapi/linux/fuse.h`.
struct Server {
    device: File,
    file: File,
    rules: Rules,
}

/// Longest write that is asked for, and room for its headers.
const MAX_WRITE: u32 = 128 << 10;
const ROOM: usize = MAX_WRITE as usize + 4096;

impl Server {
    fn run(mut self) {
        let mut request = vec![0; ROOM];
        loop {
            match self.device.read(&mut request) {
                Ok(len) => self.answer(&request[..len]),
                Err(e) if e.raw_os_error() == Some(nix::libc::EINTR) => {}
                // A request that was taken back, or one that does not fit: the next one.
                Err(e) if e.raw_os_error() == Some(nix::libc::ENOENT) => {}
                Err(_) => return, // unmounted
            }
        }
    }

    fn answer(&mut self, request: &[u8]) {
        let (opcode, unique) = (u32_at(request, 4), u64_at(request, 8));
        let node = u64_at(request, 16);
        let body = &request[40..];
        let reply = match opcode {
            1 if body.split(|&b| b == 0).next() == Some(NAME.as_bytes()) => self.entry(),
            1 => Err(nix::libc::ENOENT),
            2 | 42 => return, // FORGET, BATCH_FORGET: no answer is expected
            3 | 4 => self.attributes(node),
            14 => Ok(open_reply(true)),
            15 => self.read(body),
            16 => self.write(body),
            17 => Ok(vec![0; 80]), // STATFS
            18 | 25 | 29 => Ok(Vec::new()),
            20 => self.file.sync_all().map(|()| Vec::new()).map_err(errno),
            26 => Ok(init_reply()),
            27 => Ok(open_reply(false)),
            28 => Ok(Vec::new()), // READDIR: nobody lists it
            43 => self.punch(body),
            _ => Err(nix::libc::ENOSYS),
        };
        let (error, data) = match reply {
            Ok(data) => (0, data),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut out = Vec::with_capacity(16 + data.len());
        out.extend_from_slice(&(16 + data.len() as u32).to_ne_bytes());
        out.extend_from_slice(&error.to_ne_bytes());
        out.extend_from_slice(&unique.to_ne_bytes());
        out.extend_from_slice(&data);
        // Refused for a request that was interrupted meanwhile; nobody waits for it.
        let _ = self.device.write_all(&out);
    }

    fn hit(&self, range: &Range<u64>, fault: FileFault) -> bool {
        lock(&self.rules)
            .iter()
            .any(|(bad, kind)| *kind == fault && bad.start < range.end && range.start < bad.end)
    }

    fn read(&self, body: &[u8]) -> Result<Vec<u8>, i32> {
        let (offset, size) = (u64_at(body, 8), u32_at(body, 16));
        if self.hit(&(offset..offset + u64::from(size)), FileFault::Read) {
            return Err(nix::libc::EIO);
        }
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            match self
                .file
                .read_at(&mut data[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(e) => return Err(errno(e)),
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    fn write(&self, body: &[u8]) -> Result<Vec<u8>, i32> {
        let (offset, size) = (u64_at(body, 8), u32_at(body, 16));
        let range = offset..offset + u64::from(size);
        if self.hit(&range, FileFault::Write) {
            return Err(nix::libc::EIO);
        }
        if !self.hit(&range, FileFault::LostWrite) {
            let data = body.get(40..40 + size as usize).ok_or(nix::libc::EINVAL)?;
            self.file.write_all_at(data, offset).map_err(errno)?;
        }
        Ok([size.to_ne_bytes(), [0; 4]].concat())
    }

    /// FALLOCATE. That there is none at all (ENOSYS) the kernel remembers.
    fn punch(&self, body: &[u8]) -> Result<Vec<u8>, i32> {
        let (offset, len, mode) = (u64_at(body, 8), u64_at(body, 16), u32_at(body, 24));
        let rules = lock(&self.rules);
        if !rules
            .iter()
            .any(|(_, kind)| *kind == FileFault::LostDiscard)
        {
            return Err(nix::libc::ENOSYS);
        }
        drop(rules);
        let is_hole = mode & nix::libc::FALLOC_FL_PUNCH_HOLE.cast_unsigned() != 0;
        let range = offset..offset.saturating_add(len);
        match is_hole && self.hit(&range, FileFault::LostDiscard) {
            true => Ok(Vec::new()),
            false => Err(nix::libc::EOPNOTSUPP),
        }
    }

    fn attributes(&self, node: u64) -> Result<Vec<u8>, i32> {
        let mut out = vec![0; 16]; // valid for no time
        out.extend(self.attribute(node)?);
        Ok(out)
    }

    fn entry(&self) -> Result<Vec<u8>, i32> {
        let mut out = FILE.to_ne_bytes().to_vec();
        out.resize(40, 0); // generation, valid for no time
        out.extend(self.attribute(FILE)?);
        Ok(out)
    }

    /// `struct fuse_attr`.
    fn attribute(&self, node: u64) -> Result<Vec<u8>, i32> {
        let size = self.file.metadata().map_err(errno)?.len();
        let (size, mode) = if node == FILE {
            (size, 0o100_600)
        } else {
            (0, 0o040_700)
        };
        let mut out = Vec::with_capacity(88);
        for number in [node, size, size.div_ceil(512), 0, 0, 0] {
            out.extend_from_slice(&number.to_ne_bytes());
        }
        for number in [0u32, 0, 0, mode, 1, 0, 0, 0, 4096, 0] {
            out.extend_from_slice(&number.to_ne_bytes());
        }
        Ok(out)
    }
}

/// Version 7.31; nothing is cached or read ahead.
fn init_reply() -> Vec<u8> {
    let big_writes = 1u32 << 5;
    let mut out = Vec::new();
    for number in [7, 31, 0, big_writes, 0, MAX_WRITE, 1] {
        out.extend_from_slice(&number.to_ne_bytes());
    }
    out.resize(64, 0);
    out
}

/// File handle 0; `direct`: past the page cache.
fn open_reply(direct: bool) -> Vec<u8> {
    let mut out = vec![0; 16];
    out[8..12].copy_from_slice(&u32::from(direct).to_ne_bytes());
    out
}

fn errno(error: io::Error) -> i32 {
    error.raw_os_error().unwrap_or(nix::libc::EIO)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::{FaultyFile, FileFault};
    use crate::loopdev::LoopDevice;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    #[test]
    fn faults_stand_where_they_were_put() {
        let dir = tempfile::tempdir().unwrap();
        let backing = dir.path().join("backing");
        std::fs::write(&backing, [7; 1 << 20]).unwrap();
        let faulty = FaultyFile::new(
            &backing,
            &[
                (1024..1536, FileFault::Read),
                (2048..2560, FileFault::Write),
                (4096..4608, FileFault::LostWrite),
            ],
        );
        let file = File::options()
            .read(true)
            .write(true)
            .open(faulty.path())
            .unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        let mut sector = [0; 512];
        for (at, good) in [(512, true), (1024, false), (1536, true), (2048, true)] {
            assert_eq!(file.read_exact_at(&mut sector, at).is_ok(), good, "{at}");
        }
        for (at, good) in [(1024, true), (2048, false), (2560, true), (4096, true)] {
            assert_eq!(file.write_all_at(&[9; 512], at).is_ok(), good, "{at}");
        }
        let now = std::fs::read(&backing).unwrap();
        assert_eq!((now[1024], now[2048], now[2560], now[4096]), (9, 7, 9, 7));
        faulty.heal();
        file.read_exact_at(&mut sector, 1024).unwrap();
        assert_eq!(sector, [9; 512]);
        drop(file);

        // And as a block device.
        faulty.add(8192..8704, FileFault::Read);
        let device = LoopDevice::attach(&faulty.path(), 512);
        let file = File::open(device.path()).unwrap();
        let mut page = [0; 4096];
        assert!(file.read_exact_at(&mut page, 8192).is_err());
        file.read_exact_at(&mut page, 16384).unwrap();
        assert_eq!(page, [7; 4096]);
    }
}
