//! The bytes of one partition of a folder.
//!
//! Owns: its files as one stream, opened when they are wanted, and whether they are unpacked.
//! Does not own: which files (`foreign::clonezilla`), partclone's format.

use super::damaged;
use crate::import::partclone::Source;
use crate::import::pieces::Pieces;
use crate::import::scratch::{self, Scratch};
use crate::progress::ProgressSink;
use crate::report;
use foreign::Packing;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::path::PathBuf;
use wire::Report;

/// The files of a partition, as one stream.
pub(super) struct Files {
    /// What they are called.
    pub name: String,
    /// In their order.
    pub paths: Vec<PathBuf>,
    /// Whether their names say that they are not compressed.
    pub plain: bool,
}

/// What was seen of a partclone image.
pub(super) struct Look {
    /// Bytes that it holds.
    pub held_bytes: u64,
    /// A warning if nothing in it would tell of a changed byte.
    pub unchecked: Option<Report>,
}

impl Files {
    fn input(&self) -> impl BufRead + use<> {
        BufReader::with_capacity(1 << 20, Pieces::new(self.paths.clone()))
    }

    /// Opens a partclone image of a partition of up to `length` bytes.
    pub fn partclone<'a>(
        &self,
        length: u64,
        progress: &'a dyn ProgressSink,
    ) -> Result<Source<'a>, Report> {
        Source::open(self.name.clone(), self.input(), length, progress)
    }

    /// Opens the bytes of a partition. They may begin with anything, also with what a
    /// compressed file begins with: whether they are compressed is in the name.
    pub fn raw(&self) -> Result<(Packing, Box<dyn Read>), Report> {
        if self.plain {
            return Ok((Packing::Plain, Box::new(self.input())));
        }
        match foreign::unpack(self.input()) {
            Ok((Packing::Plain, _)) => damaged(format!(
                "{} is compressed by its name, but not by its first bytes",
                self.name
            )),
            Ok(opened) => Ok(opened),
            Err(error) => Err(report::foreign(&self.name, &error)),
        }
    }
}

/// Copies the bytes of a partition, all of them.
pub(super) fn copy_raw(
    part: &str,
    mut input: Box<dyn Read + '_>,
    place: &Range<u64>,
    disk: &mut Scratch,
    progress: &dyn ProgressSink,
) -> Result<(), Report> {
    let mut piece = vec![0; 1 << 20];
    let mut at = place.start;
    loop {
        scratch::heed(progress)?;
        let count = match input.read(&mut piece) {
            Ok(count) => count,
            Err(e) if e.raw_os_error().is_some() => {
                return Err(report::foreign(&part, &e.into()));
            }
            Err(e) => return damaged(format!("{part}: its data cannot be unpacked: {e}")),
        };
        let end = at + count as u64;
        if end > place.end || count == 0 && at < place.end {
            let wanted = place.end - place.start;
            return damaged(format!(
                "{part} has {wanted} bytes, its file has another number of them"
            ));
        }
        if count == 0 {
            return Ok(());
        }
        disk.put(at, &piece[..count])?;
        progress.advance(count as u64, 0);
        at = end;
    }
}
