//! partclone images, put into a scratch disk.
//!
//! Owns: unpacking one to its place, and what its checksums are worth. Does not own: the
//! format (`foreign`), what becomes of the map (`held`).

use super::scratch::{self, Scratch};
use crate::progress::ProgressSink;
use crate::report;
use foreign::partclone::Partclone;
use std::io::{self, BufRead, Read};
use std::path::Path;
use wire::{Code, DiskState, Report, Step};

/// A stream that ends when the job is to stop.
struct Heeding<'a> {
    input: Box<dyn Read + 'a>,
    progress: &'a dyn ProgressSink,
}

impl Read for Heeding<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.progress.interrupted() {
            true => Err(io::Error::other("the job is to stop")),
            false => self.input.read(buf),
        }
    }
}

/// An image whose header and list of blocks were read.
pub struct Source<'a> {
    name: String,
    image: Partclone<Box<dyn Read + 'a>>,
    checked: bool,
}

impl<'a> Source<'a> {
    /// Opens a packed or plain image of a partition of up to `longest` bytes; `name` is what
    /// it is called.
    pub fn open(
        name: String,
        input: impl BufRead + 'a,
        longest: u64,
        progress: &'a dyn ProgressSink,
    ) -> Result<Self, Report> {
        let failed = |e: foreign::Error| blame(&name, &e, progress);
        let (packing, input) = foreign::unpack(input).map_err(failed)?;
        let input: Box<dyn Read + 'a> = Box::new(Heeding { input, progress });
        let image = Partclone::open(input, longest).map_err(failed)?;
        Ok(Source {
            checked: packing.is_checked() || image.is_checked(),
            image,
            name,
        })
    }

    /// Size of the partition in bytes.
    pub fn size(&self) -> u64 {
        self.image.header().size
    }

    /// Bytes that the image holds.
    pub fn held_bytes(&self) -> u64 {
        self.image.held().total()
    }

    /// A warning if nothing in the image would tell of a changed byte.
    pub fn unchecked(&self) -> Option<Report> {
        (!self.checked).then(|| {
            let what = match self.image.header().version {
                1 => "its data and its list of blocks have",
                _ => "its data has",
            };
            let found = format!(
                "{}: {what} no checksums that notice a changed byte",
                self.name
            );
            Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved)
                .with_advice("Compare the restored files with what you know of them.")
        })
    }

    /// Puts all that the image holds into `disk`, from byte `start` on. Every checksum has
    /// been compared when this is `Ok`.
    pub fn copy(
        self,
        disk: &mut Scratch,
        start: u64,
        progress: &dyn ProgressSink,
    ) -> Result<(), Report> {
        // What goes wrong on this side is no damage of the source.
        let mut own: Option<Report> = None;
        let copied = self.image.copy(&mut |at, bytes| {
            let put = scratch::heed(progress).and_then(|()| disk.put(start + at, bytes));
            progress.advance(bytes.len() as u64, 0);
            put.map_err(|report| {
                own = Some(report);
                io::Error::other("the job is to stop")
            })
        });
        match (own, copied) {
            (Some(report), _) => Err(report),
            (None, copied) => copied.map_err(|e| blame(&self.name, &e, progress)),
        }
    }
}

/// What an error of reading means: a job that is to stop ends the stream, which is no damage.
fn blame(name: &str, error: &foreign::Error, progress: &dyn ProgressSink) -> Report {
    let stopped = scratch::heed(progress).err();
    stopped.unwrap_or_else(|| report::foreign(&name, error))
}

/// A disk without a partition table, of one image.
pub fn disk(
    source: Source<'_>,
    folder: &Path,
    progress: &dyn ProgressSink,
) -> Result<Scratch, Report> {
    let mut disk = Scratch::create(folder, source.size())?;
    progress.step(Step::Preparing, source.held_bytes());
    source.copy(&mut disk, 0, progress)?;
    Ok(disk)
}
