//! What the disk did not give at backup, in words and in JSON.
//!
//! Owns: naming bad ranges by partition, file system and place. Does not own: finding
//! them (`backup`), or their stored form (`image`).

use image::{BadRange, Layout, bad};
use serde_json::{Value, json};
use wire::{Code, DiskState, Report, size};

/// How many ranges are named in a sentence; JSON has all of them.
const NAMED: usize = 16;

/// One sentence about the ranges: how much, where, in which partitions.
pub fn describe(layout: &Layout, ranges: &[BadRange]) -> String {
    let sector = u64::from(layout.disk.sector_size.max(512));
    let sectors: u64 = ranges.iter().map(|range| range.len.div_ceil(sector)).sum();
    let mut text = format!(
        "{sectors} sector{} of {sector} bytes ({}): ",
        if sectors == 1 { "" } else { "s" },
        size::bytes(bad::total(ranges))
    );
    let mut last = None;
    for (count, range) in ranges.iter().take(NAMED).enumerate() {
        let first = start_on_disk(layout, range) / sector;
        let end = (start_on_disk(layout, range) + range.len).div_ceil(sector);
        let place = match end - first {
            1 => format!("{first}"),
            _ => format!("{first}-{}", end - 1),
        };
        if last != Some(range.region) {
            let separator = if count == 0 { "" } else { "; " };
            text += &format!("{separator}{} ", owner(layout, range));
        } else {
            text += ", ";
        }
        text += &place;
        last = Some(range.region);
    }
    if ranges.len() > NAMED {
        text += &format!(" and {} more ranges", ranges.len() - NAMED);
    }
    text
}

/// The result of a job in JSON: never `done` alone for an image with bad ranges.
pub fn result(ranges: &[BadRange]) -> &'static str {
    if ranges.is_empty() {
        "done"
    } else {
        "done-with-bad-ranges"
    }
}

/// All ranges for scripts.
pub fn json(layout: &Layout, ranges: &[BadRange]) -> Value {
    ranges
        .iter()
        .map(|range| {
            let region = layout.regions.get(range.region as usize);
            json!({
                "partition": region.and_then(|region| region.number),
                "file_system": region.map(|region| region.file_system.as_str()),
                "start_bytes": start_on_disk(layout, range),
                "size_bytes": range.len,
            })
        })
        .collect()
}

/// What is told of a backup that went on past bad sectors.
pub fn warning_of_backup(layout: &Layout, ranges: &[BadRange]) -> Option<Report> {
    warning(
        "cannot be read and are not in the image",
        "Replace the disk soon. What stood in these sectors is lost: check the file systems that are named.",
        layout,
        ranges,
    )
}

/// What is told of an image with bad ranges, and of a restore of one.
pub fn warning_of_image(layout: &Layout, ranges: &[BadRange]) -> Option<Report> {
    warning(
        "could not be read when the image was made; there are zeros in their place",
        "Check the file systems that are named; replace the files that are damaged from another backup.",
        layout,
        ranges,
    )
}

fn warning(what: &str, advice: &str, layout: &Layout, ranges: &[BadRange]) -> Option<Report> {
    if ranges.is_empty() {
        return None;
    }
    let found = format!("sectors that {what}: {}", describe(layout, ranges));
    Some(Report::new(Code::ReadError, found, DiskState::NotInvolved).with_advice(advice))
}

/// The first byte on the disk that was imaged.
fn start_on_disk(layout: &Layout, range: &BadRange) -> u64 {
    let start = layout.regions.get(range.region as usize);
    start.map_or(0, |region| region.start) + range.start
}

fn owner(layout: &Layout, range: &BadRange) -> String {
    let Some(region) = layout.regions.get(range.region as usize) else {
        return String::new();
    };
    let content = match region.file_system.as_str() {
        "" => "unknown content".to_owned(),
        name => crate::map::printable(name, 16),
    };
    match (region.kind.as_str(), region.number) {
        ("gap", _) => "outside of partitions:".to_owned(),
        ("partition", Some(number)) => format!("partition {number} ({content}):"),
        _ => format!("disk ({content}):"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::layout::{Disk, Region};

    fn layout() -> Layout {
        let region = |kind: &str, number, start| Region {
            kind: kind.into(),
            number,
            start,
            size: 1 << 20,
            ..Region::default()
        };
        Layout {
            disk: Disk {
                sector_size: 512,
                ..Disk::default()
            },
            regions: vec![
                region("gap", None, 512),
                Region {
                    file_system: "ext4".into(),
                    ..region("partition", Some(3), 1 << 20)
                },
            ],
            ..Layout::default()
        }
    }

    #[test]
    fn places_are_sectors_of_the_disk_by_partition() {
        let range = |region, start, len| BadRange { region, start, len };
        let ranges = [range(0, 0, 512), range(1, 512, 1024), range(1, 4096, 512)];
        assert_eq!(
            describe(&layout(), &ranges),
            "4 sectors of 512 bytes (2048 bytes): outside of partitions: 1; \
             partition 3 (ext4): 2049-2050, 2056"
        );
        let value = json(&layout(), &ranges);
        assert_eq!(
            value[1],
            json!({"partition": 3, "file_system": "ext4", "start_bytes": (1 << 20) + 512, "size_bytes": 1024})
        );
        let many: Vec<_> = (0..20).map(|n| range(1, n * 1024, 512)).collect();
        assert!(describe(&layout(), &many).ends_with(" and 4 more ranges"));
        assert_eq!(warning_of_image(&layout(), &[]), None);
    }
}
