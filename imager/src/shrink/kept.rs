//! What the image for a smaller disk takes over from the one that it is made of.
//!
//! Owns: that parts in front of the file system that becomes smaller hold exactly what the old
//! image holds of them, that what was told of the old image is told of the new one, and the
//! refusal of what a smaller file system cannot keep. Does not own: making it smaller.
//!
//! A map of the restored disk alone will not do. An image can hold every sector because the
//! file system's own account was not to be trusted, or less than that account says, because
//! another program's image lacked the rest: the disk tells neither.

use super::refuse;
use crate::report;
use crate::restore::{CellWriter, Delivered, Source};
use diskmap::{DiskMap, Extent, Extents, Method, RegionKind};
use image::layout::Region;
use image::manifest::PackedPage;
use image::record::is_zero;
use image::{ImageKey, Layout};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use wire::{Code, DiskState, Report, size};

/// Ends what was told of an older image.
const OLD: &str = " (told of the image that this one was made from)";

/// A source that remembers what it listed.
pub(super) struct Listed<'a> {
    source: &'a mut dyn Source,
    pages: Arc<[PackedPage]>,
}

impl<'a> Listed<'a> {
    pub fn new(source: &'a mut dyn Source) -> Self {
        Listed {
            source,
            pages: Arc::new([]),
        }
    }

    /// What the image holds of each region, from the region's start.
    pub fn held(&self) -> Result<Vec<Extents>, Report> {
        let layout = self.source.layout();
        let mut all = vec![Extents::new(); layout.regions.len()];
        for page in self.pages.iter() {
            let page = page
                .unpack()
                .map_err(|e| report::image(&e, DiskState::NotInvolved))?;
            for cell in &page.cells {
                let place = all.get_mut(cell.region as usize);
                let (Some(held), Some(at)) = (place, cell.offset(layout.cell_size)) else {
                    continue; // a manifest that was proved has no such cell
                };
                for &(start, len) in cell.used.extents() {
                    held.push(Extent {
                        start: at + u64::from(start),
                        len: u64::from(len),
                    });
                }
            }
        }
        Ok(all)
    }
}

impl Source for Listed<'_> {
    fn layout(&self) -> &Layout {
        self.source.layout()
    }

    fn key(&self) -> Option<Arc<ImageKey>> {
        self.source.key()
    }

    fn transfer(&mut self, writer: &CellWriter<'_>) -> Result<Delivered, Report> {
        let delivered = self.source.transfer(writer)?;
        self.pages = Arc::clone(&delivered.pages);
        Ok(delivered)
    }

    fn heads(&mut self, writer: &CellWriter<'_>) -> Result<(), Report> {
        self.source.heads(writer)
    }
}

fn name(number: Option<u32>) -> String {
    match number {
        Some(0) | None => "the file system".to_owned(),
        Some(number) => format!("partition {number}"),
    }
}

/// Refuses a file system of which every sector is held, for `reason`: what its own account does
/// not know of (files of a copy that may be torn, deleted ones that were asked for, what a
/// suspended system remembers) would be gone.
pub(super) fn refuse_full(number: Option<u32>, reason: &str) -> Result<(), Report> {
    let found = format!(
        "the image holds every sector of {}, and a smaller file system keeps only what it counts as its own. \
         The image says of it: {reason}",
        name(number)
    );
    let report = Report::new(Code::DiskTooSmall, found, DiskState::NotInvolved);
    Err(report.with_advice(
        "Restore to a disk that is large enough (a file will do), put right there what is said of it (check the file system; \
         start a suspended system and shut it down), back that up, and make that image smaller.",
    ))
}

/// Refuses a file system of which the image lacks some of what it uses: moved to other places,
/// zeros could not be told from data any more.
pub(super) fn refuse_lacking(
    number: Option<u32>,
    used: &Extents,
    held: &Extents,
) -> Result<(), Report> {
    match used.subtract(held).total() {
        0 => Ok(()),
        lacks => refuse(format!(
            "the image lacks {} that the file system of {} uses",
            size::bytes(lacks),
            name(number)
        )),
    }
}

