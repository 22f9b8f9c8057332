//! File systems: what is in a partition, and which bytes of it are used.
//!
//! Owns: the choice among the probes. A used map is made only where exactly one
//! file system claims the space: what an earlier one left behind must never
//! decide what is copied. Does not own: the formats themselves.

mod behind;
mod bits;
mod btrfs;
mod collect;
mod exfat;
mod ext;
mod f2fs;
mod fat;
mod inner;
mod lvm;
mod md;
mod ntfs;
mod optical;
mod signature;
mod squashfs;
mod swap;
mod whole_disk;
mod xfs;

use crate::extents::{Extent, Extents};
use crate::table;
use crate::view::{ReadFailure, View};
pub use ext::{ExtChecksums, ExtInodeChecksums, ExtJournal, WrongSum};
pub use inner::{InnerVolume, InnerVolumes, inner_volumes};
pub(crate) use whole_disk::{DiskRaid, whole_disk};

/// Space behind a file system that is kept, counted from the end of the region:
/// other layers keep their labels there.
const END: u64 = 1 << 20;

/// Volumes inside volumes are looked into down to this depth.
const MAX_DEPTH: u32 = 4;

/// What was found in a region.
pub(crate) struct Findings {
    /// Name of the file system; empty if unknown.
    pub file_system: String,
    pub label: String,
    pub uuid: String,
    pub content: Content,
    /// What people must hear about.
    pub troubles: Vec<Trouble>,
    /// A system is suspended to this region: its memory knows of open files in all file
    /// systems of the machine, whose state on disk is not the whole truth.
    pub suspended: bool,
}

/// What to copy.
pub(crate) enum Content {
    /// These bytes, relative to the region.
    Used { used: Extents, reason: String },
    /// Everything.
    Full { reason: String },
}

/// What is wrong with a file system, and what was done about it.
pub(crate) struct Trouble {
    pub kind: TroubleKind,
    /// What was found and what was done, for people; no full stop at its end.
    pub detail: String,
}

/// Kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// It contradicts itself.
    Damaged,
    /// It is not clean.
    Dirty,
}

/// A used map and what goes with it.
struct Mapped {
    /// Bytes to copy, relative to the view.
    used: Extents,
    /// Said in place of the usual reason. A whole sentence.
    reason: Option<String>,
    /// What is to be told although there is a map: a policy that was applied to an
    /// unclean file system, or trouble of a volume inside.
    troubles: Vec<Trouble>,
    /// As [`Findings::suspended`], of a volume inside.
    suspended: bool,
}

impl From<Extents> for Mapped {
    fn from(used: Extents) -> Self {
        Mapped {
            used,
            reason: None,
            troubles: Vec::new(),
            suspended: false,
        }
    }
}

/// Outcome of making a used map that is none: every sector is copied.
enum Fault {
    Read(ReadFailure),
    Damaged(String),
    Dirty(String),
    /// Memory of a suspended system.
    Suspended(String),
    /// Valid, but not understood.
    Unsupported(String),
    /// What is inside must be copied whole, and nothing else was to be gained.
    Inside(Box<Findings>),
}

impl From<ReadFailure> for Fault {
    fn from(failure: ReadFailure) -> Self {
        Fault::Read(failure)
    }
}

/// The fault of a volume around something that has no used map.
fn inside(found: Findings) -> Fault {
    Fault::Inside(Box::new(found))
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
            troubles: Vec::new(),
            suspended: false,
        }
    }
}

fn full(reason: impl Into<String>) -> Content {
    Content::Full {
        reason: reason.into(),
    }
}

/// A volume whose used bytes can be told: its identity, and how to map it.
struct Volume {
    /// Name as in [`Findings::file_system`].
    name: &'static str,
    label: String,
    uuid: String,
    /// Bytes that the volume says it covers, from the region's start.
    size: u64,
    /// Other formats may be found at the same place, because this one only adds
    /// something at the end and its content starts where it starts.
    wraps: bool,
    map: Box<dyn Map>,
}

