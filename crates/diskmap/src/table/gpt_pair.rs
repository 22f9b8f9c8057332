//! The two copies of a GPT together with the protective MBR.
//!
//! Owns: which copy is believed, and rebuilding the other. Does not own: the
//! format of a copy (`gpt`).

use super::gpt::{Copy, Fault, Header};
use super::{FoundTable, ParsedTable, mbr};
use crate::bytes::put;
use crate::error::ScanError;
use crate::guid;
use crate::model::{Blob, Geometry, TableKind};
use crate::view::View;

/// Both copies, consistent with each other.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    pub(super) first_sector: Vec<u8>,
    pub(super) primary: Copy,
    pub(super) backup: Copy,
    /// One copy was rebuilt from the other.
    pub(super) rebuilt: bool,
}

/// Reads the GPT of a disk whose first sector is given.
pub(super) fn read(
    view: &View<'_>,
    geometry: Geometry,
    first_sector: Vec<u8>,
) -> Result<FoundTable, ScanError> {
    let last = geometry.sectors().saturating_sub(1);
    let primary_header = Header::read(view, geometry, 1);
    let mut backup_lba = match &primary_header {
        Ok(header) if (2..=last).contains(&header.alternate_lba) => header.alternate_lba,
        _ => last,
    };
    let mut backup_header = Header::read(view, geometry, backup_lba);
    if backup_header.is_err() && backup_lba != last {
        backup_lba = last;
        backup_header = Header::read(view, geometry, last);
    }
    let primary_entries_lba = primary_header
        .as_ref()
        .map_or(2, |header| header.entries_lba);
    let primary = primary_header.and_then(|header| Copy::read(view, geometry, header));
    let backup = backup_header.and_then(|header| Copy::read(view, geometry, header));

    let mut warnings = Vec::new();
    if !mbr::entries(&first_sector).is_some_and(|e| e.iter().any(mbr::Entry::is_protective)) {
        warnings.push("there is no protective MBR in the first sector".to_string());
    }
    let (good, from_primary) = match (primary, backup) {
        (Ok(primary), Ok(backup)) => match disagreement(&primary, &backup) {
            None => {
                if backup_lba != last {
                    warnings.push(format!(
                        "the backup table is in sector {backup_lba}, not at the end of the disk"
                    ));
                }
                let pair = Pair {
                    first_sector,
                    primary,
                    backup,
                    rebuilt: false,
                };
                return finish(pair, geometry, warnings);
            }
            Some(what) => {
                warnings.push(format!(
                    "the two tables disagree ({what}); the primary one is used"
                ));
                (primary, true)
            }
        },
        (Ok(primary), Err(fault)) => {
            warnings.push(format!(
                "backup table: {}; the primary one is used",
                text(&fault)
            ));
            (primary, true)
        }
        (Err(fault), Ok(backup)) => {
            warnings.push(format!(
                "primary table: {}; the backup is used",
                text(&fault)
            ));
            (backup, false)
        }
        (Err(Fault::Read(failure)), Err(_)) | (Err(_), Err(Fault::Read(failure))) => {
            return Err(failure.into());
        }
        (Err(Fault::Damaged(a)), Err(Fault::Damaged(b))) => {
            return Err(ScanError::GptDamaged {
                detail: format!("primary table: {a}; backup table: {b}"),
            });
        }
    };
    check_fit(&good, geometry)?;
    let entries_lba = if from_primary {
        good.header.entries_lba
    } else {
        primary_entries_lba
    };
    let (primary, backup) = rebuild(&good, geometry, entries_lba)?;
    finish(
        Pair {
            first_sector,
            primary,
            backup,
            rebuilt: true,
        },
        geometry,
        warnings,
    )
}

/// Whether the copy at the start of the disk can be used by itself.
pub(super) fn primary_is_good(view: &View<'_>, geometry: Geometry) -> bool {
    Header::read(view, geometry, 1)
        .and_then(|header| Copy::read(view, geometry, header))
        .is_ok()
}

fn text(fault: &Fault) -> String {
    match fault {
        Fault::Read(failure) => {
            format!("cannot read at byte {}: {}", failure.offset, failure.source)
        }
        Fault::Damaged(detail) => detail.clone(),
    }
}

/// What differs between two copies that are each right by themselves.
fn disagreement(primary: &Copy, backup: &Copy) -> Option<&'static str> {
    let (p, b) = (&primary.header, &backup.header);
    if p.disk_guid != b.disk_guid {
        Some("disk GUID")
    } else if p.count != b.count || p.entry_size != b.entry_size || p.entries_crc != b.entries_crc {
        Some("partitions")
    } else if p.first_usable != b.first_usable || p.last_usable != b.last_usable {
        Some("usable sectors")
    } else if p.alternate_lba != b.my_lba || b.alternate_lba != p.my_lba {
        Some("place of the other table")
    } else {
        None
    }
}

/// Smallest number of sectors that both tables, the partitions and what else ends before
/// sector `data_end` need.
pub(super) fn needed_sectors(copy: &Copy, geometry: Geometry, data_end: u64) -> u64 {
    let header = &copy.header;
    let entries = header.entries_sectors(geometry);
    // What a backup copy tells of places is its own; the primary goes to sector 2.
    let front = if header.my_lba == 1 {
        header.entries_lba
    } else {
        2
    }
    .saturating_add(entries);
    let floor = if copy.used_end == 0 {
        header.first_usable
    } else {
        copy.used_end
    };
    floor
        .max(front)
        .max(data_end)
        .saturating_add(entries)
        .saturating_add(1)
}

