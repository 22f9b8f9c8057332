//! Making ranges read back as zeros, and giving them back to the device.
//!
//! Owns: the fastest way for each kind of disk, and the ways around when it is
//! refused. Does not own: the decision what may be erased.

use crate::device::{Device, Kind};
use crate::error::{Error, Operation};
use crate::ioctl;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::io;

/// Largest range of one kernel call, so that none of them lasts for minutes.
const STEP_BYTES: u64 = 1 << 30;
/// Alignment of kernel calls: no sector and no page of the cache is touched partly.
const UNIT_BYTES: u64 = 4096;
/// Piece in which zeros are written by hand.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Device {
    /// Makes a range read back as zeros: by the device or file system where it can,
    /// else by writing. Any offset and length; durable after [`Device::flush`].
    pub fn zero(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_range(Operation::Zero, offset, len)?;
        let (start, end) = inner(offset, len);
        if start < end {
            self.write_zeros(offset, start - offset)?;
            for (at, len) in steps(start, end) {
                if !self.zero_fast(at, len)? {
                    self.write_zeros(at, len)?;
                }
            }
            self.write_zeros(end, offset + len - end)
        } else {
            self.write_zeros(offset, len)
        }
    }

    /// Tells the device that a range is not needed; its contents are undefined
    /// afterwards. Only whole units of 4096 bytes inside the range are given back.
    /// `false` if the device or file system cannot discard.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.check_range(Operation::Discard, offset, len)?;
        let (start, end) = inner(offset, len);
        for (at, len) in steps(start, end) {
            let done = match self.kind() {
                Kind::Block => ioctl::discard(&self.file, at, len),
                Kind::File => self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, at, len),
            };
            match done {
                Ok(()) => {}
                Err(errno) if is_refusal(errno) => return Ok(false),
                Err(errno) => {
                    return Err(Error::errno(Operation::Discard, self.path(), errno)
                        .at(at)
                        .into());
                }
            }
        }
        Ok(true)
    }

    /// Zeroes by a kernel call; `false` if there is none for this disk.
    fn zero_fast(&self, at: u64, len: u64) -> io::Result<bool> {
        let done = match self.kind() {
            Kind::Block => ioctl::zero_out(&self.file, at, len),
            Kind::File => match self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, at, len) {
                Err(errno) if is_refusal(errno) => {
                    self.allocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, at, len)
                }
                done => done,
            },
        };
        match done {
            Ok(()) => Ok(true),
            Err(errno) if is_refusal(errno) => Ok(false),
            Err(errno) => Err(Error::errno(Operation::Zero, self.path(), errno)
                .at(at)
                .into()),
        }
    }

    fn allocate(&self, how: FallocateFlags, at: u64, len: u64) -> Result<(), Errno> {
        let at = libc::off_t::try_from(at).map_err(|_| Errno::EFBIG)?;
        let len = libc::off_t::try_from(len).map_err(|_| Errno::EFBIG)?;
        loop {
            match fallocate(
                &self.file,
                how | FallocateFlags::FALLOC_FL_KEEP_SIZE,
                at,
                len,
            ) {
                Err(Errno::EINTR) => {}
                done => return done,
            }
        }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROS.len() as u64);
            let zeros = usize::try_from(piece)
                .ok()
                .and_then(|n| ZEROS.get(..n))
                .unwrap_or(&ZEROS);
            self.write_all_at(offset + done, zeros)?;
            done += zeros.len() as u64;
        }
        Ok(())
    }
}

/// "Cannot do that", as opposed to "tried and failed".
fn is_refusal(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS
    )
}

/// The whole units inside a range, as start and end; empty if start >= end.
fn inner(offset: u64, len: u64) -> (u64, u64) {
    let end = (offset + len) / UNIT_BYTES * UNIT_BYTES;
    (
        offset
            .checked_next_multiple_of(UNIT_BYTES)
            .unwrap_or(u64::MAX),
        end,
    )
}

fn steps(start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
    let mut at = start;
    std::iter::from_fn(move || {
        let len = end.saturating_sub(at).min(STEP_BYTES);
        let step = (at, len);
        at = at.saturating_add(len);
        (len > 0).then_some(step)
    })
}

#[cfg(test)]
mod tests {
    use super::{STEP_BYTES, inner, steps};
    use crate::Device;

    #[test]
    fn units_inside_a_range() {
        assert_eq!(inner(0, 8192), (0, 8192));
        assert_eq!(inner(1, 8192), (4096, 8192));
        assert_eq!(inner(512, 1024), (4096, 0));
        assert_eq!(steps(4096, 0).count(), 0);
        assert_eq!(
            steps(0, STEP_BYTES + 4096).collect::<Vec<_>>(),
            [(0, STEP_BYTES), (STEP_BYTES, 4096)]
        );
    }

    #[test]
    fn a_file_reads_zeros_exactly_where_it_was_zeroed() {
        for dir in [std::env::temp_dir(), "/dev/shm".into()] {
            let dir = tempfile::tempdir_in(dir).unwrap();
            let device = Device::create_file(&dir.path().join("disk"), 1 << 20).unwrap();
            for (offset, len) in [
                (0, 4096),
                (5, 10),
                (4095, 2),
                (512, 20000),
                (300_000, 300_001),
                ((1 << 20) - 1, 1),
                (9, 0),
            ] {
                device.write_all_at(0, &[0xaa; 1 << 20]).unwrap();
                device.zero(offset, len).unwrap();
                let mut all = vec![1; 1 << 20];
                device.read_exact_at(0, &mut all).unwrap();
                for (i, &byte) in all.iter().enumerate() {
                    let inside = (offset..offset + len).contains(&(i as u64));
                    assert_eq!(
                        byte,
                        if inside { 0 } else { 0xaa },
                        "byte {i} after zero({offset}, {len})"
                    );
                }
            }
        }
    }

    #[test]
    fn nothing_past_the_end_is_erased() {
        let dir = tempfile::tempdir().unwrap();
        let device = Device::create_file(&dir.path().join("disk"), 8192).unwrap();
        assert!(device.zero(4096, 4097).is_err());
        assert!(device.zero(u64::MAX, 2).is_err());
        assert!(device.discard(8192, 1).is_err());
        assert!(device.discard(0, 8192).unwrap());
        assert_eq!(std::fs::metadata(device.path()).unwrap().len(), 8192);
    }
}
