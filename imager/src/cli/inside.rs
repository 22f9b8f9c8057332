//! What commands that look into an image have in common.
//!
//! Owns: their options, the choice of the partition, and opening its file system. Does not
//! own: what is looked for.

use super::keys::ReadKeys;
use super::{opened, print_warnings};
use crate::files::volume::{Joined, holds_volumes, volumes};
use crate::files::{self, Fail, Part, Tree};
use crate::map::printable;
use crate::progress::ProgressSink;
use crate::report;
use image::{Layout, OpenImage, layout::Region};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use wire::{Code, DiskState, Report, size};

/// Options of commands that look into an image.
#[derive(clap::Args)]
pub struct Inside {
    /// Image file; it is only read
    pub image: PathBuf,
    /// Look into this partition, by its number; not needed if only one can be looked into
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,
    /// Look into this logical volume of LVM2, by its name; not needed if only one can be
    /// looked into
    #[arg(long, value_name = "NAME")]
    volume: Option<String>,
    #[command(flatten)]
    keys: ReadKeys,
}

/// A file system that is open.
pub struct Opened<'a> {
    /// Number of its partition; none for a disk without a table.
    pub number: Option<u32>,
    /// Name of its volume inside the partition, if it is in one.
    pub volume: Option<&'a str>,
    /// Its kind.
    pub file_system: &'a str,
    /// What stands before paths.
    pub label: String,
    /// The file system.
    pub tree: &'a dyn Tree,
    /// What was told at backup of its state; it was printed already.
    pub warnings: &'a [Report],
}

impl Inside {
    /// Opens the image and does `work` on the file system that is meant.
    pub fn with<T>(
        &self,
        progress: &dyn ProgressSink,
        work: impl FnOnce(&Opened<'_>) -> Result<T, Report>,
    ) -> Result<T, Report> {
        let image = opened::open(&self.image, &self.keys)?;
        let layout = image.layout();
        let place = choose(layout, self.partition, self.volume.is_some())?;
        let region = &layout.regions[place];
        let number = number(region);
        let mut label = label(region);
        let mut part = part(&image, place, progress, &label)?;
        let warnings = unsound(layout, region);
        print_warnings(&warnings);
        let (joined, inner);
        let mut volume = None;
        let mut file_system = region.file_system.as_str();
        if holds_volumes(file_system) || self.volume.is_some() {
            let found = volumes(&image, region);
            let found = found.map_err(|e| report::scan(&e, DiskState::NotInvolved))?;
            let found = super::volume::choose(found, self.volume.as_deref(), &label)?;
            joined = Joined::new(&image, &found.parts);
            inner = (
                Region {
                    start: 0,
                    size: joined.size(),
                    file_system: found.file_system,
                    ..region.clone()
                },
                found.name,
            );
            let bad = image.bad().iter();
            let bad = bad.filter(|range| range.region as usize == place);
            let bad = bad.map(|range| (region.start + range.start, region.start + range.end()));
            let bad = joined.ranges(&bad.collect::<Vec<_>>());
            part = Part::over(&joined, &inner.0, bad, progress);
            file_system = &inner.0.file_system;
            volume = Some(inner.1.as_str()).filter(|name| !name.is_empty());
        }
        if let Some(name) = volume {
            label = format!("{label}volume {}: ", printable(name, 128));
        }
        // A library that reads a file system may trip over a damaged one.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let tree = files::open(&part).map_err(|fail| fail.report(&label))?;
            work(&Opened {
                number,
                volume,
                file_system,
                label: label.clone(),
                tree: &*tree,
                warnings: &warnings,
            })
        }));
        outcome.unwrap_or_else(|_| Err(Fail::damaged("its reader gave up on it").report(&label)))
    }
}

fn part<'a>(
    image: &'a OpenImage<File>,
    number: usize,
    progress: &'a dyn ProgressSink,
    label: &str,
) -> Result<Part<'a>, Report> {
    Part::new(image, number, progress).ok_or_else(|| {
        let found = format!("{label} is not in the image, only listed");
        Report::new(Code::ImagePartial, found, DiskState::NotInvolved)
            .with_advice("Choose a partition that the image holds; imager info lists them.")
    })
}

/// What stands before a path in that region.
pub fn label(region: &Region) -> String {
    match number(region) {
        Some(number) => format!("partition {number}: "),
        None => String::new(),
    }
}

