//! A whole MBR: primary partitions and the chain of logical ones.
//!
//! Owns: the checks that no entry overlaps, leaves the disk or loops. Does not
//! own: the sector format (`mbr`). All positions are in logical sectors of the disk.

use super::mbr::{self, Entry};
use super::{FoundTable, ParsedTable, TablePartition, first_overlap};
use crate::error::ScanError;
use crate::model::{Blob, Geometry, TableKind};
use crate::types;
use crate::view::View;

/// Most logical partitions; more is taken for a damaged chain.
const MAX_LOGICAL: u32 = 512;

fn damaged(detail: String) -> ScanError {
    ScanError::MbrDamaged { detail }
}

/// Reads the table that starts with the given first sector.
pub(super) fn read(
    view: &View<'_>,
    geometry: Geometry,
    first: Vec<u8>,
) -> Result<FoundTable, ScanError> {
    let unit = u64::from(geometry.sector_size);
    let primaries = mbr::entries(&first)
        .ok_or_else(|| damaged("the first sector is not a partition table".into()))?;
    let mut reader = Reader {
        view,
        unit,
        blobs: Vec::new(),
        parts: Vec::new(),
        spans: vec![(0, 1, 0)],
        next: 5,
    };
    let disk_id = mbr::disk_signature(&first);
    reader.blobs.push(Blob {
        offset: 0,
        data: first,
    });

    for entry in primaries.iter().filter(|e| e.is_used()) {
        reader
            .parts
            .push(partition(entry, entry.slot, entry.start, unit));
    }
    let spans: Vec<_> = primaries
        .iter()
        .filter(|e| e.is_used())
        .map(|e| (e.start, e.sectors, e.slot))
        .chain([(0, 1, 0)])
        .collect();
    if let Some((a, b)) = first_overlap(&spans) {
        return Err(overlap(a, b));
    }
    let needed = reader
        .parts
        .iter()
        .map(TablePartition::end)
        .max()
        .unwrap_or(0);
    if needed > geometry.sectors() * unit {
        return Err(ScanError::DiskSmallerThanLayout {
            needed,
            actual: geometry.size_bytes,
        });
    }
    for entry in primaries.iter().filter(|e| e.is_used() && e.is_extended()) {
        reader.chain(entry)?;
    }
    for entry in primaries.iter().filter(|e| e.is_used() && !e.is_extended()) {
        reader.spans.push((entry.start, entry.sectors, entry.slot));
    }
    if let Some((a, b)) = first_overlap(&reader.spans) {
        return Err(overlap(a, b));
    }
    reader.blobs.sort_by_key(|blob| blob.offset);
    Ok(FoundTable {
        parsed: ParsedTable {
            kind: TableKind::Mbr,
            disk_id,
            partitions: reader.parts,
        },
        blobs: reader.blobs,
        warnings: Vec::new(),
        gpt: None,
    })
}

fn overlap(a: u32, b: u32) -> ScanError {
    let name = |n| match n {
        0 => "a table sector".to_string(),
        n => format!("partition {n}"),
    };
    damaged(format!("{} and {} overlap", name(a), name(b)))
}

/// `start` is absolute, in sectors. Sums of 32-bit fields fit 64 bits with room.
fn partition(entry: &Entry, number: u32, start: u64, unit: u64) -> TablePartition {
    TablePartition {
        number,
        start: start * unit,
        size: entry.sectors * unit,
        part_type: format!("{:#04x}", entry.kind),
        type_name: types::mbr(entry.kind).to_string(),
        name: String::new(),
        guid: String::new(),
        bootable: entry.active,
        hidden: types::mbr_is_hidden(entry.kind),
        extended: entry.is_extended(),
    }
}

struct Reader<'a, 'd> {
    view: &'a View<'d>,
    unit: u64,
    blobs: Vec<Blob>,
    parts: Vec<TablePartition>,
    /// Sectors that are taken by table sectors and data, for the overlap check.
    spans: Vec<(u64, u64, u32)>,
    /// Number of the next logical partition.
    next: u32,
}

