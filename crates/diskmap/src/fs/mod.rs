//! File systems: what is in a partition, and which bytes of it are used.
//!
//! Owns: the choice among the probes. A used map is made only where exactly one
//! file system claims the space: what an earlier one left behind must never
//! decide what is copied. Does not own: the formats themselves.

mod collect;
mod ext;
mod fat;
mod signature;
mod swap;

use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};

/// Space behind a file system that is kept, counted from the end of the region:
/// other layers keep their labels there.
const END: u64 = 1 << 20;

/// What was found in a region.
pub(crate) struct Findings {
    /// Name of the file system; empty if unknown.
    pub file_system: String,
    pub label: String,
    pub uuid: String,
    pub content: Content,
}

/// What to copy.
pub(crate) enum Content {
    /// These bytes, relative to the region.
    Used { used: Extents, reason: String },
    /// Everything.
    Full {
        reason: String,
        trouble: Option<Trouble>,
    },
}

/// Why a file system that is understood is copied in full all the same.
pub(crate) enum Trouble {
    /// It contradicts itself.
    Damaged(String),
    /// It is not clean.
    Dirty(String),
}

/// Outcome of making a used map that is none.
enum Fault {
    Read(ReadFailure),
    Damaged(String),
    Dirty(String),
    /// Valid, but not understood.
    Unsupported(String),
}

impl From<ReadFailure> for Fault {
    fn from(failure: ReadFailure) -> Self {
        Fault::Read(failure)
    }
}

/// A fault as the end of a function.
fn damaged<T>(detail: impl Into<String>) -> Result<T, Fault> {
    Err(Fault::Damaged(detail.into()))
}

impl Findings {
    /// Nothing that is known.
    pub(crate) fn unknown() -> Findings {
        Findings {
            file_system: String::new(),
            label: String::new(),
            uuid: String::new(),
            content: full("No known file system: every sector is copied."),
        }
    }
}

fn full(reason: impl Into<String>) -> Content {
    Content::Full {
        reason: reason.into(),
        trouble: None,
    }
}

/// A file system whose used bytes can be told: its identity, and how to map it.
struct Volume {
    /// Name as in [`Findings::file_system`].
    name: &'static str,
    label: String,
    uuid: String,
    /// Bytes that the file system says it covers, from the region's start.
    size: u64,
    map: Map,
}

enum Map {
    Ext(Box<ext::Superblock>),
    Fat(fat::Bpb),
    Swap(swap::Header),
}

/// Every mappable file system that claims the region.
fn volumes(view: &View<'_>) -> Result<Vec<Volume>, ReadFailure> {
    let mut found = Vec::new();
    if let Some(sb) = ext::Superblock::read(view)? {
        found.push(Volume {
            name: sb.flavour(),
            label: sb.label.clone(),
            uuid: sb.uuid_text(),
            size: sb.size_bytes(),
            map: Map::Ext(Box::new(sb)),
        });
    }
    if let Some(header) = swap::Header::read(view)? {
        found.push(Volume {
            name: "swap",
            label: header.label.clone(),
            uuid: header.uuid.clone(),
            size: header.size_bytes(),
            map: Map::Swap(header),
        });
    }
    if let Some(bpb) = fat::Bpb::read(view)? {
        found.push(Volume {
            name: bpb.kind.name(),
            label: bpb.label(view)?,
            uuid: bpb.serial(),
            size: bpb.size_bytes(),
            map: Map::Fat(bpb),
        });
    }
    Ok(found)
}

/// Name of the file system or volume format of a region, by signature alone.
pub(crate) fn identify(view: &View<'_>) -> Result<Option<&'static str>, ReadFailure> {
    if let Some(name) = signature::find(view)?.first() {
        return Ok(Some(name.name));
    }
    Ok(volumes(view)?.first().map(|volume| volume.name))
}

/// Finds out what a region holds and what of it to copy.
pub(crate) fn probe(view: &View<'_>) -> Result<Findings, ReadFailure> {
    let others = signature::find(view)?;
    let mut volumes = volumes(view)?;
    let names: Vec<&str> = others
        .iter()
        .map(|s| s.title)
        .chain(volumes.iter().map(|v| v.name))
        .collect();
    if names.len() > 1 {
        // Formats that wrap others (md, LUKS) come first and give the name.
        let file_system = others.first().map_or_else(|| volumes[0].name, |s| s.name);
        return Ok(Findings {
            file_system: file_system.to_string(),
            content: full(format!(
                "Signatures of {} at once: every sector is copied.",
                names.join(" and ")
            )),
            ..Findings::unknown()
        });
    }
    if let Some(other) = others.first() {
        return Ok(Findings {
            file_system: other.name.to_string(),
            content: full(other.reason()),
            ..Findings::unknown()
        });
    }
    let Some(volume) = volumes.pop() else {
        return Ok(Findings::unknown());
    };
    let mapped = if volume.size > view.size() {
        damaged(format!(
            "the {} file system says it has {} bytes, there are {}",
            volume.name,
            volume.size,
            view.size()
        ))
    } else {
        match &volume.map {
            Map::Ext(sb) => ext::used(view, sb),
            Map::Fat(bpb) => fat::used(view, bpb),
            Map::Swap(header) => swap::used(header),
        }
    };
    let content = content(volume.name, mapped, volume.size, view.size())?;
    let Volume {
        name, label, uuid, ..
    } = volume;
    Ok(Findings {
        file_system: name.to_string(),
        label,
        uuid,
        content,
    })
}

/// Turns the outcome of a map into what to copy and what to tell.
fn content(
    name: &str,
    mapped: Result<Extents, Fault>,
    fs_size: u64,
    region_size: u64,
) -> Result<Content, ReadFailure> {
    Ok(match mapped {
        Ok(mut used) => {
            let tail = fs_size.max(region_size.saturating_sub(END));
            used.push(Extent::between(tail, region_size));
            let reason = match name {
                "swap" => {
                    "swap: only its header is copied, the rest has no lasting content.".into()
                }
                name => format!("{name}: only the space in use is copied."),
            };
            Content::Used { used, reason }
        }
        Err(Fault::Read(failure)) => return Err(failure),
        Err(Fault::Unsupported(detail)) => {
            full(format!("{name}: every sector is copied, because {detail}."))
        }
        Err(Fault::Damaged(detail)) => Content::Full {
            reason: format!("{name}: every sector is copied, because it is damaged: {detail}."),
            trouble: Some(Trouble::Damaged(detail)),
        },
        Err(Fault::Dirty(detail)) => Content::Full {
            reason: format!("{name}: every sector is copied, because {detail}."),
            trouble: Some(Trouble::Dirty(detail)),
        },
    })
}
