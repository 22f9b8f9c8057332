//! RAID sets of whole disks, found by what stands at a disk's end, or between a partition
//! table and the first partition.
//!
//! Owns: whether a partitioned disk belongs to such a set, what of its end has to stay,
//! and whether the disk can be read alone. Does not own: sets of partitions, which are
//! volumes like any other (`md`).
//!
//! Where blocks are spread over several disks, the table at the start of one of them is
//! the table of all, and its partitions lie elsewhere: nothing of the disk can be told
//! from the disk alone. The same must be assumed of what firmware makes (Intel's own
//! format and SNIA's DDF), as its metadata is not looked into.

use super::signature::{self, Signature};
use super::{Fault, Trouble, TroubleKind, md};
use crate::extents::Extent;
use crate::view::{ReadFailure, View};

/// Most of a disk's end that is kept for a RAID set.
const MAX_END: u64 = 64 << 20;

/// A set that a disk belongs to.
pub(crate) struct DiskRaid {
    /// Space at the disk's end that the set uses, unless a partition has it.
    pub kept: Extent,
    /// Why every sector has to be copied; `None` if the disk is one half of a mirror.
    pub spread: Option<String>,
    /// What people must hear about.
    pub troubles: Vec<Trouble>,
}

/// Looks for a set that the whole disk belongs to. `partitions` are those of its table, if
/// it has one.
pub(crate) fn whole_disk(
    view: &View<'_>,
    partitions: &[Extent],
) -> Result<Option<DiskRaid>, ReadFailure> {
    let kept = |from: u64| {
        let size = view.size();
        Extent::between(from.max(size.saturating_sub(MAX_END)).min(size), size)
    };
    if let Some(Signature { title, .. }) = signature::firmware_raid(view)? {
        return Ok(Some(DiskRaid {
            kept: kept(0),
            spread: Some(format!("the disk is a member of a {title} set")),
            troubles: Vec::new(),
        }));
    }
    if signature::whole_disk_zfs(view, partitions)? {
        let why = "a label of ZFS for the whole disk stands behind its partition table, and one \
                   of them is left over from earlier days";
        return Ok(Some(DiskRaid {
            kept: kept(0),
            spread: Some(why.into()),
            troubles: Vec::new(),
        }));
    }
    let Some(found) = md::whole_disk(view, partitions)? else {
        return Ok(None);
    };
    let mut raid = DiskRaid {
        kept: kept(0),
        spread: None,
        troubles: Vec::new(),
    };
    let (detail, trouble) = match found {
        Ok(data_end) => {
            raid.kept = kept(data_end);
            return Ok(Some(raid));
        }
        Err(Fault::Read(failure)) => return Err(failure),
        Err(Fault::Damaged(detail)) => (detail, Some(TroubleKind::Damaged)),
        Err(Fault::Dirty(detail) | Fault::Suspended(detail)) => (detail, Some(TroubleKind::Dirty)),
        Err(Fault::Unsupported(detail)) => (detail, None),
        Err(Fault::Inside(_)) => ("of what is inside".to_string(), None),
    };
    raid.troubles.extend(trouble.map(|kind| Trouble {
        kind,
        detail: format!("Linux software RAID of whole disks: {detail}; every sector is copied"),
    }));
    raid.spread = Some(format!(
        "the disk belongs to a Linux software RAID: {detail}"
    ));
    Ok(Some(raid))
}
