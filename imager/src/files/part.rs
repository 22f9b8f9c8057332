//! The bytes of one partition of an image, as far as the image holds them.
//!
//! Owns: the refusal of bytes that were never read from the disk, and a cache for the many
//! small reads of file system metadata. Does not own: reading the image (`image::open`).

use super::{Alike, Fail};
use crate::progress::ProgressSink;
use crate::report;
use diskmap::DiskRead;
use image::layout::Region;
use image::{OpenImage, open::ReadAt};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use wire::DiskState;

/// Bytes that are fetched at once for small reads.
const WINDOW: u64 = 32 << 10;
/// Windows that are kept.
const WINDOWS: usize = 64;

/// What a partition's reader has to offer, whatever image it is of.
pub trait Bytes {
    /// Fills `buf` with the disk's bytes; tells how many of them the image holds.
    fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, image::Error>;
}

impl<S: ReadAt> Bytes for OpenImage<S> {
    fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, image::Error> {
        self.read_counted_at(buf, offset)
    }
}

/// One partition.
pub struct Part<'a> {
    image: &'a (dyn Bytes + Sync),
    region: &'a Region,
    disk: HeldDisk<'a>,
    /// Windows by number, the latest one last.
    windows: RefCell<Vec<(u64, Vec<u8>)>>,
    progress: &'a dyn ProgressSink,
    alike: RefCell<Option<Rc<Alike>>>,
}

impl<'a> Part<'a> {
    /// Region number `number` of the layout; none if it is not there or not in the image.
    pub fn new<S: ReadAt + Sync>(
        image: &'a OpenImage<S>,
        number: usize,
        progress: &'a dyn ProgressSink,
    ) -> Option<Part<'a>> {
        let region = image.layout().regions.get(number)?;
        if region.is_absent() {
            return None;
        }
        let bad = image.bad().iter();
        let bad = bad.filter(|range| range.region as usize == number);
        let bad = bad.map(|range| (range.start, range.end())).collect();
        Some(Part::over(image, region, bad, progress))
    }

    /// A region of whatever has bytes, without ranges of it (first byte and end, ascending)
    /// that could not be read.
    pub fn over(
        image: &'a (dyn Bytes + Sync),
        region: &'a Region,
        bad: Vec<(u64, u64)>,
        progress: &'a dyn ProgressSink,
    ) -> Part<'a> {
        Part {
            image,
            region,
            disk: HeldDisk {
                image,
                start: region.start,
                bad,
            },
            windows: RefCell::default(),
            progress,
            alike: RefCell::default(),
        }
    }

    /// Name of the file system, as the layout has it.
    pub fn file_system(&self) -> &'a str {
        &self.region.file_system
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.region.size
    }

    /// Where the partition begins on the disk, for parsers that read the disk.
    pub fn start(&self) -> u64 {
        self.region.start
    }

    /// The disk, for parsers that read it.
    pub fn disk(&self) -> &HeldDisk<'a> {
        &self.disk
    }

    /// Fills `buf` with the bytes at `offset`.
    ///
    /// # Errors
    /// [`Fail::Damaged`] beyond the end, [`Fail::Lost`] if the image lacks one of them.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), Fail> {
        if self.progress.interrupted() {
            return Err(Fail::Interrupted);
        }
        let len = buf.len() as u64;
        let end = offset.checked_add(len).filter(|&end| end <= self.size());
        let Some(end) = end else {
            return Err(Fail::damaged(format!(
                "it lies outside of the partition, at byte {offset}"
            )));
        };
        lost_at(&self.disk.bad, offset, end)?;
        let window = offset / WINDOW;
        if len > 0
            && len <= WINDOW / 4
            && (end - 1) / WINDOW == window
            && self.small(window, offset, buf)?
        {
            return Ok(());
        }
        let held = self.fetch(buf, offset)?;
        if held < len {
            return Err(unheld(offset, end));
        }
        Ok(())
    }

    /// From now on content that is alike in two images is not read: other bytes stand for
    /// it. None: it is read again.
    pub fn stand_in(&self, alike: Option<Rc<Alike>>) {
        *self.alike.borrow_mut() = alike;
    }

    /// As [`Self::read`], of the content of files: bytes that nothing is looked up in.
    pub fn content(&self, offset: u64, buf: &mut [u8]) -> Result<(), Fail> {
        match &*self.alike.borrow() {
            Some(alike) if alike.covers(offset, buf.len() as u64) => {
                if self.progress.interrupted() {
                    return Err(Fail::Interrupted);
                }
                alike.stand_in(offset, buf);
                Ok(())
            }
            _ => self.read(offset, buf),
        }
    }

    /// The bytes at `offset`.
    pub fn bytes(&self, offset: u64, len: usize) -> Result<Vec<u8>, Fail> {
        let mut buf = vec![0; len];
        self.read(offset, &mut buf)?;
        Ok(buf)
    }

    /// Reads from a window; false if the image does not hold all of it.
    fn small(&self, number: u64, offset: u64, buf: &mut [u8]) -> Result<bool, Fail> {
        let mut windows = self.windows.borrow_mut();
        let found = windows.iter().rposition(|(at, _)| *at == number);
        let window = match found {
            Some(place) => windows.remove(place),
            None => {
                let start = number * WINDOW;
                let len = WINDOW.min(self.size() - start);
                let mut bytes = vec![0; len as usize];
                // What is wrong with the rest of the window is no affair of what is wanted.
                match self.fetch(&mut bytes, start) {
                    Ok(held) if held == len => {}
                    Ok(_) | Err(Fail::Image(_)) => return Ok(false),
                    Err(fail) => return Err(fail),
                }
                if windows.len() >= WINDOWS {
                    windows.remove(0);
                }
                (number, bytes)
            }
        };
        let from = (offset - number * WINDOW) as usize;
        buf.copy_from_slice(&window.1[from..from + buf.len()]);
        windows.push(window);
        Ok(true)
    }

    fn fetch(&self, buf: &mut [u8], offset: u64) -> Result<u64, Fail> {
        let read = self.image.counted(buf, self.region.start + offset);
        read.map_err(|e| Fail::Image(Box::new(report::image(&e, DiskState::NotInvolved))))
    }
}