fn check_fit(copy: &Copy, geometry: Geometry) -> Result<(), ScanError> {
    let needed = needed_sectors(copy, geometry, 0);
    if copy.used_end > geometry.sectors() || needed > geometry.sectors() {
        let needed = needed.saturating_mul(u64::from(geometry.sector_size));
        return Err(ScanError::DiskSmallerThanLayout {
            needed,
            actual: geometry.size_bytes,
        });
    }
    Ok(())
}

/// Both copies from one, the backup at the end of the disk. The copy fits the disk.
fn rebuild(good: &Copy, geometry: Geometry, entries_lba: u64) -> Result<(Copy, Copy), ScanError> {
    let sectors = good.header.entries_sectors(geometry);
    let last = geometry.sectors().saturating_sub(1);
    let backup_entries = last.saturating_sub(sectors);
    // A primary header that is damaged in its entries may point anywhere.
    let front_ok = |lba: u64| {
        lba >= 2
            && lba
                .checked_add(sectors)
                .is_some_and(|end| end <= good.used_start.min(backup_entries))
    };
    let entries_lba = if front_ok(entries_lba) {
        entries_lba
    } else {
        2
    };
    if !front_ok(entries_lba) {
        return Err(ScanError::GptDamaged {
            detail: "there is no room before the first partition to rebuild the table".into(),
        });
    }
    let last_usable = if good.header.last_usable < backup_entries
        && good.header.last_usable.saturating_add(1) >= good.used_end
    {
        good.header.last_usable
    } else {
        backup_entries.saturating_sub(1)
    };
    let at = |my, alternate, entries| Copy {
        header: good.header.moved(my, alternate, entries, last_usable),
        ..good.clone()
    };
    Ok((at(1, last, entries_lba), at(last, 1, backup_entries)))
}

fn finish(pair: Pair, geometry: Geometry, warnings: Vec<String>) -> Result<FoundTable, ScanError> {
    let unit = u64::from(geometry.sector_size);
    let (primary, backup) = (&pair.primary, &pair.backup);
    if primary.used_end > geometry.sectors() {
        check_fit(primary, geometry)?;
    }
    let start = backup.header.entries_lba;
    let tables = [
        (start, backup.header.entries_sectors(geometry)),
        (backup.header.my_lba, 1),
    ];
    let covered = |from: u64, sectors: u64| {
        primary
            .partitions
            .iter()
            .find(|p| p.start / unit < from.saturating_add(sectors) && from < p.end() / unit)
    };
    if let Some(part) = tables
        .iter()
        .find_map(|&(from, sectors)| covered(from, sectors))
    {
        let detail = format!("partition {} lies over the backup table", part.number);
        return Err(ScanError::GptDamaged { detail });
    }
    let found = FoundTable {
        parsed: ParsedTable {
            kind: TableKind::Gpt,
            disk_id: guid::gpt(&primary.header.disk_guid),
            partitions: primary.partitions.clone(),
        },
        blobs: pair.blobs(unit),
        warnings,
        gpt: Some(pair),
    };
    if found.blobs.windows(2).any(|w| w[0].end() > w[1].offset) {
        return Err(ScanError::GptDamaged {
            detail: "the two tables lie over each other".into(),
        });
    }
    Ok(found)
}

impl Pair {
    /// The bytes of the table, sorted by offset.
    pub(super) fn blobs(&self, unit: u64) -> Vec<Blob> {
        let mut blobs = vec![Blob {
            offset: 0,
            data: self.first_sector.clone(),
        }];
        for copy in [&self.primary, &self.backup] {
            // Both sectors were read from the disk or fit it, so this cannot overflow.
            blobs.push(Blob {
                offset: copy.header.my_lba * unit,
                data: copy.header.sector.clone(),
            });
            blobs.push(Blob {
                offset: copy.header.entries_lba * unit,
                data: copy.entries.clone(),
            });
        }
        blobs.retain(|blob| !blob.data.is_empty());
        blobs.sort_by_key(|blob| blob.offset);
        blobs
    }

    /// Gives both copies these entries, with their checksums.
    pub(super) fn set_entries(&mut self, entries: &[u8]) {
        for copy in [&mut self.primary, &mut self.backup] {
            copy.set_entries(entries);
        }
    }

    /// Sets the size in a protective MBR that protects nothing but the GPT. Hybrid
    /// ones stay as they are, and so do those that say "all there is" of a disk
    /// whose size the field could have held.
    pub(super) fn protect(&mut self, source_sectors: u64, sectors: u64) {
        const ALL: u64 = u32::MAX as u64;
        let Some(entries) = mbr::entries(&self.first_sector) else {
            return;
        };
        let mut used = entries.iter().filter(|e| e.is_used());
        if let (Some(entry), None) = (used.next(), used.next())
            && entry.is_protective()
            && entry.start == 1
            && (entry.sectors != ALL || source_sectors > ALL)
        {
            let size = u32::try_from(sectors.saturating_sub(1)).unwrap_or(u32::MAX);
            let at = mbr::ENTRIES + (entry.slot as usize - 1) * 16 + 12;
            put(&mut self.first_sector, at, &size.to_le_bytes());
        }
    }
}
