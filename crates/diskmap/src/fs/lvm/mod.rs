//! LVM2 physical volumes: the extents of logical volumes, and what is inside them.
//!
//! Owns: which copy of the metadata is believed, and the map that follows. Does not own:
//! the label (`label`), the areas of metadata (`area`), their text (`config`, `group`,
//! `segment`).
//!
//! Extents are left out only where the group's metadata on this very disk says that they
//! are free. Metadata on other disks of the group may be newer only if this disk was away
//! when it was written, and then nothing on this disk was given out: whoever gives out
//! extents of a disk writes the metadata on it too. A step that was interrupted in
//! between leaves a mark in the area's header, and everything is copied.
//!
//! A logical volume is looked into if it is visible, of linear or striped segments that
//! all lie here, and no other volume mentions it. The origin of a snapshot is not: the
//! snapshot reads from it what its own file system no longer has.

mod area;
mod config;
mod group;
mod label;
mod segment;

use super::collect::Collector;
use super::inner::Held;
use super::{Fault, Findings, Map, Mapped, Trouble, Volume, damaged, probe_at};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View, outward};
use area::Area;
use group::{Group, LogicalVolume};
use label::{Header, Label};

/// Most logical volumes that are looked into; the others are copied whole.
const MAX_LOOKED_INTO: usize = 1024;
/// Most logical volumes that are told.
const MAX_TOLD: usize = 16;

/// Looks for a label.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let labels = label::labels(view)?;
    let Some(first) = labels.first() else {
        return Ok(None);
    };
    Ok(Some(Volume {
        name: "lvm2",
        label: String::new(),
        uuid: first.uuid_text(),
        // The header says it, behind a checksum that is not looked at yet.
        size: 0,
        wraps: false,
        map: Box::new(PhysicalVolume { labels }),
    }))
}

/// The map of a physical volume.
struct PhysicalVolume {
    labels: Vec<Label>,
}

impl Map for PhysicalVolume {
    fn used(&self, view: &View<'_>, depth: u32) -> Result<Mapped, Fault> {
        map(view, &self.group(view)?, depth)
    }

    fn holds(&self) -> bool {
        true
    }

    fn held(&self, view: &View<'_>) -> Result<Held, Fault> {
        let volumes = self.group(view)?.volumes.into_iter();
        let held = volumes.map(|volume| match volume.content {
            group::Content::Parts(parts) => (volume.name, Ok(parts)),
            group::Content::Opaque(why) => (volume.name, Err(why)),
        });
        Ok(held.collect())
    }
}

impl PhysicalVolume {
    /// The group that it belongs to, which agrees with the header.
    fn group(&self, view: &View<'_>) -> Result<Group, Fault> {
        let [label] = self.labels.as_slice() else {
            return damaged("it has several labels");
        };
        let header = label.header()?;
        if header.device_size > view.size() {
            return damaged(format!(
                "the physical volume says it has {} bytes, there are {}",
                header.device_size,
                view.size()
            ));
        }
        let group = read_group(view, &header)?;
        check_space(view, &header, group.space)?;
        Ok(group)
    }
}

/// The group, from all areas of metadata, which must say the same.
fn read_group(view: &View<'_>, header: &Header) -> Result<Group, Fault> {
    let mut texts = Vec::new();
    for &place in &header.metadata {
        match area::read(view, place)? {
            Area::Empty => {}
            Area::Text(text) => texts.push(text),
            Area::Ignored => {
                return Err(Fault::Unsupported(
                    "the metadata of its volume group is kept on other disks".into(),
                ));
            }
        }
    }
    if header.metadata.is_empty() {
        return Err(Fault::Unsupported(
            "it has no metadata of its own: it may belong to a volume group all the same".into(),
        ));
    }
    if texts.is_empty() {
        return Err(Fault::Unsupported("it belongs to no volume group".into()));
    }
    if texts.len() != header.metadata.len() {
        return damaged("one area of metadata is empty, another is not");
    }
    let mut roots = Vec::new();
    for text in &texts {
        match config::parse(text) {
            Some(root) => roots.push(root),
            None => return damaged("its metadata is not a text of LVM2"),
        }
    }
    let mut found = None;
    for root in &roots {
        let (name, section) = group::section(root)?;
        if *found.get_or_insert((name, section)) != (name, section) {
            return Err(Fault::Unsupported(
                "the copies of its metadata differ".into(),
            ));
        }
    }
    match found {
        Some((name, section)) => group::read(name, section, &header.uuid),
        None => damaged("it has no metadata"),
    }
}

