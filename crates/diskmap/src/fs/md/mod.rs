//! Members of Linux software RAID (md): used sectors inside a mirror.
//!
//! Owns: where superblocks may stand, whether a member can be read alone, and the map of
//! what is inside. Does not own: the fields of the two families of superblocks
//! (`version0`, `version1`).
//!
//! Only a member of a RAID1 array carries its whole content in order. It is read alone
//! where its superblock says that it is in sync and that the array was stopped cleanly,
//! so that any other member has the same bytes. Everything outside the array's data (the
//! superblock, the write-intent bitmap, the list of bad blocks) is copied as it is.

mod version0;
mod version1;

use super::inner::Held;
use super::{Content, Fault, Map, Mapped, Volume, damaged, inside, probe_at};
use crate::bytes::{be32, le32, le64};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View, outward};

/// Magic number of both families.
const MAGIC: u32 = 0xa92b_4efc;
/// A superblock, with room for the roles of all devices.
const SUPERBLOCK: u64 = 4096;
/// The level of mirrors.
const MIRROR: i32 = 1;

/// Versions of the superblock, which differ in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// In the last whole 64 KiB, in the byte order of the machine that made it.
    V090,
    /// Within the last 12 KiB.
    V10,
    /// At the start.
    V11,
    /// 4 KiB behind the start.
    V12,
}

impl Version {
    const ALL: [Version; 4] = [Version::V090, Version::V10, Version::V11, Version::V12];

    fn name(self) -> &'static str {
        match self {
            Version::V090 => "0.90",
            Version::V10 => "1.0",
            Version::V11 => "1.1",
            Version::V12 => "1.2",
        }
    }

    /// Whether what is inside starts where the member starts.
    fn at_end(self) -> bool {
        matches!(self, Version::V090 | Version::V10)
    }

    /// Byte offset of the superblock on a device of `size` bytes.
    fn place(self, size: u64) -> Option<u64> {
        const RESERVED: u64 = 64 << 10;
        match self {
            Version::V090 => (size / RESERVED * RESERVED).checked_sub(RESERVED),
            Version::V10 => (size / 512).checked_sub(16).map(|at| at / 8 * 8 * 512),
            Version::V11 => Some(0),
            Version::V12 => Some(4096),
        }
    }
}

/// A superblock as found: nothing but its magic number is known to be right.
struct Superblock {
    version: Version,
    /// Its byte offset in the member.
    place: u64,
    raw: Vec<u8>,
    /// Size of the member in bytes.
    member: u64,
}

/// A member that can be read alone.
struct Mirror {
    /// The array's content, in bytes of the member.
    data: Extent,
    /// Where the list of bad blocks starts, if there is one.
    bad_blocks: Option<u64>,
}

/// Looks for superblocks at every place that a version has.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let found = superblocks(view)?;
    let Some(first) = found.first() else {
        return Ok(None);
    };
    Ok(Some(Volume {
        name: "md",
        label: first.label(),
        uuid: first.uuid(),
        size: view.size(),
        wraps: found.iter().all(|sb| sb.version.at_end()),
        map: Box::new(Member { found }),
    }))
}

/// Looks for a superblock of the whole disk at its end, or behind the first sectors: the end
/// of the array's data, or why the disk cannot be read alone.
///
/// Behind the first sectors it leaves room for a table in front of it. Whoever makes such
/// an array of disks that had one does not touch the table, and whoever partitions a disk
/// does not touch the superblock: which of the two counts cannot be told from the disk.
pub(super) fn whole_disk(
    view: &View<'_>,
    partitions: &[Extent],
) -> Result<Option<Result<u64, Fault>>, ReadFailure> {
    let found: Vec<Superblock> = superblocks(view)?
        .into_iter()
        .filter(|sb| match sb.version {
            Version::V11 => false,
            Version::V12 => !partitions
                .iter()
                .any(|p| p.start <= sb.place && sb.place < p.end()),
            Version::V090 | Version::V10 => !sb.is_of(partitions),
        })
        .collect();
    let Some(first) = found.first() else {
        return Ok(None);
    };
    if found.len() > 1 {
        return Ok(Some(damaged("it has two RAID superblocks")));
    }
    let alone = first.mirror().and_then(|mirror| {
        mirror
            .bad_blocks
            .map_or(Ok(()), |place| check_bad_blocks(view, place))?;
        if !first.version.at_end() {
            return Err(Fault::Unsupported(
                "its superblock stands behind a partition table, and one of them is left over \
                 from earlier days"
                    .into(),
            ));
        }
        Ok(mirror.data.end())
    });
    Ok(Some(alone))
}

/// Every superblock of a view, in the order of the versions.
fn superblocks(view: &View<'_>) -> Result<Vec<Superblock>, ReadFailure> {
    let mut found = Vec::new();
    for version in Version::ALL {
        let Some(place) = version.place(view.size()) else {
            continue;
        };
        let magic = view.bytes_up_to(place, 4)?;
        let swapped = version == Version::V090 && be32(&magic, 0) == Some(MAGIC);
        if le32(&magic, 0) == Some(MAGIC) || swapped {
            found.push(Superblock {
                version,
                place,
                raw: view.bytes_up_to(place, SUPERBLOCK as usize)?,
                member: view.size(),
            });
        }
    }
    Ok(found)
}

