//! Reading back a whole disk past the page cache.
//!
//! Owns: the only words about a wipe that count: what the disk gives. Does not own: what was
//! written (`fill`), the verdict on the job.

use super::fill::{Fill, first_not_uniform, first_not_zero};
use super::sweep::{NAMED, Swept, Trouble, sweep};
use crate::progress::ProgressSink;
use crate::report;
use blockdev::Device;
use std::cell::RefCell;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use wire::{DiskState, Report, Step};

thread_local! {
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Opens the disk past the page cache; what is cached of it is dropped.
///
/// # Errors
/// It cannot be flushed, or opened.
pub fn medium(device: &Device, path: &Path) -> Result<Device, Report> {
    device
        .invalidate_cache()
        .map_err(|e| report::write(&e, DiskState::Incomplete))?;
    Device::open_direct_read(path).map_err(|e| report::open(&e, DiskState::Incomplete))
}

/// Reads all of the disk and compares it with what should stand there, but for these parts,
/// which did not take it: whole units, in order.
///
/// # Errors
/// It cannot be opened; what it gives is in the result.
pub fn compare(
    device: &Device,
    path: &Path,
    fill: Fill,
    except: &[Range<u64>],
    progress: &dyn ProgressSink,
) -> Result<Swept, Report> {
    let size = device.size_bytes();
    progress.step(Step::Verifying, size);
    let medium = medium(device, path)?;
    sweep(size, NAMED, progress, &|at, buf| {
        medium.read_exact_at(at, buf)?;
        let found = SPARE.with_borrow_mut(|spare| difference(fill, at, size, buf, except, spare));
        found.map_or(Ok(()), |place| Err(Trouble::Differs(place)))
    })
}

/// The first byte of the disk that should be another one.
fn difference(
    fill: Fill,
    at: u64,
    size: u64,
    found: &[u8],
    except: &[Range<u64>],
    spare: &mut Vec<u8>,
) -> Option<u64> {
    let mut from = 0;
    loop {
        let rest = found.get(from..)?;
        let place = fill.first_difference(at + from as u64, size, rest, spare)?;
        let known = except.iter().find(|part| part.contains(&place));
        match known {
            None => return Some(place),
            // Behind it more may be wrong.
            Some(part) => from = (part.end - at) as usize,
        }
    }
}

/// What a disk holds after it has erased itself.
#[derive(Debug)]
pub struct Erased {
    /// All of it is zeros.
    pub zeros: bool,
    /// How the reading went; it ended at the first block that is no fill.
    pub swept: Swept,
}

/// Reads all of the disk, or until a block is met whose bytes are not all the same.
///
/// # Errors
/// As [`compare`].
pub fn look_for_fill(
    device: &Device,
    path: &Path,
    progress: &dyn ProgressSink,
) -> Result<Erased, Report> {
    let size = device.size_bytes();
    progress.step(Step::Verifying, size);
    let medium = medium(device, path)?;
    let other = AtomicBool::new(false);
    let swept = sweep(size, 1, progress, &|at, buf| {
        medium.read_exact_at(at, buf)?;
        if first_not_zero(buf).is_some() {
            other.store(true, Ordering::Relaxed);
        }
        match first_not_uniform(buf) {
            None => Ok(()),
            Some(place) => Err(Trouble::Differs(at + place as u64)),
        }
    })?;
    Ok(Erased {
        zeros: !other.load(Ordering::Relaxed),
        swept,
    })
}

#[cfg(test)]
mod tests {
    use super::{Fill, difference};
    use std::slice::from_ref;

    #[test]
    fn what_is_known_hides_nothing_behind_it() {
        let mut disk = vec![0; 32768];
        let (mut spare, size) = (Vec::new(), 1 << 30);
        let at = 1 << 20;
        let mut look = |disk: &[u8], except: &[std::ops::Range<u64>]| {
            difference(Fill::Zeros, at, size, disk, except, &mut spare)
        };
        disk[5000] = 1;
        assert_eq!(look(&disk, &[]), Some(at + 5000));
        let except = at + 4096..at + 8192;
        assert_eq!(look(&disk, from_ref(&except)), None);
        disk[8192] = 1;
        assert_eq!(look(&disk, from_ref(&except)), Some(at + 8192));
        // One that reaches past the piece.
        let longer = at + 4096..at + (1 << 20);
        assert_eq!(look(&disk, from_ref(&longer)), None);
    }
}
