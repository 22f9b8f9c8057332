//! NTFS: used clusters from the file $Bitmap.
//!
//! Owns: whether the bitmap can be believed, and the map that follows. Does not own:
//! folders and files, except for the sign of a hibernated Windows.
//!
//! A map is made only from a volume that was closed: no dirty flag, a log that is empty
//! or says so, no hibernated system. Until the log is replayed the bitmap on disk is
//! behind: files can have clusters that it calls free. All records that are read have
//! the right sequence numbers, the mirror of the first records is equal, and the
//! clusters of the volume's own files are all marked as used.
//!
//! The copy of the boot sector stands behind the last cluster, where the bitmap has no
//! bits; it is always copied. Clusters that were found to be bad are marked as used and
//! copied like any others.

mod boot;
mod hibernation;
mod log;
mod mft;
mod record;
mod runs;
mod volume;

use super::bits::for_each_run;
use super::collect::Collector;
use super::{Fault, Map, Mapped, Volume, damaged};
use crate::extents::{Extent, Extents};
use crate::view::{ReadFailure, View};
use boot::Boot;
use hibernation::State;
use mft::{Mft, Value};
use record::{DATA, Record};

/// Numbers of records of the volume's own files.
const MIRROR: u64 = 1;
const BITMAP: u64 = 6;
const BAD_CLUSTERS: u64 = 8;
/// The first ones must be in use on every version.
const SYSTEM: std::ops::RangeInclusive<u64> = 0..=11;
const ALWAYS: u64 = 8;

/// Records that the mirror holds at least.
const MIRRORED: u64 = 4;

/// Bytes of the bitmap that are worked on at once.
const STEP: u64 = 1 << 20;

/// Looks for a boot sector.
pub(super) fn look(view: &View<'_>) -> Result<Option<Volume>, ReadFailure> {
    let Some(boot) = Boot::read(view)? else {
        return Ok(None);
    };
    let mut found = Volume {
        name: "ntfs",
        label: String::new(),
        uuid: String::new(),
        size: 0,
        wraps: false,
        map: Box::new(Ntfs { boot: boot.clone() }),
    };
    if let Ok(boot) = boot {
        found.uuid = format!("{:016X}", boot.serial);
        found.size = boot.size;
        if boot.size <= view.size() {
            found.label = match label(view, &boot) {
                Err(Fault::Read(failure)) => return Err(failure),
                other => other.unwrap_or_default(),
            };
        }
    }
    Ok(Some(found))
}

fn label(view: &View<'_>, boot: &Boot) -> Result<String, Fault> {
    let mft = Mft::open(view, boot)?;
    Ok(volume::Volume::read(&mft)?.label)
}

/// A volume, known by its boot sector.
struct Ntfs {
    boot: Result<Boot, String>,
}

impl Map for Ntfs {
    fn used(&self, view: &View<'_>, _: u32) -> Result<Mapped, Fault> {
        match &self.boot {
            Ok(boot) => used(view, boot).map(Mapped::from),
            Err(what) => damaged(what.as_str()),
        }
    }
}

/// Bytes to copy, relative to the region.
fn used(view: &View<'_>, boot: &Boot) -> Result<Extents, Fault> {
    let mft = Mft::open(view, boot)?;
    let volume = volume::Volume::read(&mft)?;
    volume.check_version()?;
    check_closed(&mft, &volume)?;
    check_mirror(&mft)?;
    let mut used = clusters(&mft, &own_clusters(&mft)?)?;
    used.push(Extent::between(
        boot.clusters * boot.cluster,
        (boot.size + boot.sector).min(view.size()),
    ));
    Ok(used)
}

/// Refuses a volume that was not closed.
fn check_closed(mft: &Mft<'_, '_>, volume: &volume::Volume) -> Result<(), Fault> {
    let mut found: Vec<String> = volume.unclean().into_iter().collect();
    found.extend(log::unclean(mft)?);
    let asleep = match hibernation::state(mft) {
        Ok(State::Asleep) => Some("a hibernated Windows is in its hiberfil.sys"),
        Ok(State::Unknown) => Some("its hiberfil.sys may hold a hibernated system"),
        // Of a volume that was closed since then it says nothing any more.
        Ok(State::Woken) if !found.is_empty() => {
            Some("a Windows that was hibernated may still be in its hiberfil.sys")
        }
        Ok(State::Woken | State::None) => None,
        // What a log would put right is no damage.
        Err(Fault::Damaged(what)) if !found.is_empty() => {
            found.push(what);
            None
        }
        Err(fault) => return Err(fault),
    };
    match asleep {
        Some(what) => {
            found.insert(0, what.into());
            Err(Fault::Suspended(found.join(", ")))
        }
        None if found.is_empty() => Ok(()),
        None => Err(Fault::Dirty(found.join(", "))),
    }
}