impl Superblock {
    fn label(&self) -> String {
        match self.version {
            Version::V090 => String::new(),
            _ => version1::label(&self.raw),
        }
    }

    fn uuid(&self) -> String {
        match self.version {
            Version::V090 => version0::uuid(&self.raw),
            _ => version1::uuid(&self.raw),
        }
    }

    /// Whether a superblock at the disk's end is the one of a partition that ends there:
    /// it says how much there is in front of it, or where it stands.
    fn is_of(&self, partitions: &[Extent]) -> bool {
        partitions.iter().any(|partition| {
            let own = self.version.place(partition.len);
            let fits = match self.version {
                Version::V090 => {
                    version0::fits(&self.raw, self.place - partition.start.min(self.place))
                }
                _ => version1::stands_at(&self.raw, own),
            };
            own.and_then(|own| own.checked_add(partition.start)) == Some(self.place) && fits
        })
    }

    /// The content, if the member can be read alone.
    fn mirror(&self) -> Result<Mirror, Fault> {
        let mirror = match self.version {
            Version::V090 => version0::mirror(self)?,
            _ => version1::mirror(self)?,
        };
        let own = Extent::between(self.place, self.place + SUPERBLOCK);
        let Extent { start, len } = mirror.data;
        let end = start.checked_add(len).filter(|&end| end <= self.member);
        match end {
            None => damaged("the array's data reaches beyond the member"),
            Some(_) if len == 0 => damaged("the array has no data"),
            Some(end) if start < own.end() && own.start < end => {
                damaged("the array's data covers the superblock")
            }
            Some(_) => Ok(mirror),
        }
    }
}

/// The map of a member.
struct Member {
    found: Vec<Superblock>,
}

impl Map for Member {
    fn used(&self, view: &View<'_>, depth: u32) -> Result<Mapped, Fault> {
        let data = self.data(view)?;
        let parts = [data];
        let Some(content) = view.joined(&parts) else {
            return damaged("the array's data is not inside the member");
        };
        let found = probe_at(&content, depth + 1)?;
        let Content::Used { used, reason } = &found.content else {
            return Err(inside(found));
        };
        let outside = Extents::whole(view.size()).subtract(&Extents::from_iter(parts));
        Ok(Mapped {
            used: outside.union(&outward(&parts, used)),
            reason: Some(format!("RAID1 member. {reason}")),
            troubles: found.troubles,
            suspended: found.suspended,
        })
    }

    fn holds(&self) -> bool {
        true
    }

    fn held(&self, view: &View<'_>) -> Result<Held, Fault> {
        let name = self.found.first().map(Superblock::label);
        Ok(vec![(name.unwrap_or_default(), Ok(vec![self.data(view)?]))])
    }
}

impl Member {
    /// The array's content in this member, if that can be read alone.
    fn data(&self, view: &View<'_>) -> Result<Extent, Fault> {
        let [superblock] = self.found.as_slice() else {
            let versions: Vec<&str> = self.found.iter().map(|sb| sb.version.name()).collect();
            return Err(Fault::Unsupported(format!(
                "it has RAID superblocks of versions {} at once",
                versions.join(" and ")
            )));
        };
        let Mirror { data, bad_blocks } = superblock.mirror()?;
        if let Some(place) = bad_blocks {
            check_bad_blocks(view, place)?;
        }
        Ok(data)
    }
}

/// Blocks that are known as bad are read from the other members: what stands here in
/// their place may be old, and may be metadata.
fn check_bad_blocks(view: &View<'_>, place: u64) -> Result<(), Fault> {
    const NONE: u64 = u64::MAX;
    match le64(&view.bytes_up_to(place, 8)?, 0) {
        Some(NONE) => Ok(()),
        Some(_) => Err(Fault::Unsupported(
            "some of its blocks are recorded as bad, the array reads them from other members"
                .into(),
        )),
        None => damaged("the list of bad blocks is outside the member"),
    }
}

/// The level of an array for people.
fn level_name(level: i32) -> String {
    match level {
        -1 => "linear".into(),
        -4 => "multipath".into(),
        0.. => format!("RAID{level}"),
        _ => format!("level {level}"),
    }
}

/// Refuses every level whose members do not carry the whole content in order.
fn check_level(level: i32) -> Result<(), Fault> {
    if level == MIRROR {
        return Ok(());
    }
    Err(Fault::Unsupported(format!(
        "it is a member of a {} array",
        level_name(level)
    )))
}

/// The fault of an array that was not stopped cleanly.
fn not_clean() -> Fault {
    Fault::Dirty("the array was not stopped cleanly or is not in sync".into())
}
