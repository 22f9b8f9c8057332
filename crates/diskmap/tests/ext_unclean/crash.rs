//! File systems as a crash leaves them.
//!
//! Owns: mounting, writing, and stopping all writes to the device at once while they go
//! on; what the journal holds according to debugfs. Does not own: any case.

use crate::common::{Numbers, ok, peek, poke, run, s, sparse};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;
use testkit::loopdev::{LoopDevice, Mounted};

/// One test at a time: a tool that another test is about to start holds what is open for
/// a moment, and what is open cannot be unmounted.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder in memory, so that waiting for safe writes does not wait for a disk.
fn in_memory() -> TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() {
        tempfile::tempdir_in(shared).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// A copy of a device at the moment of a crash.
pub struct Crashed {
    pub work: TempDir,
    pub path: PathBuf,
    /// Files that the kernel said were safe.
    pub safe: BTreeMap<String, Vec<u8>>,
}

/// Bytes that nothing else has.
fn content(numbers: &mut Numbers, len: u64) -> Vec<u8> {
    (0..len.div_ceil(8))
        .flat_map(|_| numbers.next().to_le_bytes())
        .collect()
}

fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(path.parent().expect("a file in a folder"))?.sync_all()
}

/// When the device stops.
#[derive(Clone, Copy)]
pub enum Until {
    /// In the middle of whatever goes on after so many rounds.
    Rounds(u64),
    /// When the transactions that a replay takes go over the end of the journal.
    Wrapped,
}

/// Makes a file system, writes to it, and stops it.
pub fn crash(mib: u64, args: &[&str], options: &str, until: Until) -> Crashed {
    let work = in_memory();
    let disk = sparse(&work.path().join("disk"), mib << 20);
    let mut all = vec!["-q", "-F"];
    all.extend(args);
    all.push(s(&disk));
    ok("mke2fs", &all);
    let device = LoopDevice::attach(&disk, 512);
    let mounted = Mounted::new(device.path(), options);
    let root = mounted.path();
    let path = work.path().join("copy");
    // Stops the device for everybody, without a last commit, and copies it as it is.
    let stop = || {
        ok("xfs_io", &["-x", "-c", "shutdown", s(root)]);
        std::fs::copy(&disk, &path).unwrap();
    };
    let mut safe = BTreeMap::new();
    fill_and_settle(root, &mut safe);
    let safe = Mutex::new(safe);
    match until {
        Until::Rounds(rounds) => with_noise(root, || {
            write_safely(root, &safe, |round| round < rounds);
            std::thread::scope(|scope| {
                scope.spawn(|| write_safely(root, &safe, |_| true));
                stop();
            });
        }),
        Until::Wrapped => {
            write_safely(root, &safe, |_| !wraps(&descriptors(&disk)));
            stop();
        }
    }
    drop(mounted);
    drop(device);
    std::fs::remove_file(&disk).unwrap();
    Crashed {
        work,
        path,
        safe: safe.into_inner().unwrap(),
    }
}

/// Runs something while files are written that nobody waits for.
fn with_noise(root: &Path, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| make_noise(root, &stop));
        work();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Whether a log goes over the end of the journal.
pub fn wraps(log: &[(u64, u64)]) -> bool {
    log.windows(2).any(|pair| pair[1].1 < pair[0].1)
}

/// Files that are on the disk and not only in the journal.
fn fill_and_settle(root: &Path, safe: &mut BTreeMap<String, Vec<u8>>) {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for i in 0..40 {
        let name = format!("old{i}");
        let len = numbers.below(200_000);
        let bytes = content(&mut numbers, len);
        std::fs::write(root.join(&name), &bytes).unwrap();
        safe.insert(name, bytes);
    }
    ok("sync", &["-f", s(root)]);
}

/// Writes files, some in place of older ones, deletes others, and notes which are safe.
/// Ends with the first write that fails.
fn write_safely(root: &Path, safe: &Mutex<BTreeMap<String, Vec<u8>>>, go_on: impl Fn(u64) -> bool) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for round in (0..2000).take_while(|&round| go_on(round)) {
        let name = match round % 4 {
            0 => format!("old{}", numbers.below(40)),
            _ => format!("new{}", numbers.below(30)),
        };
        let path = root.join(&name);
        // What happens to a file while it is written is open.
        safe.lock().unwrap().remove(&name);
        if round % 7 == 3 {
            if std::fs::remove_file(&path).is_err_and(|e| e.kind() != io::ErrorKind::NotFound) {
                return;
            }
            continue;
        }
        let len = numbers.below(150_000);
        let bytes = content(&mut numbers, len);
        let replaced = std::fs::remove_file(&path);
        let done = replaced
            .or_else(|e| match e.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(e),
            })
            .and_then(|()| write_through(&path, &bytes));
        if done.is_err() {
            return;
        }
        safe.lock().unwrap().insert(name, bytes);
    }
}

/// Writes that nobody waits for, and a deleted file that is still open.
fn make_noise(root: &Path, stop: &AtomicBool) {
    let orphan = root.join("orphan");
    let mut file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .open(&orphan)
        .unwrap();
    std::fs::remove_file(&orphan).unwrap();
    let mut round = 0u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        // All of these fail after the crash.
        let _ = file.write_all(&[round as u8; 5000]);
        let _ = std::fs::write(
            root.join(format!("noise{}", round % 9)),
            [round as u8; 70_000],
        );
        let _ = std::fs::remove_file(root.join(format!("noise{}", round * 5 % 9)));
        std::thread::sleep(std::time::Duration::from_millis(2));
        if round > 4000 {
            // Enough for every recipe, and less than fills a disk.
            let _ = file.set_len(0);
        }
    }
}

/// Transactions and the blocks of the journal where they have descriptors, in the order
/// of the log.
pub fn descriptors(path: &Path) -> Vec<(u64, u64)> {
    let dump = ok("debugfs", &["-c", "-R", "logdump -c", s(path)]);
    let word = |line: &str, after: &str| -> u64 {
        let (_, rest) = line.split_once(after).unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    dump.lines()
        .filter(|line| line.contains("(descriptor block)"))
        .map(|line| (word(line, "expected sequence "), word(line, "at block ")))
        .collect()
}

/// Overwrites a block of the journal, so that a replay stops there.
pub fn cut_journal(path: &Path, block_size: u64, block: u64) {
    let map = ok(
        "debugfs",
        &["-c", "-R", &format!("bmap <8> {block}"), s(path)],
    );
    let place: u64 = map.trim().parse().unwrap();
    poke(path, place * block_size, &vec![0; block_size as usize]);
}

/// Lets e2fsck replay the journal and nothing else.
pub fn replay(path: &Path) {
    // Not with -f or -y: it would then repair, too.
    let output = run("e2fsck", &["-p", "-E", "journal_only", s(path)]);
    let [incompat] = peek::<1>(path, 1024 + 0x60);
    assert!(
        incompat & 4 == 0,
        "not replayed: {}",
        String::from_utf8_lossy(&output.stdout)
    );
}
