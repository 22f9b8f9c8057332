//! The run's log, in memory: every line with the time since boot, the newest kept.
//!
//! Owns: the lines and their limit, and the end of the kernel's own log. Does not own:
//! where else a line is shown, or the upload.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

/// Half of what the server takes, so that the kernel's part fits too.
const MAX_BYTES: usize = wire::MAX_LOG_BYTES / 2;
/// Of the kernel's log, its end.
const MAX_KERNEL_BYTES: usize = 512 << 10;
const MAX_LINE: usize = 4096;

/// Lines, oldest first.
#[derive(Debug, Default)]
pub struct Journal {
    inner: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
    dropped: u64,
}

impl Journal {
    /// Adds a text; each of its lines becomes one.
    pub fn add(&self, uptime_ms: u64, text: &str) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for line in text.lines() {
            let cut = line
                .char_indices()
                .nth(MAX_LINE)
                .map_or(line, |(at, _)| &line[..at]);
            let line = format!("[{:6}.{:03}] {cut}\n", uptime_ms / 1000, uptime_ms % 1000);
            inner.bytes += line.len();
            inner.lines.push_back(line);
        }
        while inner.bytes > MAX_BYTES {
            let Some(oldest) = inner.lines.pop_front() else {
                break;
            };
            inner.bytes -= oldest.len();
            inner.dropped += 1;
        }
    }

    /// Everything that is kept.
    pub fn text(&self) -> String {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::with_capacity(inner.bytes + 64);
        if inner.dropped > 0 {
            text.push_str(&format!("({} older lines were dropped)\n", inner.dropped));
        }
        inner.lines.iter().for_each(|line| text.push_str(line));
        text
    }
}

/// The end of the kernel's log; empty where it cannot be read.
pub fn kernel_log() -> String {
    const O_NONBLOCK: i32 = 0o4000;
    let kmsg = OpenOptions::new()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open("/dev/kmsg");
    let Ok(mut kmsg) = kmsg else {
        return String::new();
    };
    let mut kept: VecDeque<String> = VecDeque::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 8192];
    // One read is one record. EPIPE says that records were overwritten meanwhile.
    for _ in 0..100_000 {
        match kmsg.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                let line = kernel_line(&String::from_utf8_lossy(buffer.get(..len).unwrap_or(&[])));
                bytes += line.len();
                kept.push_back(line);
            }
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(_) => break,
        }
        while bytes > MAX_KERNEL_BYTES {
            bytes -= kept.pop_front().map_or(bytes, |line| line.len());
        }
    }
    kept.into_iter().collect()
}

/// What the kernel's log says of an initramfs that came damaged. The kernel starts what it has
/// unpacked all the same, although sums of what it fetched do not fit: nothing of that is to
/// be trusted with a disk.
pub fn damaged_initramfs(kernel: &str) -> Option<&str> {
    let words = [
        "Initramfs unpacking failed",
        "rootfs image is not initramfs",
    ];
    let mut lines = kernel
        .lines()
        .map(|line| line.split_once("] ").map_or(line, |(_, text)| text));
    lines.find(|line| words.iter().any(|words| line.starts_with(words)))
}

/// `6,339,5140900,-;text\n KEY=value` to `[     5.140900] text`.
fn kernel_line(record: &str) -> String {
    let first = record.lines().next().unwrap_or_default();
    let (prefix, text) = first.split_once(';').unwrap_or(("", first));
    let micros: u64 = prefix
        .split(',')
        .nth(2)
        .and_then(|t| t.parse().ok())
        .unwrap_or(0);
    format!(
        "[{:6}.{:06}] {text}\n",
        micros / 1_000_000,
        micros % 1_000_000
    )
}

#[cfg(test)]
mod tests {
    use super::{Journal, MAX_BYTES, damaged_initramfs, kernel_line};

    #[test]
    fn lines_carry_the_time_since_boot() {
        let journal = Journal::default();
        journal.add(2_640, "check-in");
        journal.add(61_002, "two\nlines");
        assert_eq!(
            journal.text(),
            "[     2.640] check-in\n[    61.002] two\n[    61.002] lines\n"
        );
    }

    #[test]
    fn the_newest_lines_are_kept_and_the_loss_is_told() {
        let journal = Journal::default();
        let line = "x".repeat(1000);
        for _ in 0..5000 {
            journal.add(0, &line);
        }
        journal.add(0, &"y".repeat(100_000));
        let text = journal.text();
        assert!(text.len() <= MAX_BYTES + 100, "{}", text.len());
        assert!(text.starts_with('(') && text.contains(" older lines were dropped)"));
        assert_eq!(text.lines().last().map(str::len), Some(4096 + 13));
    }

    #[test]
    fn an_initramfs_that_came_damaged_is_noticed() {
        let good = "[     0.1] Trying to unpack rootfs image as initramfs...\n[     0.9] ok\n";
        assert_eq!(damaged_initramfs(good), None);
        let bad = "Initramfs unpacking failed: ZSTD-compressed data is corrupt";
        assert_eq!(
            damaged_initramfs(&format!("{good}[     0.5] {bad}\n")),
            Some(bad)
        );
        // What a program writes there later does not begin so.
        assert_eq!(damaged_initramfs(&format!("[     7.0] x: {bad}\n")), None);
    }

    #[test]
    fn kernel_records_become_lines() {
        assert_eq!(
            kernel_line("6,339,5140900,-;NET: Registered\n SUBSYSTEM=net\n"),
            "[     5.140900] NET: Registered\n"
        );
        assert_eq!(kernel_line("no header"), "[     0.000000] no header\n");
        assert_eq!(kernel_line(""), "[     0.000000] \n");
    }
}
