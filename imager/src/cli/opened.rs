//! An image file that is read at random, and what has to be told of it.
//!
//! Owns: opening it, and the warnings that go with its disk. Does not own: reading it.

use super::info;
use super::keys::ReadKeys;
use crate::{bad_ranges, report, trust};
use image::{Layout, OpenImage};
use std::fs::File;
use std::path::Path;
use wire::{Code, DiskState, Report};

/// Opens an image file. If a key is trusted, the image is one that it signed, proved; an
/// encrypted one was opened with its key, and is proved, too.
pub fn open(path: &Path, keys: &ReadKeys) -> Result<OpenImage<File>, Report> {
    let keyring = keys.keyring()?;
    let trusted = keyring.trusted;
    let file = info::open(path)?;
    if !file.metadata().is_ok_and(|there| there.is_file()) {
        let found = format!("{} is no regular file", path.display());
        return Err(
            Report::new(Code::ImageDamaged, found, DiskState::NotInvolved)
                .with_advice("Name an image file; a stream cannot be read at any place."),
        );
    }
    let damaged = |e| report::image(&e, DiskState::NotInvolved);
    let mut image = OpenImage::open(file).map_err(damaged)?;
    trust::demand(trusted, image.signatures(), DiskState::NotInvolved)?;
    let key = keyring.for_image(image.layout())?;
    let sealed = key.is_some();
    if let Some(key) = key {
        image.unlock(key).map_err(damaged)?;
    }
    if trusted.is_some() || sealed {
        image.prove().map_err(damaged)?;
    }
    Ok(image)
}

/// What the disk of the image lacks: partitions, sectors.
pub fn warnings(image: &OpenImage<File>) -> Vec<Report> {
    let layout = image.layout();
    let partial = layout.is_partial().then(|| {
        let found = format!(
            "the image does not hold {}; there are zeros in their place",
            absent(layout)
        );
        Report::new(Code::ImagePartial, found, DiskState::NotInvolved)
            .with_advice("Make an image of the whole disk for a disk that is complete.")
    });
    let lost = bad_ranges::warning_of_image(layout, image.bad());
    partial.into_iter().chain(lost).collect()
}

/// The absent regions in words.
fn absent(layout: &Layout) -> String {
    let absent = layout.regions.iter().filter(|region| region.is_absent());
    let names: Vec<String> = absent
        .map(|region| match region.number {
            Some(number) => format!("partition {number}"),
            None => format!("the gap at byte {}", region.start),
        })
        .collect();
    const SHOWN: usize = 16;
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}