/// Compares the first records with their copies.
fn check_mirror(mft: &Mft<'_, '_>) -> Result<(), Fault> {
    let boot = mft.boot;
    let Some(value) = mft.value(&mft.system(MIRROR)?, DATA, "")? else {
        return damaged("its mirror has no place");
    };
    let (space, value) = mft.open_value(value, "mirror")?;
    if value.runs.first().and_then(|run| run.start) != Some(boot.mirror) {
        return damaged("its mirror is not where the boot sector says");
    }
    for number in 0..MIRRORED {
        let at = number * boot.record;
        if at + boot.record > value.valid {
            return damaged("its mirror is too short");
        }
        let copy = Record::decode(number, space.bytes(at, boot.record as usize)?)
            .map_err(|what| Fault::Damaged(format!("in its mirror, {what}")))?;
        if copy.content() != mft.record(number)?.content() {
            return damaged(format!("file record {number} and its mirror differ"));
        }
    }
    Ok(())
}

/// Clusters of the volume's own files, which are in use whatever else is.
fn own_clusters(mft: &Mft<'_, '_>) -> Result<Extents, Fault> {
    let mut all = Vec::new();
    for number in SYSTEM.filter(|&number| number != BAD_CLUSTERS) {
        let record = mft.record(number)?;
        if number < ALWAYS && !record.in_use {
            return damaged(format!("file record {number} is not in use"));
        }
        if record.in_use {
            mft.clusters_of(&record, &mut all)?;
        }
    }
    let own = mft::disjoint(all)?;
    if !own.contains(0) {
        return damaged("its boot sector belongs to no file");
    }
    Ok(own)
}

/// Bytes of the clusters that are marked as used. All of `own` must be.
fn clusters(mft: &Mft<'_, '_>, own: &Extents) -> Result<Extents, Fault> {
    let boot = mft.boot;
    let Some(value) = mft.value(&mft.system(BITMAP)?, DATA, "")? else {
        return damaged("it has no bitmap");
    };
    let needed = boot.clusters.div_ceil(8);
    let mut mapper = Mapper {
        own,
        cluster: boot.cluster,
        used: Collector::new(),
    };
    let too_short = |len: u64| {
        damaged(format!(
            "its bitmap has {len} bytes for {} clusters",
            boot.clusters
        ))
    };
    if let Value::Resident(bytes) = &value {
        if (bytes.len() as u64) < needed {
            return too_short(bytes.len() as u64);
        }
        mapper.add(0, bytes, boot.clusters)?;
        return Ok(mapper.used.finish());
    }
    let (space, value) = mft.open_value(value, "bitmap")?;
    if value.valid < needed {
        return too_short(value.valid);
    }
    for from in (0..needed).step_by(STEP as usize) {
        let bytes = space.bytes(from, STEP.min(needed - from) as usize)?;
        mapper.add(from * 8, &bytes, boot.clusters - from * 8)?;
    }
    Ok(mapper.used.finish())
}

struct Mapper<'a> {
    own: &'a Extents,
    /// Bytes.
    cluster: u64,
    used: Collector,
}

impl Mapper<'_> {
    /// Takes in bits from that of cluster `first` on.
    fn add(&mut self, first: u64, bitmap: &[u8], bits: u64) -> Result<(), Fault> {
        let mut lost = None;
        for_each_run(bitmap, bits, |from, to, set| {
            let (from, to) = (first + from, first + to);
            if set {
                let (start, end) = (from * self.cluster, to * self.cluster);
                self.used.push(Extent::between(start, end));
            } else {
                let own = self.own.intersect(from..to);
                lost = lost.or(own.iter().next().map(|extent| extent.start));
            }
        });
        match lost {
            Some(cluster) => damaged(format!(
                "cluster {cluster} holds a file of its own and is marked as free"
            )),
            None => Ok(()),
        }
    }
}
