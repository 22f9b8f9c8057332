//! Disks that misbehave where a test wants them to.
//!
//! Owns: wrapping any [`DiskRead`] with errors, short reads, flipped bits, and a
//! record of what was read. Does not own: the disk below.

use diskmap::DiskRead;
use std::io;
use std::ops::Range;
use std::sync::Mutex;

/// What happens to a read that touches a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The medium cannot be read: `EIO`.
    ReadError,
    /// The disk ends there, whatever its size says: `UnexpectedEof`. The part of
    /// the buffer before the range is filled, as a short read does.
    Short,
    /// Bits come back flipped, silently: each byte is xored with this.
    Flip(u8),
}

#[derive(Debug)]
struct Rule {
    range: Range<u64>,
    fault: Fault,
    /// Reads that still meet it; none means for ever.
    left: Option<u32>,
}

/// A disk with faults.
///
/// ```
/// # use diskmap::DiskRead;
/// # use testkit::faulty::{Fault, FaultyDisk};
/// let disk = FaultyDisk::new(vec![0u8; 4096]).with(512..1024, Fault::ReadError);
/// assert!(disk.read_exact_at(0, &mut [0; 512]).is_ok());
/// assert!(disk.read_exact_at(0, &mut [0; 513]).is_err());
/// ```
#[derive(Debug)]
pub struct FaultyDisk<D> {
    disk: D,
    rules: Mutex<Vec<Rule>>,
    reads: Mutex<Vec<Range<u64>>>,
}

impl<D: DiskRead> FaultyDisk<D> {
    /// A disk without faults yet.
    pub fn new(disk: D) -> Self {
        FaultyDisk {
            disk,
            rules: Mutex::default(),
            reads: Mutex::default(),
        }
    }

    /// Adds a fault for every read that touches the byte range.
    pub fn with(self, range: Range<u64>, fault: Fault) -> Self {
        self.rules().push(Rule {
            range,
            fault,
            left: None,
        });
        self
    }

    /// Adds a fault that goes away after it was met `times` times.
    pub fn with_times(self, range: Range<u64>, fault: Fault, times: u32) -> Self {
        self.rules().push(Rule {
            range,
            fault,
            left: Some(times),
        });
        self
    }

    /// Byte ranges that were asked for so far, in order.
    pub fn reads(&self) -> Vec<Range<u64>> {
        self.reads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }

    fn rules(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<D: DiskRead> DiskRead for FaultyDisk<D> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let asked = offset..offset.saturating_add(buf.len() as u64);
        self.reads
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .push(asked.clone());
        let mut flips = Vec::new();
        for rule in self.rules().iter_mut() {
            let hit = asked.start.max(rule.range.start)..asked.end.min(rule.range.end);
            if hit.is_empty() || rule.left == Some(0) {
                continue;
            }
            rule.left = rule.left.map(|left| left - 1);
            let inside = |at: u64| usize::try_from(at - asked.start).unwrap_or(usize::MAX);
            match rule.fault {
                Fault::ReadError => return Err(io::Error::from_raw_os_error(5)),
                Fault::Short => {
                    self.disk
                        .read_exact_at(offset, &mut buf[..inside(hit.start)])?;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                Fault::Flip(mask) => flips.push((inside(hit.start)..inside(hit.end), mask)),
            }
        }
        self.disk.read_exact_at(offset, buf)?;
        for (range, mask) in flips {
            for byte in &mut buf[range] {
                *byte ^= mask;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, FaultyDisk};
    use diskmap::DiskRead;
    use std::io::ErrorKind;

    fn disk() -> FaultyDisk<Vec<u8>> {
        FaultyDisk::new((0..=255).collect())
    }

    #[test]
    fn faults_stand_where_they_were_put() {
        let disk = disk()
            .with(10..20, Fault::ReadError)
            .with(30..40, Fault::Short)
            .with(50..51, Fault::Flip(0xff));
        let mut buf = [0; 10];
        disk.read_exact_at(0, &mut buf).unwrap();
        assert_eq!(
            disk.read_exact_at(1, &mut buf).unwrap_err().raw_os_error(),
            Some(5)
        );
        disk.read_exact_at(20, &mut buf).unwrap();
        assert_eq!(
            disk.read_exact_at(25, &mut buf).unwrap_err().kind(),
            ErrorKind::UnexpectedEof
        );
        assert_eq!(
            buf,
            [25, 26, 27, 28, 29, 25, 26, 27, 28, 29],
            "five new bytes, then old ones"
        );
        disk.read_exact_at(49, &mut buf[..3]).unwrap();
        assert_eq!(buf[..3], [49, 50 ^ 0xff, 51]);
        assert_eq!(disk.reads()[..2], [0..10, 1..11]);
    }

    #[test]
    fn passing_faults_pass() {
        let disk = disk().with_times(0..1, Fault::ReadError, 2);
        let mut byte = [9];
        assert!(disk.read_exact_at(0, &mut byte).is_err());
        assert!(disk.read_exact_at(0, &mut byte).is_err());
        disk.read_exact_at(0, &mut byte).unwrap();
        assert_eq!(byte, [0]);
    }
}
