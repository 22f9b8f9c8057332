//! Where the entry of a partition stands in an MBR.
//!
//! Owns: the walk along the chain of logical partitions of a table that was checked
//! before. Does not own: the checks (`mbr_chain`), or what is changed there.

use super::mbr;
use crate::model::Blob;

/// One of the four entries of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Sector of the disk that it stands in.
    pub sector: u64,
    /// Slot from 1.
    pub slot: u32,
}

/// The place of a partition's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub entry: Slot,
    /// What else there is to a logical partition.
    pub logical: Option<Logical>,
}

/// What leads to a logical partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logical {
    /// The link to its record; the first record has none.
    pub link: Option<Slot>,
    /// Entry of the extended partition.
    pub extended: Slot,
    /// First sector of the extended partition.
    pub extended_start: u64,
    /// First sector past it.
    pub extended_end: u64,
}

/// The places of all partitions that hold data, with their numbers; the blobs are a
/// checked MBR.
pub(super) fn places(blobs: &[Blob], unit: u64) -> Vec<(u32, Place)> {
    let sector_at = |sector: u64| {
        let blob = blobs.iter().find(|blob| blob.offset == sector * unit)?;
        mbr::entries(&blob.data)
    };
    let mut found = Vec::new();
    let Some(primaries) = sector_at(0) else {
        return found;
    };
    let used = || primaries.iter().filter(|entry| entry.is_used());
    for entry in used().filter(|entry| !entry.is_extended()) {
        let entry = Slot {
            sector: 0,
            slot: entry.slot,
        };
        found.push((
            entry.slot,
            Place {
                entry,
                logical: None,
            },
        ));
    }
    let mut number = 5;
    for extended in used().filter(|entry| entry.is_extended()) {
        let (mut at, mut link) = (extended.start, None);
        // A checked chain visits each record once.
        for _ in 0..blobs.len() {
            let Some(entries) = sector_at(at) else {
                break;
            };
            for entry in entries.iter().filter(|e| e.is_used() && !e.is_extended()) {
                let logical = Logical {
                    link,
                    extended: Slot {
                        sector: 0,
                        slot: extended.slot,
                    },
                    extended_start: extended.start,
                    extended_end: extended.start + extended.sectors,
                };
                let entry = Slot {
                    sector: at,
                    slot: entry.slot,
                };
                found.push((
                    number,
                    Place {
                        entry,
                        logical: Some(logical),
                    },
                ));
                number += 1;
            }
            let Some(next) = entries.iter().find(|e| e.is_used() && e.is_extended()) else {
                break;
            };
            link = Some(Slot {
                sector: at,
                slot: next.slot,
            });
            at = extended.start + next.start;
        }
    }
    found
}

/// The place of one partition.
pub(super) fn find(blobs: &[Blob], unit: u64, number: u32) -> Option<Place> {
    let mut all = places(blobs, unit).into_iter();
    all.find_map(|(found, place)| (found == number).then_some(place))
}
