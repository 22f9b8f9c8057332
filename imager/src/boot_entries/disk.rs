//! What boot entries need to know of a disk: identities of its partitions, and what its EFI
//! system partitions hold.
//!
//! Owns: reading that from the disk itself. Does not own: tables (`diskmap`), FAT
//! ([`crate::files::fat`]).

use super::loaders::{self, Names};
use crate::files::part::Bytes;
use crate::files::{Fail, Part, fat::Fat};
use crate::progress::Silent;
use crate::source;
use blockdev::Device;
use diskmap::TableKind;
use diskmap::table::{self, ParsedTable, TablePartition};
use efi::{Esp, HardDrive, Signature};
use image::layout::Region;
use std::path::Path;

/// Types of an EFI system partition.
const ESP_GPT: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const ESP_MBR: &str = "0xef";

/// Identities of all partitions; none where the table cannot be understood.
pub fn identities(device: &Device) -> Vec<Signature> {
    match table::read(&source::Reader(device), source::geometry(device)) {
        Ok(Some(table)) => all_identities(&table.parsed),
        _ => Vec::new(),
    }
}

fn all_identities(table: &ParsedTable) -> Vec<Signature> {
    let mut all: Vec<Signature> = Vec::new();
    for signature in table.partitions.iter().filter_map(|p| identity(table, p)) {
        if !all.contains(&signature) {
            all.push(signature);
        }
    }
    all
}

fn identity(table: &ParsedTable, part: &TablePartition) -> Option<Signature> {
    match table.kind {
        TableKind::Gpt => efi::guid_of(&part.guid).map(Signature::Gpt),
        TableKind::Mbr => {
            let id = u32::from_str_radix(&table.disk_id, 16)
                .ok()
                .filter(|&id| id != 0)?;
            Some(Signature::Mbr(id.to_le_bytes()))
        }
        TableKind::None => None,
    }
}

/// A restored disk, open for reading.
pub struct Restored {
    device: OnDisk,
    /// ESPs with the regions that they are.
    esps: Vec<(HardDrive, Region)>,
    identities: Vec<Signature>,
}

/// The disk's own bytes, all of which it has.
struct OnDisk(Device);

impl Bytes for OnDisk {
    fn counted(&self, buf: &mut [u8], offset: u64) -> Result<u64, image::Error> {
        let read = self.0.read_exact_at(offset, buf);
        read.map_err(|source| image::Error::Io {
            operation: "reading the restored disk",
            source,
        })?;
        Ok(buf.len() as u64)
    }
}

impl Restored {
    /// Opens the disk and reads its table.
    pub fn open(path: &Path) -> Result<Restored, String> {
        let device = source::open(path, None).map_err(|report| report.found)?;
        // What was written went past the page cache. A raw file has none to drop.
        let _ = device.invalidate_cache();
        let table = table::read(&source::Reader(&device), source::geometry(&device));
        let table = table.map_err(|e| format!("the restored table: {e}"))?;
        let (mut esps, mut identities) = (Vec::new(), Vec::new());
        if let Some(table) = table {
            let sector = u64::from(device.sector_size()).max(1);
            let is_esp = |part: &&TablePartition| {
                let kind = &part.part_type;
                kind.eq_ignore_ascii_case(ESP_GPT) || kind.eq_ignore_ascii_case(ESP_MBR)
            };
            for part in table.parsed.partitions.iter().filter(is_esp) {
                let Some(signature) = identity(&table.parsed, part) else {
                    continue;
                };
                let place = HardDrive {
                    partition: part.number,
                    start: part.start / sector,
                    sectors: part.size / sector,
                    signature,
                };
                let region = Region {
                    number: Some(part.number),
                    start: part.start,
                    size: part.size,
                    ..Region::default()
                };
                esps.push((place, region));
            }
            identities = all_identities(&table.parsed);
        }
        Ok(Restored {
            device: OnDisk(device),
            esps,
            identities,
        })
    }

    /// What the firmware has to know of it; `before` are identities that it had.
    pub fn describe(&self, before: &[Signature]) -> Result<efi::Restored, String> {
        let names = Names::of_this_machine();
        let mut esps = Vec::with_capacity(self.esps.len());
        for (at, (place, _)) in self.esps.iter().enumerate() {
            let loaders = self.tree(at, |tree| loaders::find(tree, &names));
            let unread = |fail: Fail| fail.report(&format!("partition {}", place.partition)).found;
            esps.push(Esp {
                place: place.clone(),
                loaders: loaders.map_err(unread)?,
            });
        }
        let gone = before.iter().filter(|one| !self.identities.contains(one));
        Ok(efi::Restored {
            esps,
            gone: gone.cloned().collect(),
        })
    }

    /// Whether a file is on the ESP of that position; none if it cannot be told.
    pub fn has(&self, at: usize, file: &str) -> Option<bool> {
        self.tree(at, |tree| loaders::has(tree, file)).ok()
    }

    fn tree<T>(
        &self,
        at: usize,
        look: impl FnOnce(&Fat<'_>) -> Result<T, Fail>,
    ) -> Result<T, Fail> {
        let (_, region) = self.esps.get(at).ok_or(Fail::NotFound)?;
        let part = Part::over(&self.device, region, Vec::new(), &Silent);
        look(&Fat::open(&part)?)
    }
}