/// The ranges are ascending.
fn lost_at(bad: &[(u64, u64)], start: u64, end: u64) -> Result<(), Fail> {
    let next = bad.partition_point(|range| range.1 <= start);
    match bad.get(next).filter(|range| range.0 < end) {
        Some(range) => Err(Fail::Lost(format!(
            "the sectors at byte {} of the partition could not be read when the image was made",
            range.0.max(start)
        ))),
        None => Ok(()),
    }
}

fn unheld(start: u64, end: u64) -> Fail {
    Fail::Lost(format!(
        "bytes {start} to {} of the partition were free by its own account and were not copied",
        end - 1
    ))
}

/// The disk of an image without what the image does not hold of one partition.
pub struct HeldDisk<'a> {
    image: &'a (dyn Bytes + Sync),
    start: u64,
    /// First byte and end of ranges that the disk did not give, from the partition's start.
    bad: Vec<(u64, u64)>,
}

impl DiskRead for HeldDisk<'_> {
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        // Reads ahead go beyond what is wanted: only bad ranges are refused.
        let start = offset.saturating_sub(self.start);
        lost_at(&self.bad, start, start.saturating_add(buf.len() as u64))
            .map_err(|_| io::Error::other("not readable when the image was made"))?;
        let held = self.image.counted(buf, offset).map_err(io::Error::other)?;
        // Zeros of a journal would look like its end. Whoever reads ahead asks again for less.
        if held < buf.len() as u64 {
            return Err(io::Error::other("not in the image"));
        }
        Ok(())
    }
}