/// Makes the map of the smaller disk, in front of its last partition, what the old image holds.
///
/// # Errors
/// Something of the old image has no place in the new one.
pub(super) fn take_over(
    map: &mut DiskMap,
    layout: &Layout,
    held: &[Extents],
    last: &Region,
) -> Result<(), Report> {
    let front = |region: &&Region| region.start < last.start && !region.is_absent();
    for (old, held) in layout
        .regions
        .iter()
        .zip(held)
        .filter(|(old, _)| front(old))
    {
        let is_gap = old.kind == "gap";
        let mut regions = map.regions.iter_mut();
        let same = regions.find(|new| {
            (new.start, new.size, new.kind == RegionKind::Gap) == (old.start, old.size, is_gap)
        });
        let Some(new) = same else {
            return refuse(format!(
                "what the image holds at byte {} of its disk has no place on a smaller one",
                old.start
            ));
        };
        new.used = held.clone();
        new.method = match old.method.as_str() {
            "full" => Method::Full,
            _ => Method::Used,
        };
        new.reason.clone_from(&old.reason);
    }
    Ok(())
}

/// What was told of the old image: still so of the new one, as far as can be known.
pub(super) fn old_warnings(told: &[String]) -> Vec<Report> {
    let mut all = Vec::new();
    for warning in told {
        let parts = warning.split_once(": ");
        let known = parts.and_then(|(code, found)| {
            let code = Code::ALL.iter().find(|known| known.as_str() == code)?;
            Some((*code, found))
        });
        // A later version may know more codes.
        let (code, found) = known.unwrap_or((Code::ImportIncomplete, warning));
        let found = match found.ends_with(OLD) {
            true => found.to_owned(),
            false => format!("{found}{OLD}"),
        };
        all.push(Report::new(code, found, DiskState::NotInvolved));
    }
    all
}

/// A warning of what the image holds behind the last partition, which the new one has not:
/// that place is another one there. Zeros are no loss.
pub(super) fn behind(
    disk: &Path,
    layout: &Layout,
    held: &[Extents],
    last: &Region,
) -> io::Result<Option<Report>> {
    let disk = File::open(disk)?;
    let mut lost = 0;
    let mut first = None;
    let mut buffer = vec![0; 1 << 20];
    let regions = layout.regions.iter().zip(held);
    for (region, held) in regions.filter(|(region, _)| region.start > last.start) {
        for extent in held {
            let mut at = extent.start;
            while at < extent.end() {
                let len = (extent.end() - at).min(buffer.len() as u64) as usize;
                disk.read_exact_at(&mut buffer[..len], region.start + at)?;
                for (number, sector) in buffer[..len].chunks(512).enumerate() {
                    if !is_zero(sector) {
                        lost += sector.len() as u64;
                        first.get_or_insert(region.start + at + number as u64 * 512);
                    }
                }
                at += len as u64;
            }
        }
    }
    Ok(first.map(|first| {
        let found = format!(
            "behind the last partition the image holds {} of data, from byte {first} of its disk on; the new image has none of it",
            size::bytes(lost)
        );
        let report = Report::new(Code::ImportIncomplete, found, DiskState::NotInvolved);
        report.with_advice(
            "Keep the old image if a boot loader, a RAID set or a program keeps something there.",
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::{old_warnings, refuse_lacking};
    use diskmap::{Extent, Extents};
    use wire::Code;

    #[test]
    fn what_was_told_is_told_again_once_and_of_the_same_partition() {
        let told = [
            "fs-dirty: partition 3: its journal".to_owned(),
            "of-the-future: something".to_owned(),
        ];
        let first = old_warnings(&told);
        assert_eq!(first[0].code, Code::FsDirty);
        assert!(
            first[0]
                .found
                .starts_with("partition 3: its journal (told of")
        );
        assert!(
            first[1]
                .found
                .starts_with("of-the-future: something (told of")
        );
        let told: Vec<String> = first
            .iter()
            .map(|w| format!("{}: {}", w.code, w.found))
            .collect();
        let second = old_warnings(&told);
        assert_eq!(second[0].found, first[0].found);
    }

    #[test]
    fn a_byte_that_the_image_lacks_is_refused() {
        let used = Extents::whole(8192);
        let held: Extents = [Extent::between(0, 4096), Extent::between(4608, 8192)]
            .into_iter()
            .collect();
        refuse_lacking(Some(2), &used, &used).unwrap();
        let report = refuse_lacking(Some(2), &used, &held).unwrap_err();
        assert!(report.found.contains("lacks 512"), "{}", report.found);
    }
}