/// The partition's number; none for a disk without a table.
pub(super) fn number(region: &Region) -> Option<u32> {
    region.number.filter(|_| region.kind == "partition")
}

/// Position of the region that is meant.
/// If a volume is named, it is in one that holds some.
fn choose(layout: &Layout, partition: Option<u32>, in_volume: bool) -> Result<usize, Report> {
    let refuse = |found: String, advice: &str| {
        Err(Report::new(Code::PartitionNotFound, found, DiskState::NotInvolved).with_advice(advice))
    };
    let all = || layout.regions.iter().enumerate();
    if let Some(wanted) = partition {
        let found = all().find(|(_, region)| number(region) == Some(wanted));
        return match found {
            Some((position, _)) => Ok(position),
            None => refuse(
                format!(
                    "looked for partition {wanted}; the image has {}",
                    list(all().map(|(_, r)| r))
                ),
                "Choose one of the partitions that are listed.",
            ),
        };
    }
    let those = |wanted: fn(&str) -> bool| -> Vec<_> {
        let present = all().filter(|(_, region)| !region.is_absent());
        present
            .filter(|(_, region)| wanted(&region.file_system))
            .collect()
    };
    let mut candidates = match in_volume {
        true => Vec::new(),
        false => those(files::is_readable),
    };
    if candidates.is_empty() {
        candidates = those(holds_volumes);
    }
    match candidates.as_slice() {
        [(position, _)] => Ok(*position),
        [] => refuse(
            format!(
                "no file system that can be looked into; the image has {}",
                list(all().map(|(_, r)| r))
            ),
            "Serve the image with imager nbd, or export it, and mount it.",
        ),
        several => refuse(
            format!(
                "several can be looked into: {}",
                list(several.iter().map(|(_, r)| *r))
            ),
            "Say which one: --partition NUMBER.",
        ),
    }
}

/// Partitions in words.
fn list<'a>(regions: impl Iterator<Item = &'a Region>) -> String {
    const SHOWN: usize = 32;
    let named = regions.filter(|region| region.kind != "gap").map(|region| {
        let number = number(region).map_or("the disk".to_owned(), |number| number.to_string());
        let mut text = format!("{number} ({}", size::bytes(region.size));
        for word in [&region.file_system, &region.label, &region.name] {
            if !word.is_empty() {
                text += &format!(", {}", printable(word, 40));
            }
        }
        text + ")"
    });
    let named: Vec<String> = named.collect();
    match named.len() {
        0 => "none".to_owned(),
        count if count > SHOWN => {
            format!("{} and {} more", named[..SHOWN].join("; "), count - SHOWN)
        }
        _ => named.join("; "),
    }
}

/// What was told at backup of the state of that file system. Older versions did not say of
/// which partition a warning is: then it may be this one.
fn unsound(layout: &Layout, region: &Region) -> Vec<Report> {
    let of = |warning: &String| {
        let (code, found) = warning.split_once(": ")?;
        let codes = [Code::FsDirty, Code::FsDamaged, Code::ReadError];
        let code = codes.into_iter().find(|known| known.as_str() == code)?;
        let is_other = about(found).is_some_and(|about| Some(about) != number(region));
        let report = Report::new(code, printable(found, 400), DiskState::NotInvolved);
        (!is_other).then_some(report)
    };
    layout.warnings.iter().filter_map(of).collect()
}

/// The partition that a warning names.
fn about(found: &str) -> Option<u32> {
    let (number, _) = found.strip_prefix("partition ")?.split_once(": ")?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Layout, Region, unsound};

    #[test]
    fn warnings_of_this_partition_and_those_of_none() {
        let layout = Layout {
            warnings: [
                "fs-dirty: partition 2: now",
                "fs-dirty: partition 22: other",
                "fs-damaged: partition 2: two",
                "read-error: partition 2: three",
                "fs-dirty: as older versions said it",
                "gpt-damaged: the backup table",
            ]
            .map(String::from)
            .to_vec(),
            ..Layout::default()
        };
        let region = Region {
            kind: "partition".into(),
            number: Some(2),
            ..Region::default()
        };
        let told = unsound(&layout, &region);
        let told: Vec<_> = told.iter().map(|report| &report.found[..]).collect();
        assert_eq!(
            told,
            [
                "partition 2: now",
                "partition 2: two",
                "partition 2: three",
                "as older versions said it"
            ]
        );
    }
}