impl Reader<'_, '_> {
    /// Follows the chain of one extended partition, which lies inside the disk.
    fn chain(&mut self, extended: &Entry) -> Result<(), ScanError> {
        let inside = |start: u64, sectors: u64| {
            start >= extended.start && start + sectors <= extended.start + extended.sectors
        };
        let mut at = extended.start;
        for step in 0.. {
            if step >= MAX_LOGICAL {
                return Err(damaged(format!(
                    "the chain of partition {} has no end",
                    extended.slot
                )));
            }
            let offset = at * self.unit;
            if self.blobs.iter().any(|blob| blob.offset == offset) {
                return Err(damaged(format!(
                    "the chain of partition {} loops",
                    extended.slot
                )));
            }
            let sector = self.view.bytes(offset, self.unit as usize)?;
            let Some(entries) = mbr::entries(&sector) else {
                // A new extended partition has no record yet.
                if step == 0 && sector.iter().all(|&b| b == 0) {
                    return Ok(());
                }
                return Err(damaged(format!(
                    "sector {at} is not an extended boot record"
                )));
            };
            self.blobs.push(Blob {
                offset,
                data: sector,
            });
            self.spans.push((at, 1, 0));
            for entry in entries.iter().filter(|e| e.is_used() && !e.is_extended()) {
                let (number, start) = (self.next, at + entry.start);
                if !inside(start, entry.sectors) {
                    return Err(damaged(format!(
                        "logical partition {number} leaves its extended partition"
                    )));
                }
                self.next += 1;
                self.spans.push((start, entry.sectors, number));
                self.parts.push(partition(entry, number, start, self.unit));
            }
            let Some(link) = entries.iter().find(|e| e.is_used() && e.is_extended()) else {
                return Ok(());
            };
            at = extended.start + link.start;
            if !inside(at, 1) {
                return Err(damaged(format!(
                    "the chain of partition {} leaves it",
                    extended.slot
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::mbr::tests::put_entry;
    use super::{FoundTable, read};
    use crate::error::ScanError;
    use crate::model::Geometry;
    use crate::view::View;

    struct Disk(Vec<u8>, u32);
    impl Disk {
        fn new(sectors: usize, sector_size: u32) -> Disk {
            Disk(vec![0; sectors * sector_size as usize], sector_size)
        }
        fn entry(&mut self, at: usize, slot: usize, kind: u8, start: u32, sectors: u32) {
            let at = at * self.1 as usize;
            put_entry(&mut self.0[at..], slot, kind, start, sectors);
        }
        fn read(&self) -> Result<FoundTable, ScanError> {
            let size_bytes = self.0.len() as u64;
            let view = View::new(&self.0, 0, size_bytes);
            read(
                &view,
                Geometry {
                    size_bytes,
                    sector_size: self.1,
                },
                self.0[..self.1 as usize].to_vec(),
            )
        }
        fn damage(&self) -> String {
            match self.read() {
                Err(ScanError::MbrDamaged { detail }) => detail,
                other => panic!("{:?}", other.map(|t| t.parsed)),
            }
        }
    }

    fn with_logicals(sector_size: u32) -> Disk {
        let mut disk = Disk::new(100, sector_size);
        disk.entry(0, 1, 0x83, 1, 9);
        disk.entry(0, 3, 0x0f, 20, 60);
        disk.entry(20, 1, 0x83, 2, 8);
        disk.entry(20, 2, 0x05, 20, 20);
        disk.entry(40, 1, 0x82, 1, 9);
        disk
    }

    #[test]
    fn logical_partitions_count_from_five_at_both_sector_sizes() {
        for unit in [512, 4096u64] {
            let table = with_logicals(unit as u32).read().unwrap();
            let list: Vec<_> = table
                .parsed
                .partitions
                .iter()
                .map(|p| {
                    (
                        p.number,
                        p.start / unit,
                        p.size / unit,
                        p.part_type.as_str(),
                    )
                })
                .collect();
            assert_eq!(
                list,
                [
                    (1, 1, 9, "0x83"),
                    (3, 20, 60, "0x0f"),
                    (5, 22, 8, "0x83"),
                    (6, 41, 9, "0x82")
                ]
            );
            assert_eq!(
                table
                    .blobs
                    .iter()
                    .map(|b| b.offset / unit)
                    .collect::<Vec<_>>(),
                [0, 20, 40]
            );
        }
    }

    #[test]
    fn loops_overlaps_and_ranges() {
        let mut disk = with_logicals(512);
        disk.entry(40, 2, 0x05, 20, 20);
        assert!(disk.damage().contains("loops"));
        disk.entry(40, 2, 0x05, 70, 1);
        assert!(disk.damage().contains("leaves it"));
        disk.entry(40, 2, 0x05, 30, 1);
        assert!(disk.damage().contains("sector 50 is not"));

        let mut disk = with_logicals(512);
        disk.entry(40, 1, 0x83, 1, 40);
        assert!(disk.damage().contains("leaves its extended"));
        disk.entry(0, 2, 0x83, 5, 2);
        assert!(
            disk.damage()
                .contains("partition 1 and partition 2 overlap")
        );
        disk.entry(0, 2, 0x83, 79, 2);
        assert!(
            disk.damage()
                .contains("partition 3 and partition 2 overlap")
        );
        disk.entry(0, 2, 0x83, 0, 1);
        assert!(disk.damage().contains("table sector"));
    }

    #[test]
    fn logical_partition_over_a_later_record_is_an_overlap() {
        let mut disk = with_logicals(512);
        disk.entry(20, 1, 0x83, 2, 30);
        assert!(disk.damage().contains("overlap"));
    }

    #[test]
    fn a_disk_that_is_too_small_says_what_is_needed() {
        let mut disk = with_logicals(512);
        disk.entry(0, 4, 0x83, 80, 21);
        match disk.read() {
            Err(ScanError::DiskSmallerThanLayout { needed, actual }) => {
                assert_eq!((needed, actual), (101 * 512, 100 * 512));
            }
            other => panic!("{:?}", other.map(|t| t.parsed)),
        }
    }

    #[test]
    fn an_extended_partition_without_records_is_empty() {
        let mut disk = Disk::new(100, 512);
        disk.entry(0, 1, 0x05, 20, 60);
        assert_eq!(disk.read().unwrap().blobs.len(), 1);
    }
}
