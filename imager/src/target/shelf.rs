//! The media of an image, one after the other, and the image as one stream of bytes.
//!
//! Owns: which medium is wanted, what is told to whoever has to insert it, reading across
//! files and media. Does not own: drives ([`super::medium`]), what the bytes mean.

use super::medium::{self, Medium};
use ::medium::Restore;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;
use wire::{Code, DiskState, Report};

/// Whoever has to insert a medium needs seconds; drives need some, too.
const POLL: Duration = Duration::from_secs(1);

/// Where media come from.
pub trait Drives: Sync {
    /// All media that are there, mounted.
    fn look(&self) -> Vec<Medium>;
    /// What the drives hold, in words.
    fn list(&self) -> Vec<String>;
    /// Lets a medium be taken out.
    fn release(&self, medium: Medium);
    /// Waits a little, before the drives are looked at again.
    fn pause(&self);
}

/// The drives of this machine.
pub struct Machine;

impl Drives for Machine {
    fn look(&self) -> Vec<Medium> {
        medium::find(Duration::ZERO)
    }

    fn list(&self) -> Vec<String> {
        medium::drives()
    }

    fn release(&self, medium: Medium) {
        medium.release();
    }

    fn pause(&self) {
        std::thread::sleep(POLL);
    }
}

/// Hears what is waited for, and with none that it is there.
pub type Tell<'a> = dyn Fn(Option<&Report>) + Sync + 'a;

/// The media of one image.
pub struct Shelf<'a> {
    drives: &'a dyn Drives,
    /// Of the medium that was started from; none: of the first that is found.
    id: Option<String>,
    /// Hears what is waited for, and when it is there.
    tell: &'a Tell<'a>,
}

impl<'a> Shelf<'a> {
    /// The media with this id.
    pub fn new(drives: &'a dyn Drives, id: Option<String>, tell: &'a Tell<'a>) -> Self {
        Shelf { drives, id, tell }
    }

    /// The drives.
    pub fn drives(&self) -> &dyn Drives {
        self.drives
    }

    /// The medium with this number, once it is there, with what it says of the image. Others
    /// are let go meanwhile, so that they can be taken out.
    pub fn get(&self, number: u32) -> (Medium, Restore) {
        let mut told: Option<Report> = None;
        loop {
            let found = self.drives.look();
            let place = found.iter().position(|medium| self.fits(medium, number));
            if let Some(medium) = place.and_then(|at| found.get(at)).cloned()
                && let Some(restore) = medium.about.restore.clone()
            {
                if told.is_some() {
                    (self.tell)(None);
                }
                return (medium, restore);
            }
            let report = self.missing(number, &found);
            if told.as_ref() != Some(&report) {
                (self.tell)(Some(&report));
                told = Some(report);
            }
            for medium in found {
                self.drives.release(medium);
            }
            self.drives.pause();
        }
    }

    fn fits(&self, medium: &Medium, number: u32) -> bool {
        let about = &medium.about;
        let same = self.id.as_ref().is_none_or(|id| *id == about.id);
        let restore = about.restore.as_ref();
        same && about.is_understood() && restore.is_some_and(|r| r.medium == number)
    }

    /// What is wanted, and what is there instead.
    fn missing(&self, number: u32, found: &[Medium]) -> Report {
        let id = self.id.as_ref().map(|id| format!(" with id {id}"));
        let wanted = format!("medium {number} of the image{}", id.unwrap_or_default());
        if found.is_empty() {
            let drives = match self.drives.list() {
                list if list.is_empty() => "none".to_owned(),
                list => list.join("; "),
            };
            let found = format!("{wanted} is in no drive; drives: {drives}");
            return Report::new(Code::MediumNotFound, found, DiskState::Untouched);
        }
        let there: Vec<String> = found.iter().map(described).collect();
        let found = format!("{wanted} is needed; there is: {}", there.join("; "));
        Report::new(Code::MediumWrong, found, DiskState::Untouched)
    }
}

fn described(medium: &Medium) -> String {
    let about = &medium.about;
    let what = match &about.restore {
        _ if !about.is_understood() => format!("a medium of format {}", about.format),
        None => "a medium without an image".to_owned(),
        Some(restore) => format!(
            "medium {} of {} with image {}",
            restore.medium, restore.media, restore.image
        ),
    };
    format!("{}: {what}, id {}", medium.device.display(), about.id)
}

/// The image as one stream, over all of its media.
pub struct MediaReader<'a> {
    shelf: &'a Shelf<'a>,
    /// The medium that is read, and its part that comes next.
    current: Option<(Medium, Restore, usize)>,
    /// The part that is read, with the bytes that it still has.
    part: Option<(File, u64)>,
    /// Byte of the image.
    at: u64,
    /// Its size.
    size_bytes: u64,
}

impl<'a> MediaReader<'a> {
    /// From the first byte; asks for the first medium if it is not there.
    pub fn open(shelf: &'a Shelf<'a>) -> Self {
        let (medium, restore) = shelf.get(1);
        MediaReader {
            shelf,
            size_bytes: restore.size_bytes,
            current: Some((medium, restore, 0)),
            part: None,
            at: 0,
        }
    }

    /// Opens the part that comes next, on the next medium if need be; false at the end.
    fn next_part(&mut self) -> io::Result<bool> {
        if self.at >= self.size_bytes {
            return Ok(false);
        }
        loop {
            let Some((medium, restore, next)) = &mut self.current else {
                return Ok(false);
            };
            if let Some(part) = restore.parts.get(*next) {
                *next += 1;
                let name = format!("{}/{}", ::medium::FOLDER, part.file);
                let file = File::open(medium.file(&name))?;
                self.part = Some((file, part.size_bytes));
                return Ok(true);
            }
            let number = restore.medium + 1;
            let old = medium.clone();
            // Another one of the set may be in another drive; this one can be taken out.
            self.shelf.drives().release(old);
            let (medium, restore) = self.shelf.get(number);
            if restore.start != self.at || restore.size_bytes != self.size_bytes {
                let text = format!(
                    "medium {number} holds the image from byte {} on, not from {}",
                    restore.start, self.at
                );
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            self.current = Some((medium, restore, 0));
        }
    }
}

impl Read for MediaReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some((file, left)) = &mut self.part else {
                if buffer.is_empty() || !self.next_part()? {
                    return Ok(0);
                }
                continue;
            };
            if *left == 0 {
                self.part = None;
                continue;
            }
            let wanted = usize::try_from(*left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let count = file.read(&mut buffer[..wanted])?;
            if count == 0 && wanted > 0 {
                let text = format!("a part of the image is {left} bytes too short");
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            *left -= count as u64;
            self.at += count as u64;
            return Ok(count);
        }
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
pub(super) mod tests;