/// How the used bytes of a volume are told.
trait Map {
    /// Bytes to copy, relative to the view. `depth` counts the volumes around this one:
    /// what holds other volumes calls [`probe_at`] with one more.
    fn used(&self, view: &View<'_>, depth: u32) -> Result<Mapped, Fault>;

    /// Whether it is there to hold other volumes.
    fn holds(&self) -> bool {
        false
    }

    /// The volumes that it holds, in bytes of the view.
    fn held(&self, _: &View<'_>) -> Result<inner::Held, Fault> {
        Err(Fault::Unsupported("it holds no volumes".into()))
    }
}

/// Looks for one format: `None` if the region is not of it.
type Look = fn(&View<'_>) -> Result<Option<Volume>, ReadFailure>;

/// Every format with a used map, wrapping ones first.
const FORMATS: &[Look] = &[
    md::look,
    lvm::look,
    ext::look,
    swap::look,
    fat::look,
    exfat::look,
    ntfs::look,
    f2fs::look,
    optical::look,
    squashfs::look,
    btrfs::look,
    xfs::look,
];

/// Every mappable volume that claims the region.
fn volumes(view: &View<'_>) -> Result<Vec<Volume>, ReadFailure> {
    let mut found = Vec::new();
    for look in FORMATS {
        found.extend(look(view)?);
    }
    Ok(found)
}

/// Names of volumes to which a system can be suspended, or that may hold one.
const SLEEPERS: &[&str] = &["swap", "ntfs", "lvm2", "md"];

/// Name of the file system or volume format of a region, by signature alone.
pub(crate) fn identify(view: &View<'_>) -> Result<Option<&'static str>, ReadFailure> {
    if let Some(name) = signature::find(view)?.first() {
        return Ok(Some(name.name));
    }
    Ok(volumes(view)?.first().map(|volume| volume.name))
}

/// Whether what looks like a partition table in front belongs to that format: its boot
/// sector ends like one, or it is a disc image that looks at the table itself.
fn stands_a_table(name: &'static str) -> bool {
    table::owns_first_sector(name) || matches!(name, "iso9660" | "udf")
}

/// Names of file systems to which no system can be suspended, and that hold nothing to
/// which one could be. NTFS may hold the memory of a hibernated Windows.
const PLAIN: &[&str] = &[
    "ext2", "ext3", "ext4", "fat12", "fat16", "fat32", "exfat", "xfs", "f2fs",
];

/// Name of a file system that a region certainly is, although not all of its metadata can
/// be read.
pub(crate) fn known_file_system(view: &View<'_>) -> Option<&'static str> {
    if !signature::find(view).ok()?.is_empty() {
        return None;
    }
    match &volumes(view).ok()?[..] {
        [only] => PLAIN.iter().copied().find(|plain| *plain == only.name),
        _ => None,
    }
}

/// Finds out what a region holds and what of it to copy.
pub(crate) fn probe(view: &View<'_>) -> Result<Findings, ReadFailure> {
    probe_at(view, 0)
}

/// As [`probe`], for a volume of something that is not a format of this module.
pub(crate) fn probe_inside(view: &View<'_>) -> Result<Findings, ReadFailure> {
    probe_at(view, 1)
}

/// As [`probe`], for a volume inside `depth` others.
fn probe_at(view: &View<'_>, depth: u32) -> Result<Findings, ReadFailure> {
    if depth > MAX_DEPTH {
        return Ok(Findings {
            content: full("Volumes inside volumes, too deep: every sector is copied."),
            ..Findings::unknown()
        });
    }
    let others = signature::find(view)?;
    let mut volumes = volumes(view)?;
    let wrapped = volumes.first().is_some_and(|volume| volume.wraps);
    let mut names: Vec<&str> = others
        .iter()
        .map(|s| s.title)
        .chain(volumes.iter().map(|v| v.name))
        .collect();
    if !names.is_empty() && !volumes.iter().any(|v| stands_a_table(v.name)) {
        // The disk of a guest, or of an array: what else there is may be an old one.
        names.extend(table::is_partitioned(view)?.then_some("a partition table"));
    }
    if names.len() > 1 && !wrapped {
        // Formats that wrap others (md, LUKS) come first and give the name.
        let file_system = others.first().map_or_else(|| volumes[0].name, |s| s.name);
        return Ok(Findings {
            file_system: file_system.to_string(),
            content: full(format!(
                "Signatures of {} at once: every sector is copied.",
                names.join(" and ")
            )),
            ..suspended_in_one(view, &volumes, depth)?
        });
    }
    if let Some(other) = others.first().filter(|_| !wrapped) {
        return Ok(Findings {
            file_system: other.name.to_string(),
            content: full(other.reason()),
            ..Findings::unknown()
        });
    }
    if volumes.is_empty() {
        return Ok(Findings::unknown());
    }
    let volume = volumes.swap_remove(0);
    let mapped = if volume.size > view.size() {
        damaged(format!(
            "the {} file system says it has {} bytes, there are {}",
            volume.name,
            volume.size,
            view.size()
        ))
    } else {
        volume.map.used(view, depth)
    };
    let mut findings = findings(volume.name, mapped, volume.size, view)?;
    findings.label = volume.label;
    findings.uuid = volume.uuid;
    Ok(findings)
}

/// Of several volumes that claim the same space, whether a system is suspended to one: the
/// others may be what was left there before.
fn suspended_in_one(
    view: &View<'_>,
    volumes: &[Volume],
    depth: u32,
) -> Result<Findings, ReadFailure> {
    let of_them = volumes.iter().filter(|v| SLEEPERS.contains(&v.name));
    for volume in of_them.filter(|v| v.size <= view.size()) {
        let mapped = volume.map.used(view, depth);
        let found = findings(volume.name, mapped, volume.size, view)?;
        if found.suspended {
            return Ok(found);
        }
    }
    Ok(Findings::unknown())
}

/// From where the end of a region is copied, behind a file system of `size` bytes of which
/// `used` is copied; and whether that is because something else stands there.
fn tail(view: &View<'_>, size: u64, used: &Extents) -> Result<(u64, bool), ReadFailure> {
    let last = size.max(view.size().saturating_sub(END));
    // What holds volumes maps the whole region itself.
    if size == 0 || last == size {
        return Ok((last, false));
    }
    // A last sector that the size does not count.
    let own = used.iter().find(|e| e.start <= size && size < e.end());
    let from = own.map_or(size, Extent::end);
    if behind::is_empty(view, from)? {
        Ok((last, false))
    } else {
        Ok((from, true))
    }
}

/// Turns the outcome of a map into what to copy and what to tell.
fn findings(
    name: &str,
    mapped: Result<Mapped, Fault>,
    size: u64,
    view: &View<'_>,
) -> Result<Findings, ReadFailure> {
    let mut found = Findings {
        file_system: name.to_string(),
        ..Findings::unknown()
    };
    let trouble = |kind, detail: &str| Trouble {
        kind,
        detail: format!("{detail}; every sector is copied"),
    };
    match mapped {
        Ok(mut mapped) => {
            let (from, occupied) = tail(view, size, &mapped.used)?;
            mapped.used.push(Extent::between(from, view.size()));
            found.troubles = mapped.troubles;
            found.suspended = mapped.suspended;
            let mut reason = mapped
                .reason
                .unwrap_or_else(|| format!("{name}: only the space in use is copied."));
            if occupied {
                reason.push_str(" Something stands right behind it: all of that is copied, too.");
            }
            found.content = Content::Used {
                used: mapped.used,
                reason,
            };
        }
        Err(Fault::Read(failure)) => return Err(failure),
        Err(Fault::Unsupported(detail)) => {
            found.content = full(format!("{name}: every sector is copied, because {detail}."));
        }
        Err(Fault::Damaged(detail)) => {
            found.content = full(format!(
                "{name}: every sector is copied, because it is damaged: {detail}."
            ));
            found.troubles.push(trouble(TroubleKind::Damaged, &detail));
        }
        Err(Fault::Dirty(detail)) => {
            found.content = full(format!("{name}: every sector is copied, because {detail}."));
            found.troubles.push(trouble(TroubleKind::Dirty, &detail));
        }
        Err(Fault::Suspended(detail)) => {
            found.content = full(format!("{name}: every sector is copied, because {detail}."));
            found.troubles.push(trouble(TroubleKind::Dirty, &detail));
            found.suspended = true;
        }
        Err(Fault::Inside(inner)) => {
            let (Content::Full { reason } | Content::Used { reason, .. }) = inner.content;
            found.content = full(format!(
                "{name}: every sector is copied, because of what is inside. {reason}"
            ));
            found.troubles = inner.troubles;
            found.suspended = inner.suspended;
        }
    }
    Ok(found)
}
