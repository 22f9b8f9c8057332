//! What of a dynamic disk's partitions is copied.
//!
//! Owns: volumes of this disk alone by their used sectors, all other parts of volumes
//! whole, free space left out, everything outside the volumes' space kept. Does not
//! own: the database.

use super::{Dynamic, Volume};
use crate::extents::{Extent, Extents};
use crate::fs::{self, Content, Findings};
use crate::view::{ReadFailure, View, outward};

/// GPT types of the two partitions of a dynamic disk.
pub(super) const METADATA: &str = "5808C8AA-7E8F-42E0-85D2-E1E90434CFB3";
const DATA: &str = "AF9B60A0-1431-4F62-BC68-3311714A69AD";
const MBR: &str = "0x42";
/// Volumes that a reason names.
const NAMED: usize = 12;

/// Whether a partition of that type belongs to a dynamic disk.
pub(crate) fn is_dynamic(part_type: &str) -> bool {
    [MBR, METADATA, DATA].contains(&part_type)
}

/// What to copy of a dynamic disk's partition, which `view` shows and which starts at
/// byte `start` of the disk.
pub(crate) fn findings(
    dynamic: &Result<Dynamic, String>,
    view: &View<'_>,
    start: u64,
) -> Result<Findings, ReadFailure> {
    let mut found = Findings {
        file_system: "ldm".into(),
        ..Findings::unknown()
    };
    let dynamic = match dynamic {
        Ok(dynamic) => dynamic,
        Err(why) => {
            found.content = Content::Full {
                reason: format!("Windows dynamic disk: every sector is copied, because {why}."),
            };
            return Ok(found);
        }
    };
    let whole = Extent {
        start,
        len: view.size(),
    };
    // Only the volumes' own space may have holes.
    let mut used: Extents = Extents::whole(view.size()).subtract(&inside(&whole, &[dynamic.data]));
    let mut words = Vec::new();
    for volume in &dynamic.volumes {
        let here = inside(&whole, &volume.parts);
        if here.is_empty() {
            continue;
        }
        let (map, word) = mapped(volume, view, &whole, &mut found)?;
        words.push(format!("{} {word}", volume.name));
        used = used.union(&map.unwrap_or(here));
    }
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    if more > 0 {
        words.push(format!("{more} more"));
    }
    if words.is_empty() {
        words.push("none here".into());
    }
    found.content = Content::Used {
        used,
        reason: format!(
            "Windows dynamic disk, its database kept; volumes: {}. Disks made by Windows itself were not verified here.",
            words.join(", ")
        ),
    };
    Ok(found)
}

/// The used map of a volume relative to the region, if one can be made, and a word on it.
fn mapped(
    volume: &Volume,
    view: &View<'_>,
    whole: &Extent,
    found: &mut Findings,
) -> Result<(Option<Extents>, String), ReadFailure> {
    if !volume.simple {
        return Ok((None, "every sector (not on this disk alone)".into()));
    }
    let parts: Option<Vec<Extent>> = volume
        .parts
        .iter()
        .map(|part| {
            let start = part.start.checked_sub(whole.start)?;
            Some(Extent {
                start,
                len: part.len,
            })
        })
        .collect();
    let content = parts.as_deref().and_then(|parts| view.joined(parts));
    let (Some(parts), Some(content)) = (parts, content) else {
        return Ok((None, "every sector (it goes beyond its partition)".into()));
    };
    let inner = fs::probe_inside(&content)?;
    found.troubles.extend(inner.troubles);
    found.suspended |= inner.suspended;
    let name = match inner.file_system.as_str() {
        "" => "unknown",
        name => name,
    };
    Ok(match inner.content {
        Content::Used { used, .. } => (
            Some(outward(&parts, &used)),
            format!("({name}) by used sectors"),
        ),
        Content::Full { .. } => (None, format!("({name}) every sector")),
    })
}

/// The parts of `places` that lie in `whole`, relative to its start.
fn inside(whole: &Extent, places: &[Extent]) -> Extents {
    places
        .iter()
        .map(|place| {
            let from = place.start.max(whole.start);
            let to = place.end().min(whole.end());
            Extent::between(from - whole.start, to.max(from) - whole.start)
        })
        .collect()
}
