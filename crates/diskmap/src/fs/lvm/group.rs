//! What a volume group says about one physical volume: which extents are free, and how
//! the logical volumes lie on it.
//!
//! Owns: the names of LVM2's metadata that decide what may be left out, and the refusal
//! of everything else that could decide it. Does not own: the grammar (`config`), where a
//! logical volume's bytes lie (`segment`).

use super::config::{Section, Value};
use super::segment::{self, Budget};
use crate::extents::{Extent, Extents};
use crate::fs::{Fault, damaged};
use std::collections::HashSet;

/// Values of a logical volume that name no other volume.
const OWN_VALUES: &[&str] = &[
    "id",
    "type",
    "status",
    "flags",
    "tags",
    "creation_host",
    "allocation_policy",
    "profile",
];

/// The group, as far as it concerns one physical volume.
pub(super) struct Group {
    pub name: String,
    /// The space of all extents, in bytes of the physical volume.
    pub space: Extent,
    /// Volumes with extents in it.
    pub volumes: Vec<LogicalVolume>,
}

/// A logical volume.
pub(super) struct LogicalVolume {
    pub name: String,
    /// What it occupies of the physical volume, in bytes; disjoint from all others.
    pub occupied: Extents,
    pub content: Content,
}

/// How the content of a logical volume is to be had.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// From these bytes of the physical volume, one behind the other.
    Parts(Vec<Extent>),
    /// Not from this physical volume alone, or not at all: why.
    Opaque(String),
}

/// The physical volume among those of its group.
pub(super) struct Place<'a> {
    /// Its name within the metadata.
    pub name: &'a [u8],
    /// First byte of the first extent.
    pub start: u64,
    /// Number of extents.
    pub count: u64,
    /// Size of an extent in bytes.
    pub extent: u64,
}

/// The section of the volume group, if the text is one that is understood.
pub(super) fn section<'a, 't>(root: &'t Section<'a>) -> Result<(&'a [u8], &'t Section<'a>), Fault> {
    let kind = root.text("contents") == Some(b"Text Format Volume Group");
    if !kind || root.number("version") != Some(1) {
        return Err(Fault::Unsupported(
            "its metadata is of an unknown kind".into(),
        ));
    }
    let mut sections = root.sections();
    match (sections.next(), sections.next()) {
        (Some(found), None) => Ok(found),
        _ => damaged("its metadata does not describe one volume group"),
    }
}

/// Reads the group for the physical volume with that UUID.
pub(super) fn read(name: &[u8], group: &Section<'_>, uuid: &[u8; 32]) -> Result<Group, Fault> {
    check_group(group)?;
    let place = place(group, uuid)?;
    let none = Section::default();
    let all = match group.get("logical_volumes") {
        None if !group.has("logical_volumes") => &none,
        Some(Value::Section(all)) => all,
        _ => return damaged("its logical volumes are not a section"),
    };
    let named = named_by_others(all);
    let mut budget = Budget::new();
    let mut volumes = Vec::new();
    let mut names = HashSet::new();
    let mut occupied = Vec::new();
    for (name, volume) in all.sections() {
        if !names.insert(name) {
            return damaged("two logical volumes have the same name");
        }
        let mut found = segment::read(volume, &place, &mut budget)?;
        if found.occupied.is_empty() {
            continue;
        }
        occupied.extend_from_slice(&found.occupied);
        if let Some(why) = unusual(volume, named.contains(name)) {
            found.content = Content::Opaque(why);
        }
        volumes.push(LogicalVolume {
            name: crate::bytes::text(name),
            occupied: found.occupied.into_iter().collect(),
            content: found.content,
        });
    }
    occupied.sort_unstable();
    if occupied
        .windows(2)
        .any(|pair| pair[0].end() > pair[1].start)
    {
        return damaged("two logical volumes have the same extent");
    }
    Ok(Group {
        name: crate::bytes::text(name),
        space: Extent {
            start: place.start,
            len: place.count * place.extent,
        },
        volumes,
    })
}