/// The space of the extents must be what the header says, and hold no metadata.
fn check_space(view: &View<'_>, header: &Header, space: Extent) -> Result<(), Fault> {
    let [data] = header.data.as_slice() else {
        return Err(Fault::Unsupported(format!(
            "it has {} areas of extents",
            header.data.len()
        )));
    };
    let fits = data.len == 0 || space.end() <= data.end();
    if data.start != space.start || !fits || space.end() > view.size() {
        return damaged("the volume group has its extents at another place than its header");
    }
    // The label and its header take one of the first sectors.
    let label = Extent {
        start: 0,
        len: 4096,
    };
    let overlap = |area: &Extent| area.start < space.end() && space.start < area.end();
    if space.len > 0 && (overlap(&label) || header.metadata.iter().any(overlap)) {
        return damaged("its extents cover its metadata");
    }
    Ok(())
}

/// Everything outside of the extents, and what the logical volumes use of them.
fn map(view: &View<'_>, group: &Group, depth: u32) -> Result<Mapped, Fault> {
    let outside = Extents::whole(view.size()).subtract(&Extents::from_iter([group.space]));
    let mut used: Vec<Extent> = outside.into();
    let mut mapped = Mapped::from(Extents::new());
    let mut told = Vec::new();
    for (number, volume) in group.volumes.iter().enumerate() {
        let found = if number < MAX_LOOKED_INTO {
            inside(view, volume, depth)?
        } else {
            None
        };
        let (Some((parts, found)), name) = (found, &volume.name) else {
            used.extend(volume.occupied.iter());
            told.push(format!("{} ({}) every sector", volume.name, volume.why()));
            continue;
        };
        let kind = match found.file_system.as_str() {
            "" => "unknown",
            kind => kind,
        };
        mapped.suspended |= found.suspended;
        mapped
            .troubles
            .extend(found.troubles.into_iter().map(|trouble| Trouble {
                kind: trouble.kind,
                detail: format!("{}/{name}: {}", group.name, trouble.detail),
            }));
        match found.content {
            super::Content::Used { used: inner, .. } => {
                used.extend(outward(parts, &inner).iter());
                told.push(format!("{name} ({kind}) by used sectors"));
            }
            super::Content::Full { .. } => {
                used.extend(volume.occupied.iter());
                told.push(format!("{name} ({kind}) every sector"));
            }
        }
    }
    used.sort_unstable();
    let mut collector = Collector::new();
    used.into_iter().for_each(|extent| collector.push(extent));
    mapped.used = collector.finish();
    mapped.reason = Some(reason(&group.name, told));
    Ok(mapped)
}

/// What is inside a logical volume, if it may be looked into, and its parts.
fn inside<'a>(
    view: &View<'_>,
    volume: &'a LogicalVolume,
    depth: u32,
) -> Result<Option<(&'a [Extent], Findings)>, Fault> {
    let group::Content::Parts(parts) = &volume.content else {
        return Ok(None);
    };
    let Some(content) = view.joined(parts) else {
        return damaged("a logical volume is not inside the physical volume");
    };
    Ok(Some((parts, probe_at(&content, depth + 1)?)))
}

impl LogicalVolume {
    /// Why it is not looked into.
    fn why(&self) -> &str {
        match &self.content {
            group::Content::Opaque(why) => why,
            group::Content::Parts(_) => "one of too many",
        }
    }
}

/// The sentence for people.
fn reason(group: &str, mut told: Vec<String>) -> String {
    let more = told.len().saturating_sub(MAX_TOLD);
    told.truncate(MAX_TOLD);
    if more > 0 {
        told.push(format!("{more} more"));
    }
    let volumes = if told.is_empty() {
        "no volumes here".to_string()
    } else {
        told.join(", ")
    };
    format!("LVM2: volume group {group}: {volumes}; free extents left out.")
}