/// Refuses groups whose metadata this physical volume may not know, or that another
/// machine may use.
fn check_group(group: &Section<'_>) -> Result<(), Fault> {
    let unsupported = |what: &str| Err(Fault::Unsupported(what.to_string()));
    if group.has("format") && group.text("format") != Some(b"lvm2") {
        return unsupported("its volume group is not of LVM2's own format");
    }
    if group.has("lock_type") && group.text("lock_type") != Some(b"none") {
        return unsupported("its volume group is shared by several machines");
    }
    if !only(
        group,
        "status",
        &["RESIZEABLE", "READ", "WRITE", "EXPORTED"],
    ) {
        return unsupported("its volume group is in an unusual state");
    }
    if !only(group, "flags", &["NOAUTOACTIVATE"]) {
        return unsupported("its volume group has unknown flags");
    }
    Ok(())
}

/// Finds the physical volume with that UUID.
fn place<'a>(group: &Section<'a>, uuid: &[u8; 32]) -> Result<Place<'a>, Fault> {
    let mut found = None;
    let all = group.section("physical_volumes");
    for (name, volume) in all.iter().flat_map(|all| all.sections()) {
        let id = volume.text("id").unwrap_or_default();
        if !id.iter().filter(|&&b| b != b'-').eq(uuid) {
            continue;
        }
        if found.replace((name, volume)).is_some() {
            return damaged("its volume group has it twice");
        }
    }
    let Some((name, volume)) = found else {
        return damaged("its volume group does not have it");
    };
    if !only(volume, "status", &["ALLOCATABLE", "EXPORTED"]) || !only(volume, "flags", &[]) {
        return Err(Fault::Unsupported(
            "its volume group has it in an unusual state".into(),
        ));
    }
    let fields = || {
        let start = volume.number("pe_start")?.checked_mul(512)?;
        let extent = group.number("extent_size")?.checked_mul(512)?;
        let count = volume.number("pe_count")?;
        count.checked_mul(extent)?.checked_add(start)?;
        (extent > 0).then_some(Place {
            name,
            start,
            count,
            extent,
        })
    };
    match fields() {
        Some(place) => Ok(place),
        None => damaged("its volume group does not say where its extents are"),
    }
}

/// Whether a list has no other strings than the given ones. A list that is not there has
/// none.
fn only(section: &Section<'_>, name: &str, known: &[&str]) -> bool {
    let is_known = |item: &Value<'_>| match item {
        Value::Text(text) => known.iter().any(|known| known.as_bytes() == *text),
        _ => false,
    };
    match section.list(name) {
        Some(items) => items.iter().all(is_known),
        None => !section.has(name),
    }
}

/// Why a logical volume that lies here must not be looked into; `None` if it may.
fn unusual(volume: &Section<'_>, named: bool) -> Option<String> {
    let visible = volume
        .list("status")
        .is_some_and(|items| items.contains(&Value::Text(b"VISIBLE")));
    if named {
        Some("used by another volume".into())
    } else if !visible {
        Some("hidden".into())
    } else if !only(volume, "status", &["READ", "WRITE", "VISIBLE"])
        || !only(volume, "flags", &["ACTIVATION_SKIP", "NOAUTOACTIVATE"])
    {
        Some("in an unusual state".into())
    } else {
        None
    }
}

/// Every string in the logical volumes that could name one of them: the parts of a
/// mirror, the origin of a snapshot, the data of a pool, and whatever later versions have.
fn named_by_others<'a>(all: &Section<'a>) -> HashSet<&'a [u8]> {
    fn add<'a>(value: &Value<'a>, names: &mut HashSet<&'a [u8]>) {
        match value {
            Value::Text(text) => {
                names.insert(text);
            }
            Value::List(items) => items.iter().for_each(|item| add(item, names)),
            Value::Section(section) => {
                for (key, value) in &section.0 {
                    if !OWN_VALUES.iter().any(|own| own.as_bytes() == *key) {
                        add(value, names);
                    }
                }
            }
            Value::Number(_) | Value::Other => {}
        }
    }
    let mut names = HashSet::new();
    for (_, volume) in &all.0 {
        add(volume, &mut names);
    }
    names
}
